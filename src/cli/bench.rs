//! `pgn-bench bench`.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use super::setup::Place;
use super::terminal::{say, show};
use crate::files::{check_output, create_folder, write_bytes};
use crate::machine::memory;
use crate::report::markdown::aligned;
use crate::train::profile::{Peak, Recording, median, peak, profile, timed};
use crate::train::update::{Update, What};

/// Side of the matrices whose product is the peak: on a GPU, and on a device that is emulated.
const PEAK: [usize; 2] = [8192, 64];

#[derive(clap::Args)]
pub(super) struct Args {
    /// The networks: cnn32, cnn48, resnet32, …
    #[arg(long, default_value = "cnn32")]
    arch: String,
    /// The method
    #[arg(long, default_value = "pgn")]
    method: String,
    /// Multiplies every number of channels
    #[arg(long, default_value_t = 1.0)]
    width: f64,
    /// Real images a critic update; as many generated ones, and twice as many a generator update
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Times that each kind of update is measured
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    repeat: u16,
    /// Updates between two waits for the device, which each is an equal share of
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    burst: u16,
    /// Lines of the table by part and operator
    #[arg(long, default_value_t = 30)]
    lines: usize,
    /// Write everything measured to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

fn cells<const N: usize>(of: [String; N]) -> Vec<String> {
    of.to_vec()
}

/// Rate of something done in some seconds, and its share of the most there is.
fn share(done: u64, seconds: f64, most: Option<f64>, unit: f64) -> String {
    let rate = done as f64 / seconds;
    match most {
        _ if done == 0 => String::new(),
        Some(most) => format!("{:.1} ({:.0} %)", rate / unit, 100.0 * rate / most),
        None => format!("{:.1}", rate / unit),
    }
}

pub(super) fn execute(args: &Args) -> Result<()> {
    let compute = args.place.open()?;
    if !(args.width > 0.0 && args.width.is_finite()) {
        anyhow::bail!("--width {}: expected a positive number", args.width);
    }
    if let Some(path) = &args.json {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            create_folder(folder)?;
        }
        check_output(path, None)?;
    }
    let is_machine = compute.is_machine();
    let burst = if is_machine { usize::from(args.burst) } else { 1 };
    let rounds = [usize::from(args.repeat), burst];
    let mut update = Update::new(&args.arch, &args.method, args.width, usize::from(args.batch), &compute)?;
    memory::reset_peak(&compute.device)?;
    let mut seconds = Vec::new();
    for what in [What::Whole, What::Critic, What::Generator] {
        seconds.push((what, timed(&mut update, what, rounds)?));
    }
    let (most, recordings) = match is_machine {
        false => (None, Vec::new()),
        true => {
            let most = peak(&compute, PEAK[usize::from(compute.emulated)])?;
            let programs = update.programs()?;
            let of = |(program, what): (_, usize)| profile(program, median(&seconds[what].1), 3);
            (Some(most), programs.iter().zip([1, 2]).map(of).collect::<candle_core::Result<Vec<_>>>()?)
        }
    };
    let bytes = memory::peak_bytes(&compute.device)?;
    say(format_args!(
        "{} {} of width {} and {} images on {}",
        args.arch,
        args.method,
        args.width,
        args.batch,
        compute.id()
    ));
    show(totals(&update, &seconds, most, &recordings)?);
    match bytes {
        Some(bytes) => say(format_args!("memory: {:.0} MB at most", bytes as f64 / 1e6)),
        None => say(format_args!("memory: not known, the system does not say")),
    }
    if let Some(most) = most {
        say(format_args!(
            "peak: {:.1} TFLOP/s in a product, {:.0} GB/s in a copy",
            most.flops / 1e12,
            most.bytes / 1e9
        ));
        show(format_args!("\n{}", by_operator(&recordings, most, args.lines)));
    }
    if let Some(path) = &args.json {
        let times = seconds.iter().map(|(what, s)| (what.to_string(), json!({"median_s": median(s), "times_s": s})));
        let all = json!({
            "arch": args.arch, "method": args.method, "width": args.width, "batch": args.batch,
            "device": compute.id(), "graph": compute.graph, "critic_steps": update.critic_steps(),
            "flops": update.flops(What::Whole)?, "peak_bytes": bytes, "peak": most,
            "updates": times.collect::<serde_json::Map<_, _>>(),
            "critic": recordings.first(), "generator": recordings.get(1),
        });
        write_bytes(path, serde_json::to_string_pretty(&all)?.as_bytes())?;
    }
    Ok(())
}

fn totals(
    update: &Update,
    seconds: &[(What, Vec<f64>)],
    most: Option<Peak>,
    recordings: &[Recording],
) -> Result<String> {
    let head = ["update", "ms", "smallest–largest", "TFLOP/s", "launches", "MB", "allocations", "arena MB"];
    let mut rows = Vec::new();
    for (what, s) in seconds {
        let of: Vec<(u64, &Recording)> = match (what, recordings) {
            (What::Critic, [critic, _]) => vec![(1, critic)],
            (What::Generator, [_, generator]) => vec![(1, generator)],
            (What::Whole, [critic, generator]) => vec![(update.critic_steps(), critic), (1, generator)],
            _ => Vec::new(),
        };
        let sum = |f: fn(&Recording) -> u64| match of.is_empty() {
            true => String::new(),
            false => of.iter().map(|(n, r)| n * f(r)).sum::<u64>().to_string(),
        };
        let ms = |s: f64| format!("{:.3}", 1e3 * s);
        let ends = [f64::min, f64::max].map(|f: fn(f64, f64) -> f64| ms(s.iter().copied().fold(s[0], f)));
        rows.push(cells([
            what.to_string(),
            ms(median(s)),
            ends.join("–"),
            share(update.flops(*what)?, median(s), most.map(|m| m.flops), 1e12),
            sum(|r| r.launches as u64),
            sum(|r| r.bytes / 1_000_000),
            sum(|r| r.allocations as u64),
            of.iter().map(|(_, r)| (r.arena_bytes / 1_000_000).to_string()).collect::<Vec<_>>().join(", "),
        ]));
    }
    Ok(aligned(&head.map(str::to_owned), rows))
}

/// What the longest calls of both kinds of update do, made one by one.
fn by_operator(recordings: &[Recording], most: Peak, lines: usize) -> String {
    let head = ["update", "part", "operator", "launches", "ms", "share", "GB/s", "TFLOP/s"];
    let mut all: Vec<_> = recordings
        .iter()
        .zip(["critic", "generator"])
        .flat_map(|(r, of)| {
            let sum: f64 = r.lines.iter().map(|l| l.seconds).sum();
            r.lines.iter().map(move |line| (of, line, line.seconds / sum))
        })
        .collect();
    all.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
    let rows = all.into_iter().take(lines).map(|(of, line, part)| {
        cells([
            of.to_owned(),
            line.stage.to_owned(),
            line.name.to_owned(),
            line.launches.to_string(),
            format!("{:.3}", 1e3 * line.seconds),
            format!("{:.1} %", 100.0 * part),
            share(line.bytes, line.seconds, Some(most.bytes), 1e9),
            share(line.flops, line.seconds, Some(most.flops), 1e12),
        ])
    });
    aligned(&head.map(str::to_owned), rows.collect())
}
