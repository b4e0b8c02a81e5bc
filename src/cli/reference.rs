//! Pages of reference, made of the program: commands, keys of experiments, columns of rows, metrics. They are files of the repository, and
//! a test holds them to what is made here.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use clap::{Arg, Command, CommandFactory};

use super::Cli;
use super::terminal::say;
use crate::config::schema;
use crate::files::write_bytes;
use crate::metrics::metric::{MANIFOLD, METRICS, Measure};
use crate::results::{COLUMNS, COST, CRITIC, PEAK, TRACES, metric};

/// Each page with its path below a clone.
fn pages() -> [(&'static str, String); 5] {
    [
        ("docs/reference/commands.md", commands()),
        ("docs/reference/experiments.md", schema::page()),
        ("docs/reference/rows.md", rows()),
        ("docs/reference/metrics.md", metrics()),
        ("experiments/schema.json", schema::text()),
    ]
}

/// Writes the pages.
pub(super) fn write(clone: &Path) -> Result<()> {
    for (path, text) in pages() {
        let path = clone.join(path);
        write_bytes(&path, text.as_bytes())?;
        say(path.display());
    }
    Ok(())
}

/// Text for a cell of a table.
fn cell(text: impl std::fmt::Display) -> String {
    text.to_string().replace('|', "\\|").replace('<', "&lt;").replace('\n', " ")
}

fn commands() -> String {
    let mut cli = Cli::command();
    cli.build();
    let mut page = String::from(
        "# Commands and options\n\n`pgn-bench COMMAND --help` says the same. Exit codes: 0 fine, 1 a run diverged or a gate failed, 2 bad \
         input or environment, 128 + n ended by signal n. `pgn-bench completions SHELL` completes these in a shell, `pgn-bench man -o \
         FOLDER` writes them as man pages.\n\n",
    );
    let shown = || cli.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help");
    for command in shown() {
        let _ = writeln!(page, "- [`{0}`](#{0}): {1}", command.get_name(), about(command));
    }
    for command in shown() {
        let usage = command.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let _ = write!(page, "\n## {}\n\n{}.\n\n```console\n$ {usage}\n```\n", command.get_name(), about(command));
        let arguments: Vec<&Arg> =
            command.get_arguments().filter(|a| !a.is_hide_set() && a.get_id() != "help").collect();
        if !arguments.is_empty() {
            page += "\n| argument | default | meaning |\n|---|---|---|\n";
            arguments.into_iter().for_each(|of| page += &argument(of));
        }
    }
    page += "\n## Environment\n\n| variable | meaning |\n|---|---|\n";
    for (name, meaning) in ENVIRONMENT {
        let _ = writeln!(page, "| `{name}` | {meaning} |");
    }
    page
}

/// What is read of the environment.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("PGN_BENCH_DATA", "folder below which data sets are looked for first"),
    ("PGN_BENCH_CACHE", "folder of what can be made again; without it `~/.cache/pgn-bench`"),
    ("PGN_BENCH_ISA", "instruction set of the kernels, such as avx2 or portable, in place of the best there is"),
    ("HF_HOME, HF_TOKEN", "cache and token of the Hugging Face Hub"),
];

fn about(command: &Command) -> String {
    command.get_about().map(cell).unwrap_or_default()
}

/// A row of an argument.
fn argument(of: &Arg) -> String {
    let takes = of.get_action().takes_values();
    let values: Vec<String> = of.get_value_names().unwrap_or_default().iter().map(|n| format!("<{n}>")).collect();
    let names = [of.get_short().map(|c| format!("-{c}")), of.get_long().map(|name| format!("--{name}"))];
    let mut name = names.into_iter().flatten().collect::<Vec<_>>().join(", ");
    if takes {
        name = format!("{name} {}", values.join(" ")).trim().to_owned();
    }
    let default = of.get_default_values().iter().map(|v| v.to_string_lossy()).collect::<Vec<_>>().join(", ");
    let default = if default.is_empty() || !takes { String::new() } else { format!("`{default}`") };
    let choices: Vec<String> = of.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
    let choices = if takes && !choices.is_empty() { format!(" ({})", choices.join(", ")) } else { String::new() };
    let help = of.get_long_help().or(of.get_help()).map(cell).unwrap_or_default();
    format!("| `{}` | {default} | {help}{choices} |\n", name.replace('|', "\\|"))
}

fn rows() -> String {
    let mut page = String::from(
        "# Columns of rows\n\nA run's `rows.parquet` has one row a measured number, and beside it all that the number depends on; so have \
         `eval.parquet`, `probe.parquet` and what `measure -o` writes. [results/README.md](../../results/README.md) says what else is in a run's folder, and \
         how to read rows elsewhere.\n\n| column | type | holds |\n|---|---|---|\n",
    );
    for [name, of, doc] in COLUMNS {
        let of = of.trim_start_matches("Option<").trim_end_matches('>').to_lowercase();
        let _ = writeln!(page, "| `{name}` | {of} | {} |", cell(doc.trim()));
    }
    let _ = write!(
        page,
        "\nA metric's name is its protocol: `{}` is the Fréchet distance of 50,000 images to the training split, `{}` of 2,500 \
         over another extractor ([all metrics](metrics.md)). Beside metrics there are `{COST}` and `{PEAK}`, means of the log over \
         stretches of steps, for curves: {}; and, at each evaluation, means over real and over generated images (`…_real`, `…_generated`) of what \
         the critic makes of them: {}.\n",
        metric("fid", 50_000, Some("train")),
        metric("fd-dinov2", 2500, Some("train")),
        TRACES.map(|name| format!("`{name}`")).join(", "),
        CRITIC.map(|name| format!("`{name}`")).join(", ")
    );
    page
}

fn metrics() -> String {
    let mut page = String::from(
        "# Metrics\n\nThe names that `measure --metrics` and `eval.metrics` take, and how rows call what is measured with 50,000 generated \
         images and the training images. [Measures](../metrics.md) says what each is, what its name fixes and what it is blind to.\n\n\
         | metric | measure | over | of | interval | rows |\n|---|---|---|---|---|---|\n",
    );
    for (name, of) in METRICS {
        let both = !of.measure.is_of_one();
        let numbers = match of.measure {
            Measure::Manifold => MANIFOLD.map(|number| of.family.named(number)).to_vec(),
            _ => vec![name.to_owned()],
        };
        let rows = numbers.iter().map(|name| format!("`{}`", metric(name, 50_000, both.then_some("train"))));
        let _ = writeln!(
            page,
            "| `{name}` | {} | {} | {} | {} | {} |",
            of.measure.name(),
            of.family.name(),
            if both { "both sides" } else { "generated images" },
            if of.measure.has_interval() { "bootstrap" } else { "" },
            rows.collect::<Vec<_>>().join(", ")
        );
    }
    page += "\nIn training, measures that see images one by one take at most 10,000 a side, and their rows say so: `kid10k_train`.\n";
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_those_of_this_program() {
        for (path, text) in pages() {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
            let there = std::fs::read_to_string(&file).unwrap_or_default();
            assert!(there == text, "{path} is of another state of the program: `make docs` writes it");
        }
    }
}
