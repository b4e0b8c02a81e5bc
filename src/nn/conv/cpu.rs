//! Convolution on the CPU without an im2col matrix and without padding: output pixels that lack the same taps (those beyond
//! the border) are one *phase*, and the register kernels of [`kernel`](crate::machine::cpu::kernel) read the images in place through
//! the offset tables of each phase.
//!
//! The work is split over groups of images (forward, input gradient) or over blocks of the weight (weight gradient), so
//! each result is written by one task and does not depend on the number of threads.

use std::ops::Range;

use rayon::prelude::*;

use crate::machine::convolution::Dims;
use crate::machine::cpu::kernel::{Gather, NARROW, Narrow, Outer, Pixel, ROWS, Segment, Start};
use crate::machine::cpu::panels::{Panel, panels};
use crate::machine::cpu::parallel::fill;
use crate::machine::cpu::real::Real;

/// Input elements that a task of the gather works on at a time.
const GATHERED: usize = 1 << 17;
/// The same of the weight gradient, which keeps the sums in cache beside it.
const SCRATCH: usize = 1 << 18;
/// Channels × taps of a weight block: with 64 output channels in f32 this is 32 KiB, which stays in the first cache.
pub(super) const BLOCK: usize = 128;
/// Pixels that the outer-product kernel takes at a time: their output gradients, 16 KiB in f32, stay in the first cache.
pub(super) const PIXELS: usize = 64;
/// Tasks of a weight gradient for each thread, at least.
const TASKS: usize = 2;
/// Elements between pixels, or a multiple, from which on their parts fall on the same sets of the first cache.
const ALIASED: usize = 128;
/// Input channels of a weight-gradient task.
const ROW_BLOCK: usize = 64;

/// Output positions of one axis that read the same taps.
struct AxisPhase {
    /// (place among the packed taps, input offset)
    taps: Vec<(usize, usize)>,
    /// (output position, input position of the first tap)
    positions: Vec<(usize, usize)>,
}

/// Groups the output positions of an axis by what they read: (place among the packed taps, input position), in the order of
/// input positions.
fn axis(positions: usize, reads: impl Fn(usize) -> Vec<(usize, usize)>) -> Vec<AxisPhase> {
    let mut phases: Vec<AxisPhase> = Vec::new();
    for position in 0..positions {
        let mut taps = reads(position);
        let first = taps.first().map_or(0, |tap| tap.1);
        taps.iter_mut().for_each(|tap| tap.1 -= first);
        match phases.iter_mut().find(|phase| phase.taps == taps) {
            Some(phase) => phase.positions.push((position, first)),
            None => phases.push(AxisPhase { taps, positions: vec![(position, first)] }),
        }
    }
    phases
}

/// Output pixels of one image that read the same taps.
struct Phase {
    pixels: Vec<Pixel>,
    /// Place among the packed taps, and input offset in elements.
    taps: Vec<(usize, usize)>,
}

impl Phase {
    /// Of images of `width` × `channels` a row to outputs of `out_width` × `out_channels`, by a kernel of `columns`.
    fn all(axes: &[Vec<AxisPhase>; 2], [width, channels]: [usize; 2], out: [usize; 2], columns: usize) -> Vec<Self> {
        let pitch = width * channels;
        let pair = |y: &AxisPhase, x: &AxisPhase| Self {
            pixels: y
                .positions
                .iter()
                .flat_map(|&(oy, iy)| {
                    x.positions.iter().map(move |&(ox, ix)| Pixel {
                        input: iy * pitch + ix * channels,
                        output: (oy * out[0] + ox) * out[1],
                    })
                })
                .collect(),
            taps: y
                .taps
                .iter()
                .flat_map(|&(ky, dy)| {
                    x.taps.iter().map(move |&(kx, dx)| (ky * columns + kx, dy * pitch + dx * channels))
                })
                .collect(),
        };
        axes[0].iter().flat_map(|y| axes[1].iter().map(move |x| pair(y, x))).collect()
    }

    /// The taps of `channels` each as runs of elements that are consecutive in the input and in the packed weights.
    fn runs(&self, channels: usize, include: impl Fn(usize) -> bool) -> Vec<Segment> {
        let mut runs: Vec<Segment> = Vec::new();
        for &(tap, offset) in self.taps.iter().filter(|&&(tap, _)| include(tap)) {
            let row = tap * channels;
            match runs.last_mut() {
                Some(run) if run.offset + run.len == offset && run.row + run.len == row => run.len += channels,
                _ => runs.push(Segment { offset, row, len: channels }),
            }
        }
        runs
    }
}

/// What each output position of a forward axis reads.
fn forward_axis(d: &Dims, a: usize) -> Vec<AxisPhase> {
    axis(d.output[a], |o| {
        let input = |k: usize| (o * d.spec.stride + k).checked_sub(d.spec.padding[a]).filter(|&i| i < d.input[a]);
        (0..d.kernel[a]).filter_map(|k| Some((k, input(k)?))).collect()
    })
}

/// How weights `[O, I, Kh, Kw]` are read as `[tap][k][n]`.
struct WeightLayout {
    k_stride: usize,
    n_stride: usize,
    /// Kernel position of each packed tap.
    taps: Vec<usize>,
}

/// A gather over every image: `k` input channels to `n` output channels.
pub(super) struct Plan {
    phases: Vec<Phase>,
    in_len: usize,
    out_len: usize,
    k: usize,
    n: usize,
    weight: WeightLayout,
}

impl Plan {
    pub(super) fn forward(d: &Dims) -> Self {
        let taps = d.kernel[0] * d.kernel[1];
        Self {
            phases: Phase::all(&[0, 1].map(|a| forward_axis(d, a)), [d.input[1], d.i], [d.output[1], d.o], d.kernel[1]),
            in_len: d.input[0] * d.input[1] * d.i,
            out_len: d.output[0] * d.output[1] * d.o,
            k: d.i,
            n: d.o,
            weight: WeightLayout { k_stride: taps, n_stride: d.i * taps, taps: (0..taps).collect() },
        }
    }

    /// Input position `i` receives from each output `o` that reads it, through kernel position `i + padding − stride·o`.
    pub(super) fn input_grad(d: &Dims) -> Self {
        let s = d.spec.stride;
        // Packed so that consecutive outputs meet consecutive taps.
        let order = [0, 1].map(|a| -> Vec<usize> {
            (0..s).flat_map(|r| (r..d.kernel[a]).step_by(s).collect::<Vec<_>>().into_iter().rev()).collect()
        });
        let axes = [0, 1].map(|a| {
            axis(d.input[a], |i| {
                let at = i + d.spec.padding[a];
                let outputs = (at + 1).saturating_sub(d.kernel[a]).div_ceil(s)..(at / s + 1).min(d.output[a]);
                let place = |k: usize| order[a].iter().position(|&o| o == k);
                outputs.filter_map(|o| Some((place(at - o * s)?, o))).collect()
            })
        });
        let taps = d.kernel[0] * d.kernel[1];
        let columns = d.kernel[1];
        Self {
            phases: Phase::all(&axes, [d.output[1], d.o], [d.input[1], d.i], columns),
            in_len: d.output[0] * d.output[1] * d.o,
            out_len: d.input[0] * d.input[1] * d.i,
            k: d.o,
            n: d.i,
            weight: WeightLayout {
                k_stride: d.i * taps,
                n_stride: taps,
                taps: order[0].iter().flat_map(|&ky| order[1].iter().map(move |&kx| ky * columns + kx)).collect(),
            },
        }
    }

    /// The runs of a phase, cut to blocks.
    fn segments(&self, phase: &Phase) -> Vec<Segment> {
        let cut = |run: Segment| {
            (0..run.len).step_by(BLOCK).map(move |first| Segment {
                offset: run.offset + first,
                row: run.row + first,
                len: BLOCK.min(run.len - first),
            })
        };
        phase.runs(self.k, |_| true).into_iter().flat_map(cut).collect()
    }

    fn rows(&self) -> usize {
        self.weight.taps.len() * self.k
    }

    /// The weights as `[panel][tap][k][panel width]`, zero in the last panel's unused columns.
    fn pack<T: Real>(&self, weights: &[T]) -> Vec<T> {
        let rows = self.rows();
        let panels = panels::<T>(self.n, T::vectors());
        let mut packed = vec![T::ZERO; panels.iter().map(|p| rows * p.vectors * T::lanes()).sum()];
        let most = (rows * T::vectors() * T::lanes()).max(1);
        packed.par_chunks_mut(most).zip(&panels).for_each(|(out, &Panel { first, columns, vectors })| {
            let width = vectors * T::lanes();
            // The taps of a channel lie side by side: they are read together.
            for k in 0..self.k {
                for (t, &tap) in self.weight.taps.iter().enumerate() {
                    let base = tap + k * self.weight.k_stride + first * self.weight.n_stride;
                    let row = &mut out[(t * self.k + k) * width..][..columns];
                    for (o, &w) in row.iter_mut().zip(weights[base..].iter().step_by(self.weight.n_stride)) {
                        *o = w;
                    }
                }
            }
        });
        packed
    }

    /// Whether the narrow kernel does this sum: few outputs, and whole vectors of inputs.
    fn is_narrow<T: Real>(&self) -> bool {
        self.n <= NARROW && self.k.is_multiple_of(T::lanes())
    }

    /// The weights as `[n][tap][k]` for the narrow kernel.
    fn pack_narrow<T: Real>(&self, weights: &[T]) -> Vec<T> {
        let at = |n: usize, tap: usize, k: usize| tap + k * self.weight.k_stride + n * self.weight.n_stride;
        let rows =
            |n: usize| self.weight.taps.iter().flat_map(move |&tap| (0..self.k).map(move |k| weights[at(n, tap, k)]));
        (0..self.n).flat_map(rows).collect()
    }

    /// `finish` gets the outputs of a group of images, which are still in cache, with the index of the first.
    pub(super) fn run<T: Real>(
        &self,
        images: &[T],
        weights: &[T],
        bias: Option<&[T]>,
        n_images: usize,
        finish: impl Fn(usize, &mut [T]) + Sync,
    ) -> Vec<T> {
        // Whole tiles even in a phase of one pixel an image.
        let group = match GATHERED / self.in_len.max(1) {
            few if few < ROWS => few.max(1),
            many => many - many % ROWS,
        };
        let work: Vec<_> = self
            .phases
            .iter()
            .map(|p| (self.segments(p), repeat(&p.pixels, group.min(n_images), self.in_len, self.out_len)))
            .collect();
        let packed = if self.is_narrow::<T>() { self.pack_narrow(weights) } else { self.pack(weights) };
        let panels = panels::<T>(self.n, T::vectors());
        fill(n_images * self.out_len, group * self.out_len, |at, out| {
            let (image, count) = (at / self.out_len.max(1), out.len() / self.out_len.max(1));
            let input = &images[image * self.in_len..][..count * self.in_len];
            for (phase, (segments, pixels)) in self.phases.iter().zip(&work) {
                self.run_phase(input, out, &pixels[..count * phase.pixels.len()], segments, &packed, &panels, bias);
            }
            finish(at, out);
        })
    }

    #[allow(clippy::too_many_arguments)]
    fn run_phase<T: Real>(
        &self,
        input: &[T],
        out: &mut [T],
        pixels: &[Pixel],
        segments: &[Segment],
        packed: &[T],
        panels: &[Panel],
        bias: Option<&[T]>,
    ) {
        if self.is_narrow::<T>() {
            // SAFETY: as below.
            return unsafe {
                T::run(&Narrow(Gather {
                    input: input.as_ptr(),
                    output: out.as_mut_ptr(),
                    pixels,
                    segments,
                    panel: packed.as_ptr(),
                    panel_rows: self.rows(),
                    vectors: 1,
                    columns: self.n,
                    start: bias.map_or(Start::Zero, Start::Bias),
                }));
            };
        }
        let mut panel_at = 0;
        for &Panel { first, columns, vectors } in panels {
            let mut start = bias.map_or(Start::Zero, |b| Start::Bias(&b[first..first + columns]));
            let mut rest = segments;
            loop {
                let mut len = 0;
                let block = rest.iter().take_while(|s| {
                    len += s.len;
                    len <= BLOCK
                });
                let (block, after) = rest.split_at(block.count());
                // SAFETY: offsets come from the plan, whose pixels and segments stay inside one image and one output image;
                // `repeat` moves them by whole images of this group.
                unsafe {
                    T::run(&Gather {
                        input: input.as_ptr(),
                        output: out.as_mut_ptr().add(first),
                        pixels,
                        segments: block,
                        panel: packed.as_ptr().add(panel_at),
                        panel_rows: self.rows(),
                        vectors,
                        columns,
                        start,
                    });
                }
                start = Start::Output;
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            panel_at += self.rows() * vectors * T::lanes();
        }
    }
}

/// The pixels of one image, for each image of a group.
fn repeat(pixels: &[Pixel], images: usize, input_len: usize, output_len: usize) -> Vec<Pixel> {
    (0..images)
        .flat_map(|g| {
            pixels.iter().map(move |p| Pixel { input: p.input + g * input_len, output: p.output + g * output_len })
        })
        .collect()
}

/// A block of the weight gradient: kernel rows, some input channels, some panels of output channels.
struct WeightBlock<'a> {
    ky: Range<usize>,
    first: usize,
    rows: usize,
    panels: &'a [Panel],
}

pub(super) fn weight_grad<T: Real>(d: &Dims, x: &[T], dy: &[T]) -> Vec<T> {
    // With few input channels the output gradient is what must be read once, and narrower panels keep the threads busy.
    let few = d.i * d.kernel[0] * d.kernel[1] <= ROW_BLOCK;
    let vectors = if few { 2 } else { T::vectors() };
    let panels = panels::<T>(d.o, vectors);
    let (whole, ragged) = panels.split_at(panels.len() - usize::from(!d.o.is_multiple_of(vectors * T::lanes())));
    // The cut that keeps the threads busy the shortest, each task reading its inputs for all its panels. Either way sums are the same.
    let threads = rayon::current_num_threads();
    let least = d.i.div_ceil(ROW_BLOCK).max(1);
    let kernel_rows = if few || panels.len() * least >= 2 * TASKS * threads { d.kernel[0] } else { 1 };
    let most = (2 * least).min(d.i / ROWS / 2).max(least);
    let cuts = (least..=most).flat_map(|blocks| (1..=whole.len().max(1)).map(move |groups| (blocks, groups)));
    let cuts = cuts.map(|(blocks, groups)| (d.i.div_ceil(blocks).max(1), whole.len().div_ceil(groups).max(1)));
    let (rows, some) = cuts
        .min_by_key(|&(rows, some)| {
            let tasks = d.i.div_ceil(rows) * whole.len().div_ceil(some) * (d.kernel[0] / kernel_rows);
            (tasks < TASKS * threads, tasks.div_ceil(threads) * rows * (4 * some + 1))
        })
        .unwrap_or((1, 1));
    let mut blocks = Vec::new();
    for first in (0..d.i).step_by(rows) {
        for panels in whole.chunks(some).chain(ragged.chunks(1)) {
            for ky in (0..d.kernel[0]).step_by(kernel_rows) {
                blocks.push(WeightBlock { ky: ky..ky + kernel_rows, first, rows: rows.min(d.i - first), panels });
            }
        }
    }
    // Outputs are counted in pixels: the stride between them is the block's.
    let phases = Phase::all(&[0, 1].map(|a| forward_axis(d, a)), [d.input[1], d.i], [d.output[1], 1], d.kernel[1]);
    let parts: Vec<Vec<Vec<T>>> = blocks.par_iter().map(|b| weight_block(d, &phases, b, x, dy)).collect();

    let [kh, kw] = d.kernel;
    let mut by_panel: Vec<Vec<(&WeightBlock, &Panel, &[T])>> = vec![Vec::new(); panels.len()];
    for (block, parts) in blocks.iter().zip(&parts) {
        for (panel, part) in block.panels.iter().zip(parts) {
            by_panel[panel.first / (vectors * T::lanes())].push((block, panel, part));
        }
    }
    // Each output channel's weights are one contiguous row of the result.
    let row = d.i * kh * kw;
    fill(d.o * row, row, |at, out| {
        let o = at / row;
        for (block, panel, part) in &by_panel[o / (vectors * T::lanes())] {
            let width = panel.vectors * T::lanes();
            for (n, ky) in block.ky.clone().enumerate() {
                for kx in 0..kw {
                    for r in 0..block.rows {
                        out[((block.first + r) * kh + ky) * kw + kx] =
                            part[((n * kw + kx) * block.rows + r) * width + o - panel.first];
                    }
                }
            }
        }
    })
}

/// `[kernel rows, Kw, rows, panel width]` of each panel of a block.
fn weight_block<T: Real>(d: &Dims, phases: &[Phase], block: &WeightBlock, x: &[T], dy: &[T]) -> Vec<Vec<T>> {
    let width = |panel: &Panel| panel.vectors * T::lanes();
    let (in_len, out_pixels) = (d.input[0] * d.input[1] * d.i, d.output[0] * d.output[1]);
    let widths: usize = block.panels.iter().map(width).sum();
    let touched = (d.input[0] * d.input[1] * block.rows).max(out_pixels * widths);
    let group = (SCRATCH / touched.max(1)).clamp(1, d.n.max(1));
    // A full panel is read where it lies; a ragged one, alone in its block, from a copy whose missing channels are zero.
    let Panel { first, columns, .. } = block.panels[0];
    let ragged = block.panels.iter().any(|panel| panel.columns != width(panel));
    let (delta_stride, delta_first) = if ragged { (widths, first) } else { (d.o, 0) };
    let taps = block.ky.start * d.kernel[1]..block.ky.end * d.kernel[1];
    let work: Vec<_> = phases
        .iter()
        .map(|phase| {
            let pixels =
                phase.pixels.iter().map(|p| Pixel { output: p.output * delta_stride, ..*p }).collect::<Vec<_>>();
            let runs = phase.runs(block.rows, |tap| taps.contains(&tap));
            (runs, repeat(&pixels, group, in_len, out_pixels * delta_stride))
        })
        .collect();

    let mut ragged_delta = if ragged { vec![T::ZERO; group * out_pixels * widths] } else { Vec::new() };
    let mut sums: Vec<Vec<T>> =
        block.panels.iter().map(|panel| vec![T::ZERO; taps.len() * block.rows * width(panel)]).collect();
    // Pixels a power of two apart share few lines of the cache: there, parts of them are copied side by side.
    let apart = d.i * d.spec.stride;
    let copies = block.rows < d.i && block.panels.len() > 1 && apart.is_multiple_of(ALIASED);
    let pitch = work.iter().flat_map(|(runs, _)| runs).map(|run| run.len).max().unwrap_or(0);
    let mut together = if copies { vec![T::ZERO; PIXELS * pitch] } else { Vec::new() };
    for (images, delta) in x.chunks(group * in_len).zip(dy.chunks(group * out_pixels * d.o)) {
        let count = images.len() / in_len;
        let delta = if ragged {
            for (out, d) in ragged_delta.chunks_exact_mut(widths).zip(delta.chunks_exact(d.o)) {
                out[..columns].copy_from_slice(&d[first..first + columns]);
            }
            ragged_delta.as_slice()
        } else {
            delta
        };
        for (phase, (runs, pixels)) in phases.iter().zip(&work) {
            for pixels in pixels[..count * phase.pixels.len()].chunks(PIXELS) {
                let copied: Vec<_> = match copies {
                    true => pixels.iter().zip(0..).map(|(p, n)| Pixel { input: n * pitch, ..*p }).collect(),
                    false => Vec::new(),
                };
                for run in runs {
                    let (input, pixels) = if !copies {
                        (&images[run.offset + block.first..], pixels)
                    } else {
                        for (to, pixel) in together.chunks_exact_mut(pitch).zip(pixels) {
                            let from = &images[pixel.input + run.offset + block.first..];
                            to[..run.len].copy_from_slice(&from[..run.len]);
                        }
                        (&together[..], &copied[..])
                    };
                    for (panel, sums) in block.panels.iter().zip(&mut sums) {
                        // SAFETY: the plan's pixels and runs stay inside one image, from the block's first channel on.
                        unsafe {
                            T::run(&Outer {
                                input: input.as_ptr(),
                                delta: delta.as_ptr().add(panel.first - delta_first),
                                pixels,
                                rows: run.len,
                                vectors: panel.vectors,
                                output: sums.as_mut_ptr().add((run.row - taps.start * block.rows) * width(panel)),
                            });
                        }
                    }
                }
            }
        }
    }
    sums
}
