//! Gates: thresholds on distances of any measure, absolute or against a stored baseline, with a tolerance from the variance over seeds.
//!
//! A regression gate asks whether m new runs could be from the same population as the n of the baseline: their mean must not
//! exceed the baseline's by more than the one-sided 99 % prediction bound t₀.₉₉(n − 1) · s · √(1/m + 1/n).

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::html::escape;
use super::markdown::{plain, significant};
use super::runs::{Protocol, Run, is_distance, is_of_training, protocols_of, runs};
use super::series::series;
use crate::error::{Error, Result};
use crate::files::write_bytes;
use crate::machine::precision::Precision;
use crate::results::{Row, measure};
use crate::statistics::{mean_and_deviation, t_quantile};
use crate::yaml;

/// Share of equally good runs that pass.
const CONFIDENCE: f64 = 0.99;
/// Runs below which a baseline has no variance to speak of.
const SEEDS: usize = 3;
/// How the names of extractors begin that are trained on the data set at hand.
const CLASSIFIER: &str = "classifier-";
/// Head of a written file.
const HEAD: &str =
    "# Gates on distances; `pgn-bench gate` checks them. `gate --update` writes the baselines from results.\n";

/// A file of gates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gates {
    /// The gates.
    pub gates: Vec<Gate>,
}

/// One gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// What it is called.
    pub name: String,
    /// The runs it is about.
    pub runs: Select,
    /// Which of a run's evaluations.
    #[serde(default)]
    pub at: At,
    /// The distance that the mean must not exceed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// What the mean must not be worse than.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
}

/// The runs of a gate, all seeds of one cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Select {
    pub experiment: String,
    pub scale: String,
    pub arch: String,
    pub method: String,
    pub metric: String,
    pub weights: String,
}

/// An evaluation of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum At {
    /// That of lowest distance.
    #[default]
    Best,
    /// That at the last step.
    Last,
}

/// What earlier runs reached, and how it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Distances, one a seed.
    pub values: Vec<f64>,
    /// Their seeds.
    pub seeds: Vec<u64>,
    /// Last steps of the runs.
    pub steps: u64,
    /// How often each was evaluated: the best of many is lower than the best of few.
    pub evaluations: usize,
    /// Width of the networks.
    pub width: f64,
    /// How distances were measured: what the rows of new runs must agree with.
    pub protocol: Measurement,
    /// Version of the program that measured.
    pub code_version: String,
    /// Where it ran.
    pub device: String,
}

/// The part of a protocol that a gate does not name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Measurement {
    pub dataset: String,
    pub split: String,
    pub image_size: u64,
    pub extractor: String,
    /// None of a classifier, which every machine trains for itself and rounds in its own way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extractor_sha256: Option<String>,
    pub resize: String,
    pub reference: String,
    pub reference_sha256: String,
    pub batch_norm: String,
    #[serde(default = "f32", skip_serializing_if = "is_f32")]
    pub precision: String,
    /// Of collections of images only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub how: String,
}

fn f32() -> String {
    Precision::F32.id().to_owned()
}

fn is_f32(precision: &str) -> bool {
    precision == Precision::F32.id()
}

impl Measurement {
    fn of(p: &Protocol) -> Self {
        Self {
            dataset: p.dataset.clone(),
            split: p.split.clone(),
            image_size: p.image_size,
            extractor: p.extractor.clone(),
            extractor_sha256: (!p.extractor.starts_with(CLASSIFIER)).then(|| p.extractor_sha256.clone()),
            resize: p.resize.clone(),
            reference: p.reference.clone(),
            reference_sha256: p.reference_sha256.clone(),
            batch_norm: p.batch_norm.clone(),
            precision: p.precision.clone(),
            how: p.how.clone(),
        }
    }

    /// Lines `field: baseline …, now …`.
    fn differences(&self, now: &Self) -> Vec<String> {
        let sides = [self, now].map(|m| {
            [
                ("dataset", m.dataset.clone()),
                ("split", m.split.clone()),
                ("image_size", m.image_size.to_string()),
                ("extractor", m.extractor.clone()),
                ("extractor_sha256", m.extractor_sha256.clone().unwrap_or_default()),
                ("resize", m.resize.clone()),
                ("reference", m.reference.clone()),
                ("reference_sha256", m.reference_sha256.clone()),
                ("batch_norm", m.batch_norm.clone()),
                ("precision", m.precision.clone()),
                ("how", m.how.clone()),
            ]
        });
        let pairs = sides[0].iter().zip(&sides[1]).filter(|(a, b)| a != b);
        pairs.map(|(a, b)| format!("{}: baseline {}, now {}", a.0, a.1, b.1)).collect()
    }
}

/// How a gate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The distance is within its limits.
    Passed,
    /// It is not.
    Failed,
    /// It cannot be compared.
    Error,
}

/// The result of a gate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The gate's name.
    pub name: String,
    /// Its outcome.
    pub outcome: Outcome,
    /// Mean distance, where there is one.
    pub value: Option<f64>,
    /// Number of runs.
    pub runs: usize,
    /// The strictest limit.
    pub limit: Option<f64>,
    /// Why, in a sentence.
    pub message: String,
}

/// Reads a file of gates.
///
/// # Errors
/// When it cannot be read or is not of this layout.
pub fn read(path: &Path) -> Result<Gates> {
    yaml::typed(&yaml::read(path)?).map_err(|e| Error::content(path, format!("not a file of gates: {e}")))
}

/// Writes a file of gates.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, gates: &Gates) -> Result<()> {
    let yaml = yaml_serde::to_string(gates).map_err(|e| Error::content(path, format!("cannot serialise: {e}")))?;
    write_bytes(path, format!("{HEAD}{yaml}").as_bytes())
}

/// The runs of a gate with their protocol.
fn select(select: &Select, rows: &[Row]) -> std::result::Result<(Protocol, Vec<Run>), String> {
    let named = |r: &Row| r.experiment == select.experiment && r.scale == select.scale;
    let rows: Vec<Row> =
        rows.iter().filter(|r| named(r) && r.arch == select.arch && r.method == select.method).cloned().collect();
    let cell = format!("{}-{}/{}-{}", select.experiment, select.scale, select.arch, select.method);
    if rows.is_empty() {
        return Err(format!("no run of {cell} in the results"));
    }
    let measured = measure(&select.metric);
    if !is_distance(measured) {
        return Err(format!(
            "`{measured}` is not a distance: gates compare distances, of which less is better (fid, kid, fd-dinov2, …)"
        ));
    }
    let all = protocols_of(&rows, is_distance);
    let mut here: Vec<&Protocol> =
        all.iter().filter(|p| p.metric == select.metric && p.weights == select.weights).collect();
    // Those of training come first, and what was measured after it is no other run.
    if here.first().is_some_and(|p| is_of_training(&rows, p)) {
        here.retain(|p| is_of_training(&rows, p));
    }
    match here.as_slice() {
        [] => {
            let there: Vec<String> = all.iter().map(|p| format!("{} of {} weights", p.metric, p.weights)).collect();
            Err(format!("{cell} has no {} of {} weights, but {}", select.metric, select.weights, there.join(", ")))
        }
        [protocol] => {
            let runs = runs(&rows, protocol);
            match series(&runs).len() {
                1 => Ok(((*protocol).clone(), runs)),
                several => Err(format!("{cell} was run with {several} configurations: give a folder with one")),
            }
        }
        _ => Err(format!("{cell} was measured under {} protocols: give a folder with one", here.len())),
    }
}

fn values(runs: &[Run], at: At) -> Vec<f64> {
    runs.iter().map(|r| if at == At::Best { r.best().fid } else { r.last().fid }).collect()
}

/// Two decimals, or as many as small distances need.
pub fn shown(value: f64) -> String {
    if value.abs() < 1.0 { significant(value, 3) } else { format!("{value:.2}") }
}

/// Checks one gate.
pub fn check(gate: &Gate, rows: &[Row], file: &str) -> Finding {
    let error = |runs: usize, message: String| Finding {
        name: gate.name.clone(),
        outcome: Outcome::Error,
        value: None,
        runs,
        limit: None,
        message,
    };
    let (protocol, runs) = match select(&gate.runs, rows) {
        Ok(found) => found,
        Err(message) => return error(0, message),
    };
    if gate.max.is_none() && gate.baseline.is_none() {
        return error(
            runs.len(),
            format!(
                "neither `max` nor a baseline: `pgn-bench gate {file} --results RESULTS --update` makes one from results"
            ),
        );
    }
    let mut limits: Vec<(f64, String)> = gate.max.iter().map(|max| (*max, "the absolute limit".to_owned())).collect();
    if let Some(b) = &gate.baseline {
        let mut differences = b.protocol.differences(&Measurement::of(&protocol));
        // A run that diverged ended early; it fails below.
        for run in runs.iter().filter(|r| r.status != "diverged") {
            if run.points.len() != b.evaluations {
                differences.push(format!("evaluations: baseline {}, now {}", b.evaluations, run.points.len()));
            }
            if run.last().step != b.steps {
                differences.push(format!("steps: baseline {}, now {}", b.steps, run.last().step));
            }
            if run.width.to_string() != b.width.to_string() {
                differences.push(format!("width: baseline {}, now {}", b.width, run.width));
            }
        }
        differences.dedup();
        if !differences.is_empty() {
            return error(runs.len(), format!("not the baseline's protocol: {}", differences.join("; ")));
        }
        if b.values.len() < SEEDS {
            return error(
                runs.len(),
                format!("a baseline of {} runs has no variance: it needs {SEEDS} seeds", b.values.len()),
            );
        }
        let (mean, deviation) = mean_and_deviation(&b.values);
        let n = b.values.len() as f64;
        let tolerance = t_quantile(CONFIDENCE, n - 1.0) * deviation * (1.0 / runs.len() as f64 + 1.0 / n).sqrt();
        limits.push((
            mean + tolerance,
            format!("the baseline {} ± {} (n {n}) plus {}", shown(mean), shown(deviation), shown(tolerance)),
        ));
    }
    let value = mean_and_deviation(&values(&runs, gate.at)).0;
    let diverged: Vec<u64> = runs.iter().filter(|r| r.status == "diverged").map(|r| r.seed).collect();
    let Some((limit, what)) = limits.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)) else {
        return error(runs.len(), "no limit".to_owned());
    };
    let (outcome, message) = if !diverged.is_empty() {
        (Outcome::Failed, format!("seeds {diverged:?} diverged"))
    } else if value <= limit {
        (Outcome::Passed, format!("{} is within {}, {what}", shown(value), shown(limit)))
    } else {
        (Outcome::Failed, format!("{} exceeds {}, {what}", shown(value), shown(limit)))
    };
    Finding { name: gate.name.clone(), outcome, value: Some(value), runs: runs.len(), limit: Some(limit), message }
}

/// The gate with its baseline from rows.
///
/// # Errors
/// When there are no such runs, or not all have finished.
pub fn updated(gate: &Gate, rows: &[Row]) -> Result<Gate> {
    let bad = |message: String| Error::invalid(format!("gate `{}`: {message}", gate.name));
    let (protocol, runs) = select(&gate.runs, rows).map_err(bad)?;
    let steps = runs[0].last().step;
    if let Some(run) =
        runs.iter().find(|r| r.status != "finished" || r.last().step != steps || r.points.len() != runs[0].points.len())
    {
        return Err(bad(format!(
            "seed {} is {} at step {}: a baseline needs equal, finished runs",
            run.seed,
            run.status,
            run.last().step
        )));
    }
    if runs.len() < SEEDS {
        return Err(bad(format!("{} runs have no variance: a baseline needs {SEEDS} seeds", runs.len())));
    }
    let baseline = Baseline {
        values: values(&runs, gate.at),
        seeds: runs.iter().map(|r| r.seed).collect(),
        steps,
        evaluations: runs[0].points.len(),
        width: runs[0].width,
        protocol: Measurement::of(&protocol),
        code_version: runs[0].code_version.clone(),
        device: runs[0].device.clone(),
    };
    Ok(Gate { baseline: Some(baseline), ..gate.clone() })
}

/// The worst outcome.
pub fn overall(findings: &[Finding]) -> Outcome {
    let any = |o: Outcome| findings.iter().any(|f| f.outcome == o);
    if any(Outcome::Error) || findings.is_empty() {
        Outcome::Error
    } else if any(Outcome::Failed) {
        Outcome::Failed
    } else {
        Outcome::Passed
    }
}

/// JUnit's XML, as CI systems read it.
pub fn junit(findings: &[Finding]) -> String {
    let count = |o: Outcome| findings.iter().filter(|f| f.outcome == o).count();
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"pgn-bench gate\" tests=\"{}\" failures=\"{}\" errors=\"{}\">\n",
        findings.len(),
        count(Outcome::Failed),
        count(Outcome::Error)
    );
    for f in findings {
        let message = escape(&f.message);
        let body = match f.outcome {
            Outcome::Passed => format!("<system-out>{message}</system-out>"),
            Outcome::Failed => format!("<failure message=\"{message}\"/>"),
            Outcome::Error => format!("<error message=\"{message}\"/>"),
        };
        out.push_str(&format!("  <testcase classname=\"gate\" name=\"{}\">{body}</testcase>\n", escape(&f.name)));
    }
    out.push_str("</testsuite>\n");
    out
}

/// Annotations of a GitHub workflow, a line for each gate that did not pass.
pub fn annotations(findings: &[Finding], file: &str) -> String {
    let escape = |text: &str| plain(&text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A"));
    let property = |text: &str| escape(text).replace(':', "%3A").replace(',', "%2C");
    let lines = findings.iter().filter(|f| f.outcome != Outcome::Passed).map(|f| {
        let [file, name] = [file, &f.name].map(property);
        format!("::error file={file},title=gate {name}::{}\n", escape(&f.message))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::row;

    fn gate() -> Gate {
        let text = "name: g\nruns: {experiment: e, scale: smoke, arch: cnn32, method: gn, metric: fid2k_train, weights: raw}\n";
        yaml_serde::from_str(text).unwrap()
    }

    fn runs_of(values: &[f64]) -> Vec<Row> {
        values.iter().enumerate().map(|(s, v)| row("gn", s as u64, 100, "fid2k_train", *v)).collect()
    }

    #[test]
    fn the_tolerance_is_the_prediction_bound() {
        let gate = updated(&gate(), &runs_of(&[10.0, 11.0, 12.0])).unwrap();
        // scipy.stats.t.ppf(0.99, 2) = 6.964556734283274; times 1 · √(1 + 1/3) on 11.
        let limit = 11.0 + 6.964556734283274 * (4.0f64 / 3.0).sqrt();
        let found = check(&gate, &runs_of(&[19.0]), "f");
        assert_eq!(found.outcome, Outcome::Passed, "{found:?}");
        assert!((found.limit.unwrap() - limit).abs() < 1e-9);
        let found = check(&gate, &runs_of(&[19.1]), "f");
        assert_eq!(found.outcome, Outcome::Failed, "{found:?}");
        assert!(junit(std::slice::from_ref(&found)).contains("failures=\"1\""));
        assert!(
            annotations(std::slice::from_ref(&found), "f").starts_with("::error file=f,title=gate g::19.10 exceeds")
        );
        let odd = Finding { name: "g::\nh,".into(), message: "50 %\x01\n::error::".into(), ..found };
        assert_eq!(
            annotations(std::slice::from_ref(&odd), "a:b,"),
            "::error file=a%3Ab%2C,title=gate g%3A%3A%0Ah%2C::50 %25\u{fffd}%0A::error::\n"
        );
        assert!(!junit(&[odd]).contains('\x01'));
    }

    #[test]
    fn scores_are_no_distances_and_small_distances_have_digits() {
        let of = |metric: &str| {
            let select = Select { metric: metric.into(), ..gate().runs };
            Gate { max: Some(0.001_234), runs: select, ..gate() }
        };
        let rows = [row("gn", 0, 100, "precision2k_train", 0.5), row("gn", 0, 100, "kid2k_train", 0.002)];
        let found = check(&of("precision2k_train"), &rows, "f");
        assert!(found.message.starts_with("`precision` is not a distance: gates compare distances"), "{found:?}");
        let found = check(&of("kid2k_train"), &rows, "f");
        assert_eq!(found.message, "0.00200 exceeds 0.00123, the absolute limit");
    }

    #[test]
    fn images_of_another_order_or_number_are_not_compared() {
        let runs = Select { arch: "none".into(), ..gate().runs };
        let gate = Gate { runs, ..gate() };
        let of = |order: &str, n: u64, value: f64, seed: u64| Row {
            arch: "none".into(),
            order: Some(order.into()),
            reference_n: Some(n),
            settings: String::new(),
            ..row("gn", seed, 0, "fid2k_train", value)
        };
        let rows = [0, 1, 2].map(|seed| of("spread", 9000, 10.0 + seed as f64, seed));
        let updated = updated(&gate, &rows).unwrap();
        assert_eq!(check(&updated, &[of("spread", 9000, 10.0, 3)], "f").outcome, Outcome::Passed);
        for (other, said) in [(of("file", 9000, 10.0, 3), "order file"), (of("spread", 8000, 10.0, 3), "8000 real")] {
            let found = check(&updated, &[other], "f");
            assert!(found.outcome == Outcome::Error && found.message.contains(said), "{found:?}");
        }
    }

    #[test]
    fn what_differs_is_not_compared() {
        let gate = updated(&gate(), &runs_of(&[10.0, 11.0, 12.0])).unwrap();
        let mut other = runs_of(&[1.0]);
        other[0].reference_sha256 = "other".into();
        let found = check(&gate, &other, "f");
        assert_eq!((found.outcome, found.value), (Outcome::Error, None));
        assert!(found.message.contains("reference_sha256: baseline cd, now other"), "{}", found.message);
        assert!(check(&super::tests::gate(), &runs_of(&[1.0]), "f").message.contains("--update"));
        assert!(updated(&super::tests::gate(), &runs_of(&[1.0])).is_err());
        assert_eq!(overall(&[]), Outcome::Error);
        let text = yaml_serde::to_string(&Gates { gates: vec![gate.clone()] }).unwrap();
        assert_eq!(yaml_serde::from_str::<Gates>(&text).unwrap().gates, [gate]);
    }
}
