//! Convolution on the CPU without an im2col matrix: a group of images is copied into a zero-padded scratch that stays in
//! cache, and the register kernels of [`kernel`](crate::nn::kernel) read it in place through offset tables.
//!
//! The work is split over groups of images (forward, input gradient) or over blocks of the weight (weight gradient), so
//! each result is written by one task and does not depend on the number of threads.

use std::ops::Range;

use rayon::prelude::*;

use super::Dims;
use crate::nn::kernel::{Gather, NARROW, Outer, Pixel, Segment, Start, VECTORS};
use crate::nn::op::fill;
use crate::nn::real::Real;

/// Elements of padded input that a task of the gather works on at a time.
const GATHERED: usize = 1 << 17;
/// The same of the weight gradient, which keeps the sums in cache beside it.
const SCRATCH: usize = 1 << 16;
/// Channels × taps of a weight block: with 64 output channels in f32 this is 32 KiB, which stays in the first cache.
const BLOCK: usize = 128;
/// Pixels that the outer-product kernel takes at a time: their output gradients, 16 KiB, stay in the first cache.
const PIXELS: usize = 128;
/// Input channels of a weight-gradient task.
const ROW_BLOCK: usize = 64;

/// One axis of a padded input: `before` zeros, the data, zeros up to `size`.
#[derive(Clone, Copy)]
struct Pad {
    before: usize,
    size: usize,
}

/// Images `[H, W, C]` copied into `[size, size, channels]`, zero outside.
struct Padded {
    from: [usize; 2],
    pad: [Pad; 2],
    /// Channels of the source pixel, and which of them are copied.
    stride: usize,
    first: usize,
    channels: usize,
}

impl Padded {
    fn len(&self) -> usize {
        self.pad[0].size * self.pad[1].size * self.channels
    }

    fn is_copy(&self) -> bool {
        (0..2).any(|a| self.pad[a].size != self.from[a]) || self.channels != self.stride
    }

    fn source_len(&self) -> usize {
        self.from[0] * self.from[1] * self.stride
    }

    /// `images` in one buffer with their borders of zeros.
    fn copy<T: Real>(&self, images: &[T]) -> Vec<T> {
        let count = images.len() / self.source_len();
        let mut out = Vec::with_capacity(count * self.len());
        let width = self.pad[1].size * self.channels;
        // An input whose far edge no kernel reaches may be larger than its padded copy.
        let rows = self.from[0].min(self.pad[0].size - self.pad[0].before);
        let columns = self.from[1].min(self.pad[1].size - self.pad[1].before);
        for (n, image) in images.chunks_exact(self.source_len()).enumerate() {
            let zeros = |out: &mut Vec<T>, upto: usize| out.resize(n * self.len() + upto, T::ZERO);
            for row in 0..rows {
                let source = &image[row * self.from[1] * self.stride..];
                zeros(&mut out, (row + self.pad[0].before) * width + self.pad[1].before * self.channels);
                if self.channels == self.stride {
                    out.extend_from_slice(&source[..columns * self.channels]);
                } else {
                    for pixel in source.chunks_exact(self.stride).take(columns) {
                        out.extend_from_slice(&pixel[self.first..self.first + self.channels]);
                    }
                }
            }
            zeros(&mut out, self.len());
        }
        out
    }
}

/// Output pixels of one image that read the same taps.
struct Phase {
    pixels: Vec<Pixel>,
    /// Kernel position and input offset of each tap.
    taps: Vec<([usize; 2], usize)>,
}

/// One axis of a strided gather: which output positions, where each starts reading, and the taps.
struct AxisPhase {
    /// (output position, padded input position)
    positions: Vec<(usize, usize)>,
    /// (kernel position, padded input offset)
    taps: Vec<(usize, usize)>,
}

/// How weights `[O, I, Kh, Kw]` are read as `[tap][k][n]`.
#[derive(Clone, Copy)]
struct WeightLayout {
    k_stride: usize,
    n_stride: usize,
    kernel: [usize; 2],
}

/// A gather over every image: `k` input channels to `n` output channels.
pub(super) struct Plan {
    padded: Padded,
    phases: Vec<Phase>,
    out_pixels: usize,
    k: usize,
    n: usize,
    weight: WeightLayout,
}

/// Panels of output channels, each `vectors` wide or less: (first channel, channels, vectors).
fn panels<T: Real>(n: usize, vectors: usize) -> Vec<(usize, usize, usize)> {
    let lanes = T::lanes();
    let width = vectors * lanes;
    (0..n)
        .step_by(width)
        .map(|first| {
            let columns = width.min(n - first);
            (first, columns, columns.div_ceil(lanes))
        })
        .collect()
}

impl Plan {
    fn new(
        d: &Dims,
        axes: [Vec<AxisPhase>; 2],
        padded: Padded,
        output: [usize; 2],
        kn: [usize; 2],
        w: WeightLayout,
    ) -> Self {
        let [k, n] = kn;
        let pitch = padded.pad[1].size * k;
        let mut phases = Vec::new();
        for rows in &axes[0] {
            for columns in &axes[1] {
                let pixels = rows
                    .positions
                    .iter()
                    .flat_map(|&(oy, iy)| {
                        columns.positions.iter().map(move |&(ox, ix)| Pixel {
                            input: iy * pitch + ix * k,
                            output: (oy * output[1] + ox) * n,
                        })
                    })
                    .collect();
                let taps = rows
                    .taps
                    .iter()
                    .flat_map(|&(ky, ty)| columns.taps.iter().map(move |&(kx, tx)| ([ky, kx], ty * pitch + tx * k)))
                    .collect();
                phases.push(Phase { pixels, taps });
            }
        }
        debug_assert_eq!(w.kernel, d.kernel);
        Self { padded, phases, out_pixels: output[0] * output[1], k, n, weight: w }
    }

    pub(super) fn forward(d: &Dims) -> Self {
        let s = d.spec.stride;
        let axis = |a: usize| {
            vec![AxisPhase {
                positions: (0..d.output[a]).map(|o| (o, o * s)).collect(),
                taps: (0..d.kernel[a]).map(|k| (k, k)).collect(),
            }]
        };
        let pad = std::array::from_fn(|a| Pad { before: d.spec.padding[a], size: (d.output[a] - 1) * s + d.kernel[a] });
        let padded = Padded { from: d.input, pad, stride: d.i, first: 0, channels: d.i };
        let taps = d.kernel[0] * d.kernel[1];
        let weight = WeightLayout { k_stride: taps, n_stride: d.i * taps, kernel: d.kernel };
        Self::new(d, [axis(0), axis(1)], padded, d.output, [d.i, d.o], weight)
    }

    /// An input position `i` with `q = (i + p) / s`, `r = (i + p) mod s` receives from output `q − t` through kernel
    /// position `r + s·t`: `s` phases an axis, each an ordinary stride-1 gather.
    pub(super) fn input_grad(d: &Dims) -> Self {
        let s = d.spec.stride;
        let pad: [Pad; 2] = std::array::from_fn(|a| {
            let most_taps = d.kernel[a].div_ceil(s);
            let last = (d.input[a] - 1 + d.spec.padding[a]) / s;
            let before = most_taps - 1;
            Pad { before, size: before + d.output[a].max(last + 1) }
        });
        let axis = |a: usize| -> Vec<AxisPhase> {
            (0..s)
                .map(|r| {
                    let taps = (d.kernel[a].saturating_sub(r)).div_ceil(s);
                    AxisPhase {
                        // Padded position of output q − (taps − 1), the first that this phase reads.
                        positions: (0..d.input[a])
                            .filter(|i| (i + d.spec.padding[a]) % s == r)
                            .map(|i| (i, ((i + d.spec.padding[a]) / s + pad[a].before + 1).saturating_sub(taps.max(1))))
                            .collect(),
                        // In order of input offset.
                        taps: (0..taps).rev().map(|t| (r + s * t, taps - 1 - t)).collect(),
                    }
                })
                .collect()
        };
        let padded = Padded { from: d.output, pad, stride: d.o, first: 0, channels: d.o };
        let taps = d.kernel[0] * d.kernel[1];
        let weight = WeightLayout { k_stride: d.i * taps, n_stride: taps, kernel: d.kernel };
        Self::new(d, [axis(0), axis(1)], padded, d.input, [d.o, d.i], weight)
    }

    /// The taps as runs of consecutive input elements (a row of taps is one run), cut to blocks.
    fn segments(&self, phase: &Phase) -> Vec<Segment> {
        let mut runs: Vec<Segment> = Vec::new();
        for &(_, offset) in &phase.taps {
            match runs.last_mut() {
                Some(run) if run.offset + run.len == offset => run.len += self.k,
                _ => runs.push(Segment { offset, len: self.k }),
            }
        }
        let cut = |run: Segment| {
            (0..run.len)
                .step_by(BLOCK)
                .map(move |first| Segment { offset: run.offset + first, len: BLOCK.min(run.len - first) })
        };
        runs.into_iter().flat_map(cut).collect()
    }

    /// The weights of a phase as `[panel][tap][k][panel width]`, zero in the last panel's unused columns.
    fn pack<T: Real>(&self, phase: &Phase, weights: &[T]) -> Vec<T> {
        let width = VECTORS * T::lanes();
        let rows = phase.taps.len() * self.k;
        let panels = panels::<T>(self.n, VECTORS);
        let mut packed = vec![T::ZERO; panels.iter().map(|p| rows * p.2 * T::lanes()).sum()];
        packed.par_chunks_mut((rows * width).max(1)).zip(&panels).for_each(|(out, &(first, columns, vectors))| {
            let width = vectors * T::lanes();
            // The taps of a channel lie side by side: they are read together.
            for k in 0..self.k {
                for (t, &([ky, kx], _)) in phase.taps.iter().enumerate() {
                    let tap = ky * self.weight.kernel[1] + kx;
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

    /// The weights of a phase as `[segment][n][k]` for the narrow kernel.
    fn pack_narrow<T: Real>(&self, phase: &Phase, segments: &[Segment], weights: &[T]) -> Vec<T> {
        let mut packed = Vec::with_capacity(phase.taps.len() * self.k * self.n);
        let mut first = 0;
        for segment in segments {
            for n in 0..self.n {
                packed.extend((first..first + segment.len).map(|row| {
                    let [ky, kx] = phase.taps[row / self.k].0;
                    let tap = ky * self.weight.kernel[1] + kx;
                    weights[tap + row % self.k * self.weight.k_stride + n * self.weight.n_stride]
                }));
            }
            first += segment.len;
        }
        packed
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
        let group = (GATHERED / self.padded.len().max(1)).clamp(1, n_images.max(1));
        let out_len = self.out_pixels * self.n;
        let work: Vec<_> = self
            .phases
            .iter()
            .map(|p| {
                let segments = self.segments(p);
                let packed =
                    if self.is_narrow::<T>() { self.pack_narrow(p, &segments, weights) } else { self.pack(p, weights) };
                (packed, segments, repeat(&p.pixels, group, self.padded.len(), out_len))
            })
            .collect();
        let panels = panels::<T>(self.n, VECTORS);
        fill(n_images * out_len, group * out_len, |at, out| {
            let (image, count) = (at / out_len.max(1), out.len() / out_len.max(1));
            let images = &images[image * self.padded.source_len()..][..count * self.padded.source_len()];
            let padded;
            let input = if self.padded.is_copy() {
                padded = self.padded.copy(images);
                padded.as_slice()
            } else {
                images
            };
            for (phase, (packed, segments, pixels)) in self.phases.iter().zip(&work) {
                self.run_phase(input, out, &pixels[..count * phase.pixels.len()], segments, packed, &panels, bias);
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
        panels: &[(usize, usize, usize)],
        bias: Option<&[T]>,
    ) {
        if self.is_narrow::<T>() {
            // SAFETY: as below.
            return unsafe {
                T::narrow(&Gather {
                    input: input.as_ptr(),
                    output: out.as_mut_ptr(),
                    pixels,
                    segments,
                    panel: packed.as_ptr(),
                    vectors: 1,
                    columns: self.n,
                    start: bias.map_or(Start::Zero, Start::Bias),
                });
            };
        }
        let rows: usize = segments.iter().map(|s| s.len).sum();
        let mut panel_at = 0;
        for &(first, columns, vectors) in panels {
            let width = vectors * T::lanes();
            let mut at = panel_at;
            let mut start = bias.map_or(Start::Zero, |b| Start::Bias(&b[first..first + columns]));
            let mut rest = segments;
            loop {
                let mut len = 0;
                let block = rest.iter().take_while(|s| {
                    len += s.len;
                    len <= BLOCK
                });
                let (block, after) = rest.split_at(block.count());
                // SAFETY: offsets come from the plan, whose pixels and segments stay inside one padded image and one
                // output image; `repeat` moves them by whole images of this group.
                unsafe {
                    T::gather(&Gather {
                        input: input.as_ptr(),
                        output: out.as_mut_ptr().add(first),
                        pixels,
                        segments: block,
                        panel: packed.as_ptr().add(at),
                        vectors,
                        columns,
                        start,
                    });
                }
                at += block.iter().map(|s| s.len).sum::<usize>() * width;
                start = Start::Output;
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            panel_at += rows * width;
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

/// A block of the weight gradient: kernel rows, some input channels, one panel of output channels.
struct WeightBlock {
    ky: Range<usize>,
    first: usize,
    rows: usize,
    panel: (usize, usize, usize),
}

pub(super) fn weight_grad<T: Real>(d: &Dims, x: &[T], dy: &[T]) -> Vec<T> {
    // With few input channels the output gradient is what must be read once, and narrower panels keep the threads busy.
    let few = d.i * d.kernel[0] * d.kernel[1] <= ROW_BLOCK;
    let vectors = if few { 2 } else { VECTORS };
    let panel_width = vectors * T::lanes();
    let rows = d.i.div_ceil(d.i.div_ceil(ROW_BLOCK).max(1)).max(1);
    let panels = panels::<T>(d.o, vectors);
    // All kernel rows read one padded copy, unless that leaves threads without work. Either way sums are the same.
    let tasks = panels.len() * d.i.div_ceil(rows);
    let kernel_rows = if few || tasks >= rayon::current_num_threads() { d.kernel[0] } else { 1 };
    let mut blocks = Vec::new();
    for panel in panels {
        for first in (0..d.i).step_by(rows) {
            for ky in (0..d.kernel[0]).step_by(kernel_rows) {
                blocks.push(WeightBlock { ky: ky..ky + kernel_rows, first, rows: rows.min(d.i - first), panel });
            }
        }
    }
    let parts: Vec<Vec<T>> = blocks.par_iter().map(|b| weight_block(d, b, x, dy)).collect();

    let [kh, kw] = d.kernel;
    let mut by_panel: Vec<Vec<(&WeightBlock, &[T])>> = vec![Vec::new(); d.o.div_ceil(panel_width)];
    for (block, part) in blocks.iter().zip(&parts) {
        by_panel[block.panel.0 / panel_width].push((block, part));
    }
    // Each output channel's weights are one contiguous row of the result.
    let row = d.i * kh * kw;
    fill(d.o * row, row, |at, out| {
        let o = at / row;
        for (block, part) in &by_panel[o / panel_width] {
            let width = block.panel.2 * T::lanes();
            for (n, ky) in block.ky.clone().enumerate() {
                for kx in 0..kw {
                    for r in 0..block.rows {
                        out[((block.first + r) * kh + ky) * kw + kx] =
                            part[((n * kw + kx) * block.rows + r) * width + o - block.panel.0];
                    }
                }
            }
        }
    })
}

/// `[kernel rows, Kw, rows, panel width]` of one block.
fn weight_block<T: Real>(d: &Dims, block: &WeightBlock, x: &[T], dy: &[T]) -> Vec<T> {
    let s = d.spec.stride;
    let (first, columns, vectors) = block.panel;
    let width = vectors * T::lanes();
    let pad = std::array::from_fn(|a| Pad { before: d.spec.padding[a], size: (d.output[a] - 1) * s + d.kernel[a] });
    let padded = Padded { from: d.input, pad, stride: d.i, first: block.first, channels: block.rows };
    let out_pixels = d.output[0] * d.output[1];
    let group = (SCRATCH / padded.len().max(out_pixels * width).max(1)).clamp(1, d.n.max(1));
    // A full panel is read where it lies; a ragged one from a copy whose missing channels are zero.
    let ragged = columns != width;
    let delta_stride = if ragged { width } else { d.o };
    let pitch = pad[1].size * block.rows;
    let pixels: Vec<Pixel> = (0..d.output[0])
        .flat_map(|oy| {
            (0..d.output[1]).map(move |ox| Pixel {
                input: oy * s * pitch + ox * s * block.rows,
                output: (oy * d.output[1] + ox) * delta_stride,
            })
        })
        .collect();
    let pixels = repeat(&pixels, group, padded.len(), out_pixels * delta_stride);

    let mut ragged_delta = if ragged { vec![T::ZERO; group * out_pixels * width] } else { Vec::new() };
    let kernel_row = d.kernel[1] * block.rows;
    let mut acc = vec![T::ZERO; block.ky.len() * kernel_row * width];
    let groups = x.chunks(group * padded.source_len()).zip(dy.chunks(group * out_pixels * d.o));
    for (images, delta) in groups {
        let count = images.len() / padded.source_len();
        let scratch;
        let input = if padded.is_copy() {
            scratch = padded.copy(images);
            scratch.as_slice()
        } else {
            images
        };
        let delta = if ragged {
            for (out, d) in ragged_delta.chunks_exact_mut(width).zip(delta.chunks_exact(d.o)) {
                out[..columns].copy_from_slice(&d[first..first + columns]);
            }
            ragged_delta.as_slice()
        } else {
            &delta[first..]
        };
        // The taps of a kernel row are consecutive input channels: one call for all of them.
        for pixels in pixels[..count * out_pixels].chunks(PIXELS) {
            for (n, ky) in block.ky.clone().enumerate() {
                // SAFETY: the largest pixel offset plus the last kernel row ends with the padded image.
                unsafe {
                    T::outer(&Outer {
                        input: input.as_ptr().add(ky * pitch),
                        delta: delta.as_ptr(),
                        pixels,
                        rows: kernel_row,
                        vectors,
                        output: acc.as_mut_ptr().add(n * kernel_row * width),
                    });
                }
            }
        }
    }
    acc
}
