//! Experiment files, at each of their scales.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgn_bench::config::Experiment;

fuzz_target!(|text: &str| {
    if let Ok(experiment) = Experiment::parse("fuzz.yaml", text, &[]) {
        for scale in experiment.scales() {
            // Cells of an accepted file are accepted when they come back from a run's folder.
            for cell in experiment.resolve(scale).into_iter().flatten() {
                assert!(cell.check("config.json".as_ref()).is_ok());
            }
        }
    }
});
