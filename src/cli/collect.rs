//! `pgn-bench collect`: the runs of several results folders, brought into one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::report::run_folders;
use super::terminal::show;
use crate::config::Cell;
use crate::error::AtPath;
use crate::files::{create_folder, walk, write_atomic};
use crate::report::markdown::aligned;
use crate::results;
use crate::train::checkpoint;
use crate::train::existing::{CONFIG, Existing, add_measured, folder, settle};
use crate::train::lock::{self, Lock};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Folders of results, such as those that nodes without a common file system have left
    #[arg(required = true)]
    sources: Vec<PathBuf>,
    /// Folder that gets them all
    #[arg(short, long, default_value = "results")]
    output: PathBuf,
}

/// How far a run has come: whether it has ended, and its last step.
type Reached = (bool, u64);

pub(super) fn execute(args: &Args) -> Result<()> {
    let mut runs = Vec::new();
    for source in &args.sources {
        let found = run_folders(source)?;
        if found.is_empty() {
            bail!("no runs in {}", source.display());
        }
        runs.extend(found);
    }
    let mut first_of: BTreeMap<PathBuf, (&Path, &Cell)> = BTreeMap::new();
    for (run, cell) in &runs {
        settle(&args.output, cell, Existing::Resume, &[])
            .with_context(|| format!("{} has no place there: collect it into another folder with -o", run.display()))?;
        let (first, known) = *first_of.entry(folder(&args.output, cell)).or_insert((run, cell));
        if known.hash()? != cell.hash()? {
            let [a, b] = [first.display(), run.display()];
            bail!("{a} and {b} are runs of one cell with different configurations: collect them into two folders");
        }
    }
    let mut lines = Vec::new();
    for (run, cell) in &runs {
        let target = folder(&args.output, cell);
        let (theirs, ours) = (reached(run)?, reached(&target)?);
        let done = if theirs > ours {
            copy(run, &target)?;
            "copied"
        } else if is_more_measured(run, &target)? {
            "left: as far or further here; copied what was measured after training"
        } else {
            "left: as far or further here"
        };
        let name = format!("{}/{}", cell.group(), cell.name());
        let step = theirs.map_or_else(|| "–".to_owned(), |(_, step)| step.to_string());
        lines.push(vec![name, run.display().to_string(), step, done.to_owned()]);
    }
    show(aligned(&["run", "from", "step", "what was done"].map(str::to_owned), lines));
    Ok(())
}

fn reached(run: &Path) -> Result<Option<Reached>> {
    let path = run.join(results::FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let rows = results::read(&path)?;
    Ok(rows.iter().map(|r| r.step).max().map(|step| (results::ended(&rows), step)))
}

/// Adds what was measured of a run after its training to that of the same run here; whether there was anything new.
fn is_more_measured(from: &Path, to: &Path) -> Result<bool> {
    let mut is_any = false;
    for name in results::MEASURED.into_iter().filter(|name| from.join(name).is_file()) {
        is_any |= add_measured(to, name, results::read(&from.join(name))?)?;
    }
    Ok(is_any)
}

/// Copies a run that may still go on: the checkpoint first, as rows and log lines later than it are dropped on resume.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let _lock = Lock::acquire(to)?;
    let wanted = |path: &Path| {
        let kept = path.file_name().is_some_and(|n| n != lock::FILE) && path.extension().is_none_or(|e| e != "tmp");
        // Links are left where they are.
        kept && !results::MEASURED.iter().any(|name| path.ends_with(name))
            && path.symlink_metadata().is_ok_and(|m| m.is_file())
    };
    let mut files = walk(from, wanted)?;
    // The configuration comes last: without it a run that was not copied whole is no run.
    files.sort_by_key(|f| (f.ends_with(CONFIG), !f.ends_with(checkpoint::FILE), f.clone()));
    for source in files {
        let target = to.join(source.strip_prefix(from)?);
        if let Some(folder) = target.parent() {
            create_folder(folder)?;
        }
        let mut input = std::fs::File::open(&source).at("open", &source)?;
        write_atomic(&target, |out| std::io::copy(&mut input, out).map(drop).at("copy", &source))?;
    }
    is_more_measured(from, to).map(drop)
}
