//! Images that another program writes to the standard input of a measure.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use candle_core::{Device, Tensor};
use common::{Folder, command, run};
use pgn_bench::rng::Stream;

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

/// Options that name a small DINOv2 of random numbers.
fn extractor(home: &Folder) -> [String; 4] {
    let zeros = candle_core::safetensors::load("tests/data/vit/dinov2.safetensors", &Device::Cpu).unwrap();
    let numbers = |(name, t): (String, Tensor)| {
        let numbers = Stream::new(0, &name, 0).normals(t.elem_count()).into_iter().map(|v| 0.2 * v).collect();
        (name, Tensor::from_vec(numbers, t.dims(), &Device::Cpu).unwrap())
    };
    let path = home.join("vit.safetensors");
    candle_core::safetensors::save(&zeros.into_iter().map(numbers).collect(), &path).unwrap();
    ["--extractor", "dinov2", "--dinov2", path.to_str().unwrap()].map(str::to_owned)
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
    let vit = extractor(&home);
    let vit = vit.each_ref().map(String::as_str);
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
        let args = |of, more: &[&'static str]| [&[command, real, of, "--json", "-n", "8"], &vit[..], more].concat();
        let said = |args: Vec<&str>, bytes: &[u8]| {
            let (code, stdout, stderr) = piped(&home, &args, bytes);
            assert_eq!(code, 0, "{args:?}: {stderr}");
            stdout.replace(folder, "stdin")
        };
        let expected = said(args(folder, &[]), &[]);
        assert!(expected.contains("dinov2") && expected.contains("stdin"), "{expected}");
        assert_eq!(said(args("-", &["--image-size", "12x16"]), &raw), expected, "{command}");
        assert_eq!(said(args("-", &[]), &tar), expected, "{command}");
    }
    let statistics = home.join("stream.npz");
    let args = [&["stats", "-", "--image-size", "12x16", "-o", statistics.to_str().unwrap()], &vit[..]].concat();
    assert_eq!(piped(&home, &args, &raw).0, 0);
    let (code, stdout, _) =
        run(&home.0, &[&["fid", statistics.to_str().unwrap(), folder, "--json"], &vit[..]].concat());
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["values"]["fd-dinov2"].as_f64();
    assert!(code == 0 && value(&stdout).unwrap().abs() < 1e-9, "{stdout}");
    assert_eq!(std::fs::read_dir(&home.0).unwrap().filter(|e| e.as_ref().unwrap().path().is_file()).count(), 2);
}

#[test]
fn what_cannot_be_measured_is_refused_in_words() {
    let home = Folder::new("stream-refused");
    let vit = extractor(&home);
    let vit = vit.each_ref().map(String::as_str);
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
        let (code, _, stderr) = piped(&home, &[args, &vit].concat(), bytes);
        assert!(code == 2 && stderr.contains(said), "{args:?}: {stderr}");
    }
    let (code, _, stderr) = piped(&home, &[&["fid", real, real, "--image-size", "12x16"], &vit[..]].concat(), &[]);
    assert!(code == 0 && stderr.contains("--image-size has no effect"), "{stderr}");
}
