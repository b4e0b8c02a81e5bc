//! `pgn-bench status`: the tasks of submissions beside what their runs have reached.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, bail};

use super::slurm;
use super::submission::{Engine, Submission};
use super::terminal::{say, show};
use super::watch::{HEAD, standing};
use crate::report::markdown::aligned;
use crate::train::existing::folder;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Folder of the results
    #[arg(default_value = "results")]
    results: PathBuf,
}

pub(super) fn execute(args: &Args) -> Result<()> {
    let submissions = Submission::find(&args.results)?;
    if submissions.is_empty() {
        bail!("no submission in {}: `pgn-bench submit` makes one; `watch` shows runs", args.results.display());
    }
    for (_, submission) in submissions {
        let (what, queue) = match &submission.engine {
            Engine::Slurm(job) => (format!("Slurm job {job}"), slurm::queue(job)?),
            Engine::Pool(process) => (format!("pool, process {process}"), BTreeMap::new()),
        };
        let (mut lines, mut ended) = (Vec::new(), 0);
        for (task, cell) in submission.cells.iter().enumerate() {
            let standing = standing(&folder(&args.results, cell), cell)?;
            ended += usize::from(standing.ended);
            let queued = queue.get(&task);
            let place = queued.map(|q| &q.place).or(submission.devices.get(&task));
            let word = |word: Option<&String>| word.map_or("–", String::as_str).to_owned();
            let mut line = vec![task.to_string(), word(queued.map(|q| &q.state)), word(place)];
            line.extend(standing.cells);
            lines.push(line);
        }
        say(format_args!("{what}: {ended} of {} cells have ended", submission.cells.len()));
        let head = ["task", "queue", "where"].into_iter().chain(HEAD);
        show(aligned(&head.map(str::to_owned).collect::<Vec<_>>(), lines));
    }
    Ok(())
}
