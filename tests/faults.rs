//! What happens to a run when the system fails it: no space, no permission, files that vanish, settings that change.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Folder, TINY, command, experiment, run, timeless_rows};
use pgn_bench::results::{self, COST, PEAK, Row};
use pgn_bench::train::checkpoint::Stored;

const CELL: &str = "tiny-smoke/cnn32-pgn+cr-s0";

fn rows(output: &Path) -> Vec<Row> {
    timeless_rows(&output.join(CELL).join(results::FILE))
}

fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.is_file() {
        assert!(start.elapsed() < Duration::from_secs(60), "{} never came", path.display());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Starts a run and waits for a file of it.
fn started(home: &Path, args: &[&str], file: &Path) -> Child {
    let child = command(home, args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(file);
    child
}

fn ended(child: Child) -> (i32, String) {
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

/// A file system in memory of so many KiB, if we may mount one.
struct Small(PathBuf);

impl Small {
    fn mount(path: PathBuf, kib: u32) -> Option<Self> {
        std::fs::create_dir_all(&path).unwrap();
        let size = format!("size={kib}k");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path).output();
        if mount.is_ok_and(|o| o.status.success()) {
            return Some(Self(path));
        }
        eprintln!("SKIPPED: only root can mount a small file system to fill");
        None
    }

    fn remount(&self, option: &str) {
        let option = format!("remount,{option}");
        assert!(Command::new("mount").args(["-o", &option]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_ends_a_run_and_loses_nothing() {
    let home = Folder::new("full");
    let Some(disk) = Small::mount(home.join("disk"), 8192) else { return };
    let file = home.write("tiny.yaml", TINY);
    let (whole, output) = (home.join("whole"), disk.0.join("out"));
    assert_eq!(run(&home.0, &experiment(&file, &whole, &[])).0, 0);
    let checkpoint = output.join(CELL).join("checkpoint.safetensors");
    let child = started(&home.0, &experiment(&file, &output, &[]), &checkpoint);
    let filler = disk.0.join("filler");
    let mut full = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut full, &[0; 4096]).is_ok() {}
    let (code, stderr) = ended(child);
    assert!(code == 2 && stderr.contains("cannot ") && stderr.contains("No space left on device"), "{code}: {stderr}");
    assert!(Stored::open(&checkpoint).is_ok());
    let left: Vec<_> = std::fs::read_dir(output.join(CELL)).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".tmp")), "{left:?}");

    // Nothing can be started there, and that is said before any training.
    let other = disk.0.join("other");
    let (code, _, stderr) = run(&home.0, &experiment(&file, &other, &[]));
    assert!(code == 2 && stderr.contains("No space left on device"), "{stderr}");

    drop(full);
    std::fs::remove_file(filler).unwrap();
    let (code, _, stderr) = run(&home.0, &experiment(&file, &output, &["--resume"]));
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(rows(&whole), rows(&output));
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let home = Folder::new("readonly");
    let Some(disk) = Small::mount(home.join("disk"), 8192) else { return };
    let file = home.write("tiny.yaml", TINY);
    let output = disk.0.join("out");
    let quick = ["--set", "train.steps=2", "--set", "eval.every=2"];
    assert_eq!(run(&home.0, &experiment(&file, &output, &quick)).0, 0);
    let before = rows(&output);
    disk.remount("ro");
    for existing in ["--resume", "--overwrite"] {
        let (code, _, stderr) = run(&home.0, &experiment(&file, &output, &[&quick[..], &[existing]].concat()));
        assert!(code == 2 && stderr.contains("Read-only file system") && stderr.contains(CELL), "{stderr}");
    }
    let report = disk.0.join("report");
    let (code, _, stderr) = run(&home.0, &["report", output.to_str().unwrap(), "-o", report.to_str().unwrap()]);
    assert!(code == 2 && stderr.contains("Read-only file system"), "{stderr}");
    assert_eq!(rows(&output), before);
}

#[test]
fn files_that_vanish_are_written_again_and_a_folder_that_vanishes_is_named() {
    let home = Folder::new("vanish");
    let file = home.write("tiny.yaml", TINY);
    let (whole, output) = (home.join("whole"), home.join("out"));
    assert_eq!(run(&home.0, &experiment(&file, &whole, &[])).0, 0);
    let checkpoint = output.join(CELL).join("checkpoint.safetensors");
    let child = started(&home.0, &experiment(&file, &output, &[]), &checkpoint);
    std::fs::remove_file(&checkpoint).unwrap();
    std::fs::remove_file(output.join(CELL).join(results::FILE)).unwrap();
    assert_eq!(ended(child).0, 0);
    assert!(Stored::open(&checkpoint).is_ok());
    assert_eq!(rows(&whole), rows(&output));

    let gone = home.join("gone");
    let child = started(&home.0, &experiment(&file, &gone, &[]), &gone.join(CELL).join("checkpoint.safetensors"));
    // The run may be writing into it.
    while gone.exists() {
        let _ = std::fs::remove_dir_all(&gone);
    }
    let (code, stderr) = ended(child);
    assert!(code == 2 && stderr.contains(CELL) && stderr.contains("No such file or directory"), "{stderr}");

    // Results whose checkpoint is gone are not trained over.
    std::fs::remove_file(&checkpoint).unwrap();
    let (code, _, stderr) = run(&home.0, &experiment(&file, &output, &["--resume"]));
    assert!(code == 2 && stderr.contains("checkpoint.safetensors is gone, but there are results"), "{stderr}");
    assert_eq!(rows(&whole), rows(&output));
}

#[test]
fn settings_change_only_where_it_is_allowed_and_rows_say_so() {
    let home = Folder::new("changes");
    let file = home.write("tiny.yaml", TINY);
    let output = home.join("out");
    assert_eq!(run(&home.0, &experiment(&file, &output, &["--set", "train.steps=8"])).0, 0);
    let longer = ["--resume", "--set", "train.steps=12", "--set", "eval.every=2"];
    let (code, _, stderr) = run(&home.0, &experiment(&file, &output, &longer));
    assert!(code == 2 && stderr.contains("train.steps: 8, now 12") && stderr.contains("--allow KEY"), "{stderr}");
    let some = [&longer[..], &["--allow", "train.steps"]].concat();
    let (code, _, stderr) = run(&home.0, &experiment(&file, &output, &some));
    assert!(code == 2 && stderr.contains("eval.every: 4, now 2"), "{stderr}");
    let all = [&longer[..], &["--allow", "train.steps,eval.every"]].concat();
    let (code, _, stderr) = run(&home.0, &experiment(&file, &output, &all));
    assert_eq!(code, 0, "{stderr}");
    let now = rows(&output);
    let said = "eval.every changed from 4 to 2 at step 8; train.steps changed from 8 to 12 at step 8";
    assert!(now.iter().all(|r| r.warning.contains(said) == (r.step > 8 || [COST, PEAK].contains(&r.metric.as_str()))));
    assert_eq!(now.iter().map(|r| r.step).max(), Some(12));
    // It is one run still, and another one than that of these settings from the start.
    let fresh = home.join("fresh");
    assert_eq!(run(&home.0, &experiment(&file, &fresh, &longer[1..])).0, 0);
    assert!(now.iter().all(|r| r.family == now[0].family && r.family != rows(&fresh)[0].family));
    // It may end where it stands, but not before.
    let shorter = |steps| ["--resume", "--set", steps, "--set", "eval.every=2", "--allow", "train.steps,eval.every"];
    let (code, _, stderr) = run(&home.0, &experiment(&file, &output, &shorter("train.steps=10")));
    assert!(code == 2 && stderr.contains("train.steps: the run has made 12, more than 10"), "{stderr}");
    let unfinished = home.join("unfinished");
    assert_eq!(run(&home.0, &experiment(&file, &unfinished, &["--set", "train.steps=8"])).0, 0);
    let path = unfinished.join(CELL).join("rows.parquet");
    let running = |r: Row| Row { status: "running".to_owned(), ..r };
    results::write(&path, &rows(&unfinished).into_iter().map(running).collect::<Vec<_>>()).unwrap();
    assert_eq!(run(&home.0, &experiment(&file, &unfinished, &["--resume", "--set", "train.steps=8"])).0, 0);
    assert!(rows(&unfinished).iter().all(|r| r.status == "finished"));
    // What was allowed once stays so.
    let (code, _, stderr) = run(&home.0, &experiment(&file, &output, &longer));
    assert_eq!(code, 0, "{stderr}");
}
