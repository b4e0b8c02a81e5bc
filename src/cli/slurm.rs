//! What Slurm is told and asked.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::submission::Task;

/// How often a task that was killed is put back into the queue.
const RESTARTS: u32 = 10;

#[derive(clap::Args)]
pub(super) struct Options {
    /// Slurm: partition
    #[arg(long, conflicts_with = "jobs")]
    partition: Option<String>,
    /// Slurm: tasks that run at a time, at most
    #[arg(long, value_name = "N", conflicts_with = "jobs", value_parser = clap::value_parser!(u32).range(1..))]
    array_limit: Option<u32>,
    /// Slurm: time limit of a task, such as 12:00:00; one that reaches it saves itself and queues again
    #[arg(long, conflicts_with = "jobs")]
    time: Option<String>,
    /// Slurm: seconds before the time limit at which a task saves itself
    #[arg(long, value_name = "S", default_value_t = 120, value_parser = clap::value_parser!(u32).range(10..65_000))]
    grace: u32,
    /// Slurm: cores of a task
    #[arg(long, value_name = "N", conflicts_with = "jobs", value_parser = clap::value_parser!(u32).range(1..))]
    cpus: Option<u32>,
    /// Slurm: GPUs of a task, which computes on one of them (--device cuda)
    #[arg(long, value_name = "N", conflicts_with = "jobs", value_parser = clap::value_parser!(u32).range(1..))]
    gpus: Option<u32>,
    /// Slurm: another option for sbatch, such as --sbatch=--exclusive
    #[arg(long, value_name = "OPTION", conflicts_with = "jobs", allow_hyphen_values = true)]
    sbatch: Vec<String>,
}

/// Words for a shell.
pub(super) fn quoted(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@".contains(c);
    let quote = |w: &String| {
        if !w.is_empty() && w.chars().all(plain) { w.clone() } else { format!("'{}'", w.replace('\'', "'\\''")) }
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// Task numbers as sbatch writes them: `0-3,7`.
fn ranges(tasks: &[usize]) -> String {
    let mut out: Vec<[usize; 2]> = Vec::new();
    for &task in tasks {
        match out.last_mut() {
            Some(last) if last[1] + 1 == task => last[1] = task,
            _ => out.push([task; 2]),
        }
    }
    let range = |&[a, b]: &[usize; 2]| if a == b { a.to_string() } else { format!("{a}-{b}") };
    out.iter().map(range).collect::<Vec<_>>().join(",")
}

/// The array job over some of a submission's tasks.
///
/// # Errors
/// When a path or option cannot stand in an `#SBATCH` line.
pub(super) fn script(task: &Task, options: &Options, name: &str, tasks: &[(usize, String)]) -> Result<String> {
    let log = format!("{}/task-%a.log", task.folder.display());
    if log.replace("%a", "").contains(['%', '"', '\\']) {
        bail!(
            "{}: Slurm takes no %, \" or \\ in the path of a task's output; name another --output",
            task.folder.display()
        );
    }
    let device = &task.devices[0];
    if options.gpus.is_some() && device == "cpu" {
        bail!("--gpus: the tasks compute on the cpu; add --device cuda");
    }
    let limit = options.array_limit.map_or_else(String::new, |n| format!("%{n}"));
    let mut head = vec![
        format!("--job-name=pgn-bench-{name}"),
        format!("--array={}{limit}", ranges(&tasks.iter().map(|(n, _)| *n).collect::<Vec<_>>())),
        "--requeue".to_owned(),
        "--open-mode=append".to_owned(),
        format!("--signal=B:USR1@{}", options.grace),
        format!("--output=\"{log}\""),
    ];
    head.extend(options.partition.iter().map(|p| format!("--partition={p}")));
    head.extend(options.time.iter().map(|t| format!("--time={t}")));
    head.extend(options.cpus.iter().map(|n| format!("--cpus-per-task={n}")));
    // A task of an array is a job of one node; --gpus-per-task would want a number of tasks beside it.
    head.extend(options.gpus.iter().map(|n| format!("--gres=gpu:{n}")));
    head.extend(options.sbatch.iter().cloned());
    if let Some(option) = head.iter().find(|o| o.contains('\n') || !o.starts_with('-')) {
        bail!("{option:?} is no option for sbatch, which begin with - and are of one line");
    }
    let mut out = "#!/bin/bash\n".to_owned();
    head.iter().for_each(|option| _ = writeln!(out, "#SBATCH {option}"));
    let here = std::env::current_dir().context("no current folder")?.display().to_string();
    let _ = write!(
        out,
        r#"
# A task trains one cell and goes on from its checkpoint. It returns to the queue when its time is nearly over (exit code 138), and
# up to {RESTARTS} times when it was killed; on preemption and on the loss of a node, Slurm puts it there. The cells:
{cells}cd {here} || exit 2
export RAYON_NUM_THREADS="${{SLURM_CPUS_PER_TASK:-1}}"

trap 'kill -USR1 "$child" 2>/dev/null' USR1
trap 'kill -TERM "$child" 2>/dev/null' TERM
{command} --cell "$SLURM_ARRAY_TASK_ID" &
child=$!
# A signal ends `wait` before the child has ended.
while wait "$child"; code=$?; kill -0 "$child" 2>/dev/null; do :; done
wait "$child"
code=$?

again() {{ scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"; }}
case $code in
  138) again ;;
  134|135|137|139) [ "${{SLURM_RESTART_COUNT:-0}}" -ge {RESTARTS} ] || again ;;
esac
exit "$code"
"#,
        cells = tasks.iter().map(|(n, name)| format!("#   {n} {name}\n")).collect::<String>(),
        here = quoted(&[here]),
        command = quoted(&task.on(device)),
    );
    Ok(out)
}

/// Hands a script to sbatch; the number of the job.
pub(super) fn submit(script: &Path) -> Result<String> {
    let out = asked(Command::new("sbatch").arg("--parsable").arg(script))?;
    let job = out.trim().split(';').next().unwrap_or_default().to_owned();
    if job.is_empty() || !job.bytes().all(|b| b.is_ascii_digit()) {
        bail!("sbatch answered {out:?}, which is no job's number");
    }
    Ok(job)
}

/// States after which a task does not run again.
const ENDS: [&str; 9] =
    ["BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "REVOKED", "TIMEOUT"];

/// A task that Slurm knows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Queued {
    /// Slurm's word: RUNNING, PENDING, …
    pub(super) state: String,
    /// Its node, or why it has none.
    pub(super) place: String,
}

impl Queued {
    pub(super) fn is_open(&self) -> bool {
        !ENDS.contains(&self.state.as_str())
    }
}

/// The tasks of a job; those that ended a while ago are forgotten.
///
/// # Errors
/// When squeue is missing or fails for another reason than that the job is gone.
pub(super) fn queue(job: &str) -> Result<BTreeMap<usize, Queued>> {
    let format = "--format=%K|%T|%N|%r";
    let of = format!("--jobs={job}");
    // A task that is just put back into the queue is in none of the states that squeue shows unasked.
    match asked(Command::new("squeue").args(["--noheader", "--array", "--states=all", &of, format])) {
        Ok(text) => Ok(parse(&text)),
        // What squeue says of a job that has ended and been forgotten.
        Err(e) if e.to_string().contains("Invalid job id") => Ok(BTreeMap::new()),
        Err(e) => Err(e),
    }
}

fn parse(text: &str) -> BTreeMap<usize, Queued> {
    let line = |line: &str| {
        let mut fields = line.trim().split('|');
        let task = fields.next()?.parse().ok()?;
        let (state, node, reason) = (fields.next()?, fields.next()?, fields.next()?);
        let place = if node.is_empty() { reason } else { node };
        Some((task, Queued { state: state.to_owned(), place: place.to_owned() }))
    };
    text.lines().filter_map(line).collect()
}

/// What a command of Slurm answers.
fn asked(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command.output().with_context(|| {
        format!("cannot start {name}: is Slurm installed here? `submit --jobs N` runs the cells on this machine")
    })?;
    if !out.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_as_slurm_and_the_shell_take_them() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        let words = ["run", "a b", "it's", "train.steps=3", ""].map(str::to_owned);
        assert_eq!(quoted(&words), r"run 'a b' 'it'\''s' train.steps=3 ''");
    }

    #[test]
    fn the_queue_is_read() {
        let queue = parse("3|RUNNING|n1|None\n4|PENDING||BeginTime\nnonsense\n");
        let of = |state: &str, place: &str| Queued { state: state.to_owned(), place: place.to_owned() };
        assert_eq!(queue, BTreeMap::from([(3, of("RUNNING", "n1")), (4, of("PENDING", "BeginTime"))]));
    }
}
