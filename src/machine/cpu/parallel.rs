//! Loops over fresh memory, in parallel with a fixed partition: results do not depend on the number of threads.

use rayon::prelude::*;

use super::real::{Real, vectorised};
use super::schedule;

/// Elements a parallel task takes at a time: small enough to balance, large enough not to notice the scheduling.
pub const GRAIN: usize = 1 << 15;

/// Memory that tasks write different elements of.
struct Shared<T>(*mut T);
// SAFETY: that is what it is for.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn at(&self, i: usize) -> *mut T {
        // SAFETY: callers stay inside what they share.
        unsafe { self.0.add(i) }
    }
}

/// Threads that work is cut for.
pub fn threads() -> usize {
    schedule::pretended().unwrap_or_else(rayon::current_num_threads)
}

/// Runs tasks by their numbers, in parallel: compiled once, whatever they do.
fn each(tasks: usize, run: &(dyn Fn(usize) + Sync)) {
    match schedule::pretended() {
        None => (0..tasks).into_par_iter().for_each(run),
        Some(_) => schedule::timed(tasks, run),
    }
}

/// What each of some tasks, run in parallel, gives, in their order.
pub fn collect<R: Send>(tasks: usize, run: impl Fn(usize) -> R + Sync + Send) -> Vec<R> {
    let mut results: Vec<R> = Vec::with_capacity(tasks);
    let shared = Shared(results.as_mut_ptr());
    // SAFETY: each task writes its own place, once.
    each(tasks, &|task| unsafe { shared.at(task).write(run(task)) });
    // SAFETY: all are written: a task that panics does not come to here.
    unsafe { results.set_len(tasks) };
    results
}

/// Calls `write(index of the chunk, chunk)` for each chunk, in parallel.
pub fn chunks<T: Send>(of: &mut [T], chunk: usize, write: impl Fn(usize, &mut [T]) + Sync + Send) {
    let (len, chunk) = (of.len(), chunk.max(1));
    let shared = Shared(of.as_mut_ptr());
    each(len.div_ceil(chunk), &|i| {
        // SAFETY: chunks do not overlap.
        let chunk = unsafe { std::slice::from_raw_parts_mut(shared.at(i * chunk), chunk.min(len - i * chunk)) };
        write(i, chunk);
    });
}

/// A new buffer of `len` elements, each written by `write(index of the chunk's first element, chunk)`, in parallel.
///
/// The chunks are not initialised: `write` must set every element before it reads it.
pub fn fill<T: Real>(len: usize, chunk: usize, write: impl Fn(usize, &mut [T]) + Sync + Send) -> Vec<T> {
    let mut out: Vec<T> = Vec::with_capacity(len);
    chunks(&mut out.spare_capacity_mut()[..len], chunk, |i, c| {
        // SAFETY: the same layout; any bits are a valid float, and `write` sets them all.
        let c = unsafe { std::slice::from_raw_parts_mut(c.as_mut_ptr().cast::<T>(), c.len()) };
        vectorised(|| write(i * chunk, c));
    });
    // SAFETY: every chunk was written.
    unsafe { out.set_len(len) };
    out
}

/// A new buffer, element by element from one operand.
pub fn map<T: Real>(a: &[T], f: impl Fn(T) -> T + Sync) -> Vec<T> {
    fill(a.len(), GRAIN, |at, out| {
        for (o, &x) in out.iter_mut().zip(&a[at..]) {
            *o = f(x);
        }
    })
}

/// A new buffer, element by element from two operands of the same length.
pub fn zip<T: Real>(a: &[T], b: &[T], f: impl Fn(T, T) -> T + Sync) -> Vec<T> {
    fill(a.len(), GRAIN, |at, out| {
        let n = out.len();
        for ((o, &x), &y) in out.iter_mut().zip(&a[at..at + n]).zip(&b[at..at + n]) {
            *o = f(x, y);
        }
    })
}

/// Makes `out` of `len` elements, written by tasks in parallel, each given its number and where the elements begin.
///
/// New elements are not initialised: the tasks must write each that is read, and no two of them the same.
pub fn scatter<T: Real>(out: &mut Vec<T>, len: usize, tasks: usize, write: impl Fn(usize, *mut T) + Sync + Send) {
    out.clear();
    out.reserve(len);
    let shared = Shared(out.as_mut_ptr());
    each(tasks, &|task| write(task, shared.at(0)));
    // SAFETY: any bits are a valid float.
    unsafe { out.set_len(len) };
}
