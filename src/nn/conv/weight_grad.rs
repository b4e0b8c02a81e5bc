//! The weight gradient on the CPU: sums over pixels of outer products, of what a tap reads and of the output's gradient.
//!
//! Blocks of the weight are tasks, so each result is written by one task and does not depend on the number of threads. A block takes
//! some pixels at a time, whose output gradients stay in the first cache, through all its taps.

use std::ops::Range;
use std::sync::Arc;

use super::cpu::{Phase, repeat};
use crate::machine::convolution::Dims;
use crate::machine::cpu::kernel::{Outer, Pixel, ROWS, Segment};
use crate::machine::cpu::panels::{Panel, panels};
use crate::machine::cpu::parallel::{collect, fill, threads};
use crate::machine::cpu::real::Real;

/// Pixels that the outer-product kernel takes at a time: their output gradients, 16 KiB in f32, stay in the first cache.
pub(super) const PIXELS: usize = 64;
/// Taps × pixels of an image at most that have lists of their own.
const LISTED: usize = 1 << 12;
/// Tasks for each thread, at least.
const TASKS: usize = 2;
/// Elements between pixels, or a multiple, from which on their parts fall on the same sets of the first cache.
const ALIASED: usize = 128;
/// Input channels of a task.
const ROW_BLOCK: usize = 64;

/// Pixels that read the same consecutive taps.
struct Call {
    taps: Range<usize>,
    /// Input offset of the first tap from a pixel's base, in elements.
    offset: usize,
    pixels: Arc<[Pixel]>,
}

/// How the pixels of images are gone through. It does not depend on how the weight is cut: sums are the same.
#[derive(Clone, Copy)]
enum Way {
    /// Those that read the same taps, consecutive ones at a time (few input channels).
    Runs,
    /// Those that read the same taps, tap by tap.
    Phases,
    /// In their order, tap by tap those that read it: the next one lies near, but each tap has a list of its own (small images).
    Taps,
}

impl Way {
    fn of(d: &Dims) -> Self {
        let taps: usize = d.kernel.iter().product();
        match (d.spec.groups == 1 && d.i * taps <= ROW_BLOCK, taps * d.output[0] * d.output[1] <= LISTED) {
            (true, _) => Self::Runs,
            (_, true) => Self::Taps,
            _ => Self::Phases,
        }
    }

    /// Pixels of the images gone through at a time, at least: phases at the corners of one are small.
    fn pixels(self) -> usize {
        match self {
            Self::Runs => 1 << 13,
            Self::Phases => 1 << 12,
            Self::Taps => PIXELS,
        }
    }

    /// What is to be summed over a number of images whose output gradients lie `pitch` elements apart.
    fn calls(self, d: &Dims, images: usize, pitch: usize) -> Vec<Call> {
        match self {
            Self::Taps => in_order(d, images, pitch),
            _ => Phase::forward(d, pitch).iter().flat_map(|phase| self.of_phase(d, phase, images, pitch)).collect(),
        }
    }

    fn of_phase(self, d: &Dims, phase: &Phase, images: usize, pitch: usize) -> Vec<Call> {
        let taps: Vec<(Range<usize>, usize)> = match self {
            Self::Runs => {
                let taps = |run: Segment| (run.row / d.i..(run.row + run.len) / d.i, run.offset);
                phase.runs(d.i).into_iter().map(taps).collect()
            }
            _ => phase.taps.iter().map(|&(tap, offset)| (tap..tap + 1, offset)).collect(),
        };
        let [in_len, out_len] = [d.input[0] * d.input[1] * d.i, d.output[0] * d.output[1] * pitch];
        let pixels = repeat(&phase.pixels, images, in_len, out_len);
        let of_pixels = |pixels: &[Pixel]| {
            let pixels: Arc<[Pixel]> = Arc::from(pixels);
            let call = |(taps, offset): &(Range<usize>, _)| Call {
                taps: taps.clone(),
                offset: *offset,
                pixels: Arc::clone(&pixels),
            };
            taps.iter().map(call).collect::<Vec<_>>()
        };
        pixels.chunks(PIXELS).flat_map(of_pixels).collect()
    }
}

fn in_order(d: &Dims, images: usize, pitch: usize) -> Vec<Call> {
    let (in_len, out_pixels) = (d.input[0] * d.input[1] * d.i, d.output[0] * d.output[1]);
    let reads = |pixel: usize, tap: usize| {
        let (image, at) = (pixel / out_pixels, pixel % out_pixels);
        let read = |a: usize, o: usize, k: usize| {
            (o * d.spec.stride + k).checked_sub(d.spec.padding[a]).filter(|&i| i < d.input[a])
        };
        let y = read(0, at / d.output[1], tap / d.kernel[1])?;
        let x = read(1, at % d.output[1], tap % d.kernel[1])?;
        Some(Pixel { input: image * in_len + (y * d.input[1] + x) * d.i, output: pixel * pitch })
    };
    let all = images * out_pixels;
    let some = all.div_ceil(all.div_ceil(PIXELS).max(1)).max(1);
    let mut calls = Vec::new();
    for first in (0..all).step_by(some) {
        for tap in 0..d.kernel[0] * d.kernel[1] {
            let pixels: Arc<[Pixel]> = (first..all.min(first + some)).filter_map(|pixel| reads(pixel, tap)).collect();
            if !pixels.is_empty() {
                calls.push(Call { taps: tap..tap + 1, offset: 0, pixels });
            }
        }
    }
    calls
}

/// A block of the weight: kernel rows, some input channels, some panels of output channels, all of one group.
struct Block<'a> {
    ky: Range<usize>,
    first: usize,
    rows: usize,
    panels: &'a [Panel],
}

pub(super) fn weight_grad<T: Real>(d: &Dims, x: &[T], dy: &[T]) -> Vec<T> {
    // With few input channels the output gradient is what must be read once, and narrower panels keep the threads busy.
    let way = Way::of(d);
    let few = matches!(way, Way::Runs);
    let vectors = if few { 2 } else { T::vectors() };
    let ([i, o], groups) = (d.of_group(), d.spec.groups);
    let of_group = panels::<T>(o, vectors);
    let shifted = |group: usize| of_group.iter().map(move |panel| Panel { first: group * o + panel.first, ..*panel });
    let panels: Vec<Panel> = (0..groups).flat_map(shifted).collect();
    // The panel of an output channel.
    let panel_of = |c: usize| c / o * of_group.len() + c % o / (vectors * T::lanes());
    let whole = o / (vectors * T::lanes());
    // The cut that keeps the threads busy the shortest, each task reading its inputs for all its panels. Either way sums are the same.
    let threads = threads();
    let least = i.div_ceil(ROW_BLOCK).max(1);
    let kernel_rows = if few || panels.len() * least >= 2 * TASKS * threads { d.kernel[0] } else { 1 };
    let most = if few { 1 } else { (2 * least).min(i / ROWS / 2).max(least) };
    let cuts = (least..=most).flat_map(|blocks| (1..=whole.max(1)).map(move |parts| (blocks, parts)));
    let cuts = cuts.map(|(blocks, parts)| (i.div_ceil(blocks).max(1), whole.div_ceil(parts).max(1)));
    let (rows, some) = cuts
        .min_by_key(|&(rows, some)| {
            let tasks = groups * i.div_ceil(rows) * whole.div_ceil(some) * (d.kernel[0] / kernel_rows);
            (tasks < TASKS * threads, tasks.div_ceil(threads) * rows * (4 * some + 1))
        })
        .unwrap_or((1, 1));
    let mut blocks = Vec::new();
    for (group, panels) in panels.chunks(of_group.len().max(1)).enumerate() {
        let (whole, ragged) = panels.split_at(whole);
        for first in (0..i).step_by(rows) {
            for panels in whole.chunks(some).chain(ragged.chunks(1)) {
                for ky in (0..d.kernel[0]).step_by(kernel_rows) {
                    let (first, rows) = (group * i + first, rows.min(i - first));
                    blocks.push(Block { ky: ky..ky + kernel_rows, first, rows, panels });
                }
            }
        }
    }
    let images = way.pixels().div_ceil((d.output[0] * d.output[1]).max(1)).clamp(1, d.n.max(1));
    // Of whole panels and of ragged ones, for so many images and for those that are left.
    let calls = [false, true].map(|ragged| {
        let pitch = blocks.iter().find(|block| block.is_ragged::<T>() == ragged).map(|block| block.pitch::<T>(d));
        [images, d.n % images].map(|n| pitch.map(|pitch| way.calls(d, n, pitch)).unwrap_or_default())
    });
    let parts = collect(blocks.len(), |block| {
        let of_block = &blocks[block];
        of_block.sums(d, &calls[usize::from(of_block.is_ragged::<T>())], images, x, dy)
    });

    let [kh, kw] = d.kernel;
    let mut by_panel: Vec<Vec<(&Block, &Panel, &[T])>> = vec![Vec::new(); panels.len()];
    for (block, parts) in blocks.iter().zip(&parts) {
        for (panel, part) in block.panels.iter().zip(parts) {
            by_panel[panel_of(panel.first)].push((block, panel, part));
        }
    }
    // Each output channel's weights are one contiguous row of the result.
    let row = i * kh * kw;
    fill(d.o * row, row, |at, out| {
        let c = at / row;
        for (block, panel, part) in &by_panel[panel_of(c)] {
            let width = panel.vectors * T::lanes();
            for (n, ky) in block.ky.clone().enumerate() {
                for kx in 0..kw {
                    for r in 0..block.rows {
                        out[((block.first % i + r) * kh + ky) * kw + kx] =
                            part[((n * kw + kx) * block.rows + r) * width + c - panel.first];
                    }
                }
            }
        }
    })
}

impl Block<'_> {
    /// Whether its one panel is not full: it is read from a copy whose missing channels are zero.
    fn is_ragged<T: Real>(&self) -> bool {
        self.panels.iter().any(|panel| panel.columns != panel.vectors * T::lanes())
    }

    /// Elements between the output gradients that it reads.
    fn pitch<T: Real>(&self, d: &Dims) -> usize {
        if self.is_ragged::<T>() { self.panels[0].vectors * T::lanes() } else { d.o }
    }

    /// `[kernel rows, Kw, rows, panel width]` of each panel, given what to sum over `images` images and over those that are left.
    fn sums<T: Real>(&self, d: &Dims, calls: &[Vec<Call>; 2], images: usize, x: &[T], dy: &[T]) -> Vec<Vec<T>> {
        let width = |panel: &Panel| panel.vectors * T::lanes();
        let (in_len, out_pixels) = (d.input[0] * d.input[1] * d.i, d.output[0] * d.output[1]);
        let Panel { first, columns, .. } = self.panels[0];
        let taps = self.ky.start * d.kernel[1]..self.ky.end * d.kernel[1];
        let calls = calls
            .each_ref()
            .map(|calls| calls.iter().filter(|call| taps.contains(&call.taps.start)).collect::<Vec<_>>());
        let mut sums: Vec<Vec<T>> =
            self.panels.iter().map(|panel| vec![T::ZERO; taps.len() * self.rows * width(panel)]).collect();
        let ragged = self.is_ragged::<T>();
        let mut padded = if ragged { vec![T::ZERO; images * out_pixels * self.pitch::<T>(d)] } else { Vec::new() };
        // Pixels a power of two apart share few lines of the cache: there, parts of them are copied side by side.
        let apart = d.i * d.spec.stride;
        let copies = self.rows < d.i && self.panels.len() > 1 && apart.is_multiple_of(ALIASED);
        let mut together = if copies { vec![T::ZERO; PIXELS * self.rows] } else { Vec::new() };
        for (x, dy) in x.chunks(images * in_len).zip(dy.chunks(images * out_pixels * d.o)) {
            let delta = if ragged {
                for (out, d) in padded.chunks_exact_mut(self.pitch::<T>(d)).zip(dy.chunks_exact(d.o)) {
                    out[..columns].copy_from_slice(&d[first..first + columns]);
                }
                padded.as_slice()
            } else {
                dy
            };
            for call in &calls[usize::from(x.len() < images * in_len)] {
                let rows = call.taps.len() * self.rows;
                let (mut input, mut pixels) = (&x[call.offset + self.first..], &call.pixels[..]);
                let copied: Vec<_>;
                if copies {
                    for (to, pixel) in together.chunks_exact_mut(rows).zip(pixels) {
                        to.copy_from_slice(&input[pixel.input..][..rows]);
                    }
                    copied = pixels.iter().zip(0..).map(|(p, n)| Pixel { input: n * rows, ..*p }).collect();
                    (input, pixels) = (&together, &copied);
                }
                for (panel, sums) in self.panels.iter().zip(&mut sums) {
                    // SAFETY: pixels and taps lie inside their images, a block's channels inside a pixel.
                    unsafe {
                        T::run(&Outer {
                            input: input.as_ptr(),
                            delta: delta.as_ptr().add(if ragged { 0 } else { panel.first }),
                            pixels,
                            rows,
                            vectors: panel.vectors,
                            output: sums.as_mut_ptr().add((call.taps.start - taps.start) * self.rows * width(panel)),
                        });
                    }
                }
            }
        }
        sums
    }
}
