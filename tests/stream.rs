//! Images that another program writes to the standard input of a measure.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use common::{Folder, command, run};

const VIT: [&str; 4] = ["--extractor", "dinov2", "--dinov2", "tests/data/vit/dinov2.safetensors"];
const SIZE: [u32; 2] = [12, 16];

/// The command's answer to these bytes.
fn piped(home: &Folder, args: &[&str], bytes: &[u8]) -> (i32, String, String) {
    let piped = || command(&home.0, args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = piped().unwrap();
    // A command that refuses its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(bytes);
    let done = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

fn pixels(number: u32) -> Vec<u8> {
    (0..3 * SIZE[0] * SIZE[1]).map(|i| (i * (number + 3) * 7 + i * i / (number + 1) + 11 * number) as u8).collect()
}

fn save(number: u32, path: &Path) {
    image::RgbImage::from_raw(SIZE[1], SIZE[0], pixels(number)).unwrap().save(path).unwrap();
}

#[test]
fn a_stream_is_measured_as_the_same_images_in_a_folder() {
    let home = Folder::new("stream");
    let [real, generated] = ["real", "generated"].map(|name| home.join(name));
    for (folder, first) in [(&real, 0), (&generated, 100)] {
        std::fs::create_dir(folder).unwrap();
        (0..9).for_each(|i| save(first + i, &folder.join(format!("{i}.png"))));
    }
    let raw: Vec<u8> = (0..9).flat_map(|i| pixels(100 + i)).collect();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_dir_all("generated", &generated).unwrap();
    let tar = tar.into_inner().unwrap();
    let [real, folder] = [&real, &generated].map(|path| path.to_str().unwrap());
    for command in ["measure", "fid", "kid", "pr"] {
        let args = |of: &'static str, more: &[&'static str]| {
            let mut args = vec![command, real, if of.is_empty() { folder } else { of }, "--json", "-n", "8"];
            args.extend(VIT.iter().chain(more));
            args.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let said = |args: Vec<String>, bytes: &[u8]| {
            let (code, stdout, stderr) = piped(&home, &args.iter().map(String::as_str).collect::<Vec<_>>(), bytes);
            assert_eq!(code, 0, "{args:?}: {stderr}");
            stdout.replace(folder, "stdin")
        };
        let expected = said(args("", &[]), &[]);
        assert!(expected.contains("dinov2") && expected.contains("stdin"), "{expected}");
        assert_eq!(said(args("-", &["--image-size", "12x16"]), &raw), expected, "{command}");
        assert_eq!(said(args("-", &[]), &tar), expected, "{command}");
    }
    let statistics = home.join("stream.npz");
    let args = [&["stats", "-", "--image-size", "12x16", "-o", statistics.to_str().unwrap()], &VIT[..]].concat();
    assert_eq!(piped(&home, &args, &raw).0, 0);
    let (code, stdout, _) =
        run(&home.0, &[&["fid", statistics.to_str().unwrap(), folder, "--json"], &VIT[..]].concat());
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["values"]["fd-dinov2"].as_f64();
    assert!(code == 0 && value(&stdout).unwrap().abs() < 1e-6, "{stdout}");
    assert_eq!(std::fs::read_dir(&home.0).unwrap().filter(|e| e.as_ref().unwrap().path().is_file()).count(), 1);
}

#[test]
fn what_cannot_be_measured_is_refused_in_words() {
    let home = Folder::new("stream-refused");
    std::fs::create_dir(home.join("real")).unwrap();
    (0..3).for_each(|i| save(i, &home.join(&format!("real/{i}.png"))));
    let real = home.join("real");
    let real = real.to_str().unwrap();
    let raw: Vec<u8> = (0..3).flat_map(pixels).collect();
    for (args, bytes, said) in [
        (
            &["fid", real, "-", "--image-size", "12x16"][..],
            &raw[..700],
            "1 images of 12×16×3 = 576 bytes came, and 124 bytes more",
        ),
        (&["fid", real, "-"], &raw, "raw images need --image-size HEIGHTxWIDTH"),
        (&["fid", real, "-"], &[], "stdin: nothing came"),
        (&["fid", "-", "-", "--image-size", "12x16"], &raw, "only one of the collections"),
        (&["measure", "-", "-", "--image-size", "12x16"], &raw, "only one of the collections"),
        (&["fid", real, "-", "--image-size", "12x"], &raw, "expected HEIGHTxWIDTH"),
        (&["fid", real, "-", "--image-size", "0"], &raw, "expected HEIGHTxWIDTH"),
    ] {
        let (code, _, stderr) = piped(&home, &[args, &VIT].concat(), bytes);
        assert!(code == 2 && stderr.contains(said), "{args:?}: {stderr}");
    }
    let (code, _, stderr) = piped(&home, &[&["fid", real, real, "--image-size", "12x16"], &VIT[..]].concat(), &[]);
    assert!(code == 0 && stderr.contains("--image-size has no effect"), "{stderr}");
}
