//! A run that is killed and resumed ends like the one that was not.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{Folder, TINY, command, experiment, run};
use pgn_bench::results::{self, Row};
use pgn_bench::train::log::Line;

const CELL: &str = "tiny-smoke/cnn32-pgn+cr-s0";

fn tensors(output: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = std::fs::read(output.join(CELL).join("checkpoint.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<_> = file.iter().map(|(name, t)| (name.to_owned(), t.data().to_vec())).collect();
    all.sort();
    all
}

/// Rows without their times, which no two runs share.
fn rows(output: &Path) -> Vec<Row> {
    let rows = results::read(&output.join(CELL).join(results::FILE)).unwrap();
    let timeless = |r: Row| Row {
        wall_s: 0.0,
        value: if [results::COST, results::PEAK].contains(&r.metric.as_str()) { 0.0 } else { r.value },
        ..r
    };
    rows.into_iter().map(timeless).collect()
}

fn log(output: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(output.join(CELL).join("log.jsonl")).unwrap();
    text.lines().map(|l| Line { step_s: 0.0, ..serde_json::from_str(l).unwrap() }).collect()
}

/// Kills the run once `reached` says so.
fn kill_when(home: &Path, args: &[&str], reached: impl Fn() -> bool) {
    let mut child = command(home, args).spawn().unwrap();
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < Duration::from_secs(120), "the run never got there");
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be killed");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_killed_run_resumes_bit_for_bit() {
    let home = Folder::new("resume");
    let file = home.write("tiny.yaml", TINY);
    let (whole, killed) = (home.join("whole"), home.join("killed"));
    let (code, stdout, stderr) = run(&home.0, &experiment(&file, &whole, &[]));
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("| pgn+cr |") && stdout.contains("finished"), "{stdout}");

    let grid = |step: u64| killed.join(CELL).join(format!("samples/step-{step:07}.png"));
    // Once right after the first evaluation has drawn its grid, once in the middle.
    kill_when(&home.0, &experiment(&file, &killed, &[]), || grid(4).is_file());
    kill_when(&home.0, &experiment(&file, &killed, &["--resume"]), || grid(8).is_file());
    let (code, _, stderr) = run(&home.0, &experiment(&file, &killed, &["--resume"]));
    assert_eq!(code, 0, "{stderr}");

    assert_eq!(tensors(&whole), tensors(&killed));
    assert_eq!(rows(&whole), rows(&killed));
    assert_eq!(log(&whole), log(&killed));
    assert_eq!(log(&whole).len(), 12);
}
