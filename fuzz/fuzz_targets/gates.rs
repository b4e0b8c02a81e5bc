//! Files of gates, checked against rows.
#![no_main]

use std::io::Write;
use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pgn_bench::report::gate::{check, junit, overall, read, updated};
use pgn_bench::results::{self, Row};

static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../reports/cifar10-study/data");
    let files = results::find(&data).expect("the committed study");
    files.iter().take(4).flat_map(|file| results::read(file).expect("its rows")).collect()
});

fuzz_target!(|data: &[u8]| {
    let Ok(mut file) = tempfile::NamedTempFile::new() else { return };
    if file.write_all(data).is_ok()
        && let Ok(gates) = read(file.path())
    {
        let findings: Vec<_> = gates.gates.iter().map(|g| check(g, &ROWS, "gates.yaml")).collect();
        let _ = (junit(&findings), overall(&findings));
        let _: Vec<_> = gates.gates.iter().map(|g| updated(g, &ROWS)).collect();
    }
});
