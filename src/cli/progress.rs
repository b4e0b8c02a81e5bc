//! Progress bars on stderr; plain lines where stderr is not a terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use super::terminal::remark;
use crate::config::{Cell, Weights};
use crate::train::evaluate::Measured;
use crate::train::log::Line;
use crate::train::run::Watch;

/// Weight of the newest step in the shown losses.
const SMOOTHING: f64 = 0.05;

/// A bar with rate and ETA.
pub(super) fn bar(prefix: &str, len: u64, unit: &str) -> ProgressBar {
    let template = format!("{{prefix}} {{wide_bar}} {{pos}}/{{len}} {unit} {{per_sec}} ETA {{eta}} {{msg}}");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len).with_style(style).with_prefix(prefix.to_owned())
}

/// Shows a bar while `work` tells how much is done, and of how much.
pub(super) fn followed<T>(
    prefix: &str,
    unit: &str,
    work: impl FnOnce(&mut dyn FnMut(usize, usize)) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let bar = bar(prefix, 1, unit);
    let done = work(&mut |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    done
}

/// Shows one cell.
pub(super) struct CellBar {
    bar: ProgressBar,
    losses: Option<[f64; 2]>,
    fid: String,
    name: String,
}

impl CellBar {
    pub(super) fn new(cell: &Cell, position: usize, of: usize) -> Self {
        let name = format!("[{position}/{of}] {}", cell.name());
        Self { bar: bar(&name, cell.train.steps, "steps"), losses: None, fid: String::new(), name }
    }

    pub(super) fn finish(self, message: &str) {
        self.bar.finish_and_clear();
        remark(format_args!("{}: {message}", self.name));
    }
}

impl Watch for CellBar {
    fn step(&mut self, line: &Line) {
        let new = [line.critic_loss, line.generator_loss];
        let old = self.losses.unwrap_or(new);
        let now = [0, 1].map(|i| (1.0 - SMOOTHING) * old[i] + SMOOTHING * new[i]);
        self.losses = Some(now);
        if self.bar.position() == 0 {
            // A resumed run's rate is that of its own steps.
            self.bar.set_position(line.step - 1);
            self.bar.reset_eta();
        }
        self.bar.set_position(line.step);
        self.bar.set_message(format!("D {:.3} G {:.3} {}", now[0], now[1], self.fid));
    }

    fn evaluating(&mut self, done: usize, of: usize) {
        self.bar.set_message(format!("evaluating {done}/{of} images"));
    }

    fn scores(&mut self, step: u64, weights: Weights, scores: &[Measured]) {
        let of = |name: &str| scores.iter().find(|m| m.score.name == name).map(|m| m.score.value);
        let fid = of("fid").unwrap_or(f64::NAN);
        self.fid = format!("FID {fid:.2}");
        if !std::io::stderr().is_terminal() {
            let w = weights.id();
            let inception = of("is").map_or_else(String::new, |score| format!(", IS {score:.3}"));
            remark(format_args!("{}: step {step}, {w}: FID {fid:.3}{inception}", self.name));
        }
    }
}
