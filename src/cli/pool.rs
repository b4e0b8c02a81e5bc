//! Tasks as processes of this machine, so many at a time.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::progress::bar;
use super::submission::{Submission, Task};
use super::terminal::{remark, say};
use crate::error::AtPath;
use crate::interrupt;

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often a task that was killed is started again.
const RESTARTS: u32 = 3;

/// A task that runs.
struct Running {
    number: usize,
    child: Child,
    restarts: u32,
    /// Position of its device.
    device: usize,
}

/// Runs the tasks of these numbers, `jobs` at a time, and records where. Exit code 1 when a cell diverged, 2 when a task failed.
///
/// # Errors
/// When a task cannot be started.
pub(super) fn run(task: &Task, mut submission: Submission, numbers: &[usize], jobs: usize) -> Result<ExitCode> {
    let threads = (available_parallelism().map_or(1, usize::from) / jobs).max(1);
    interrupt::mark_only()?;
    let mut waiting: VecDeque<(usize, u32)> = numbers.iter().map(|&n| (n, 0)).collect();
    let mut running: Vec<Running> = Vec::new();
    let (mut diverged, mut failed) = (0, 0);
    let done = bar(&format!("{jobs} at a time, {threads} threads each"), numbers.len() as u64, "cells");
    let mut told = false;
    while !waiting.is_empty() || !running.is_empty() {
        let stopping = interrupt::requested();
        if let (Some(_), false) = (stopping, told) {
            waiting.clear();
            running.iter().for_each(|r| stop(&r.child));
            told = true;
        }
        while running.len() < jobs
            && let Some((number, restarts)) = waiting.pop_front()
        {
            let device = least_used(task.devices.len(), running.iter().map(|r| r.device));
            let name = &task.devices[device];
            let child = start(task, number, name, threads)?;
            running.push(Running { number, child, restarts, device });
            submission.devices.insert(number, name.clone());
            // Tasks are not left alone for want of a record.
            let _ = submission.write(&task.folder);
        }
        let names: Vec<String> = running.iter().map(|r| submission.cells[r.number].name()).collect();
        done.set_message(names.join(", "));
        sleep(LOOK_EVERY);
        let mut still = Vec::new();
        for mut r in running {
            let Some(status) = r.child.try_wait()? else {
                still.push(r);
                continue;
            };
            let name = submission.cells[r.number].name();
            match (status.code(), status.signal()) {
                (Some(0), _) => done.println(format!("{name}: finished")),
                (Some(1), _) => {
                    diverged += 1;
                    done.println(format!("{name}: DIVERGED; see {}", log(task, r.number).display()));
                }
                (None, Some(signal)) if stopping.is_none() && r.restarts < RESTARTS => {
                    done.println(format!("{name}: killed by signal {signal}; it goes on"));
                    waiting.push_back((r.number, r.restarts + 1));
                    continue;
                }
                _ if stopping.is_some() => {}
                _ => {
                    failed += 1;
                    done.println(format!("{name}: {status}; see {}", log(task, r.number).display()));
                }
            }
            done.inc(1);
        }
        running = still;
    }
    done.finish_and_clear();
    if let Some(signal) = interrupt::requested() {
        remark("stopped; the same command goes on");
        return Ok(ExitCode::from(128 + signal));
    }
    say(format_args!("{} cells: {failed} failed, {diverged} diverged", numbers.len()));
    Ok(ExitCode::from(if failed > 0 { 2 } else { u8::from(diverged > 0) }))
}

fn log(task: &Task, number: usize) -> PathBuf {
    task.folder.join(format!("task-{number}.log"))
}

/// The device with the fewest tasks, the first of several.
fn least_used(devices: usize, used: impl Iterator<Item = usize> + Clone) -> usize {
    (0..devices).min_by_key(|&device| used.clone().filter(|&u| u == device).count()).unwrap_or(0)
}

fn start(task: &Task, number: usize, device: &str, threads: usize) -> Result<Child> {
    let path = log(task, number);
    let out = File::options().create(true).append(true).open(&path).at("open", &path)?;
    let command = task.on(device);
    let [program, words @ ..] = command.as_slice() else { bail!("a task without a command") };
    let child = Command::new(program)
        .args(words)
        .args(["--cell", &number.to_string()])
        .env("RAYON_NUM_THREADS", threads.to_string())
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        // A terminal's Ctrl-C comes to the pool alone, which asks each task once.
        .process_group(0)
        .spawn()?;
    Ok(child)
}

/// Asks a task to save itself and end.
fn stop(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // One that has just ended cannot be asked.
        let _ = kill_process(pid, Signal::TERM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_shared_evenly_and_come_back() {
        let mut used = Vec::new();
        for expected in [0, 1, 2, 0, 1] {
            used.push(least_used(3, used.iter().copied()));
            assert_eq!(used.last(), Some(&expected));
        }
        // Of 0 1 2 0 1 the first task on 1 ends.
        used.remove(1);
        assert_eq!(least_used(3, used.iter().copied()), 1);
        assert_eq!(least_used(1, used.iter().copied()), 0);
    }
}
