//! `pgn-bench init` and `demo`: what to begin with.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Result, bail};

use super::embedded::{self, TEMPLATE};
use super::terminal::say;
use crate::config::Experiment;
use crate::files::write_bytes;

#[derive(clap::Args)]
pub(super) struct InitArgs {
    /// Name of the experiment: its file is NAME.yaml here, its results are in NAME-full
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    name: String,
}

#[derive(clap::Args)]
pub(super) struct DemoArgs {
    /// Folder of the results
    #[arg(long, short, default_value = "results")]
    output: PathBuf,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
}

/// Writes the commented experiment under another name.
pub(super) fn init(args: &InitArgs) -> Result<()> {
    let name = &args.name;
    if embedded::experiment(name).is_some() {
        bail!("`{name}` is an experiment of the program, which `run {name}` trains: choose another name");
    }
    let path = PathBuf::from(format!("{name}.yaml"));
    let text = TEMPLATE.replace("\nname: template\n", &format!("\nname: {name}\n"));
    let text = text.replace("run FILE", &format!("run {}", path.display()));
    Experiment::parse(&path.display().to_string(), &text, &[])?;
    if path.symlink_metadata().is_ok() {
        bail!("{} is there already: choose another name", path.display());
    }
    write_bytes(&path, text.as_bytes())?;
    say(format_args!("{} is written; `pgn-bench run {0} --dry-run` shows what it would train", path.display()));
    Ok(())
}

impl DemoArgs {
    /// The command that it is short for.
    pub(super) fn words(&self) -> Vec<OsString> {
        let run = ["pgn-bench", "run", "demo", "--scale", "smoke", "--resume", "--device", &self.device, "--output"];
        run.into_iter().map(OsString::from).chain([self.output.clone().into_os_string()]).collect()
    }
}
