//! A run that is killed and resumed ends like the one that was not.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{Folder, TINY, command, experiment, run, timeless_rows};
use pgn_bench::results::{self, Row};
use pgn_bench::train::log::Line;

const CELL: &str = "tiny-smoke/cnn32-pgn+cr-s0";
/// Of the experiment whose settings move.
const MOVING: &str = "tiny-smoke/r3gan32-pgn+r1r2-s0";

fn tensors(output: &Path) -> Vec<(String, Vec<u8>)> {
    tensors_of(output, CELL)
}

fn tensors_of(output: &Path, cell: &str) -> Vec<(String, Vec<u8>)> {
    let bytes = std::fs::read(output.join(cell).join("checkpoint.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<_> = file.iter().map(|(name, t)| (name.to_owned(), t.data().to_vec())).collect();
    all.sort();
    all
}

fn rows(output: &Path) -> Vec<Row> {
    timeless_rows(&output.join(CELL).join(results::FILE))
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

#[test]
fn settings_that_move_go_on_where_they_were() {
    let home = Folder::new("moving");
    let moving = TINY
        .replace("[pgn+cr]", "[pgn+r1r2]")
        .replace("{cnn32: }", "{r3gan32: }")
        .replace("critic_lr: 4e-4", "critic_lr: {from: 4e-4, to: 1e-4, images: 80}")
        .replace("beta2: 0.9", "beta2: {from: 0.9, to: 0.99, images: 80}")
        .replace("ema_decay: 0.9", "ema_decay: {half_life: {from: 0, to: 60, images: 80}}")
        .replace("loss: hinge", "loss: relativistic, gamma: {from: 1, to: 0.1, images: 80}, augment: 0.5");
    let file = home.write("moving.yaml", &moving);
    let (whole, killed) = (home.join("whole"), home.join("killed"));
    let (code, _, stderr) = run(&home.0, &experiment(&file, &whole, &[]));
    assert_eq!(code, 0, "{stderr}");
    let grid = killed.join(MOVING).join("samples/step-0000004.png");
    kill_when(&home.0, &experiment(&file, &killed, &[]), || grid.is_file());
    let (code, _, stderr) = run(&home.0, &experiment(&file, &killed, &["--resume"]));
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(tensors_of(&whole, MOVING), tensors_of(&killed, MOVING));
    let rows = |output: &Path| timeless_rows(&output.join(MOVING).join(results::FILE));
    assert_eq!(rows(&whole), rows(&killed));
}

/// A fraction of one, the n-th of a fixed sequence without pattern (Weyl's).
fn fraction(n: u64) -> f64 {
    (n as f64 * 0.618_033_988_749_894_9).fract()
}

#[test]
fn kills_at_any_moment_lose_nothing() {
    let kills: u64 = std::env::var("PGN_BENCH_KILLS").map_or(6, |k| k.parse().unwrap());
    let home = Folder::new("kills");
    let file = home.write("tiny.yaml", TINY);
    let whole = home.join("whole");
    assert_eq!(run(&home.0, &experiment(&file, &whole, &[])).0, 0);
    // The second run finds the extractor in the cache, as those that are killed do.
    let start = Instant::now();
    assert_eq!(run(&home.0, &experiment(&file, &home.join("timed"), &[])).0, 0);
    let mut length = start.elapsed();

    let (mut killed, mut round) = (0, 0);
    while killed < kills {
        let output = home.join(&format!("round{round}"));
        round += 1;
        loop {
            let more: &[&str] = if output.exists() { &["--resume"] } else { &[] };
            if killed == kills {
                assert_eq!(run(&home.0, &experiment(&file, &output, more)).0, 0);
                break;
            }
            let mut child = command(&home.0, &experiment(&file, &output, more)).spawn().unwrap();
            std::thread::sleep(length.mul_f64(fraction(killed + 1)));
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                // The machine was busier when the length was taken: the next kill comes sooner.
                length = length.mul_f64(0.8);
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            killed += 1;
        }
        assert_eq!(tensors(&whole), tensors(&output));
        assert_eq!(rows(&whole), rows(&output));
        assert_eq!(log(&whole), log(&output));
        let below = |output: &Path| pgn_bench::files::walk(&output.join(CELL), |_| true).unwrap().len();
        assert_eq!(below(&whole), below(&output));
    }
}

#[test]
fn a_run_that_is_asked_to_end_saves_itself_and_says_how_to_go_on() {
    let home = Folder::new("signals");
    // Long enough that no signal comes late on a busy machine.
    let file = home.write("tiny.yaml", &TINY.replace("steps: 12", "steps: 400").replace("every: 4", "every: 200"));
    let (whole, stopped) = (home.join("whole"), home.join("stopped"));
    assert_eq!(run(&home.0, &experiment(&file, &whole, &[])).0, 0);
    for (signal, number) in [("TERM", 15), ("INT", 2), ("USR1", 10)] {
        let mut resume = vec!["--resume"];
        if !stopped.exists() {
            resume.clear();
        }
        let mut child = command(&home.0, &experiment(&file, &stopped, &resume))
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lock = stopped.join(CELL).join("lock");
        let holder = format!("process {} ", child.id());
        let held = || std::fs::read_to_string(&lock).is_ok_and(|text| text.starts_with(&holder));
        let start = Instant::now();
        while !held() {
            assert!(start.elapsed() < Duration::from_secs(60), "the run never began");
            std::thread::sleep(Duration::from_millis(1));
        }
        // A second process on the same run is refused.
        if signal == "TERM" {
            let (code, _, stderr) = run(&home.0, &experiment(&file, &stopped, &["--resume"]));
            assert!(code == 2 && stderr.contains("another process works in it (process"), "{stderr}");
        }
        let start = Instant::now();
        let pid = child.id().to_string();
        assert!(std::process::Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
        let status = child.wait().unwrap();
        assert!(start.elapsed() < Duration::from_secs(10));
        let mut text = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut text).unwrap();
        assert_eq!(status.code(), Some(128 + number), "{text}");
        assert!(text.contains("it goes on with: ") && text.contains("--resume"), "{text}");
    }
    assert_eq!(run(&home.0, &experiment(&file, &stopped, &["--resume"])).0, 0);
    assert_eq!(tensors(&whole), tensors(&stopped));
    assert_eq!(rows(&whole), rows(&stopped));
}
