//! A device emulated on the CPU: the kernels compiled as C++, a block's threads taken in turn from barrier to barrier, and
//! convolutions and matrix products as loops. With `PGN_BENCH_EMULATE=1` every f64 operator that a test of this crate runs
//! on the CPU also runs here, in both layouts, and the two must agree.

use std::cell::Cell;
use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::LazyLock;

use candle_core::{DType, Result, Shape, Storage, Tensor, bail};

use super::kernels::{SOURCE, WORDS};
use super::{Array, Machine, Pass, Product};
use crate::nn::conv::Dims;
use crate::nn::op::{InPlace, Op1, Op2, Op3, in_place_on};

/// Difference that the order of sums may make, relative to the norm of the result.
const TOLERANCE: f64 = 1e-12;

const SHIM: &str = r#"
#include <cmath>
#include <cstdlib>
#include <ucontext.h>
#include <vector>
using std::sqrt;
using std::tanh;
struct Place { unsigned x, y, z; };
static thread_local Place threadIdx, blockIdx, blockDim, gridDim;
static thread_local ucontext_t scheduler, *current;
#define __global__
#define __device__ static
#define __shared__ static thread_local
__attribute__((noinline)) static void __syncthreads() { swapcontext(current, &scheduler); }
typedef double real;
"#;

const RUNNER: &str = r#"
typedef void (*Kernel)(Words);
static thread_local Kernel running;
static thread_local const Words *given;
static thread_local bool *ended;
static void thread_of_block() {
    running(*given);
    *ended = true;
}
extern "C" void run(Kernel kernel, const unsigned *grid, const unsigned *block, const Words *words) {
    const unsigned threads = block[0] * block[1];
    const size_t stack = 64 << 10;
    std::vector<char> stacks(threads * stack);
    std::vector<ucontext_t> contexts(threads);
    running = kernel, given = words;
    gridDim = {grid[0], grid[1], grid[2]}, blockDim = {block[0], block[1], 1};
    for (unsigned b = 0; b < grid[0] * grid[1] * grid[2]; b++) {
        blockIdx = {b % grid[0], b / grid[0] % grid[1], b / grid[0] / grid[1]};
        bool *done = (bool *)calloc(threads, 1);
        for (unsigned t = 0; t < threads; t++) {
            getcontext(&contexts[t]);
            contexts[t].uc_stack.ss_sp = &stacks[t * stack];
            contexts[t].uc_stack.ss_size = stack;
            contexts[t].uc_link = &scheduler;
            makecontext(&contexts[t], thread_of_block, 0);
        }
        for (bool left = true; left;) {
            left = false;
            for (unsigned t = 0; t < threads; t++) {
                if (done[t]) continue;
                threadIdx = {t % block[0], t / block[0], 0};
                current = &contexts[t], ended = &done[t];
                swapcontext(&scheduler, current);
                left |= !done[t];
            }
        }
        free(done);
    }
}
"#;

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

pub struct Library(*mut c_void);

// SAFETY: a library's handle may be used from any thread; the emulation's state is the thread's own.
unsafe impl Send for Library {}
unsafe impl Sync for Library {}

impl Library {
    fn symbol(&self, name: &str) -> *mut c_void {
        let symbol = unsafe { dlsym(self.0, CString::new(name).unwrap().as_ptr()) };
        assert!(!symbol.is_null(), "no kernel {name}");
        symbol
    }
}

/// The compiled kernels, where the emulation was asked for.
pub static LIBRARY: LazyLock<Option<Library>> = LazyLock::new(|| {
    if std::env::var_os("PGN_BENCH_EMULATE").is_none() {
        println!("skipped: the device's kernels are not emulated without PGN_BENCH_EMULATE=1 (needs g++)");
        return None;
    }
    let folder = std::env::temp_dir().join(format!("pgn-bench-emulated-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (source, library) = (folder.join("kernels.cpp"), folder.join("kernels.so"));
    std::fs::write(&source, format!("{SHIM}{SOURCE}{RUNNER}")).unwrap();
    let flags = ["-O1", "-w", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off", "-o"];
    let done = std::process::Command::new("g++").args(flags).arg(&library).arg(&source).status().unwrap();
    assert!(done.success(), "the kernels do not compile");
    let path = CString::new(library.to_str().unwrap()).unwrap();
    let opened = unsafe { dlopen(path.as_ptr(), 2) };
    assert!(!opened.is_null());
    std::fs::remove_dir_all(folder).unwrap();
    Some(Library(opened))
});

/// A machine that computes in f64 with the channels of a convolution last or first.
pub struct Emulated<const LAST: bool>(pub &'static Library);

fn doubles(t: &Tensor) -> Result<u64> {
    let (storage, layout) = t.storage_and_layout();
    let (Storage::Cpu(storage), Some((start, _))) = (&*storage, layout.contiguous_offsets()) else {
        bail!("expected a contiguous tensor on the CPU")
    };
    Ok(storage.as_slice::<f64>()?[start..].as_ptr() as u64)
}

impl<const LAST: bool> Machine for Emulated<LAST> {
    // Whatever is not written shows as NaN.
    type Buffer = Vec<Cell<f64>>;
    const BYTES: usize = 8;

    fn alloc(&self, elements: usize) -> Result<Self::Buffer> {
        Ok(vec![Cell::new(f64::NAN); elements])
    }

    fn at(&self, buffer: &Self::Buffer) -> u64 {
        buffer.as_ptr() as u64
    }

    fn address(&self, _: &str, t: &Tensor) -> Result<u64> {
        doubles(t)
    }

    fn launch(&self, kernel: &'static str, grid: [usize; 3], block: [usize; 2], words: [u64; WORDS]) -> Result<()> {
        type Run = unsafe extern "C" fn(*mut c_void, *const u32, *const u32, *const u64);
        let run: Run = unsafe { std::mem::transmute(self.0.symbol("run")) };
        let (grid, block) = (grid.map(|g| g as u32), block.map(|b| b as u32));
        unsafe { run(self.0.symbol(&format!("k_{kernel}")), grid.as_ptr(), block.as_ptr(), words.as_ptr()) };
        Ok(())
    }

    fn channels_last(&self, _: Pass, _: &Dims) -> Result<bool> {
        Ok(LAST)
    }

    fn convolve(&self, pass: Pass, d: &Dims, _: bool, [x, w, y]: [u64; 3]) -> Result<()> {
        let image = |n, size: [usize; 2], channels, [r, c]: [usize; 2], k| match LAST {
            true => ((n * size[0] + r) * size[1] + c) * channels + k,
            false => ((n * channels + k) * size[0] + r) * size[1] + c,
        };
        let weight = |o, i, [r, c]: [usize; 2]| match LAST {
            true => ((o * d.kernel[0] + r) * d.kernel[1] + c) * d.i + i,
            false => ((o * d.i + i) * d.kernel[0] + r) * d.kernel[1] + c,
        };
        let cells = |at: u64, len| unsafe { std::slice::from_raw_parts(at as *const Cell<f64>, len) };
        let area = |size: [usize; 2]| size[0] * size[1];
        let x = cells(x, d.n * d.i * area(d.input));
        let w = cells(w, d.o * d.i * area(d.kernel));
        let y = cells(y, d.n * d.o * area(d.output));
        let out = match pass {
            Pass::Forward => y,
            Pass::InputGrad => x,
            Pass::WeightGrad => w,
        };
        out.iter().for_each(|v| v.set(0.0));
        for n in 0..d.n {
            for position in 0..area(d.output) {
                let p = [position / d.output[1], position % d.output[1]];
                for tap in 0..area(d.kernel) {
                    let t = [tap / d.kernel[1], tap % d.kernel[1]];
                    let from = [0, 1].map(|a| (p[a] * d.spec.stride + t[a]).wrapping_sub(d.spec.padding[a]));
                    if from[0] >= d.input[0] || from[1] >= d.input[1] {
                        continue;
                    }
                    for o in 0..d.o {
                        for i in 0..d.i {
                            let x = &x[image(n, d.input, d.i, from, i)];
                            let w = &w[weight(o, i, t)];
                            let y = &y[image(n, d.output, d.o, p, o)];
                            match pass {
                                Pass::Forward => y.set(y.get() + x.get() * w.get()),
                                Pass::InputGrad => x.set(x.get() + y.get() * w.get()),
                                Pass::WeightGrad => w.set(w.get() + x.get() * y.get()),
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn product(&self, product: &Product, a: u64, b: u64, out: u64) -> Result<()> {
        let [m, n, k] = product.size;
        let cells = |at: u64, len| unsafe { std::slice::from_raw_parts(at as *const Cell<f64>, len) };
        let (a, b, out) = (cells(a, m * k), cells(b, k * n), cells(out, m * n));
        for row in 0..m {
            for column in 0..n {
                let term = |i: usize| {
                    let a = if product.transposed[0] { &a[i * m + row] } else { &a[row * k + i] };
                    let b = if product.transposed[1] { &b[column * k + i] } else { &b[i * n + column] };
                    a.get() * b.get()
                };
                out[row * n + column].set((0..k).map(term).sum());
            }
        }
        Ok(())
    }
}

fn array(t: &Tensor) -> Array<'_> {
    Array { at: doubles(t).unwrap(), dims: t.dims() }
}

fn values(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

fn agree(name: &str, got: &[Cell<f64>], want: &Tensor) {
    let want = values(want);
    assert_eq!(got.len(), want.len(), "{name}");
    let error = got.iter().zip(&want).map(|(a, b)| (a.get() - b).powi(2)).sum::<f64>().sqrt();
    let norm = want.iter().map(|v| v * v).sum::<f64>().sqrt();
    assert!(error <= TOLERANCE * norm, "{name}: the device's kernels are off by {error} of {norm}");
}

fn check((name, want): (&str, &Tensor), made: Result<(Vec<Cell<f64>>, Shape)>) {
    let (made, shape) = made.unwrap();
    assert_eq!(shape.dims(), want.dims(), "{name}");
    agree(name, &made, want);
}

/// The library, for operators that made a tensor like this.
fn library(t: &Tensor) -> Option<&'static Library> {
    LIBRARY.as_ref().filter(|_| t.dtype() == DType::F64 && t.device().is_cpu())
}

pub fn check1<O: Op1>(op: &O, a: &Tensor, want: &Tensor) {
    let Some(library) = library(want) else { return };
    check((O::NAME, want), op.device(&Emulated::<true>(library), array(a)));
    check((O::NAME, want), op.device(&Emulated::<false>(library), array(a)));
}

pub fn check2<O: Op2>(op: &O, [a, b]: [&Tensor; 2], want: &Tensor) {
    let Some(library) = library(want) else { return };
    check((O::NAME, want), op.device(&Emulated::<true>(library), array(a), array(b)));
    check((O::NAME, want), op.device(&Emulated::<false>(library), array(a), array(b)));
}

pub fn check3<O: Op3>(op: &O, [a, b, c]: [&Tensor; 3], want: &Tensor) {
    let Some(library) = library(want) else { return };
    check((O::NAME, want), op.device(&Emulated::<true>(library), array(a), array(b), array(c)));
    check((O::NAME, want), op.device(&Emulated::<false>(library), array(a), array(b), array(c)));
}

/// Remembers the destination of an operator that is about to change it; the result checks it afterwards.
pub fn watch<const N: usize, O: InPlace<N>>(op: &O, dst: &Tensor, sources: [&Tensor; N]) -> impl FnOnce() {
    let before = library(dst).map(|library| {
        let copy: Vec<Cell<f64>> = values(dst).into_iter().map(Cell::new).collect();
        let at = Array { at: copy.as_ptr() as u64, dims: dst.dims() };
        in_place_on(op, &Emulated::<true>(library), at, sources.map(array)).unwrap();
        copy
    });
    let dst = dst.clone();
    move || {
        if let Some(got) = before {
            agree(O::NAME, &got, &dst);
        }
    }
}
