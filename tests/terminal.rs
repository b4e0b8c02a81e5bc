//! Readers of stdout and stderr that go away, are full or never were there; names that are not UTF-8.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Folder, TINY, command, experiment, run, timeless_rows};
use pgn_bench::results;

const CELL: &str = "tiny-smoke/cnn32-pgn+cr-s0";
const QUICK: [&str; 4] = ["--set", "train.steps=2", "--set", "eval.every=1"];

/// A pipe that nobody reads.
fn gone() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A disk without room.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// The same command, started by a shell with one of its files closed: `>&-` or `2>&-`.
fn without(file: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec \"$@\" {file}"), "sh"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.stdout(Stdio::piped());
    shell
}

/// Exit code and what came out of the pipes that are read.
fn end(command: &mut Command) -> (i32, String, String) {
    let out = command.spawn().unwrap().wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
}

#[test]
fn training_does_not_end_for_want_of_a_reader() {
    let home = Folder::new("no-reader");
    let file = home.write("tiny.yaml", TINY);
    let whole = home.join("whole");
    assert_eq!(run(&home.0, &experiment(&file, &whole, &QUICK)).0, 0);
    let rows = |output: &Path| timeless_rows(&output.join(CELL).join(results::FILE));
    let checkpoint = |output: &Path| output.join(CELL).join("checkpoint.safetensors").is_file();

    for name in ["gone", "full", "closed", "both-gone", "both-full"] {
        let output = home.join(name);
        let mut start = command(&home.0, &experiment(&file, &output, &QUICK));
        start.stdout(Stdio::piped()).stderr(Stdio::piped());
        match name {
            "gone" => _ = start.stderr(gone()),
            "full" => _ = start.stderr(full()),
            "closed" => start = without("2>&-", &start),
            "both-gone" => _ = start.stdout(gone()).stderr(gone()),
            _ => _ = start.stdout(full()).stderr(full()),
        }
        let (code, stdout, _) = end(start.stdin(Stdio::null()));
        assert_eq!(code, if name == "both-full" { 2 } else { 0 }, "{name}");
        assert!(stdout.is_empty() || stdout.contains("| pgn+cr |"), "{name}: {stdout}");
        assert!(checkpoint(&output) && output.join("tiny-smoke/table.md").is_file(), "{name}");
        assert_eq!(rows(&whole), rows(&output), "{name}");
    }

    let table = || command(&home.0, &["table", whole.to_str().unwrap()]);
    let (code, _, stderr) = end(table().stdout(gone()).stderr(Stdio::piped()));
    assert_eq!((code, stderr.as_str()), (0, ""), "as `table | head` under pipefail");
    let (code, _, stderr) = end(table().stdout(full()).stderr(Stdio::piped()));
    assert!(code == 2 && stderr.contains("cannot write to standard output: No space left"), "{code}: {stderr}");
    let (code, _, stderr) = end(without(">&-", &table()).stderr(Stdio::piped()));
    assert_eq!((code, stderr.as_str()), (0, ""));
    // It would look again for ever.
    let start = Instant::now();
    let (code, _, stderr) =
        end(command(&home.0, &["watch", whole.to_str().unwrap()]).stdout(gone()).stderr(Stdio::piped()));
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn help_and_wrong_arguments_need_no_reader() {
    let home = Folder::new("no-reader-of-help");
    for args in [&["--help"][..], &["--version"], &["run", "--help"]] {
        let (code, _, stderr) = end(command(&home.0, args).stdout(gone()).stderr(Stdio::piped()));
        assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
        let (code, _, stderr) = end(command(&home.0, args).stdout(full()).stderr(Stdio::piped()));
        assert!(code == 2 && stderr.contains("cannot write to standard output"), "{args:?}: {stderr}");
        let (code, ..) = end(without(">&-", &command(&home.0, args)).stderr(Stdio::piped()));
        assert_eq!(code, 0, "{args:?}");
    }
    for args in [&[][..], &["run"], &["table", "--nothing"], &["table", "nowhere"]] {
        for stderr in [gone(), full()] {
            let (code, stdout, _) = end(command(&home.0, args).stdout(Stdio::piped()).stderr(stderr));
            assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}");
        }
        assert_eq!(end(&mut without("2>&-", &command(&home.0, args))).0, 2, "{args:?}");
    }
}

#[test]
fn names_that_are_not_utf_8_are_names() {
    let home = Folder::new("no-utf-8");
    let file = home.write("tiny.yaml", &TINY.replace("steps: 12", "steps: 4000").replace("every: 4", "every: 4000"));
    let output = home.0.join(OsStr::from_bytes(b"out-\xff"));
    let mut start = command(&home.0, &["run", file.to_str().unwrap(), "--scale", "smoke", "-o"]);
    let mut child = start.arg(&output).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while !output.join(CELL).join("log.jsonl").exists() {
        assert!(began.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(), "it never began");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let out = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.code() == Some(143) && stderr.contains("it goes on with: "), "{:?}: {stderr}", out.status);
    assert!(stderr.contains("out-\u{fffd}") && stderr.contains("--resume"), "{stderr}");

    let out = command(&home.0, &["run", "--scale"]).arg(OsStr::from_bytes(b"\xff")).output().unwrap();
    let stderr = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.code() == Some(2) && stderr.contains("UTF-8"), "{stderr}");
}

#[test]
fn messages_have_no_backtrace() {
    let home = Folder::new("no-backtrace");
    let yaml = TINY.replace("pgn+cr", "gn").replace("cnn32", "resnet32");
    let file = home.write("tiny.yaml", &yaml);
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/released.pt");
    let output = home.join("out");
    let [checkpoint, file, output] = [&checkpoint, &file, &output].map(|p| p.to_str().unwrap());
    let import = ["import", checkpoint, file, "--scale", "smoke", "-o", output];
    let (code, _, stderr) = end(command(&home.0, &import).env("RUST_BACKTRACE", "full").stderr(Stdio::piped()));
    assert!(code == 2 && stderr.contains("net_G.linear.weight"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}
