//! Exported runs: what is in the folder, and that it comes back. Whether other programs take the graphs is asked by hand:
//! `tests/peer/graphs.py`, on what these tests leave in the folder that `PGN_BENCH_EXPORTS` names.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use common::{Folder, TINY, experiment, run, untrained};
use pgn_bench::critic::ARCHITECTURES;

/// A field of a message of protocol buffers.
#[derive(Clone, Debug)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

/// Fields by number, in order, as the description of the wire format has them.
#[derive(Clone, Debug, Default)]
struct Message(Vec<(u64, Field)>);

impl Message {
    fn of(bytes: &[u8]) -> Self {
        let (mut fields, mut at) = (Vec::new(), 0);
        let varint = |at: &mut usize| {
            let mut value = 0;
            for shift in (0..70).step_by(7) {
                let byte = bytes[*at];
                *at += 1;
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    return value;
                }
            }
            panic!("a number without end");
        };
        while at < bytes.len() {
            let key = varint(&mut at);
            let take = |n: usize, at: &mut usize| {
                *at += n;
                bytes[*at - n..*at].to_vec()
            };
            let field = match key & 7 {
                0 => Field::Number(varint(&mut at)),
                1 => Field::Bytes(take(8, &mut at)),
                2 => {
                    let n = varint(&mut at) as usize;
                    Field::Bytes(take(n, &mut at))
                }
                5 => Field::Bytes(take(4, &mut at)),
                other => panic!("wire type {other}"),
            };
            fields.push((key >> 3, field));
        }
        Self(fields)
    }

    fn all(&self, number: u64) -> impl Iterator<Item = &Field> {
        self.0.iter().filter(move |(n, _)| *n == number).map(|(_, field)| field)
    }

    fn bytes<'a>(&'a self, number: u64) -> Vec<&'a [u8]> {
        let bytes = |field: &'a Field| match field {
            Field::Bytes(bytes) => Some(&bytes[..]),
            Field::Number(_) => None,
        };
        self.all(number).filter_map(bytes).collect()
    }

    fn messages(&self, number: u64) -> Vec<Self> {
        self.bytes(number).into_iter().map(Self::of).collect()
    }

    fn texts(&self, number: u64) -> Vec<String> {
        self.bytes(number).into_iter().map(|b| String::from_utf8(b.to_vec()).unwrap()).collect()
    }

    fn numbers(&self, number: u64) -> Vec<u64> {
        self.all(number).map(|f| if let Field::Number(n) = f { *n } else { panic!("no number") }).collect()
    }
}

/// Checks a graph: every value is made once and before it is used, every constant is used and as long as its shape says. Gives the
/// constants' elements by name.
fn checked(model: &Message) -> BTreeMap<String, Vec<u8>> {
    assert_eq!(model.numbers(1), [8], "version of the format");
    assert_eq!(model.messages(8)[0].numbers(2), [17], "version of the operators");
    let graph = &model.messages(7)[0];
    let constants: BTreeMap<String, Vec<u8>> = graph
        .messages(5)
        .iter()
        .map(|tensor| {
            let name = tensor.texts(8).remove(0);
            let bytes = tensor.bytes(9)[0].to_vec();
            let width = if tensor.numbers(2) == [1] { 4 } else { 8 };
            assert_eq!(bytes.len() as u64, width * tensor.numbers(1).iter().product::<u64>(), "{name}");
            (name, bytes)
        })
        .collect();
    let names = |field: u64| graph.messages(field).iter().map(|value| value.texts(1).remove(0)).collect::<Vec<_>>();
    let mut known: BTreeSet<String> = constants.keys().cloned().chain(names(11)).collect();
    let mut used = BTreeSet::new();
    for node in graph.messages(1) {
        for input in node.texts(1).into_iter().filter(|name| !name.is_empty()) {
            assert!(known.contains(&input), "{input} is used before it is there");
            used.insert(input);
        }
        let outputs = node.texts(2);
        assert!(outputs.len() == 1 && known.insert(outputs[0].clone()), "{outputs:?}");
    }
    assert_eq!(names(12), ["images"]);
    assert!(constants.keys().chain(&names(11)).all(|name| used.contains(name)));
    constants
}

/// Where exports go: a folder that is kept, or one that is not.
fn exports(home: &Folder) -> PathBuf {
    std::env::var_os("PGN_BENCH_EXPORTS").map_or_else(|| home.join("exports"), PathBuf::from)
}

fn export(home: &Folder, from: &Path, to: &Path, more: &[&str]) -> (i32, String, String) {
    let _ = std::fs::remove_dir_all(to);
    run(&home.0, &[&["export", from.to_str().unwrap(), "-o", to.to_str().unwrap()], more].concat())
}

#[test]
fn every_architecture_is_written_as_a_graph() {
    let home = Folder::new("export-all");
    let to = exports(&home);
    std::fs::create_dir_all(&to).unwrap();
    for arch in ARCHITECTURES {
        let width = if arch.ends_with("256") || arch.ends_with("128") { 0.01 } else { 0.03 };
        let from = untrained(&home.0, arch, width);
        for mode in ["batch", "running"] {
            let folder = to.join(format!("{arch}-{mode}"));
            let (code, _, stderr) = export(&home, &from, &folder, &["--batch-norm", mode, "--generator", "ema"]);
            assert_eq!(code, 0, "{arch}: {stderr}");
            let constants = checked(&Message::of(&std::fs::read(folder.join("generator.onnx")).unwrap()));
            let stored = candle_core::safetensors::load(folder.join("generator.safetensors"), &Device::Cpu).unwrap();
            // What is neither folded nor normalised is there as it is stored.
            let same = stored.iter().filter(|(name, tensor)| {
                let bytes = |t: &Tensor| -> Vec<u8> {
                    let values = t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                    values.into_iter().flat_map(f32::to_le_bytes).collect()
                };
                let of_ema = name.strip_prefix("ema_G.").and_then(|name| constants.get(name));
                of_ema.is_some_and(|constant| *constant == bytes(tensor))
            });
            let (same, all) = (same.count(), stored.keys().filter(|name| name.starts_with("ema_G.")).count());
            let running = stored.keys().filter(|name| name.starts_with("ema_G.") && name.contains(".running_")).count();
            let expected = if mode == "running" { all } else { all - running };
            let is_plain = arch.starts_with("cnn");
            assert!(same == expected || (!is_plain && same > expected / 3), "{arch} {mode}: {same} of {expected}");
        }
    }
}

/// A run of two steps.
fn trained(home: &Folder) -> PathBuf {
    let file = home.write("tiny.yaml", TINY);
    let output = home.join("out");
    let quick = ["--set", "train.steps=2", "--set", "eval.every=2", "--set", "eval.metrics=[fid, is]"];
    let (code, _, stderr) = run(&home.0, &experiment(&file, &output, &quick));
    assert_eq!(code, 0, "{stderr}");
    output.join("tiny-smoke/cnn32-pgn+cr-s0")
}

#[test]
fn an_exported_run_comes_back() {
    let home = Folder::new("export");
    let from = trained(&home);
    let to = exports(&home).join("trained");
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    let checkpoint = std::fs::read(from.join("checkpoint.safetensors")).unwrap();
    let (code, stdout, stderr) = export(&home, &from, &to, &[]);
    assert!(code == 0 && stdout.contains("step 2 of cnn32-pgn+cr-s0"), "{stdout}{stderr}");
    assert_eq!(std::fs::read(from.join("checkpoint.safetensors")).unwrap(), checkpoint);
    let mut names: Vec<String> =
        std::fs::read_dir(&to).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let files = [
        "README.md",
        "config.json",
        "generator.onnx",
        "generator.safetensors",
        "rows.parquet",
        "samples-ema.png",
        "samples-raw.png",
        "tensorboard",
    ];
    assert_eq!(names, files);
    let same = |name: &str| {
        assert_eq!(std::fs::read(from.join(name)).unwrap(), std::fs::read(to.join(name)).unwrap(), "{name}")
    };
    same("rows.parquet");
    same("config.json");
    same("tensorboard/events.out.tfevents.0000000002.pgn-bench");

    let card = std::fs::read_to_string(to.join("README.md")).unwrap();
    let front = card.strip_prefix("---\n").unwrap().split_once("\n---\n").unwrap().0;
    let front: serde_json::Value = yaml_serde::from_str(front).unwrap();
    let result = &front["model-index"][0]["results"][0];
    assert_eq!(
        (&result["task"]["type"], &result["dataset"]["name"]),
        (&"unconditional-image-generation".into(), &"shapes".into())
    );
    let rows = pgn_bench::results::read(&to.join("rows.parquet")).unwrap();
    let fid = rows.iter().rfind(|r| r.metric == "fid100_test" && r.weights == "ema").unwrap();
    let metric = result["metrics"].as_array().unwrap().iter().find(|m| m["name"] == "fid100_test (ema)").unwrap();
    assert_eq!((metric["type"].as_str(), metric["value"].as_f64()), (Some("fid"), Some(fid.value)));
    let protocol = metric["args"]["protocol"].as_str().unwrap();
    assert!(protocol.contains("100 images of the ema generator after 2 updates against the test split"), "{protocol}");
    assert!(card.contains("statistics of the batch") && card.contains("onnxruntime.InferenceSession"), "{card}");

    // Not over what is there, and back with the same images and numbers.
    let (code, _, stderr) = run(&home.0, &["export", from.to_str().unwrap(), "-o", to.to_str().unwrap()]);
    assert!(code == 2 && stderr.contains("name a new folder"), "{stderr}");
    let back = home.join("back");
    let import = ["import", to.to_str().unwrap(), "-o", back.to_str().unwrap()];
    let (code, stdout, stderr) = run(&home.0, &import);
    assert!(code == 0 && stdout.contains("has no net_D, optim_G, optim_D"), "{stdout}{stderr}");
    let (code, _, stderr) = run(&home.0, &import);
    assert!(code == 2 && stderr.contains("this cell was run before"), "{stderr}");
    let back = back.join("tiny-smoke/cnn32-pgn+cr-s0");
    for (name, more) in [
        ("grid.png", &["--generator", "raw"][..]),
        ("grid.png", &["--generator", "ema", "--seed", "4"]),
        ("all.safetensors", &["--batch-norm", "running"]),
    ] {
        let bytes = [&from, &back].map(|of| {
            let path = home.join(name);
            let args = ["sample", of.to_str().unwrap(), "-n", "8", "-o", path.to_str().unwrap()];
            assert_eq!(run(&home.0, &[&args[..], more].concat()).0, 0);
            std::fs::read(path).unwrap()
        });
        assert!(bytes[0] == bytes[1], "{name} {more:?}");
    }
    let [ours, theirs] = [&from, &back].map(|of| run(&home.0, &["eval", of.to_str().unwrap(), "--json"]));
    assert_eq!((ours.0, &ours.1), (0, &theirs.1), "{}", theirs.2);
    // What came back can be given on.
    let again = home.join("again");
    assert_eq!(export(&home, &back, &again, &[]).0, 0);
    assert_eq!(
        std::fs::read(again.join("generator.safetensors")).unwrap(),
        std::fs::read(to.join("generator.safetensors")).unwrap()
    );
}

#[test]
fn what_is_no_exported_run_is_refused() {
    let home = Folder::new("export-refused");
    let from = untrained(&home.0, "biggan32", 0.03);
    let file = from.join("checkpoint.safetensors");
    let (code, _, stderr) = run(&home.0, &["export", file.to_str().unwrap(), "-o", home.join("x").to_str().unwrap()]);
    assert!(code == 2 && stderr.contains("the folder of a run is exported"), "{stderr}");
    let to = home.join("folder");
    std::fs::create_dir(&to).unwrap();
    assert_eq!(run(&home.0, &["export", from.to_str().unwrap(), "-o", to.to_str().unwrap()]).0, 0, "into an empty one");
    let card = std::fs::read_to_string(to.join("README.md")).unwrap();
    assert!(
        card.contains("of 10 classes") && card.contains("\"y\": np.arange(64) % 10") && !card.contains("model-index")
    );

    let (generator, output) = (to.join("generator.safetensors"), home.join("back"));
    let import = |more: &[&str]| {
        run(&home.0, &[&["import", to.to_str().unwrap(), "-o", output.to_str().unwrap()], more].concat())
    };
    let (code, _, stderr) = import(&["--set", "train.width=0.5"]);
    assert!(code == 2 && stderr.contains("leave the experiment, --only and --set out"), "{stderr}");
    let whole = std::fs::read(&generator).unwrap();
    let of_width = b"\\\"width\\\":0.03";
    let header = whole.windows(of_width.len()).position(|w| w == of_width).unwrap();
    let mut wide = whole.clone();
    wide[header + 10..header + 14].copy_from_slice(b"7.99");
    for (bytes, said) in [
        (&wide[..], "numbers, but biggan32 of width 7.99 has"),
        (&whole[..whole.len() - 4], "not the generator of an exported run"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    ] {
        std::fs::write(&generator, bytes).unwrap();
        let (code, _, stderr) = import(&[]);
        assert!(code == 2 && stderr.contains(said) && !output.join("tiny-smoke").exists(), "{said}: {stderr}");
    }
    std::fs::remove_file(&generator).unwrap();
    let (code, _, stderr) = import(&[]);
    assert!(code == 2 && stderr.contains("generator.safetensors"), "{stderr}");
}
