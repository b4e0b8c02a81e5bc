//! What a user types, right and wrong.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{Folder, TINY, experiment, run};
use pgn_bench::config::Experiment;
use pgn_bench::results::{is_score, read};
use pgn_bench::yaml;

#[test]
fn all_faults_of_a_file_are_shown_at_once_and_nothing_is_run() {
    let home = Folder::new("faults");
    let bad = TINY.replace("pgn+cr", "pgm").replace("hinge", "hing").replace("every: 4", "evry: 4");
    let file = home.write("bad.yaml", &bad);
    let output = home.join("out");
    let (code, stdout, stderr) = run(&home.0, &experiment(&file, &output, &[]));
    assert_eq!((code, stdout.as_str()), (2, ""));
    for part in ["3 faults", "methods[0]: pgm", "train.loss: hing", "eval.evry: unknown key"] {
        assert!(stderr.contains(part), "`{part}` is not in {stderr}");
    }
    assert!(!output.exists());
}

#[test]
fn a_byte_order_mark_and_merge_keys_are_yaml() {
    let home = Folder::new("yaml");
    let shared = "{beta1: 0, beta2: 0.9, lr_decay: linear, ema_decay: 0.9, critic_lr: 4e-4, generator_lr: 4e-4}";
    let merged = TINY
        .replace("architectures: {cnn32: }", &format!("architectures: {{cnn32: &shared {shared}}}"))
        .replace("scales: {smoke: }", "scales: {smoke: {train: {<<: *shared, ema_decay: 0.9}}}");
    let file = home.write("merged.yaml", &format!("\u{feff}{merged}"));
    let cells = |experiment: pgn_bench::error::Result<Experiment>| {
        experiment.unwrap().resolve("smoke").unwrap().iter().map(|cell| cell.json().unwrap()).collect::<Vec<_>>()
    };
    let text = yaml::read(&file).unwrap();
    assert_eq!(cells(Experiment::parse("merged", &text, &[])), cells(Experiment::parse("tiny", TINY, &[])));
    let file = home.write("scalar.yaml", &TINY.replace("{smoke: }", "{smoke: {<<: 3}}"));
    let (code, _, stderr) = run(&home.0, &experiment(&file, &home.join("out"), &[]));
    assert!(code == 2 && stderr.contains("scalar.yaml") && stderr.contains("`<<` takes a mapping"), "{stderr}");
}

#[test]
fn what_an_evaluation_would_stumble_over_is_refused_before_any_work() {
    let home = Folder::new("stumble");
    let (output, vit) = (home.join("out"), "tests/data/vit/dinov2.safetensors");
    let of = |metrics: &str, more: &[&str]| {
        let text = TINY.replace("extractor: classifier", &format!("extractor: classifier, metrics: [{metrics}]"));
        let file = home.write("tiny.yaml", &text);
        run(&home.0, &experiment(&file, &output, more))
    };
    for plan in [&["--dry-run"][..], &[]] {
        for (metrics, more, expected) in [
            ("fid, sfid", &[][..], "sfid is of Inception's spatial features"),
            ("fid, fd-dinov2", &[], "no DINOv2 weights: run `pgn-bench fetch dinov2`"),
            ("fid, cmmd", &["--clip", "nowhere.safetensors"], "cannot open nowhere.safetensors"),
        ] {
            let (code, stdout, stderr) = of(metrics, &[plan, more].concat());
            assert!(code == 2 && stdout.is_empty() && stderr.contains(expected), "{metrics}: {stderr}");
            assert!(!output.exists());
        }
    }
    // What goes on has rows of both extractors.
    let with = |more: &[&str]| of("fid, is, fd-dinov2", &[&["--dinov2", vit], more].concat());
    let (code, _, stderr) = with(&["--clip", vit, "--set", "train.steps=4"]);
    assert!(code == 0 && stderr.contains("--clip has no effect"), "{stderr}");
    let (code, _, stderr) = with(&["--resume", "--allow", "train.steps"]);
    assert_eq!(code, 0, "{stderr}");
    let rows = read(&output.join("tiny-smoke/cnn32-pgn+cr-s0/rows.parquet")).unwrap();
    let n = |metric: &str| rows.iter().find(|r| r.metric.starts_with(metric)).unwrap().reference_n;
    assert_eq!([n("fd-dinov2"), n("is")], [Some(3000), None]);
}

#[test]
fn wrong_arguments_name_the_remedy() {
    let home = Folder::new("arguments");
    let file = home.write("tiny.yaml", TINY);
    let output = home.join("out");
    let cases: [(&[&str], &str); 5] = [
        (&["--scale", "huge"], "unknown scale `huge`; tiny has: smoke"),
        (&["--only", "method=gn"], "no cell has the method `gn`; there are: pgn+cr"),
        (&["--device", "cuda:0"], "this build computes on the cpu only"),
        (&["--set", "train.steps=many"], "train.steps: many is not allowed; expected a whole number"),
        (&["--set", "eval.images=10"], "a whole number from 100"),
    ];
    for (more, expected) in cases {
        let mut args = vec!["run", file.to_str().unwrap(), "-o", output.to_str().unwrap()];
        if more[0] != "--scale" {
            args.extend(["--scale", "smoke"]);
        }
        args.extend(more);
        let (code, _, stderr) = run(&home.0, &args);
        assert_eq!(code, 2, "{more:?}: {stderr}");
        assert!(stderr.contains(expected), "{more:?}: {stderr}");
    }
    let (code, _, stderr) = run(&home.0, &["run", "nowhere.yaml"]);
    assert!(code == 2 && stderr.contains("cannot read nowhere.yaml"), "{stderr}");
    let (code, _, stderr) = run(&home.0, &["table", home.0.to_str().unwrap()]);
    assert!(code == 2 && stderr.contains("no results in"), "{stderr}");
}

#[test]
fn missing_data_says_how_to_get_it() {
    let home = Folder::new("missing-data");
    let file = home.write("c.yaml", &TINY.replace("shapes", "cifar10"));
    let (code, _, stderr) = run(&home.0, &experiment(&file, &home.join("out"), &[]));
    assert_eq!(code, 2);
    assert!(stderr.contains("pgn-bench fetch cifar10") && stderr.contains("PGN_BENCH_DATA"), "{stderr}");
}

#[test]
fn runs_that_are_there_are_neither_lost_nor_mixed() {
    let home = Folder::new("existing");
    let file = home.write("tiny.yaml", TINY);
    let output = home.join("out");
    let quick = ["--set", "train.steps=2", "--set", "eval.every=2"];
    assert_eq!(run(&home.0, &experiment(&file, &output, &quick)).0, 0);
    let (code, _, stderr) = run(&home.0, &experiment(&file, &output, &quick));
    assert!(code == 2 && stderr.contains("--resume") && stderr.contains("--overwrite"), "{stderr}");
    let other = [&quick[..], &["--resume", "--set", "train.critic_lr=1e-3"]].concat();
    let (code, _, stderr) = run(&home.0, &experiment(&file, &output, &other));
    assert!(code == 2 && stderr.contains("train.critic_lr: 0.0004, now 0.001"), "{stderr}");
    let resumed = [&quick[..], &["--resume"]].concat();
    assert_eq!(run(&home.0, &experiment(&file, &output, &resumed)).0, 0);
    let over = [&quick[..], &["--overwrite", "--set", "train.critic_lr=1e-3"]].concat();
    assert_eq!(run(&home.0, &experiment(&file, &output, &over)).0, 0);
    let (code, stdout, _) = run(&home.0, &["table", output.to_str().unwrap()]);
    assert!(code == 0 && stdout.contains("fid100_test"), "{stdout}");
}

#[test]
fn a_diverged_cell_is_reported_and_the_others_go_on() {
    let home = Folder::new("diverged");
    let file = home.write("tiny.yaml", &TINY.replace("[pgn+cr]", "[none, gn]").replace("every: 4", "every: 50"));
    let output = home.join("out");
    // An unbounded loss at a learning rate of one overflows; gn's outputs are bounded and survive it.
    let wild = ["--set", "train.critic_lr=1", "--set", "train.loss=wasserstein", "--set", "train.steps=150"];
    let (code, stdout, stderr) = run(&home.0, &experiment(&file, &output, &wild));
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("cnn32-none-s0: DIVERGED: step "), "{stderr}");
    assert!(stderr.contains("[2/2] cnn32-gn-s0"), "{stderr}");
    assert!(stdout.lines().any(|l| l.starts_with("| none") && l.contains("diverged")), "{stdout}");
    let again = [&wild[..], &["--resume"]].concat();
    let (code, _, stderr) = run(&home.0, &experiment(&file, &output, &again));
    assert!(code == 1 && stderr.contains("DIVERGED"), "{stderr}");
    // The last good checkpoint draws, and the report says what happened.
    let [last, grid, report] = ["out/tiny-smoke/cnn32-none-s0", "grid.png", "report"].map(|name| home.join(name));
    let [last, grid, to] = [&last, &grid, &report].map(|path| path.to_str().unwrap());
    assert_eq!(run(&home.0, &["sample", last, "-o", grid]).0, 0);
    let (code, _, stderr) = run(&home.0, &["report", output.to_str().unwrap(), "-o", to]);
    assert_eq!(code, 0, "{stderr}");
    let text = std::fs::read_to_string(report.join("report.md")).unwrap();
    assert!(text.lines().any(|l| l.contains("none") && l.contains("diverged")), "{text}");
}

#[test]
fn a_plan_is_printed_without_running() {
    let home = Folder::new("plan");
    let output = home.join("out");
    let args =
        ["run", "experiments/cifar10.yaml", "--only", "seed=0,method=pgn", "--dry-run", "-o", output.to_str().unwrap()];
    let (code, stdout, stderr) = run(&home.0, &args);
    assert_eq!(code, 0, "{stderr}");
    let line = |name: &str| stdout.lines().find(|l| l.contains(name)).unwrap().to_owned();
    // The parameter counts of the released code.
    assert!(line("cnn32-pgn-s0").contains("3813379") && line("cnn32-pgn-s0").contains("5860865"));
    assert!(line("resnet32-pgn-s0").contains("4276739") && line("resnet32-pgn-s0").contains("1053825"));
    assert_eq!(stdout.lines().count(), 2 + 2 + 1);
    assert!(!output.exists());
}

#[test]
fn a_checkpoint_is_measured_and_drawn() {
    let home = Folder::new("checkpoint");
    let file = home.write("tiny.yaml", TINY);
    let output = home.join("out");
    let quick = ["--set", "train.steps=2", "--set", "eval.every=2", "--set", "eval.metrics=[fid, is, kid, pr]"];
    let (code, _, stderr) = run(&home.0, &experiment(&file, &output, &quick));
    assert_eq!(code, 0, "{stderr}");
    let folder = output.join("tiny-smoke/cnn32-pgn+cr-s0");
    let folder = folder.to_str().unwrap();

    // By its own protocol the numbers are those of the run, to the last bit.
    let again = home.join("again.parquet");
    let (code, stdout, stderr) = run(&home.0, &["eval", folder, "-o", again.to_str().unwrap()]);
    assert_eq!(code, 0, "{stderr}");
    let (ran, again) = (read(&output.join("tiny-smoke/cnn32-pgn+cr-s0/rows.parquet")).unwrap(), read(&again).unwrap());
    let last: Vec<_> = ran.iter().filter(|r| r.step == 2 && is_score(&r.metric)).collect();
    assert_eq!(last.len(), 14);
    for (was, is) in last.iter().zip(&again) {
        assert_eq!((&was.metric, &was.weights, was.value, was.std), (&is.metric, &is.weights, is.value, is.std));
        assert_eq!((was.config_hash.as_str(), is.status.as_str()), (is.config_hash.as_str(), "evaluated"));
    }
    assert!(stdout.contains("coverage100_test") && stdout.contains("recall100_test"), "{stdout}");
    let left = output.join("tiny-smoke/cnn32-pgn+cr-s0/eval.parquet");
    assert!(!left.exists());

    // Without a file of their own rows are left in the run's folder, those of a number once.
    let args =
        ["eval", folder, "-n", "120", "--batch-norm", "running", "--generator", "ema", "--bootstrap", "20", "--json"];
    let (code, _, stderr) = run(&home.0, &args[..6]);
    assert_eq!((code, read(&left).unwrap().len()), (0, 14), "{stderr}");
    let (code, stdout, stderr) = run(&home.0, &args);
    assert_eq!(code, 0, "{stderr}");
    let kept = read(&left).unwrap();
    assert_eq!((kept.len(), kept.iter().filter(|r| r.low.is_some()).count()), (14, 2));
    let rows: Vec<serde_json::Value> = stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(rows.len(), 7);
    for row in &rows {
        assert_eq!((&row["batch_norm"], &row["weights"]), (&"running".into(), &"ema".into()));
        let number = |key: &str| row[key].as_f64();
        let metric = row["metric"].as_str().unwrap();
        if metric.starts_with("fid") || metric.starts_with("kid") {
            let (low, high) = (number("low").unwrap(), number("high").unwrap());
            assert!(low < number("value").unwrap() && number("value").unwrap() < high, "{row}");
        } else {
            assert_eq!(number("low"), None);
        }
    }
    assert_eq!(rows[0]["metric"], "fid120_test");

    // More generated images than real ones: the measures of single images see as many of both. Another batch is another protocol.
    let args =
        ["eval", folder, "-n", "3100", "--batch", "50", "--generator", "raw", "--metrics", "fid,kid,pr", "--json"];
    let (code, stdout, stderr) = run(&home.0, &args);
    assert_eq!(code, 0, "{stderr}");
    let rows: Vec<serde_json::Value> = stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let shown: Vec<_> = rows.iter().map(|r| (r["metric"].as_str().unwrap(), r["n"].as_u64().unwrap())).collect();
    assert_eq!(shown[..3], [("fid3100_test", 3100), ("kid3k_test", 3000), ("precision3k_test", 3000)]);
    assert!(rows.iter().all(|r| r["batch_norm"] == "batch of 50"), "{stdout}");
    assert_eq!(read(&left).unwrap().len(), 14 + rows.len());

    // By its own protocol, too; then the run is one as before, which ended as it did.
    assert_eq!(run(&home.0, &["eval", folder]).0, 0);
    let report = home.join("report");
    let (code, _, stderr) = run(&home.0, &["report", output.to_str().unwrap(), "-o", report.to_str().unwrap()]);
    assert_eq!(code, 0, "{stderr}");
    let report = std::fs::read_to_string(report.join("report.md")).unwrap();
    assert!(report.contains("fid120") && report.contains("finished |") && !report.contains("evaluated |"), "{report}");

    let grid = home.join("grid.png");
    let (code, _, stderr) =
        run(&home.0, &["sample", folder, "-n", "10", "--columns", "5", "-o", grid.to_str().unwrap()]);
    assert_eq!(code, 0, "{stderr}");
    let grid = image::open(grid).unwrap();
    assert_eq!((grid.width(), grid.height()), (2 + 5 * 66, 2 + 2 * 66));
    let images = home.join("images");
    let with_slash = format!("{}/", images.display());
    let sample = ["sample", folder, "-n", "7", "-o", &with_slash];
    assert_eq!(run(&home.0, &sample).0, 0);
    assert_eq!(std::fs::read_dir(&images).unwrap().count(), 7);
    let (code, _, stderr) = run(&home.0, &sample);
    assert!(code == 2 && stderr.contains("name a new folder"), "{stderr}");

    // The record of training is not written over, and damage is found before the work starts.
    let (code, _, stderr) = run(&home.0, &["eval", folder, "-o", &format!("{folder}/rows.parquet")]);
    assert!(code == 2 && stderr.contains("the record of the run's training"), "{stderr}");
    std::fs::write(&left, b"PAR1 nonsense").unwrap();
    let (code, _, stderr) = run(&home.0, &["eval", folder]);
    assert!(code == 2 && stderr.contains("eval.parquet: not a result file of this version"), "{stderr}");
    // What cannot be written is found before the work starts, and leaves nothing.
    let before = std::fs::read_dir(&home.0).unwrap().count();
    for (command, name, expected) in [
        ("sample", "x.jpg", "a grid (.png), tensors (.safetensors) or a folder"),
        ("sample", "nowhere/x.png", "create it first"),
        ("sample", "images/", "name a new folder"),
        ("neighbours", "x.jpg", "is a .png file"),
        ("neighbours", "images", "is a .png file"),
        ("eval", "x.csv", "is a .parquet file"),
        ("eval", "nowhere/x.parquet", "create it first"),
    ] {
        let output = format!("{}/{name}", home.0.display());
        let (code, _, stderr) = run(&home.0, &[command, folder, "-o", &output]);
        assert!(code == 2 && stderr.contains(name) && stderr.contains(expected), "{command} -o {name}: {stderr}");
    }
    assert_eq!(std::fs::read_dir(&home.0).unwrap().count(), before);
    let dotted = format!("{}/images.v2/", home.0.display());
    assert_eq!(run(&home.0, &["sample", folder, "-n", "2", "-o", &dotted]).0, 0);
    assert!(home.join("images.v2/000001.png").is_file());
}

#[test]
fn statistics_are_taken_once_and_a_damaged_file_is_named() {
    let home = Folder::new("statistics");
    let file = home.write("tiny.yaml", TINY);
    let quick = ["--set", "train.steps=1", "--set", "eval.every=1"];
    let (first, second) = (home.join("first"), home.join("second"));
    assert_eq!(run(&home.0, &experiment(&file, &first, &quick)).0, 0);
    let kept: Vec<_> = std::fs::read_dir(home.join("cache/statistics")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(kept.len(), 1);
    assert!(kept[0].file_name().unwrap().to_str().unwrap().starts_with("shapes-test-32px-"), "{kept:?}");
    std::fs::write(&kept[0], "nonsense").unwrap();
    let (code, _, stderr) = run(&home.0, &experiment(&file, &second, &quick));
    assert!(code == 2 && stderr.contains(kept[0].to_str().unwrap()) && stderr.contains("remove it"), "{stderr}");
}

#[test]
fn what_is_no_checkpoint_is_refused() {
    let home = Folder::new("no-checkpoint");
    let junk = home.write("junk.safetensors", "no header here");
    let (code, _, stderr) = run(&home.0, &["eval", junk.to_str().unwrap()]);
    assert!(code == 2 && stderr.contains("junk.safetensors: not a checkpoint of this program"), "{stderr}");
    let (code, _, stderr) = run(&home.0, &["sample", home.0.to_str().unwrap(), "-o", "x.png"]);
    assert!(code == 2 && stderr.contains("cannot read"), "{stderr}");
    let file = home.write("tiny.yaml", TINY);
    let output = home.join("out");
    let (code, _, stderr) = run(&home.0, &experiment(&file, &output, &["--set", "eval.extractor=inception"]));
    assert!(code == 2 && stderr.contains("pgn-bench fetch inception") && stderr.contains("--weights"), "{stderr}");
}

#[test]
fn a_critic_is_probed() {
    let home = Folder::new("probe");
    let file = home.write("tiny.yaml", &TINY.replace("[pgn+cr]", "[gn, sn]"));
    let output = home.join("out");
    assert_eq!(run(&home.0, &experiment(&file, &output, &["--set", "train.steps=2", "--set", "eval.every=2"])).0, 0);
    for method in ["gn", "sn"] {
        let folder = output.join(format!("tiny-smoke/cnn32-{method}-s0"));
        let (code, stdout, stderr) = run(&home.0, &["probe", folder.to_str().unwrap(), "-n", "50"]);
        assert_eq!(code, 0, "{stderr}");
        for on in ["real", "generated", "mixed", "real+noise0.05", "generated+noise0.25", "real-generated"] {
            assert!(stdout.contains(&format!("| {on} ")), "{on} is not in {stdout}");
        }
        let rows = read(&folder.join("probe.parquet")).unwrap();
        let value = |metric: &str| rows.iter().find(|r| r.metric == metric).unwrap().value;
        assert!(value("gradient_median_real") <= value("gradient_max_real"));
        // What GN's paper proves, and what a slope between two points can be at most along a piecewise-linear path.
        assert!(method != "gn" || value("gradient_max_real") <= 1.0);
        assert!(value("slope_max_real+noise0.05") > 0.0);
    }
}
