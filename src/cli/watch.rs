//! `pgn-bench watch`: the runs of a folder as they stand.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Result;

use super::report::run_folders;
use super::terminal::{is_read, say, show};
use crate::config::Cell;
use crate::report::markdown::aligned;
use crate::results;
use crate::train::log::{self, Line};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Folder of the results
    #[arg(default_value = "results")]
    results: PathBuf,
    /// Print once and stop
    #[arg(long)]
    once: bool,
    /// Seconds between looks
    #[arg(long, default_value_t = 2)]
    every: u64,
}

/// Columns of the view.
pub(super) const HEAD: [&str; 10] =
    ["run", "", "step", "of", "FID", "lowest", "FIDs so far", "s/step", "ETA", "status"];
const SPARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Evaluations that a sparkline shows.
const SHOWN: usize = 24;
const BAR: usize = 12;
/// A run that has logged nothing for so long is not running, or very slow.
const SILENT: Duration = Duration::from_secs(60);
/// The end of a log that is read for its last lines.
const TAIL: u64 = 16 * 1024;

/// Clears the terminal and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

pub(super) fn execute(args: &Args) -> Result<()> {
    loop {
        let (table, open) = view(&args.results)?;
        if args.once {
            show(table);
            return Ok(());
        }
        show(format_args!("{CLEAR}{table}"));
        // The next cell of an experiment may be about to start.
        let written = results::find(&args.results)?.iter().filter_map(|f| silence(f)).min();
        if !open && written.is_some_and(|s| s > SILENT) {
            say("Every run has ended.");
            return Ok(());
        }
        say(format_args!("Looking again every {} s; Ctrl-C ends this, not the runs.", args.every));
        if !is_read() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(args.every.max(1)));
    }
}

/// The table, and whether a run has not ended.
fn view(folder: &Path) -> Result<(String, bool)> {
    let (mut lines, mut open) = (Vec::new(), false);
    for (run, cell) in run_folders(folder)? {
        let standing = standing(&run, &cell)?;
        open |= !standing.ended;
        lines.push(standing.cells);
    }
    if lines.is_empty() {
        return Ok((format!("no runs in {}\n", folder.display()), true));
    }
    Ok((aligned(&HEAD.map(str::to_owned), lines), open))
}

/// How a run stands.
pub(super) struct Standing {
    /// One for each column of [`HEAD`].
    pub(super) cells: Vec<String>,
    pub(super) ended: bool,
}

pub(super) fn standing(run: &Path, cell: &Cell) -> Result<Standing> {
    let path = run.join(results::FILE);
    let rows = if path.is_file() { results::read(&path)? } else { Vec::new() };
    let weights = cell.eval.weights[0].id();
    let mut fids: Vec<(u64, f64)> = rows
        .iter()
        .filter(|r| r.metric.starts_with("fid") && r.weights == weights)
        .map(|r| (r.step, r.value))
        .collect();
    fids.sort_by_key(|f| f.0);
    let values: Vec<f64> = fids.iter().map(|f| f.1).collect();
    let recent = tail(&run.join(log::FILE));
    let evaluated = rows.iter().map(|r| r.step).max().unwrap_or(0);
    let step = recent.last().map_or(0, |l| l.step).max(evaluated);
    let seconds = (!recent.is_empty()).then(|| recent.iter().map(|l| l.step_s).sum::<f64>() / recent.len() as f64);
    // A run that goes on with more steps is a finished one until its first evaluation.
    let is_extended = rows.last().is_some_and(|r| r.status == "finished") && evaluated < cell.train.steps;
    let recorded = match rows.last() {
        _ if is_extended => "running",
        Some(row) => &row.status,
        None if run.is_dir() => "starting",
        None => "waiting",
    };
    let ended = results::ended(&rows) && !is_extended;
    let silent = silence(&run.join(log::FILE)).is_some_and(|s| s > SILENT);
    let status = if ended || !silent {
        recorded.to_owned()
    } else {
        "silent for a minute: stopped, evaluating or slow".to_owned()
    };
    let done = (step as usize).saturating_mul(BAR).checked_div(cell.train.steps as usize).unwrap_or(BAR).min(BAR);
    let left = cell.train.steps.saturating_sub(step) as f64;
    let number = |v: Option<f64>| v.map_or_else(|| "–".to_owned(), |v| format!("{v:.2}"));
    let cells = vec![
        format!("{}/{}", cell.group(), cell.name()),
        format!("{}{}", "█".repeat(done), "░".repeat(BAR - done)),
        step.to_string(),
        cell.train.steps.to_string(),
        number(values.last().copied()),
        number(values.iter().copied().min_by(f64::total_cmp)),
        sparkline(&values),
        seconds.map_or_else(|| "–".to_owned(), |s| format!("{s:.3}")),
        if ended { "–".to_owned() } else { seconds.map_or_else(|| "–".to_owned(), |s| duration(left * s)) },
        status,
    ];
    Ok(Standing { cells, ended })
}

fn silence(path: &Path) -> Option<Duration> {
    SystemTime::now().duration_since(std::fs::metadata(path).ok()?.modified().ok()?).ok()
}

/// The last whole lines of a log that may be being written.
fn tail(path: &Path) -> Vec<Line> {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let from = file.metadata()?.len().saturating_sub(TAIL);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default().lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
}

fn sparkline(values: &[f64]) -> String {
    let shown = &values[values.len().saturating_sub(SHOWN)..];
    let [low, high] = [f64::min, f64::max].map(|f| shown.iter().copied().reduce(f).unwrap_or(0.0));
    let spark = |v: &f64| {
        let place = if high > low { (v - low) / (high - low) } else { 0.0 };
        SPARKS[((place * (SPARKS.len() - 1) as f64).round() as usize).min(SPARKS.len() - 1)]
    };
    shown.iter().map(spark).collect()
}

fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0).ceil() as u64;
    if minutes >= 60 { format!("{} h {:02} min", minutes / 60, minutes % 60) } else { format!("{minutes} min") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_for_the_eye() {
        assert_eq!(sparkline(&[8.0, 1.0, 4.5]), "█▁▅");
        assert_eq!(sparkline(&[]), "");
        assert_eq!(duration(59.0), "1 min");
        assert_eq!(duration(2.5 * 3600.0), "2 h 30 min");
    }
}
