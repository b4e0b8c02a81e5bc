//! Result rows and their Parquet files: one file a run, one row a measured number, with all that the number depends on.

use std::fs::File;
use std::path::{Path, PathBuf};

use polars_core::prelude::*;
use polars_io::SerReader;
use polars_io::parquet::read::ParquetReader;
use polars_io::parquet::write::ParquetWriter;

use crate::data::source::pages;
use crate::error::{AtPath, Error, Result};
use crate::files::{named, write_atomic};
use crate::guard::caught;

/// Name of a run's result file in its folder.
pub const FILE: &str = "rows.parquet";

/// Name of the file with what `probe` measured.
pub const PROBE: &str = "probe.parquet";

/// Name of the file with what `eval` measured.
pub const EVAL: &str = "eval.parquet";

/// The files of what was measured after training, which are added to.
pub const MEASURED: [&str; 2] = [PROBE, EVAL];

/// The files of rows in a run's folder.
pub const FILES: [&str; 3] = [FILE, PROBE, EVAL];

/// Status of a row that was measured after training.
pub const EVALUATED: &str = "evaluated";

/// Largest file of results that is read, in bytes, and most rows of one: a run has some hundred evaluations.
const LARGEST: u64 = 1 << 26;
const MOST_ROWS: usize = 1 << 20;
/// Most bytes of text in a column.
const MOST_TEXT: usize = 1 << 26;

/// A column's type, to and from polars.
trait Cell: Sized {
    fn column(name: &str, values: Vec<Self>) -> Column;
    fn values(column: &Column) -> PolarsResult<Vec<Option<Self>>>;
    /// What an absent value means, where it means something.
    fn absent() -> Option<Self> {
        None
    }
}

fn texts(column: &Column) -> PolarsResult<Vec<Option<String>>> {
    let column = column.str()?;
    // The file may have said it once for all rows.
    let length: usize = column.iter().flatten().map(str::len).sum();
    polars_ensure!(length <= MOST_TEXT, ComputeError: "column `{}` has {length} bytes of text", column.name());
    Ok(column.iter().map(|v| v.map(str::to_owned)).collect())
}

impl Cell for String {
    fn column(name: &str, values: Vec<Self>) -> Column {
        Column::new(name.into(), values)
    }
    fn values(column: &Column) -> PolarsResult<Vec<Option<Self>>> {
        texts(column)
    }
}

impl Cell for u64 {
    fn column(name: &str, values: Vec<Self>) -> Column {
        Column::new(name.into(), values)
    }
    fn values(column: &Column) -> PolarsResult<Vec<Option<Self>>> {
        Ok(column.u64()?.iter().collect())
    }
}

impl Cell for f64 {
    fn column(name: &str, values: Vec<Self>) -> Column {
        Column::new(name.into(), values)
    }
    fn values(column: &Column) -> PolarsResult<Vec<Option<Self>>> {
        Ok(column.f64()?.iter().collect())
    }
}

/// Of a column that older files have not.
macro_rules! optional {
    ($type:ty, $values:expr) => {
        impl Cell for Option<$type> {
            fn column(name: &str, values: Vec<Self>) -> Column {
                Column::new(name.into(), values)
            }
            fn values(column: &Column) -> PolarsResult<Vec<Option<Self>>> {
                Ok($values(column)?.into_iter().map(Some).collect())
            }
            fn absent() -> Option<Self> {
                Some(None)
            }
        }
    };
}

optional!(f64, f64::values);
optional!(u64, u64::values);
optional!(String, texts);

/// The values of a column; one that is not there is of absent values, where these mean something.
fn values<T: Cell>(frame: &DataFrame, name: &str) -> PolarsResult<Vec<Option<T>>> {
    match frame.column(name) {
        Ok(column) => T::values(column),
        Err(_) if T::absent().is_some() => Ok((0..frame.height()).map(|_| T::absent()).collect()),
        Err(missing) => Err(missing),
    }
}

macro_rules! rows {
    ($($(#[doc = $doc:literal])+ $field:ident: $type:ty,)*) => {
        /// One measured number.
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        pub struct Row {
            $($(#[doc = $doc])+ pub $field: $type,)*
        }

        /// Column names with their types and descriptions, in order.
        pub const COLUMNS: &[[&str; 3]] = &[$([stringify!($field), stringify!($type), concat!($($doc),+)],)*];

        fn frame(rows: &[Row]) -> PolarsResult<DataFrame> {
            DataFrame::new(rows.len(), vec![$(
                <$type as Cell>::column(stringify!($field), rows.iter().map(|r| r.$field.clone()).collect()),
            )*])
        }

        fn from_frame(frame: &DataFrame) -> PolarsResult<Vec<Row>> {
            $(let mut $field = values::<$type>(frame, stringify!($field))?.into_iter();)*
            (0..frame.height()).map(|row| Ok(Row {
                $($field: $field.next().flatten().or_else(<$type as Cell>::absent).ok_or_else(|| {
                    polars_err!(ComputeError: "row {row}: column `{}` has no value", stringify!($field))
                })?,)*
            })).collect()
        }
    };
}

rows! {
    /// Experiment.
    experiment: String,
    /// Scale of the experiment, such as `full` (the paper's) or `smoke`.
    scale: String,
    /// Data set.
    dataset: String,
    /// Split that was trained on.
    split: String,
    /// Side of the images in pixels.
    image_size: u64,
    /// Architecture of both networks.
    arch: String,
    /// Multiplier of all channels; 1 is the paper's.
    width: f64,
    /// Method, `+cr` included.
    method: String,
    /// Loss that was used.
    loss: String,
    /// Seed.
    seed: u64,
    /// Generator updates made.
    step: u64,
    /// Real images the critic had seen.
    images_seen: u64,
    /// Seconds of training, evaluation excluded.
    wall_s: f64,
    /// Metric; its name is its protocol.
    metric: String,
    /// Value.
    value: f64,
    /// Standard deviation, for a metric that has one (Inception Score: over splits, KID: over subsets; FD∞, IS∞: the line's error).
    std: Option<f64>,
    /// Lower end of the 95 % bootstrap interval over generated images, where it was taken.
    low: Option<f64>,
    /// Its upper end.
    high: Option<f64>,
    /// Generated images the value was taken from.
    n: u64,
    /// Feature extractor.
    extractor: String,
    /// SHA-256 of its weights; of a score of logits, after a `+` also that of a last layer from a file of its own.
    extractor_sha256: String,
    /// How images were brought to its input size.
    resize: String,
    /// Reference split.
    reference: String,
    /// SHA-256 of the reference's pixels, or of its file of statistics.
    reference_sha256: String,
    /// Images of the reference that the value was taken from, where there is one and it says.
    reference_n: Option<u64>,
    /// In which order images counted, where collections were measured: that of both sides, or `A and B`.
    order: Option<String>,
    /// Statistics of batch normalisation while generating: batch or running.
    batch_norm: String,
    /// Generator: raw, or ema (moving average).
    weights: String,
    /// Why to doubt the value; empty when nothing is known against it.
    warning: String,
    /// How the run stands: running, finished or diverged; evaluated where its checkpoint was measured later.
    status: String,
    /// Version of this program.
    code_version: String,
    /// Hash of the resolved configuration.
    config_hash: String,
    /// The same without the seed: runs of one family differ in nothing else.
    family: String,
    /// Hash of how the run was trained, method and loss excepted: what runs must share to be compared. Of collections, the measure's.
    settings: String,
    /// Device and, on a GPU, precision: cpu, cuda f32 or cuda tf32.
    device: String,
}

/// What the rows of collections of images have for an architecture, as none of any network.
pub const NO_NETWORK: &str = "none";

impl Row {
    /// Whether it is of a collection of images, and of no run.
    pub fn is_of_images(&self) -> bool {
        self.arch == NO_NETWORK
    }

    /// Whether both are of one number: run, step and protocol are the same, whatever was found, when and by which version.
    pub fn is_again(&self, other: &Self) -> bool {
        let what = |row: &Self| Self {
            wall_s: 0.0,
            value: 0.0,
            std: None,
            low: None,
            high: None,
            warning: String::new(),
            status: String::new(),
            code_version: String::new(),
            ..row.clone()
        };
        // Copies are made of few.
        (self.step, &self.metric) == (other.step, &other.metric) && what(self) == what(other)
    }

    /// SHA-256 of the extractor's weights without a last layer of its own.
    pub fn features_sha256(&self) -> &str {
        self.extractor_sha256.split_once('+').map_or(&self.extractor_sha256, |(features, _)| features)
    }
}

/// Writes the rows of a run, whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, rows: &[Row]) -> Result<()> {
    let bad = |e: PolarsError| Error::content(path, format!("cannot write rows: {e}"));
    let mut table = frame(rows).map_err(bad)?;
    write_atomic(path, |file| ParquetWriter::new(file).finish(&mut table).map(drop).map_err(bad))
}

/// Reads the rows of a run.
///
/// # Errors
/// When the file cannot be read, or has other columns.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    let bad = |what: String| {
        Error::content(path, format!("not a result file of this version: {what}; moved away, it is in nobody's way"))
    };
    let file = File::open(path).at("open", path)?;
    let length = file.metadata().at("read", path)?.len();
    if length > LARGEST {
        return Err(bad(format!("it has {length} bytes, more than {LARGEST}")));
    }
    pages::check(&file, |_| true).map_err(bad)?;
    let rows = || {
        let mut reader = ParquetReader::new(file);
        let rows = reader.num_rows()?;
        polars_ensure!(rows <= MOST_ROWS, ComputeError: "it has {rows} rows, more than {MOST_ROWS}");
        from_frame(&reader.finish()?)
    };
    // The library may also panic on a damaged file.
    caught(rows).and_then(|rows| rows.map_err(|e| e.to_string())).map_err(bad)
}

/// Every result file below a folder, in order of path.
///
/// # Errors
/// When a folder cannot be read.
pub fn find(folder: &Path) -> Result<Vec<PathBuf>> {
    named(folder, &FILES)
}

/// Whether the rows are those of a run that has come to an end of its own.
pub fn ended(rows: &[Row]) -> bool {
    rows.last().is_some_and(|r| matches!(r.status.as_str(), "finished" | "diverged"))
}

/// A metric's name, which is its protocol: `fid50k_train` is the Fréchet distance of 50,000 images to the split `train`.
pub fn metric(name: &str, n: usize, reference: Option<&str>) -> String {
    let metric = if name.ends_with(|c: char| c.is_ascii_digit()) { &format!("{name}-") } else { name };
    let n = if n.is_multiple_of(1000) { format!("{}k", n / 1000) } else { n.to_string() };
    reference.map_or_else(|| format!("{metric}{n}"), |reference| format!("{metric}{n}_{reference}"))
}

/// What a [`metric`] measures: its name without the number of images and the reference.
pub fn measure(metric: &str) -> &str {
    let name = metric.split_once('_').map_or(metric, |(name, _)| name);
    let counted = name.strip_suffix('k').unwrap_or(name);
    let bare = counted.trim_end_matches(|c: char| c.is_ascii_digit());
    if bare == counted { name } else { bare.trim_end_matches('-') }
}

/// Seconds of training a step.
pub const COST: &str = "train_s_per_step";
/// Most memory resident while training, evaluation excluded, in bytes.
pub const PEAK: &str = "train_peak_bytes";
/// Means of the log's values over stretches of steps, each ending at the row's step: what curves are drawn from.
pub const TRACES: [&str; 5] =
    ["critic_loss", "generator_loss", "input_gradient_norm", "critic_gradient_norm", "generator_gradient_norm"];

/// Means over real and over generated images at an evaluation, `…_real` and `…_generated`: f, f̂, ‖∇f‖, ‖∇f̂‖; the shares of images where
/// |f̂| > ½, that is, what is bounded exceeds the norm that it is divided with, and where the loss has no slope (hinge: f̂ beyond the margin); and the
/// size of ∂loss/∂f, which is what an image counts in the critic's update.
pub const CRITIC: [&str; 7] =
    ["f", "f_hat", "f_gradient", "f_hat_gradient", "f_dominates", "loss_is_flat", "loss_slope_in_f"];

/// Whether a metric is a score of generated images, and nothing of training.
pub fn is_score(metric: &str) -> bool {
    ![COST, PEAK].contains(&metric) && !TRACES.contains(&metric) && !is_of_critic(metric)
}

/// Whether a metric is one of [`CRITIC`].
pub fn is_of_critic(metric: &str) -> bool {
    let of = metric.strip_suffix("_real").or_else(|| metric.strip_suffix("_generated"));
    of.is_some_and(|name| CRITIC.contains(&name))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A row whose only particulars are those that tables read.
    pub(crate) fn row(method: &str, seed: u64, step: u64, metric: &str, value: f64) -> Row {
        Row {
            experiment: "e".into(),
            scale: "smoke".into(),
            dataset: "shapes".into(),
            split: "train".into(),
            image_size: 32,
            arch: "cnn32".into(),
            width: 0.25,
            method: method.into(),
            loss: "hinge".into(),
            seed,
            step,
            images_seen: 32 * step,
            wall_s: 0.5 * step as f64,
            metric: metric.into(),
            value,
            std: metric.starts_with("is").then_some(0.1),
            low: None,
            high: None,
            n: 2000,
            extractor: "classifier".into(),
            extractor_sha256: "ab".into(),
            resize: "none".into(),
            reference: "train".into(),
            reference_sha256: "cd".into(),
            reference_n: None,
            order: None,
            batch_norm: "batch".into(),
            weights: "raw".into(),
            warning: String::new(),
            status: "finished".into(),
            code_version: "0".into(),
            config_hash: "ef".into(),
            family: "01".into(),
            settings: "23".into(),
            device: "cpu".into(),
        }
    }

    #[test]
    fn rows_survive_the_file() {
        let path = std::env::temp_dir().join(format!("pgn-bench-rows-{}.parquet", std::process::id()));
        let of_images =
            Row { reference_n: Some(7), order: Some("file".into()), ..row("pgn", 0, 10, "fid2k_train", 1.5) };
        write(&path, &[of_images.clone(), row("gn", 1, 20, "is2k", 2.5)]).unwrap();
        assert_eq!(read(&path).unwrap(), [of_images, row("gn", 1, 20, "is2k", 2.5)]);
        // As they were before they had these columns; others must be there.
        let rows = vec![row("pgn", 0, 10, "fid2k_train", 1.5), row("gn", 1, 20, "is2k", 2.5)];
        let without = |columns: &[&str]| {
            let mut table = frame(&rows).unwrap();
            columns.iter().for_each(|column| drop(table.drop_in_place(column).unwrap()));
            ParquetWriter::new(File::create(&path).unwrap()).finish(&mut table).unwrap();
            read(&path)
        };
        assert_eq!(without(&["order", "reference_n"]).unwrap(), rows);
        assert!(without(&["resize"]).unwrap_err().to_string().contains("resize"));
        std::fs::write(&path, b"PAR1 nonsense").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("not a result file"));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn damaged_rows_are_errors_wherever_the_damage_is() {
        let path = std::env::temp_dir().join(format!("pgn-bench-damaged-{}.parquet", std::process::id()));
        let rows: Vec<Row> = (1..=20u64)
            .map(|step| Row {
                std: step.is_multiple_of(2).then_some(0.5),
                ..row("gn", 0, step, "fid2k_train", 1.0 / step as f64)
            })
            .collect();
        write(&path, &rows).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let mut errors = 0;
        for at in (4..whole.len() - 8).step_by(3) {
            for value in [0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                std::fs::write(&path, &damaged).unwrap();
                errors += usize::from(read(&path).is_err_and(|e| e.to_string().contains("not a result file")));
            }
        }
        assert!(errors > 1000, "{errors}");

        File::create(&path).unwrap().set_len(1 << 27).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("it has 134217728 bytes, more than"));
        let long = Row { warning: "x".repeat(1 << 20), ..rows[0].clone() };
        write(&path, &vec![long; 65]).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(
            error.contains("column `warning` has 68157440 bytes of text") || error.contains("it claims"),
            "{error}"
        );
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn names_are_protocols() {
        assert_eq!(metric("fid", 50_000, Some("train")), "fid50k_train");
        assert_eq!(metric("fd-dinov2", 2500, Some("test")), "fd-dinov2-2500_test");
        for name in ["fid", "fid-inf", "is", "fd-dinov2", "precision-dinov2", "cmmd"] {
            for n in [500, 50_000] {
                assert_eq!([Some("train"), None].map(|of| measure(&metric(name, n, of)).to_owned()), [name, name]);
            }
        }
        assert_eq!(metric("is", 2500, None), "is2500");
        assert!(COLUMNS.iter().all(|[.., doc]| doc.ends_with('.')));
    }
}
