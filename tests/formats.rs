//! Files of every format as version 0.1 wrote them, read by today's code (the promise is in results/README.md). `tests/formats/0.1` is
//! never made anew: where this test cannot pass, the version that writes other files is a new one, with files of its own beside these.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use common::Folder;
use pgn_bench::export;
use pgn_bench::files::sha256;
use pgn_bench::metrics::npz;
use pgn_bench::nn::store::Store;
use pgn_bench::results;
use pgn_bench::train::checkpoint::{Part, Stored};
use pgn_bench::train::run::networks;

const ROWS: [(&str, &str, f64); 4] = [
    ("fid100_test", "raw", 2490.901847388841),
    ("is100", "raw", 1.1439052978981483),
    ("fid100_test", "ema", 2490.901847388841),
    ("is100", "ema", 1.1439052978981483),
];
/// By Python's safetensors and hashlib, as are the next: those as trained, and averaged.
const GENERATORS: [&str; 2] = ["7c4259b1ce094e28", "5e0b36c914eb24a7"];
const CRITIC: &str = "ebbad55d1ca79f2a";
const CONFIG_HASH: &str = "4b32e1dcb115f559";
/// By numpy: the first number of the mean, and the covariance's trace.
const STATISTICS: [f64; 2] = [-0.2092066432038943, 0.000454879954075097];

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/0.1").join(name)
}

/// SHA-256 of a network's numbers.
fn digest(of: [&Store; 2]) -> String {
    let bytes = |t: &Tensor| t.to_vec1::<f32>().unwrap().into_iter().flat_map(f32::to_le_bytes).collect::<Vec<_>>();
    sha256(&of.map(|store| bytes(store.flat())).concat())[..16].to_owned()
}

#[test]
fn rows_are_read_with_all_that_they_say() {
    let rows = results::read(&file("rows.parquet")).unwrap();
    let said: Vec<_> = rows.iter().map(|r| (r.metric.as_str(), r.weights.as_str(), r.value)).collect();
    assert_eq!(said, ROWS);
    let row = &rows[0];
    assert_eq!((row.status.as_str(), row.code_version.as_str(), row.order.as_ref()), ("evaluated", "0.1.0", None));
    let home = Folder::new("formats");
    results::write(&home.join("rows.parquet"), &rows).unwrap();
    assert_eq!(results::read(&home.join("rows.parquet")).unwrap(), rows);
}

#[test]
fn a_checkpoint_is_restored() {
    let stored = Stored::open(&file("checkpoint.safetensors")).unwrap();
    let cell = stored.progress.cell.clone();
    let (_, mut state) = networks(&cell, stored.progress.classes, &Device::Cpu).unwrap();
    let progress = stored.restore(&mut state).unwrap();
    assert_eq!((progress.step, progress.updates, cell.name().as_str()), (2, [4, 2], "cnn32-pgn+cr-s0"));
    // The same configuration has the same hash, which rows carry.
    assert_eq!((cell.hash().unwrap(), progress.config_hash), (CONFIG_HASH.to_owned(), CONFIG_HASH.to_owned()));
    let [raw, ema] = [&state.generator, &state.average].map(|g| digest([&g.params, &g.buffers]));
    assert_eq!([raw.as_str(), ema.as_str()], GENERATORS);
    assert_eq!(digest([&state.critic.params, &state.critic.buffers]), CRITIC);
}

#[test]
fn an_exported_generator_is_imported() {
    let (state, progress) = export::read(&file(""), &Device::Cpu).unwrap();
    assert_eq!((progress.step, Part::list(&progress.lacking).as_str()), (2, "net_D, optim_G, optim_D"));
    let [raw, ema] = [&state.generator, &state.average].map(|g| digest([&g.params, &g.buffers]));
    assert_eq!([raw.as_str(), ema.as_str()], GENERATORS);
}

#[test]
fn statistics_are_read_with_their_protocol() {
    let of = npz::read(&file("statistics.npz")).unwrap();
    let protocol = of.protocol.unwrap();
    let names = [protocol.extractor.as_str(), protocol.resize.as_str(), protocol.order.as_str()];
    assert_eq!((of.gaussian.n, names), (6, ["dinov2-vit-64x1-14", "dinov2-pil", "spread"]));
    let covariance = &of.gaussian.covariance;
    let trace: f64 = (0..of.gaussian.mean.len()).map(|i| covariance[(i, i)]).sum();
    assert!((of.gaussian.mean[0] - STATISTICS[0]).abs() < 1e-15 && (trace - STATISTICS[1]).abs() < 1e-15, "{trace}");
}
