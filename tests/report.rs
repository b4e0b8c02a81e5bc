//! Reports, gates and the view of runs, from real (tiny) trainings.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::Path;

use common::{Folder, experiment, run};

/// Enough training on the embedded shapes to tell a good run from one that hardly learns, averaged over so many steps that a seed's
/// distance does not hang on the last digits.
const SHORT: &str = "
name: short
dataset: shapes
image_size: 32
methods: [sn]
seeds: [0]
train: {steps: 300, critic_steps: 1, critic_batch: 16, generator_batch: 16, critic_lr: 1e-3, generator_lr: 1e-3, beta1: 0,
  beta2: 0.9, lr_decay: none, ema_decay: 0.99, ema_start: 0, width: 0.125, loss: hinge}
architectures: {cnn32: }
eval: {every: 100, images: 300, reference: test, batch_norm: batch, weights: [ema], extractor: classifier}
scales: {smoke: }
";

const GATES: &str = "
gates:
  - name: short trains
    runs: {experiment: short, scale: smoke, arch: cnn32, method: sn, metric: fid300_test, weights: ema}
    at: best
";

fn gate(home: &Path, gates: &Path, results: &Path, more: &[&str]) -> (i32, String, String) {
    let mut args = vec!["gate", gates.to_str().unwrap(), "--results", results.to_str().unwrap()];
    args.extend(more);
    run(home, &args)
}

#[test]
fn a_gate_tells_good_runs_from_bad_ones_and_refuses_other_protocols() {
    let home = Folder::new("gate");
    let file = home.write("short.yaml", SHORT);
    let gates = home.write("gates.yaml", GATES);
    let train = |name: &str, more: &[&str]| {
        let output = home.join(name);
        let (code, _, stderr) = run(&home.0, &experiment(&file, &output, more));
        assert_eq!(code, 0, "{stderr}");
        output
    };
    let base = train("base", &["--set", "seeds=[0, 1, 2, 3]"]);

    let (code, stdout, _) = gate(&home.0, &gates, &base, &[]);
    assert!(code == 2 && stdout.contains("--update"), "a missing baseline names the command: {stdout}");
    let (code, stdout, stderr) = gate(&home.0, &gates, &base, &["--update"]);
    assert!(code == 0 && stdout.contains("baseline from 4 runs"), "{stdout}{stderr}");
    let text = std::fs::read_to_string(&gates).unwrap();
    assert!(text.contains("reference_sha256:") && text.contains("code_version:"), "{text}");

    let (code, stdout, _) = gate(&home.0, &gates, &train("other-seed", &["--set", "seeds=[7]"]), &[]);
    assert!(code == 0 && stdout.contains("| passed"), "{stdout}");

    let worse = train("worse", &["--set", "train.generator_lr=1e-7", "--set", "seeds=[0, 1]"]);
    let [junit, json] = ["gate.xml", "gate.json"].map(|name| home.join(name));
    let written = ["--junit", junit.to_str().unwrap(), "--json", json.to_str().unwrap()];
    let (code, stdout, _) = gate(&home.0, &gates, &worse, &written);
    assert!(code == 1 && stdout.contains("| failed") && stdout.contains("exceeds"), "{stdout}");
    assert!(std::fs::read_to_string(&junit).unwrap().contains("failures=\"1\" errors=\"0\""));
    let findings: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(findings[0]["outcome"], "failed");

    let other = train("other-protocol", &["--set", "eval.batch_norm=running", "--set", "train.steps=2"]);
    let (code, stdout, _) = gate(&home.0, &gates, &other, &[]);
    assert!(code == 2 && stdout.contains("batch_norm: baseline batch, now running"), "{stdout}");
    let (code, _, stderr) = gate(&home.0, &gates, &base, &["--only", "nothing"]);
    assert!(code == 2 && stderr.contains("there are: short trains"), "{stderr}");
    let (code, _, stderr) = gate(&home.0, &home.join("nowhere.yaml"), &base, &[]);
    assert!(code == 2 && stderr.contains("cannot read"), "{stderr}");
}

#[test]
fn a_run_is_reported_watched_and_shown_with_its_neighbours() {
    let home = Folder::new("report");
    let file = home.write("short.yaml", SHORT);
    let output = home.join("out");
    let quick = ["--set", "train.steps=8", "--set", "eval.every=4", "--set", "methods=[none, gn]"];
    assert_eq!(run(&home.0, &experiment(&file, &output, &quick)).0, 0);
    let folder = output.join("short-smoke/cnn32-gn-s0");

    let (code, stdout, stderr) = run(&home.0, &["watch", "--once", output.to_str().unwrap()]);
    let line = stdout.lines().find(|l| l.contains("short-smoke/cnn32-gn-s0")).unwrap();
    assert!(code == 0 && line.contains("finished") && line.contains('█'), "{stdout}{stderr}");

    let (code, stdout, stderr) = run(&home.0, &["neighbours", folder.to_str().unwrap(), "-n", "3", "-k", "2"]);
    assert!(code == 0 && stdout.contains("the 2 nearest of shapes:train"), "{stdout}{stderr}");
    // Columns of an image and its neighbours, each of 64 pixels and a gap of 2.
    assert_eq!(image_size(&folder.join("neighbours.png")), (3 * 66 + 2, 3 * 66 + 2));

    let events: Vec<_> = std::fs::read_dir(folder.join("tensorboard")).unwrap().collect();
    assert_eq!(events.len(), 3, "one file for each evaluation");

    let report = home.join("report");
    let args = ["report", output.to_str().unwrap(), "-o", report.to_str().unwrap()];
    let (code, _, stderr) = run(&home.0, &args);
    assert_eq!(code, 0, "{stderr}");
    let read = |name: &str| std::fs::read_to_string(report.join(name)).unwrap();
    let page = read("report.html");
    for part in ["<svg", "data:image/png;base64,", "#p1-cnn32-0-125-gn", "at scale smoke", "Nearest training images"] {
        assert!(page.contains(part), "`{part}` is not in the page");
    }
    assert!(!page.contains("http-equiv") && !page.contains("<script") && !page.contains("src=\"h"));
    assert!(read("report.md").contains("figures/p1-cnn32-0-125-fid-steps.svg"));
    assert!(read("report.tex").contains("\\input{tables/short-p1.tex}"));
    assert!(read("tables/short-p1.csv").contains("gn,"));
    // Again over itself, and the same to the letter.
    assert_eq!(run(&home.0, &args).0, 0);
    assert_eq!(read("report.html"), page);
    let (code, _, stderr) = run(&home.0, &["report", home.join("nowhere").to_str().unwrap()]);
    assert!(code == 2 && stderr.contains("nowhere"), "{stderr}");
}

#[test]
fn the_reports_in_git_are_what_their_rows_give() {
    let home = Folder::new("reports");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("reports");
    let names = |folder: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let reports: Vec<_> = names(&kept).into_iter().filter(|name| kept.join(name).join("data").is_dir()).collect();
    assert!(!reports.is_empty());
    for name in reports {
        let (kept, made) = (kept.join(&name), home.join(name.to_str().unwrap()));
        let [data, note] = ["data", "note.txt"].map(|part| kept.join(part));
        let args = ["report", data.to_str().unwrap(), "-o", made.to_str().unwrap(), "--note", note.to_str().unwrap()];
        let (code, _, stderr) = run(&home.0, &args);
        assert_eq!(code, 0, "{stderr}");
        for part in ["tables", "figures"] {
            assert_eq!(names(&made.join(part)), names(&kept.join(part)), "{}: `make reports`", made.display());
        }
        let tables = names(&made.join("tables")).into_iter().map(|table| Path::new("tables").join(table));
        for file in tables.chain(["report.md", "report.tex"].map(Into::into)) {
            let [made, kept] = [&made, &kept].map(|folder| std::fs::read_to_string(folder.join(&file)).unwrap());
            assert!(made == kept, "{} of {} is old: `make reports`", file.display(), name.display());
        }
    }
}

/// Width and height in a PNG's head.
fn image_size(path: &Path) -> (u32, u32) {
    let bytes = std::fs::read(path).unwrap();
    let at = |i: usize| u32::from_be_bytes(bytes[i..i + 4].try_into().unwrap());
    (at(16), at(20))
}
