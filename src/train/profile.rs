//! Where the time of a device's training updates goes: by part and by what is called, beside what the device does at most.

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::{DType, Result, bail};
use serde::Serialize;

use super::update::{Update, What};
use crate::machine::call::{Call, Memory, Product, Word, Work};
use crate::machine::compute::Compute;
use crate::machine::current;
use crate::machine::kernels::{THREADS, WORDS};
use crate::machine::precision::Precision;
use crate::machine::program::Program;

/// What a device does at most, measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Peak {
    /// Operations a second of a large matrix product in the precision of the updates.
    pub flops: f64,
    /// Bytes a second that a large copy reads and writes.
    pub bytes: f64,
}

/// Calls of one name in one part of an update.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The part.
    pub stage: &'static str,
    /// Kernel, or what a library does.
    pub name: &'static str,
    /// Calls.
    pub launches: usize,
    /// Seconds of all of them, between events around each.
    pub seconds: f64,
    /// Bytes that they read and write.
    pub bytes: u64,
    /// Operations of convolutions and products.
    pub flops: u64,
}

/// One kind of update.
#[derive(Clone, Debug, Serialize)]
pub struct Recording {
    /// Seconds of an update, the median of several that are made without a wait between them.
    pub seconds: f64,
    /// Calls.
    pub launches: usize,
    /// Bytes that they read and write.
    pub bytes: u64,
    /// Operations of convolutions and products.
    pub flops: u64,
    /// Allocations that became places of the arena.
    pub allocations: usize,
    /// Bytes of the arena.
    pub arena_bytes: u64,
    /// By part and name, the longest first.
    pub lines: Vec<Line>,
}

/// Seconds of one of `burst` runs without a wait between them, the median of `repeat` such bursts; the first one is not counted.
///
/// # Errors
/// When the device fails.
pub fn timed(update: &mut Update, what: What, [repeat, burst]: [usize; 2]) -> crate::error::Result<Vec<f64>> {
    update.run(what)?;
    update.wait()?;
    let mut seconds = Vec::new();
    for _ in 0..repeat {
        let start = Instant::now();
        for _ in 0..burst {
            update.run(what)?;
        }
        update.wait()?;
        seconds.push(start.elapsed().as_secs_f64() / burst as f64);
    }
    Ok(seconds)
}

/// The median.
pub fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Times every call of a recorded update; `seconds` is what the whole takes.
///
/// # Errors
/// When the device fails.
pub fn profile(program: &Program, seconds: f64, rounds: usize) -> Result<Recording> {
    let loaded = program.load()?;
    let mut lines: BTreeMap<(&str, &str), Line> = BTreeMap::new();
    for (call, stage, seconds) in loaded.timed(rounds)? {
        let (name, none) = (call.name(), |name| Line { stage, name, launches: 0, seconds: 0.0, bytes: 0, flops: 0 });
        let line = lines.entry((stage, name)).or_insert_with(|| none(name));
        line.launches += 1;
        line.seconds += seconds;
        line.bytes += call.memory().iter().map(|m| m.bytes).sum::<u64>();
        line.flops += call.flops();
    }
    let mut lines: Vec<Line> = lines.into_values().collect();
    lines.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Ok(Recording {
        seconds,
        launches: program.calls().len(),
        bytes: program.bytes(),
        flops: program.calls().iter().map(Call::flops).sum(),
        allocations: program.buffers,
        arena_bytes: program.arena_bytes,
        lines,
    })
}

/// Measures a product of `side`×`side` matrices and a copy of as many numbers.
///
/// # Errors
/// On the CPU, or when the device fails.
pub fn peak(compute: &Compute, side: usize) -> Result<Peak> {
    let Some(machine) = current::of(&compute.device)? else { bail!("the peak of devices only is measured") };
    let element = if compute.precision == Precision::Bf16 { DType::BF16 } else { DType::F32 };
    let memory = |dtype: DType| -> Result<_> {
        let tensor = machine.alloc(&[side, side], dtype)?;
        let memory = Memory { at: machine.address(&tensor)?, bytes: (side * side * dtype.size_in_bytes()) as u64 };
        Ok((tensor, memory))
    };
    let [a, b, out] = [memory(element)?, memory(element)?, memory(element)?];
    let [from, to] = [memory(DType::F32)?, memory(DType::F32)?];
    // Halves are cleared as the reals that lie there.
    let clear = |memory: Memory| {
        let reals = memory.bytes as usize / 4;
        let mut words = [Word::Nothing; WORDS];
        words[..3].copy_from_slice(&[Word::from(reals), memory.into(), Word::from(0.0)]);
        let grid = [reals.div_ceil(THREADS).clamp(1, 1 << 20), 1, 1];
        let work = Work::Launch { kernel: "fill", grid, block: [THREADS, 1], words };
        Call { work, element: DType::F32, add: false }
    };
    let product = Product { size: [side; 3], transposed: [false; 2] };
    let product = Call { work: Work::Product { product, sides: [a.1, b.1, out.1] }, element, add: false };
    let mut words = [Word::Nothing; WORDS];
    words[..4].copy_from_slice(&[Word::from(side * side), to.1.into(), to.1.into(), from.1.into()]);
    let grid = [(side * side).div_ceil(THREADS).clamp(1, 1 << 20), 1, 1];
    let work = Work::Launch { kernel: "copy", grid, block: [THREADS, 1], words };
    let copy = Call { work, element: DType::F32, add: false };
    let calls = [clear(a.1), clear(b.1), clear(from.1), clear(to.1), product, copy];
    let seconds = machine.timed(&calls, 5)?;
    Ok(Peak { flops: product.flops() as f64 / seconds[4], bytes: 2.0 * from.1.bytes as f64 / seconds[5] })
}
