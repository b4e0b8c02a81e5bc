//! Calls that were made once, to be made again with other numbers in the same places.
//!
//! While a program is recorded, every call is made as ever and noted. What was allocated on the way becomes a place in one
//! arena, alive from the first call that touches it to the last, so that the calls need no memory of their own and no allocation
//! when they are made again. All other memory must be named before: it stays where it is, and holds what goes in and comes out.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, bail};

use super::call::{Call, Memory};
use super::current;
use super::interface::{Machine, Replay};

/// Addresses with this bit are places in the arena: a buffer's number and a distance from its start.
const ARENA: u64 = 1 << 63;
/// Bits of the distance.
const DISTANCE: u32 = 40;
/// Buffers start at multiples of this.
const ALIGNMENT: u64 = 256;

thread_local! {
    static RECORDING: RefCell<Option<Recording>> = const { RefCell::new(None) };
    static STAGE: Cell<&'static str> = const { Cell::new("") };
}

/// Runs `work` as a part of a program that is known by a name: its calls bear it.
pub fn stage<R>(name: &'static str, work: impl FnOnce() -> R) -> R {
    let before = STAGE.replace(name);
    let result = work();
    STAGE.set(before);
    result
}

#[derive(Default)]
struct Recording {
    /// Start of memory that belongs to whoever allocated it last: its bytes and number.
    live: BTreeMap<u64, (u64, usize)>,
    buffers: Vec<Buffer>,
    fixed: Vec<Memory>,
    calls: Vec<Call>,
    stages: Vec<&'static str>,
}

#[derive(Clone, Copy)]
struct Buffer {
    bytes: u64,
    /// First and last call that touch it.
    span: Option<[usize; 2]>,
}

impl Recording {
    fn allocated(&mut self, memory: Memory) {
        let end = memory.at + memory.bytes;
        // Whatever lay there is freed.
        let gone = |(&start, &(bytes, _)): (&u64, &(u64, usize))| (start + bytes > memory.at).then_some(start);
        let gone: Vec<u64> = self.live.range(..end).rev().map_while(gone).collect();
        for start in gone {
            self.live.remove(&start);
        }
        self.live.insert(memory.at, (memory.bytes, self.buffers.len()));
        self.buffers.push(Buffer { bytes: memory.bytes, span: None });
    }

    fn called(&mut self, call: &Call) -> Result<()> {
        let number = self.calls.len();
        let placed = call.moved(|memory| {
            let holds = |start: u64, bytes: u64| memory.at >= start && memory.at + memory.bytes <= start + bytes;
            if let Some((&start, &(bytes, buffer))) = self.live.range(..=memory.at).next_back()
                && holds(start, bytes)
            {
                let span = &mut self.buffers[buffer].span;
                *span = Some([span.map_or(number, |[first, _]| first), number]);
                let at = ARENA | (buffer as u64) << DISTANCE | (memory.at - start);
                return Ok(Memory { at, ..memory });
            }
            if self.fixed.iter().any(|fixed| holds(fixed.at, fixed.bytes)) {
                return Ok(memory);
            }
            bail!("{}: the program that is recorded does not know an operand of {} bytes", call.name(), memory.bytes)
        })?;
        self.calls.push(placed);
        self.stages.push(STAGE.get());
        Ok(())
    }
}

/// Notes memory that was allocated, where a program is recorded.
pub(super) fn allocated(memory: Memory) {
    RECORDING.with_borrow_mut(|recording| {
        if let Some(recording) = recording {
            recording.allocated(memory);
        }
    });
}

/// Notes a call that is about to be made, where a program is recorded.
pub(super) fn called(call: &Call) -> Result<()> {
    RECORDING.with_borrow_mut(|recording| recording.as_mut().map_or(Ok(()), |recording| recording.called(call)))
}

/// Recorded calls.
pub struct Program {
    calls: Vec<Call>,
    /// What each call is a part of.
    stages: Vec<&'static str>,
    /// Where each buffer lies in the arena.
    places: Vec<u64>,
    /// Bytes of the arena.
    pub arena_bytes: u64,
    /// Buffers in the arena.
    pub buffers: usize,
    /// Keeps in memory what the calls find where it was.
    fixed: Vec<Tensor>,
    device: Device,
}

/// Makes the calls of `work` on a device and records them. `fixed` is all memory beside what is allocated meanwhile that they may
/// touch, and stays where it is.
///
/// # Errors
/// When `work` fails, touches other memory, or the device has no machine.
pub fn record(device: &Device, fixed: Vec<Tensor>, work: impl FnOnce() -> Result<()>) -> Result<Program> {
    let machine = machine(device)?;
    let memory = |t: &Tensor| -> Result<Memory> {
        Ok(Memory { at: machine.address(t)?, bytes: (t.elem_count() * t.dtype().size_in_bytes()) as u64 })
    };
    let fixed: Vec<Tensor> = fixed.into_iter().filter(|t| t.elem_count() > 0).collect();
    let known = fixed.iter().map(memory).collect::<Result<_>>()?;
    RECORDING.set(Some(Recording { fixed: known, ..Recording::default() }));
    let done = work();
    let Some(Recording { buffers, calls, stages, .. }) = RECORDING.take() else {
        bail!("a program was recorded within another")
    };
    done?;
    let (places, arena_bytes) = placed(&buffers);
    let used = buffers.iter().filter(|b| b.span.is_some()).count();
    Ok(Program { calls, stages, places, arena_bytes, buffers: used, fixed, device: device.clone() })
}

fn machine(device: &Device) -> Result<std::rc::Rc<dyn Machine>> {
    match current::of(device)? {
        Some(machine) => Ok(machine),
        None => bail!("nothing is recorded on the cpu"),
    }
}

/// A place for each buffer such that no two which live at once overlap, large ones first at the lowest place that is free.
fn placed(buffers: &[Buffer]) -> (Vec<u64>, u64) {
    let mut order: Vec<usize> = (0..buffers.len()).filter(|&k| buffers[k].span.is_some()).collect();
    order.sort_by_key(|&k| std::cmp::Reverse(buffers[k].bytes));
    let mut places = vec![0; buffers.len()];
    let (mut done, mut end): (Vec<usize>, u64) = (Vec::new(), 0);
    let meet = |a: usize, b: usize| match (buffers[a].span, buffers[b].span) {
        (Some([a0, a1]), Some([b0, b1])) => a0 <= b1 && b0 <= a1,
        _ => false,
    };
    for k in order {
        let size = buffers[k].bytes.next_multiple_of(ALIGNMENT);
        let mut taken: Vec<[u64; 2]> =
            done.iter().filter(|&&d| meet(d, k)).map(|&d| [places[d], buffers[d].bytes]).collect();
        taken.sort_unstable();
        let mut at = 0;
        for [from, bytes] in taken {
            if at + size <= from {
                break;
            }
            at = at.max((from + bytes).next_multiple_of(ALIGNMENT));
        }
        places[k] = at;
        end = end.max(at + size);
        done.push(k);
    }
    (places, end)
}

/// A program in memory of its own, ready to be run.
pub struct Loaded {
    replay: Box<dyn Replay>,
    calls: Vec<Call>,
    stages: Vec<&'static str>,
    machine: std::rc::Rc<dyn Machine>,
    _memory: Vec<Tensor>,
}

impl Program {
    /// The calls, with addresses of which those in the arena mean nothing.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// Bytes that the calls read and write.
    pub fn bytes(&self) -> u64 {
        self.calls.iter().flat_map(Call::memory).map(|m| m.bytes).sum()
    }

    /// Gives it its arena.
    ///
    /// # Errors
    /// When the device has not the memory, or refuses a call.
    pub fn load(&self) -> Result<Loaded> {
        let machine = machine(&self.device)?;
        // The arena's start is aligned by whole blocks more.
        let arena = machine.alloc(&[(self.arena_bytes + ALIGNMENT) as usize], DType::U8)?;
        let start = machine.address(&arena)?.next_multiple_of(ALIGNMENT);
        let at = |memory: Memory| -> Result<Memory> {
            if memory.at & ARENA == 0 {
                return Ok(memory);
            }
            let (buffer, distance) = ((memory.at & !ARENA) >> DISTANCE, memory.at & ((1 << DISTANCE) - 1));
            Ok(Memory { at: start + self.places[buffer as usize] + distance, ..memory })
        };
        let calls = self.calls.iter().map(|call| call.moved(at)).collect::<Result<Vec<_>>>()?;
        let replay = machine.ready(calls.clone())?;
        let memory = self.fixed.iter().cloned().chain([arena]).collect();
        Ok(Loaded { replay, calls, stages: self.stages.clone(), machine, _memory: memory })
    }
}

impl Loaded {
    /// Makes all calls.
    ///
    /// # Errors
    /// When the device refuses one.
    pub fn run(&self) -> Result<()> {
        self.replay.replay()
    }

    /// Each call with what it is a part of and the seconds it takes.
    ///
    /// # Errors
    /// When the device refuses one.
    pub fn timed(&self, rounds: usize) -> Result<Vec<(&Call, &'static str, f64)>> {
        let seconds = self.machine.timed(&self.calls, rounds)?;
        Ok(self.calls.iter().zip(&self.stages).zip(seconds).map(|((call, stage), s)| (call, *stage, s)).collect())
    }
}
