//! What parallel loops would take on more threads than there are: their tasks are cut for so many threads, run one after another,
//! timed, and dealt out in their order, each to the thread that is free first. What threads share (memory's bandwidth, caches, power)
//! is not in it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Threads that are pretended, or 0.
static PRETENDED: AtomicUsize = AtomicUsize::new(0);
/// Seconds of the tasks of each loop.
static LOOPS: Mutex<Vec<Vec<f64>>> = Mutex::new(Vec::new());

fn loops() -> MutexGuard<'static, Vec<Vec<f64>>> {
    LOOPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Threads that are pretended.
pub fn pretended() -> Option<usize> {
    match PRETENDED.load(Ordering::Relaxed) {
        0 => None,
        threads => Some(threads),
    }
}

/// Seconds of some work.
#[derive(Clone, Copy, Debug)]
pub struct Seconds {
    /// Outside of parallel loops.
    pub serial: f64,
    /// Of all tasks of all loops.
    pub tasks: f64,
    /// From the beginning of each loop to its end, on so many threads.
    pub loops: f64,
}

impl Seconds {
    /// Of all of it, on so many threads.
    pub fn total(&self) -> f64 {
        self.serial + self.loops
    }
}

/// The seconds that `work` would take on `threads` threads. One process does this once at a time.
pub fn simulated(threads: usize, work: impl FnOnce()) -> Seconds {
    loops().clear();
    PRETENDED.store(threads.max(1), Ordering::Relaxed);
    let start = Instant::now();
    work();
    let all = start.elapsed().as_secs_f64();
    PRETENDED.store(0, Ordering::Relaxed);
    let loops = std::mem::take(&mut *loops());
    let tasks = loops.iter().flatten().sum();
    Seconds { serial: all - tasks, tasks, loops: loops.iter().map(|tasks| dealt(tasks, threads)).sum() }
}

/// Runs tasks one after another and notes their seconds.
pub(super) fn timed(tasks: usize, run: &dyn Fn(usize)) {
    let seconds = (0..tasks).map(|task| {
        let start = Instant::now();
        run(task);
        start.elapsed().as_secs_f64()
    });
    let seconds = seconds.collect();
    loops().push(seconds);
}

/// Seconds until the last of some threads ends its tasks.
fn dealt(tasks: &[f64], threads: usize) -> f64 {
    let mut busy = vec![0.0_f64; threads.max(1)];
    for task in tasks {
        if let Some(free) = busy.iter_mut().min_by(|a, b| f64::total_cmp(a, b)) {
            *free += task;
        }
    }
    busy.into_iter().fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_go_to_the_thread_that_is_free_first() {
        let tasks = [3.0, 1.0, 1.0, 2.0];
        assert_eq!([1, 2, 3, 4].map(|threads| dealt(&tasks, threads)), [7.0, 4.0, 3.0, 3.0]);
        assert_eq!(dealt(&[], 2), 0.0);
    }
}
