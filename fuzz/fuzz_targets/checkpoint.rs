//! Checkpoints: header, scalars, and tensors put into small networks.
#![no_main]

use std::cell::RefCell;
use std::io::Write;

use candle_core::Device;
use libfuzzer_sys::fuzz_target;
use pgn_bench::config::Experiment;
use pgn_bench::train::checkpoint::Stored;
use pgn_bench::train::run::networks;
use pgn_bench::train::step::State;

const FILE: &str = include_str!("checkpoint.yaml");

thread_local! {
    static STATE: RefCell<State> = RefCell::new({
        let cells = Experiment::parse("checkpoint.yaml", FILE, &[]).and_then(|e| e.resolve("smoke")).expect("cells");
        networks(&cells[0], 2, &Device::Cpu).expect("networks").1
    });
}

fuzz_target!(|data: &[u8]| {
    let Ok(mut file) = tempfile::NamedTempFile::new() else { return };
    if file.write_all(data).is_ok()
        && let Ok(stored) = Stored::open(file.path())
    {
        STATE.with_borrow_mut(|state| drop(stored.restore(state)));
    }
});
