//! `pgn-bench completions` and `man`: what shells and `man` are told of the commands.

use std::path::Path;

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::Cli;
use super::terminal::say;
use crate::error::AtPath;
use crate::files::create_folder;

/// A script that completes the commands in a shell.
pub(super) fn completions(shell: Shell) -> Result<String> {
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "pgn-bench", &mut script);
    Ok(String::from_utf8(script)?)
}

/// A page a command.
pub(super) fn man(folder: &Path) -> Result<()> {
    create_folder(folder)?;
    clap_mangen::generate_to(Cli::command(), folder).at("write man pages to", folder)?;
    say(format_args!("`man -l {}` is the first of them", folder.join("pgn-bench.1").display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_no_wider_than_a_terminal() {
        let mut cli = Cli::command();
        cli.build();
        let mut commands: Vec<&mut clap::Command> = cli.get_subcommands_mut().collect();
        for command in &mut commands {
            for line in command.render_long_help().to_string().lines().chain(command.render_help().to_string().lines())
            {
                assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
            }
        }
        for line in cli.render_long_help().to_string().lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
