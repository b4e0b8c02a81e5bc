//! A run on the emulated device, from its data set to its rows, stopped in the middle and taken up again: its numbers are the CPU's
//! to rounding.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Folder, TINY, command, experiment, run, timeless_rows};
use pgn_bench::results::{self, Row};

const CELL: &str = "tiny-smoke/cnn32-pgn+cr-s0";
/// What the rounding of four steps moves, by Adam's division by its moments most of all.
const TOLERANCE: f64 = 1e-4;

fn rows(output: &Path) -> Vec<Row> {
    timeless_rows(&output.join(CELL).join(results::FILE))
}

#[test]
fn a_stopped_run_on_a_device_ends_as_the_cpus_does() {
    if Command::new("g++").arg("--version").output().is_err() {
        println!("skipped: the emulated device needs g++");
        return;
    }
    let home = Folder::new("device");
    let shorter = [("steps: 12, critic_steps: 2", "steps: 4, critic_steps: 1"), ("every: 4", "every: 2")];
    let text = shorter.iter().fold(TINY.to_owned(), |text, (from, to)| text.replace(from, to));
    let file = home.write("tiny.yaml", &text.replace("[raw, ema]", "[ema]"));
    let [on_cpu, on_device] = ["cpu", "device"].map(|name| home.join(name));
    let (code, _, stderr) = run(&home.0, &experiment(&file, &on_cpu, &[]));
    assert_eq!(code, 0, "{stderr}");

    let device = ["--device", "emulated", "--precision", "f32", "--resume"];
    let mut child = command(&home.0, &experiment(&file, &on_device, &device[..4])).spawn().unwrap();
    let start = Instant::now();
    // Its first evaluation is over; a step takes a second.
    while !on_device.join(CELL).join("checkpoint.safetensors").is_file() {
        assert!(start.elapsed() < Duration::from_secs(60), "the run never got there");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    let (code, _, stderr) = run(&home.0, &experiment(&file, &on_device, &device));
    assert_eq!(code, 0, "{stderr}");

    let (want, got) = (rows(&on_cpu), rows(&on_device));
    assert_eq!(got.len(), want.len());
    let mut worst = (0.0, String::new());
    for (got, want) in got.iter().zip(&want) {
        assert_eq!((&got.metric, got.step, &got.weights), (&want.metric, want.step, &want.weights));
        assert_eq!((want.device.as_str(), got.device.as_str()), ("cpu", "emulated f32"));
        // Norms and consistency of untrained networks are rounding alone.
        let error = (got.value - want.value).abs() / want.value.abs().max(1e-3);
        if error > worst.0 {
            worst = (error, format!("{} at step {}: {}, not {}", got.metric, got.step, got.value, want.value));
        }
    }
    println!("{}", worst.1);
    assert!(worst.0 < TOLERANCE, "{}", worst.1);
}
