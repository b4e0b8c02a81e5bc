//! A device emulated on the CPU: the kernels compiled as C++, a block's threads taken in turn from barrier to barrier, and
//! convolutions and matrix products as loops that sum in double. It is slow, and the proof of a GPU's code where there is none.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::LazyLock;

use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor, bail};
use rayon::prelude::*;

use super::call::{Call, Memory, Product, Word, Work};
use super::convolution::{Dims, Pass};
use super::interface::{Machine, Replay};
use super::kernels::{COUNTERS, SOURCE, WORDS};
use super::precision::Precision;

const SHIM: &str = include_str!("kernels/emulated.cpp");

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

type Run = unsafe extern "C" fn(*const c_void, *const u32, *const u32, *const u64);

/// The kernels of one element type.
struct Library(*mut c_void);

// SAFETY: a library's handle may be used from any thread; the emulation's state is the thread's own.
unsafe impl Send for Library {}
unsafe impl Sync for Library {}

impl Library {
    fn new(real: &str) -> std::result::Result<Self, String> {
        let folder = std::env::temp_dir().join(format!("pgn-bench-emulated-{}-{real}", std::process::id()));
        let failed = |what: String| format!("the emulated device needs g++: {what}");
        std::fs::create_dir_all(&folder).map_err(|e| failed(e.to_string()))?;
        let (source, library) = (folder.join("kernels.cpp"), folder.join("kernels.so"));
        let text = SHIM.replace("SOURCE_GOES_HERE", &format!("typedef {real} real;\n{SOURCE}"));
        std::fs::write(&source, text).map_err(|e| failed(e.to_string()))?;
        let flags = ["-O2", "-w", "-U_FORTIFY_SOURCE", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off", "-o"];
        let compiler = std::process::Command::new("g++").args(flags).arg(&library).arg(&source).output();
        let done = compiler.map_err(|e| failed(e.to_string()))?;
        if !done.status.success() {
            return Err(failed(String::from_utf8_lossy(&done.stderr).into_owned()));
        }
        let path = CString::new(library.to_string_lossy().as_bytes()).map_err(|e| failed(e.to_string()))?;
        // SAFETY: a path that ends in zero; the library runs nothing when it is opened.
        let opened = unsafe { dlopen(path.as_ptr(), 2) };
        let _ = std::fs::remove_dir_all(folder);
        if opened.is_null() { Err(failed("the kernels do not load".to_owned())) } else { Ok(Self(opened)) }
    }

    fn symbol(&self, name: &str) -> Result<*mut c_void> {
        let name = CString::new(name).map_err(candle_core::Error::wrap)?;
        // SAFETY: the library stays open, and the name ends in zero.
        let symbol = unsafe { dlsym(self.0, name.as_ptr()) };
        if symbol.is_null() {
            bail!("there is no kernel {name:?}")
        }
        Ok(symbol)
    }
}

fn library(element: DType) -> Result<&'static Library> {
    type Compiled = LazyLock<std::result::Result<Library, String>>;
    static SINGLE: Compiled = LazyLock::new(|| Library::new("float"));
    static DOUBLE: Compiled = LazyLock::new(|| Library::new("double"));
    let compiled = if element == DType::F64 { &DOUBLE } else { &SINGLE };
    compiled.as_ref().map_err(candle_core::Error::msg)
}

/// The device.
pub struct Emulated {
    /// Whether convolutions take channels last; a GPU takes f64 with the channels first.
    channels_last: bool,
    counters: Box<[Cell<u32>]>,
    /// Allocations so far.
    pub allocations: Cell<usize>,
    known: std::cell::RefCell<HashMap<(&'static str, bool), [usize; 2]>>,
}

impl Emulated {
    /// The device, whose kernels are compiled when they are first launched.
    pub fn new(channels_last: bool) -> Self {
        Self {
            channels_last,
            counters: vec![Cell::new(0); COUNTERS].into(),
            allocations: Cell::new(0),
            known: Default::default(),
        }
    }

    /// Addresses of a kernel, and of what its name says to the runner.
    fn kernel(&self, name: &'static str, element: DType) -> Result<[usize; 2]> {
        let key = (name, element == DType::F64);
        if let Some(&known) = self.known.borrow().get(&key) {
            return Ok(known);
        }
        let library = library(element)?;
        let run = if library.symbol(&format!("meets_{name}")).is_ok() { "run_meeting" } else { "run" };
        let found = [library.symbol(&format!("k_{name}"))? as usize, library.symbol(run)? as usize];
        self.known.borrow_mut().insert(key, found);
        Ok(found)
    }
}

/// Address of a contiguous tensor on the CPU.
pub(super) fn address(t: &Tensor) -> Result<u64> {
    let (storage, layout) = t.storage_and_layout();
    let (Storage::Cpu(storage), Some((start, _))) = (&*storage, layout.contiguous_offsets()) else {
        bail!("expected a contiguous tensor on the CPU, got {:?}", t.dims())
    };
    let bytes = (start * t.dtype().size_in_bytes()) as u64;
    let at = match storage {
        CpuStorage::U8(v) => v.as_ptr() as u64,
        CpuStorage::I64(v) => v.as_ptr() as u64,
        CpuStorage::BF16(v) => v.as_ptr() as u64,
        CpuStorage::F32(v) => v.as_ptr() as u64,
        CpuStorage::F64(v) => v.as_ptr() as u64,
        _ => bail!("no machine takes elements of {:?}", t.dtype()),
    };
    Ok(at + bytes)
}

/// Elements at an address.
///
/// # Safety
/// It holds as many of this type, and nobody else writes them meanwhile.
unsafe fn elements<'a, T>(memory: Memory) -> &'a mut [T] {
    // SAFETY: as the caller says.
    unsafe { std::slice::from_raw_parts_mut(memory.at as *mut T, memory.bytes as usize / size_of::<T>()) }
}

fn of_bf16(bits: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(bits) << 16))
}

/// The nearest number with so many bits of mantissa less than an f32 has, ties to even.
fn rounded(value: f64, less: u32) -> f32 {
    let bits = (value as f32).to_bits();
    let even = bits >> less & 1;
    f32::from_bits((bits + ((1 << (less - 1)) - 1) + even) & !((1 << less) - 1))
}

fn read(memory: Memory, element: DType) -> Vec<f64> {
    // SAFETY: operands of a call hold what it says.
    unsafe {
        match element {
            DType::F64 => elements::<f64>(memory).to_vec(),
            DType::BF16 => elements::<u16>(memory).iter().map(|&h| of_bf16(h)).collect(),
            _ if Precision::current() == Precision::Tf32 => {
                elements::<f32>(memory).iter().map(|&v| f64::from(rounded(f64::from(v), 13))).collect()
            }
            _ => elements::<f32>(memory).iter().map(|&v| f64::from(v)).collect(),
        }
    }
}

fn write(memory: Memory, element: DType, values: &[f64], add: bool) {
    let old = |v: f64| if add { v } else { 0.0 };
    // SAFETY: operands of a call hold what it says.
    unsafe {
        match element {
            DType::F64 => elements::<f64>(memory).iter_mut().zip(values).for_each(|(o, v)| *o = old(*o) + v),
            DType::BF16 => elements::<u16>(memory)
                .iter_mut()
                .zip(values)
                .for_each(|(o, v)| *o = (rounded(old(of_bf16(*o)) + v, 16).to_bits() >> 16) as u16),
            _ => elements::<f32>(memory).iter_mut().zip(values).for_each(|(o, v)| *o = (old(f64::from(*o)) + v) as f32),
        }
    }
}

/// `[outer, rows, columns]` to `[outer, columns, rows]`.
fn exchanged(x: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    let area = rows * columns;
    (0..x.len()).map(|i| x[i / area * area + i % rows * columns + i % area / rows]).collect()
}

fn convolve(pass: Pass, d: &Dims, [x, w, y]: [&[f64]; 3]) -> Vec<f64> {
    let area = |size: [usize; 2]| size[0] * size[1];
    let (taps, [of_input, of_output]) = (area(d.kernel), d.of_group());
    // For each output position and tap, the input pixel that meets there.
    let meet = |position: usize, tap: usize| {
        let p = [position / d.output[1], position % d.output[1]];
        let t = [tap / d.kernel[1], tap % d.kernel[1]];
        let from = [0, 1].map(|a| (p[a] * d.spec.stride + t[a]).wrapping_sub(d.spec.padding[a]));
        (from[0] < d.input[0] && from[1] < d.input[1]).then(|| from[0] * d.input[1] + from[1])
    };
    let pairs: Vec<[usize; 3]> =
        (0..area(d.output)).flat_map(|p| (0..taps).filter_map(move |t| meet(p, t).map(|from| [p, t, from]))).collect();
    // The input channels of the group of an output channel.
    let x_at = |n: usize, pixel: usize, o: usize| (n * area(d.input) + pixel) * d.i + o / of_output * of_input;
    let y_at = |n: usize, pixel: usize| (n * area(d.output) + pixel) * d.o;
    let w_at = |o: usize, tap: usize| (o * taps + tap) * of_input;
    match pass {
        Pass::Forward => {
            let mut out = vec![0.0; d.n * area(d.output) * d.o];
            out.par_chunks_mut((area(d.output) * d.o).max(1)).enumerate().for_each(|(n, out)| {
                for &[p, t, from] in &pairs {
                    for o in 0..d.o {
                        let (x, w) = (&x[x_at(n, from, o)..][..of_input], &w[w_at(o, t)..][..of_input]);
                        out[p * d.o + o] += x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
                    }
                }
            });
            out
        }
        Pass::InputGrad => {
            let mut out = vec![0.0; d.n * area(d.input) * d.i];
            out.par_chunks_mut((area(d.input) * d.i).max(1)).enumerate().for_each(|(n, out)| {
                for &[p, t, from] in &pairs {
                    for o in 0..d.o {
                        let y = y[y_at(n, p) + o];
                        let w = &w[w_at(o, t)..][..of_input];
                        out[x_at(0, from, o)..][..of_input].iter_mut().zip(w).for_each(|(x, w)| *x += y * w);
                    }
                }
            });
            out
        }
        Pass::WeightGrad => {
            let mut out = vec![0.0; d.o * taps * of_input];
            out.par_chunks_mut((taps * of_input).max(1)).enumerate().for_each(|(o, out)| {
                for n in 0..d.n {
                    for &[p, t, from] in &pairs {
                        let y = y[y_at(n, p) + o];
                        let x = &x[x_at(n, from, o)..][..of_input];
                        out[t * of_input..][..of_input].iter_mut().zip(x).for_each(|(w, x)| *w += y * x);
                    }
                }
            });
            out
        }
    }
}

fn product(product: &Product, a: &[f64], b: &[f64]) -> Vec<f64> {
    let [m, n, k] = product.size;
    let a = if product.transposed[0] { exchanged(a, k, m) } else { a.to_vec() };
    let b = if product.transposed[1] { b.to_vec() } else { exchanged(b, k, n) };
    let mut out = vec![0.0; m * n];
    out.par_chunks_mut(n.max(1)).zip(a.par_chunks(k.max(1))).for_each(|(out, a)| {
        for (o, b) in out.iter_mut().zip(b.chunks(k.max(1))) {
            *o = a.iter().zip(b).map(|(a, b)| a * b).sum();
        }
    });
    out
}

/// Calls, made one after the other.
struct List(Vec<Call>, std::rc::Rc<Emulated>);

impl Replay for List {
    fn replay(&self) -> Result<()> {
        self.0.iter().try_for_each(|call| self.1.run(call))
    }
}

impl Machine for Emulated {
    fn alloc(&self, dims: &[usize], dtype: DType) -> Result<Tensor> {
        self.allocations.update(|n| n + 1);
        // Whatever is not written shows as NaN.
        match dtype {
            DType::F32 | DType::F64 | DType::BF16 => Tensor::full(f32::NAN, dims, &Device::Cpu)?.to_dtype(dtype),
            DType::U8 => Tensor::full(255u8, dims, &Device::Cpu),
            _ => Tensor::zeros(dims, dtype, &Device::Cpu),
        }
    }

    fn address(&self, t: &Tensor) -> Result<u64> {
        address(t)
    }

    fn send(&self, numbers: &[f32], into: &Tensor) -> Result<()> {
        if numbers.len() > into.elem_count() {
            bail!("{} numbers into {:?}", numbers.len(), into.dims())
        }
        let bytes = (numbers.len() * into.dtype().size_in_bytes()) as u64;
        let values: Vec<f64> = numbers.iter().map(|&v| f64::from(v)).collect();
        write(Memory { at: address(into)?, bytes }, into.dtype(), &values, false);
        Ok(())
    }

    fn channels_last(&self, _: Pass, _: &Dims, _: DType) -> Result<bool> {
        Ok(self.channels_last)
    }

    fn run(&self, call: &Call) -> Result<()> {
        let element = call.element;
        match &call.work {
            Work::Launch { kernel, grid, block, words } => {
                let [function, run] = self.kernel(kernel, element)?;
                let words: [u64; WORDS] = words.map(|word| match word {
                    Word::Nothing => 0,
                    Word::Count(n) => n,
                    Word::Value(v) => v.to_bits(),
                    Word::Memory(memory) => memory.at,
                    Word::Counters => self.counters.as_ptr() as u64,
                });
                let (grid, block) = (grid.map(|g| g as u32), block.map(|b| b as u32));
                // SAFETY: the library's own function, and a kernel of it, over memory that the call's operands own.
                unsafe {
                    let run: Run = std::mem::transmute::<usize, Run>(run);
                    run(function as *const c_void, grid.as_ptr(), block.as_ptr(), words.as_ptr());
                }
                if self.counters.iter().any(|c| c.get() != 0) {
                    bail!("{kernel} left counters that are not zero")
                }
            }
            Work::Convolve { pass, dims, channels_last, sides } => {
                let area = |size: [usize; 2]| size[0] * size[1];
                // Rows and columns that channels first exchange.
                let extents =
                    [[dims.i, area(dims.input)], [dims.of_group()[0], area(dims.kernel)], [dims.o, area(dims.output)]];
                let which = match pass {
                    Pass::Forward => 2,
                    Pass::InputGrad => 0,
                    Pass::WeightGrad => 1,
                };
                let read = |k: usize| match (k == which, channels_last) {
                    (true, _) => Vec::new(),
                    (false, true) => read(sides[k], element),
                    (false, false) => exchanged(&read(sides[k], element), extents[k][0], extents[k][1]),
                };
                let [x, w, y] = [read(0), read(1), read(2)];
                let mut out = convolve(*pass, dims, [&x, &w, &y]);
                if !channels_last {
                    out = exchanged(&out, extents[which][1], extents[which][0]);
                }
                write(sides[which], element, &out, call.add);
            }
            Work::Product { product: p, sides: [a, b, out] } => {
                write(*out, element, &product(p, &read(*a, element), &read(*b, element)), call.add);
            }
        }
        Ok(())
    }

    fn ready(&self, calls: Vec<Call>) -> Result<Box<dyn Replay>> {
        Ok(Box::new(List(calls, std::rc::Rc::new(Self::new(self.channels_last)))))
    }

    fn timed(&self, calls: &[Call], rounds: usize) -> Result<Vec<f64>> {
        let mut seconds = vec![0.0; calls.len()];
        for _ in 0..rounds {
            for (seconds, call) in seconds.iter_mut().zip(calls) {
                let start = std::time::Instant::now();
                self.run(call)?;
                *seconds = start.elapsed().as_secs_f64();
            }
        }
        Ok(seconds)
    }
}
