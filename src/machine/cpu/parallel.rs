//! Loops over fresh memory, in parallel with a fixed partition: results do not depend on the number of threads.

use rayon::prelude::*;

use super::real::{Real, vectorised};

/// Elements a parallel task takes at a time: small enough to balance, large enough not to notice the scheduling.
pub const GRAIN: usize = 1 << 15;

/// A new buffer of `len` elements, each written by `write(index of the chunk's first element, chunk)`, in parallel.
///
/// The chunks are not initialised: `write` must set every element before it reads it.
pub fn fill<T: Real>(len: usize, chunk: usize, write: impl Fn(usize, &mut [T]) + Sync) -> Vec<T> {
    let mut out: Vec<T> = Vec::with_capacity(len);
    out.spare_capacity_mut()[..len].par_chunks_mut(chunk.max(1)).enumerate().for_each(|(i, c)| {
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
pub fn scatter<T: Real>(out: &mut Vec<T>, len: usize, tasks: usize, write: impl Fn(usize, *mut T) + Sync) {
    struct Shared<T>(*mut T);
    // SAFETY: tasks write different elements.
    unsafe impl<T> Sync for Shared<T> {}
    out.clear();
    out.reserve(len);
    let shared = &Shared(out.as_mut_ptr());
    (0..tasks).into_par_iter().for_each(|task| write(task, shared.0));
    // SAFETY: any bits are a valid float.
    unsafe { out.set_len(len) };
}
