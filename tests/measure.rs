//! The measures' arguments and files, as the command line takes them: whatever can be refused is, before anything is measured.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use candle_core::Device;
use common::{Folder, command, run};
use faer::Mat;
use pgn_bench::metrics::frechet::Gaussian;
use pgn_bench::metrics::npz::{self, Protocol};
use pgn_bench::npy::Writer;
use serde_json::{Value, json};

const WIDTH: usize = 8;
/// Of [`mean`] and [`covariance`] with 3 and 4: scipy.linalg.sqrtm, and mpmath with 40 digits.
const DISTANCE: f64 = 7.924_436_304_893_329;

fn mean(p: usize) -> Vec<f64> {
    (0..WIDTH).map(|i| (i * p % 5) as f64 / 4.0).collect()
}

/// G·Gᵀ, row by row.
fn covariance(p: usize) -> Vec<f64> {
    let g = |i: usize, j: usize| ((i * p + j * 5 + i * j) % 7) as f64 / 7.0 + f64::from(i == j);
    let at = |i: usize, j: usize| (0..WIDTH).map(|k| g(i, k) * g(j, k)).sum();
    (0..WIDTH * WIDTH).map(|k| at(k / WIDTH, k % WIDTH)).collect()
}

/// Statistics as pytorch-fid writes them, then more arrays.
fn foreign(path: PathBuf, mean: &[f64], sigma: &[f64], more: impl FnOnce(&mut Writer<File>)) -> PathBuf {
    let mut npz = Writer::new(File::create(&path).unwrap());
    let d = WIDTH as u64;
    npz.add("mu", "<f8", &[mean.len() as u64], mean.iter().map(|v| v.to_le_bytes())).unwrap();
    npz.add("sigma", "<f8", &[d, d], sigma.iter().map(|v| v.to_le_bytes())).unwrap();
    more(&mut npz);
    npz.finish().unwrap();
    path
}

fn plain(home: &Folder, name: &str, p: usize) -> PathBuf {
    foreign(home.join(name), &mean(p), &covariance(p), |_| ())
}

fn fid(home: &Folder, a: &Path, b: &Path, more: &[&str]) -> (i32, String, String) {
    run(&home.0, &[&["fid", a.to_str().unwrap(), b.to_str().unwrap()], more].concat())
}

fn measured(home: &Folder, a: &Path, b: &Path) -> Value {
    let (code, out, err) = fid(home, a, b, &["--json"]);
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

/// The message of a command that must end with code 2 and print no result.
fn refused(home: &Folder, args: &[&str]) -> String {
    let (code, out, err) = run(&home.0, args);
    assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
    err
}

#[test]
fn statistics_are_compared_without_weights_whatever_else_is_in_the_file() {
    let home = Folder::new("measure-foreign");
    let (a, b) = (plain(&home, "a.NPZ", 3), plain(&home, "b.npz", 4));
    let got = measured(&home, &a, &b);
    assert!((got["values"]["fid"].as_f64().unwrap() - DISTANCE).abs() < 1e-10, "{got}");
    assert_eq!((&got["extractor"], &got["values"]["n"]), (&Value::Null, &json!([null, null])));
    assert_eq!(got["unknown_protocol"], json!([a.to_str().unwrap(), b.to_str().unwrap()]));
    let (_, out, _) = fid(&home, &a, &b, &[]);
    assert!(
        out.starts_with("FID 7.924436\n") && out.contains("unknown protocol") && !out.contains("inception"),
        "{out}"
    );

    let more = foreign(home.join("more.npz"), &mean(3), &covariance(3), |npz| {
        npz.add_text("n", "500").unwrap();
        npz.add("features", "<f4", &[1, 3], [[0; 4]; 3].into_iter()).unwrap();
        npz.add("arr_0", "|u1", &[1, 2, 2, 3], [[7]; 12].into_iter()).unwrap();
    });
    let (_, out, err) = fid(&home, &more, &b, &[]);
    assert!(out.starts_with("FID 7.924436\n") && err.contains("holds statistics and images"), "{out}{err}");

    let mut npz = Writer::new(File::create(home.join("f4.npz")).unwrap());
    let big = |values: Vec<f64>| values.into_iter().map(|v| (v as f32).to_be_bytes());
    npz.add("mu", ">f4", &[8], big(mean(3))).unwrap();
    npz.add("sigma", ">f4", &[8, 8], big(covariance(3))).unwrap();
    npz.finish().unwrap();
    let got = measured(&home, &home.join("f4.npz"), &b)["values"]["fid"].as_f64().unwrap();
    assert!((got - DISTANCE).abs() < 1e-5, "{got}");
    assert_eq!(measured(&home, &a, &a)["values"]["fid"].as_f64().unwrap().abs().max(1e-12), 1e-12);
}

#[test]
fn what_is_no_covariance_gives_no_number() {
    let home = Folder::new("measure-none");
    let b = plain(&home, "b.npz", 4);
    let against = |name: &str, sigma: &dyn Fn(usize, f64) -> f64| {
        let sigma: Vec<f64> = covariance(3).into_iter().enumerate().map(|(at, v)| sigma(at, v)).collect();
        let a = foreign(home.join(name), &mean(3), &sigma, |_| ());
        refused(&home, &["fid", a.to_str().unwrap(), b.to_str().unwrap()])
    };
    assert!(against("neg.npz", &|_, v| -v).contains("no variance is negative"));
    assert!(against("asym.npz", &|at, v| if at == 1 { v + 1.0 } else { v }).contains("`sigma`[1, 0] is"));
    assert!(against("huge.npz", &|_, v| v * 1e200).contains("products of such numbers overflow"));
    let indefinite = |at: usize, v: f64| if at.is_multiple_of(WIDTH + 1) { v } else { -2.0 * v };
    assert!(against("indefinite.npz", &indefinite).contains("not a covariance: its eigenvalues reach from -"));
    assert!(against("nan.npz", &|_, v| v / 0.0 * 0.0).contains("not finite"));
}

#[test]
fn statistics_know_what_they_were_made_with() {
    let home = Folder::new("measure-protocol");
    let gaussian = |p: usize| {
        let sigma = covariance(p);
        Gaussian { n: 500, mean: mean(p), covariance: Mat::from_fn(WIDTH, WIDTH, |i, j| sigma[i * WIDTH + j]) }
    };
    let write = |name: &str, p: usize, sha256: &str, resize: &str| {
        let [extractor, sha256, resize, order] = ["inception", sha256, resize, "spread"].map(str::to_owned);
        npz::write(&home.join(name), &gaussian(p), None, None, &Protocol { extractor, sha256, resize, order }).unwrap();
        home.join(name)
    };
    let (a, b) = (write("a.npz", 3, "abcdef0123", "tf"), write("b.npz", 4, "abcdef0123", "tf"));
    let got = measured(&home, &a, &b);
    assert_eq!(
        (&got["resize"], &got["order"], &got["values"]["n"]),
        (&json!("tf"), &json!("spread"), &json!([500, 500]))
    );
    assert_eq!((&got["extractor_sha256"], &got["unknown_protocol"]), (&json!("abcdef0123"), &json!([])));
    let (_, out, _) = fid(&home, &a, &b, &[]);
    assert_eq!(out, "FID 7.924436\nover inception (abcdef01…), resize tf, order spread\n");
    let (_, out, _) = fid(&home, &a, &plain(&home, "c.npz", 4), &[]);
    assert!(out.contains("resize tf") && out.contains("c.npz does not say how they were made"), "{out}");

    for other in [write("clean.npz", 4, "abcdef0123", "clean"), write("weights.npz", 4, "12345678", "tf")] {
        let error = refused(&home, &["fid", a.to_str().unwrap(), other.to_str().unwrap()]);
        assert!(
            error.contains("a.npz is over inception (abcdef01…), resize tf") && error.contains("in one way"),
            "{error}"
        );
    }
    let narrow = home.join("narrow.npz");
    let covariance = Mat::identity(3, 3);
    let protocol = npz::read(&a).unwrap().protocol.unwrap();
    npz::write(&narrow, &Gaussian { n: 9, mean: vec![0.0; 3], covariance }, None, None, &protocol).unwrap();
    let error = refused(&home, &["fid", a.to_str().unwrap(), narrow.to_str().unwrap()]);
    assert!(error.contains("features of 8 dimensions") && error.contains("of 3: they cannot be compared"), "{error}");
}

#[test]
fn features_of_an_npy_are_statistics_and_a_pickle_is_not_run() {
    let home = Folder::new("measure-npy");
    let b = plain(&home, "b.npz", 4);
    let array = |descr: &str, shape: &str, data: &[u8]| {
        let head = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let length = (head.len() as u16).to_le_bytes();
        let path = home.join("x.npy");
        std::fs::write(&path, [b"\x93NUMPY\x01\x00", &length[..], head.as_bytes(), data].concat()).unwrap();
        path
    };
    let features: Vec<u8> = (0..12)
        .flat_map(|i| (0..8).map(move |j| (i * 3 + j * j) % 7))
        .flat_map(|v| f64::from(v).to_le_bytes())
        .collect();
    let got = measured(&home, &array("<f8", "(12, 8)", &features), &b);
    // numpy.cov is of rank 4 here: numpy's eigenvectors of both, and singular values.
    assert!((got["values"]["fid"].as_f64().unwrap() - 75.552_053_304_920_21).abs() < 1e-10, "{got}");
    assert_eq!(got["values"]["n"], json!([12, null]));
    let pickle = array("|O", "()", b"\x80\x04}q\x00.");
    let error = refused(&home, &["fid", pickle.to_str().unwrap(), b.to_str().unwrap()]);
    assert!(error.contains("never executed") && error.contains("np.savez"), "{error}");
}

#[test]
fn arguments_are_checked_before_any_work() {
    let home = Folder::new("measure-arguments");
    let (a, b) = (plain(&home, "a.npz", 3), plain(&home, "b.npz", 4));
    let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
    let images = home.join("images");
    std::fs::create_dir(&images).unwrap();
    let images = images.to_str().unwrap();
    let new = home.join("new.npz");
    let new = new.to_str().unwrap();
    let folder = home.0.to_str().unwrap();
    for (args, expected) in [
        (&["fid", a, b, "-n", "5"][..], "-n takes some of the images"),
        (&["fid", a, b, "-n", "0"], "0 is not in 1.."),
        (&["fid", a, b, "--bootstrap", "19"], "at least 20 replicates"),
        (&["fid", a, b, "--bootstrap", "20"], "but it has none"),
        (&["kid", a, b, "--bootstrap", "1"], "at least 20 replicates"),
        (&["measure", a, b, "--bootstrap", "2"], "at least 20 replicates"),
        (&["eval", a, "--bootstrap", "2"], "at least 20 replicates"),
        (&["kid", images, images, "--size", "1"], "--size at least 2"),
        (&["kid", images, images, "--subsets", "0"], "--subsets is at least 1"),
        (&["pr", images, images, "-k", "0"], "k is at least 1"),
        (&["fid", a, b, "--order", "random"], "[possible values: spread, file]"),
        (&["stats", a, "-o", new], "holds statistics already"),
        (&["stats", images, "-o", folder], "the output is a .npz file"),
        (&["stats", images, "-o", "/nowhere/new.npz"], "create it first"),
        (&["fid", a, images], "no Inception weights"),
        (&["is", images], "no Inception weights"),
        (&["is", images, "--extractor", "dinov2"], "is of Inception's classes, and DINOv2 has none"),
        (
            &["measure", a, b, "--extractor", "dinov2,clip", "--metrics", "fid"],
            "--extractor dinov2,clip: none of --metrics",
        ),
        (&["measure", a, b, "--metrics", "fd-dinov2, cmmd"], "no DINOv2 weights: run `pgn-bench fetch dinov2`"),
    ] {
        let error = refused(&home, args);
        assert!(error.contains(expected), "{args:?}: {error}");
    }
    assert!(!home.join("new.npz").exists());
}

#[test]
fn a_name_that_is_no_text_is_a_name() {
    let home = Folder::new("measure-name");
    let name = home.0.join(OsStr::from_bytes(b"caf\xe9.npz"));
    foreign(name.clone(), &mean(3), &covariance(3), |_| ());
    let output = command(&home.0, &["fid", "--json"]).arg(&name).arg(&name).output().unwrap();
    assert!(output.status.success());
    let got: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(got["of"][0].as_str().unwrap().ends_with("caf\u{fffd}.npz"), "{got}");
}

/// A network of the golden files as a file of weights.
fn weights(home: &Folder, golden: &str) -> PathBuf {
    let tensors = candle_core::safetensors::load(format!("tests/golden/{golden}.safetensors"), &Device::Cpu).unwrap();
    let weights: HashMap<_, _> =
        tensors.into_iter().filter_map(|(name, t)| Some((name.strip_prefix("weights.")?.to_owned(), t))).collect();
    let path = home.join(&format!("{golden}-weights.safetensors"));
    candle_core::safetensors::save(&weights, &path).unwrap();
    path
}

#[test]
fn one_pass_gives_what_the_short_forms_give() {
    let home = Folder::new("measure-all");
    let [dinov2, clip] = ["vit_dinov2", "vit_clip"].map(|name| weights(&home, name));
    let [dinov2, clip] = [&dinov2, &clip].map(|path| path.to_str().unwrap());
    let sides = ["shapes:train", "shapes:test"];
    let files = ["--dinov2", dinov2, "--clip", clip, "-n", "40", "--json"];
    let rows = home.join("rows.parquet");
    let all = [
        "measure",
        sides[0],
        sides[1],
        "--extractor",
        "dinov2,clip",
        "--bootstrap",
        "20",
        "-o",
        rows.to_str().unwrap(),
    ];
    let (code, out, err) = run(&home.0, &[&all[..], &files[..]].concat());
    assert_eq!(code, 0, "{err}");
    let all: Value = serde_json::from_str(&out).unwrap();
    let metrics = all["metrics"].as_array().unwrap();
    let value = |name: &str| {
        let found = metrics.iter().find(|m| m["metric"] == name).unwrap_or_else(|| panic!("{name} in {out}"));
        found["value"].as_f64().unwrap()
    };
    let names: Vec<&str> = metrics.iter().map(|m| m["metric"].as_str().unwrap()).collect();
    let of_dinov2 = ["fd", "fd-inf", "kd", "precision", "recall", "density", "coverage", "authpct", "mind"];
    let of_dinov2 = of_dinov2.map(|name| format!("{name}-dinov2"));
    assert_eq!(names, of_dinov2.iter().map(String::as_str).chain(["cmmd", "fd-clip"]).collect::<Vec<_>>());
    assert_eq!([&metrics[0]["resize"], &metrics[9]["resize"]], ["dinov2-pil", "clip-cmmd"]);

    let short = |args: &[&str], key: &str| {
        let (code, out, err) = run(&home.0, &[args, &["--extractor", "dinov2"], &files[..]].concat());
        assert_eq!(code, 0, "{err}");
        serde_json::from_str::<Value>(&out).unwrap()["values"][key].as_f64().unwrap()
    };
    let close = |a: f64, b: f64| assert!((a - b).abs() <= 1e-9 * b.abs(), "{a} is not {b}");
    close(value("fd-dinov2"), short(&["fid", sides[0], sides[1]], "fd-dinov2"));
    close(value("kd-dinov2"), short(&["kid", sides[0], sides[1], "--size", "40"], "kd-dinov2_mean"));
    for name in ["precision", "recall", "density", "coverage"] {
        close(value(&format!("{name}-dinov2")), short(&["pr", sides[0], sides[1]], name));
    }

    let interval = |args: &[&str]| {
        let (_, out, err) = run(&home.0, &[args, &["--extractor", "dinov2"], &files[..]].concat());
        assert!(!err.contains("kd-dinov2"), "{err}");
        let values = &serde_json::from_str::<Value>(&out).unwrap()["values"]["interval"];
        [&values["low"], &values["high"]].map(|end| end.as_f64().unwrap())
    };
    // One rule: replicates are of the generated images, the second collection.
    let of_fid = interval(&["fid", sides[0], sides[1], "--bootstrap", "20"]);
    let of_measure = [0, 1].map(|end| metrics[0]["interval"][end].as_f64().unwrap());
    (0..2).for_each(|end| close(of_fid[end], of_measure[end]));

    let rows = pgn_bench::results::read(&rows).unwrap();
    assert_eq!(rows.len(), metrics.len());
    assert!(rows.iter().all(|r| (r.reference_sha256.len(), r.config_hash.len()) == (64, 16)));
    assert!(rows.iter().all(|r| (r.reference_n, r.order.as_deref()) == (Some(40), Some("spread"))));
    assert_eq!((rows[0].metric.as_str(), rows[0].value, rows[0].n), ("fd-dinov2-40_real", value("fd-dinov2"), 40));
    assert!(rows[0].low < Some(rows[0].value) && Some(rows[0].value) < rows[0].high && rows[3].low.is_none());
    assert_eq!((rows[0].resize.as_str(), rows[0].method.as_str()), ("dinov2-pil", "shapes:test"));
}

#[test]
fn what_all_measures_lack_is_said_before_the_images_are_seen() {
    let home = Folder::new("measure-lacks");
    let dinov2 = weights(&home, "vit_dinov2");
    let given = |more: &[&str]| {
        let args = ["measure", "shapes:train", "shapes:test", "--dinov2", dinov2.to_str().unwrap(), "-n", "10"];
        let (code, out, err) = run(&home.0, &[&args[..], more].concat());
        (code, out, err)
    };
    let refused = |more: &[&str]| {
        let (code, out, err) = given(more);
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        err
    };
    assert!(refused(&["--metrics", "fd-inf-dinov2"]).contains("at least 16 images are needed"));
    assert!(refused(&["--metrics", "fd-dinov2,cmmd"]).contains("no CLIP weights"));
    assert!(refused(&["--metrics", "fod"]).contains("possible values: all, fid"));
    assert!(refused(&["--extractor", "dinov2-pil,dinov2-tf"]).contains("one protocol of each network"));
    assert!(refused(&["--extractor", "dinov2", "-o", "rows.csv"]).contains("rows.csv"));
    let other = refused(&["--extractor", "clip", "--clip", dinov2.to_str().unwrap()]);
    assert!(other.contains("holds weights of DINOv2, not of CLIP: give it as --dinov2"), "{other}");
    // What was not named is left out.
    let (code, out, err) = given(&["--extractor", "dinov2"]);
    assert!(code == 0 && err.contains("fd-inf-dinov2 is left out") && out.contains("kd-dinov2"), "{err}{out}");
    let statistics = plain(&home, "real.npz", 3);
    let (code, out, err) = run(
        &home.0,
        &[
            "measure",
            statistics.to_str().unwrap(),
            "shapes:test",
            "--extractor",
            "dinov2",
            "--dinov2",
            dinov2.to_str().unwrap(),
            "-n",
            "40",
        ],
    );
    assert!(code == 2 && out.is_empty() && err.contains("features of 8 dimensions"), "{err}");
}

#[test]
fn rows_of_images_are_a_plain_table_under_whatever_name() {
    let home = Folder::new("measure-table");
    let dinov2 = weights(&home, "vit_dinov2");
    let measured = |name: &str, more: &[&str]| {
        let file = home.join(name);
        let args = ["measure", "tests/data/layouts/samples.npz", "shapes:test", "--extractor", "dinov2", "-n", "3"];
        let options =
            ["--metrics", "fd-dinov2,kd-dinov2", "--dinov2", dinov2.to_str().unwrap(), "-o", file.to_str().unwrap()];
        let (code, out, err) = run(&home.0, &[&args[..], &options[..], more].concat());
        assert_eq!(code, 0, "{err}");
        (file, out)
    };
    let (spread, printed) = measured("mine.parquet", &[]);
    let (in_order, _) = measured("rows.parquet", &["--order", "file"]);
    let [of_spread, of_order] = [&spread, &in_order].map(|file| pgn_bench::results::read(file).unwrap()[0].clone());
    assert_eq!([&of_spread.order, &of_order.order], [&Some("spread".into()), &Some("file".into())]);
    // Other images were measured.
    assert!(of_spread.reference_sha256.len() == 64 && of_spread.reference_sha256 != of_order.reference_sha256);
    assert_ne!(of_spread.config_hash, of_order.config_hash);

    let (code, table, err) = run(&home.0, &["table", spread.to_str().unwrap(), in_order.to_str().unwrap()]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(table.matches("### shapes:test against tests/data/layouts/samples.npz").count(), 2, "{table}");
    assert!(table.contains(&printed) && printed.contains("order spread") && table.contains("order file"), "{table}");
    assert!(!table.contains("best fd-dinov2") && printed.lines().all(|line| line.chars().count() <= 80), "{table}");
    let (code, folder, err) = run(&home.0, &["table", home.0.to_str().unwrap()]);
    assert!(code == 0 && folder.contains("order file") && !folder.contains("order spread"), "{folder}{err}");
    let report = home.join("report");
    let (code, _, err) = run(&home.0, &["report", spread.to_str().unwrap(), "-o", report.to_str().unwrap()]);
    let text = std::fs::read_to_string(report.join("report.md")).unwrap();
    assert!(code == 0 && text.contains("## Measured images") && text.contains("0 runs"), "{err}{text}");
}

#[test]
fn a_rule_is_the_same_in_every_command() {
    let home = Folder::new("measure-rules");
    let dinov2 = weights(&home, "vit_dinov2");
    let over = |args: &[&str]| {
        run(&home.0, &[args, &["--extractor", "dinov2", "--dinov2", dinov2.to_str().unwrap()]].concat())
    };
    let sides = ["shapes:train", "shapes:test"];
    for command in ["kid", "measure"] {
        // Subsets are as large as asked for, or smaller with a word.
        let args = [command, sides[0], sides[1], "-n", "20"];
        let (code, out, err) = over(&[&args[..], &["--size", "21"]].concat());
        assert!(
            (code, out.as_str()) == (2, "") && err.contains("--size 21") && err.contains("give --size 20"),
            "{err}"
        );
        let (code, _, err) = over(&args);
        assert!(code == 0 && err.contains("fewer images than a subset (1000 by custom)"), "{err}");
        let (code, _, err) = over(&[&args[..], &["--size", "20"]].concat());
        assert!(code == 0 && !err.contains("fewer images than a subset"), "{err}");
    }
    let statistics = home.join("train.npz");
    let statistics = statistics.to_str().unwrap();
    let (code, _, err) = over(&["stats", sides[0], "-n", "200", "-o", statistics]);
    assert_eq!(code, 0, "{err}");
    for command in ["fid", "measure"] {
        // -n is for images, and orders are said.
        let (code, out, err) = over(&[command, statistics, sides[1], "-n", "150", "--order", "file"]);
        assert!(code == 0 && err.contains("-n takes images of shapes:test only"), "{err}");
        assert!(
            err.contains("in the order spread, the other in the order file") && out.contains("spread and file"),
            "{err}"
        );
        let (code, _, err) = over(&[command, statistics, sides[1]]);
        assert!(code == 0 && !err.contains("-n takes") && !err.contains("in the order"), "{err}");
    }
    for command in ["measure", "kid", "pr"] {
        let (code, out, err) = over(&[command, sides[0], statistics]);
        assert!((code, out.as_str()) == (2, "") && err.contains("holds statistics, and images are wanted"), "{err}");
    }
    let (_, out, _) = over(&["fid", sides[0], sides[1], "-n", "20"]);
    assert!(out.starts_with("fd-dinov2 "), "{out}");
}

#[test]
fn options_without_effect_are_said() {
    let home = Folder::new("measure-unused");
    let dinov2 = weights(&home, "vit_dinov2");
    let measure = |metrics: &str, more: &[&str]| {
        let args = ["measure", "shapes:train", "shapes:test", "--dinov2", dinov2.to_str().unwrap(), "-n", "20"];
        run(&home.0, &[&args[..], &["--metrics", metrics], more].concat())
    };
    let (code, _, err) =
        measure("fd-dinov2", &["--weights", "x", "--resize", "clean", "-k", "5", "--size", "9", "--clip", "x"]);
    assert_eq!(code, 0, "{err}");
    for option in ["--weights", "--resize", "-k", "--size", "--clip"] {
        assert!(err.contains(&format!("{option} has no effect")), "{option}: {err}");
    }
    let (code, _, err) = measure("kd-dinov2, pr-dinov2", &["-k", "5", "--size", "9", "--bootstrap", "20"]);
    assert!(code == 0 && !err.contains("has no effect") && err.contains("no interval of pr-dinov2: "), "{err}");
    let (code, out, err) = measure("pr-dinov2", &["--bootstrap", "20"]);
    assert!((code, out.as_str()) == (2, "") && err.contains("none is measured (pr-dinov2)"), "{err}");
}
