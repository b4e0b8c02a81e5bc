//! What a user begins with: `init`, `demo`, experiments by name, schema, completions, man pages.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Folder, command, run};
use pgn_bench::config::Experiment;

/// `pgn-bench` in a folder: exit code, stdout, stderr.
fn inside(folder: &Path, args: &[&str]) -> (i32, String, String) {
    let output = command(folder, args).current_dir(folder).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// One after another, so that the classifier is trained once.
#[test]
fn what_comes_with_the_program_runs_without_a_clone() {
    let home = Folder::new("start");
    init_writes_an_experiment_that_runs_and_overwrites_none(&home);
    experiments_have_names(&home);
    the_demo_goes_on_by_itself(&home);
}

fn init_writes_an_experiment_that_runs_and_overwrites_none(home: &Folder) {
    let (code, stdout, stderr) = inside(&home.0, &["init", "mine"]);
    assert!(code == 0 && stdout.contains("mine.yaml is written"), "{stderr}");
    let tiny = ["--scale", "quick", "--set", "train.steps=2", "--set", "eval.every=2", "--set", "train.width=0.05"];
    let (code, stdout, stderr) = inside(&home.0, &[&["run", "mine.yaml"][..], &tiny].concat());
    assert!(code == 0 && stdout.contains("fid100_train"), "{stderr}");
    assert!(home.join("results/mine-quick/cnn32-pgn-s0/rows.parquet").is_file());

    std::fs::write(home.join("mine.yaml"), "kept").unwrap();
    let (code, _, stderr) = inside(&home.0, &["init", "mine"]);
    assert!(code == 2 && stderr.contains("mine.yaml is there already"), "{stderr}");
    assert_eq!(std::fs::read_to_string(home.join("mine.yaml")).unwrap(), "kept");
    let (code, _, stderr) = inside(&home.0, &["init", "a/b"]);
    assert!(code == 2 && stderr.contains("name: a/b is not allowed"), "{stderr}");
}

fn experiments_have_names(home: &Folder) {
    let tiny = ["train.steps=2", "eval.every=2", "eval.images=100", "train.width=0.05"];
    let set = tiny.iter().flat_map(|s| ["--set", s]);
    let args: Vec<&str> =
        ["run", "demo", "--scale", "smoke", "--only", "method=pgn", "-o", "by-name"].into_iter().chain(set).collect();
    let (code, _, stderr) = inside(&home.0, &args);
    assert_eq!(code, 0, "{stderr}");
    assert!(home.join("by-name/demo-smoke/cnn32-pgn-s0/rows.parquet").is_file());
    let (code, _, stderr) = inside(&home.0, &["run", "demo", "--scale", "tiny"]);
    assert!(code == 2 && stderr.contains("demo has: smoke, full"), "{stderr}");
    let (code, _, stderr) = inside(&home.0, &["run", "nothing"]);
    assert!(code == 2 && stderr.contains("cannot read nothing") && stderr.contains("demo, cifar10, "), "{stderr}");
    // A file goes before a name.
    std::fs::write(home.join("r3"), "name: [").unwrap();
    let (code, _, stderr) = inside(&home.0, &["run", "r3"]);
    assert!(code == 2 && stderr.contains("not YAML"), "{stderr}");
}

fn the_demo_goes_on_by_itself(home: &Folder) {
    let mut child = command(&home.0, &["demo"]).current_dir(&home.0).stderr(Stdio::piped()).spawn().unwrap();
    let grid = home.join("results/demo-smoke/cnn32-none-s0/samples/step-0000000.png");
    while !grid.is_file() {
        assert!(child.try_wait().unwrap().is_none(), "the demo ended before it was stopped");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(128 + 15), "{stderr}");
    let goes_on = |line: &str| line.contains("it goes on with: ") && line.ends_with("pgn-bench demo");
    assert!(stderr.lines().any(goes_on), "{stderr}");
}

#[test]
fn a_plan_says_what_resume_would_find() {
    let home = Folder::new("plan");
    let tiny = ["--only", "method=pgn", "--set", "seeds=[0]"];
    let plan = |more: &[&str]| inside(&home.0, &[&["run", "demo", "--resume", "--dry-run"][..], &tiny, more].concat());
    std::fs::create_dir_all(home.join("results/demo-full")).unwrap();
    let (code, _, stderr) = plan(&["--set", "train.width=0.05"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("--resume goes on with 0 of 1 runs; the others would be new"), "{stderr}");
    assert!(
        stderr.contains("in results/demo-full-modified; those in results/demo-full are left as they are"),
        "{stderr}"
    );
    let (code, _, stderr) = plan(&["--scale", "smoke"]);
    assert!(code == 0 && stderr.contains("0 of 1 runs") && !stderr.contains("left as they are"), "{stderr}");
}

#[test]
fn wrong_experiments_are_refused_as_the_schema_refuses_them() {
    let cases: yaml_serde::Value = yaml_serde::from_str(include_str!("data/wrong.yaml")).unwrap();
    let good = cases["good"].as_str().unwrap();
    Experiment::parse("good", good, &[]).unwrap().resolve("smoke").unwrap();
    for case in cases["wrong"].as_sequence().unwrap() {
        let [old, new] = [0, 1].map(|i| case[i].as_str().unwrap());
        assert!(good.contains(old), "{old}");
        assert!(Experiment::parse("wrong", &good.replace(old, new), &[]).is_err(), "{old} -> {new}");
    }
}

#[test]
fn shells_and_man_are_told_of_every_command() {
    let home = Folder::new("man");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, stdout, _) = run(&home.0, &["completions", shell]);
        assert!(code == 0 && stdout.contains("measure") && stdout.contains("metrics"), "{shell}");
    }
    let to = home.join("man");
    assert_eq!(run(&home.0, &["man", "-o", to.to_str().unwrap()]).0, 0);
    let page = std::fs::read_to_string(to.join("pgn-bench-measure.1")).unwrap();
    assert!(page.contains("bootstrap"));
}
