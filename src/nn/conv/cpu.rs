//! Convolution on the CPU without an im2col matrix and without padding: output pixels that lack the same taps (those beyond
//! the border) are one *phase*, and the register kernels of [`kernel`](crate::machine::cpu::kernel) read the images in place through
//! the offset tables of each phase.
//!
//! The work is split over groups of images, so each result is written by one task and does not depend on the number of threads. The weight
//! gradient is in `weight_grad`.

use crate::machine::convolution::Dims;
use crate::machine::cpu::kernel::{Gather, NARROW, Narrow, Pixel, ROWS, Segment, Start};
use crate::machine::cpu::panels::{Panel, panels};
use crate::machine::cpu::parallel::{fill, threads};
use crate::machine::cpu::real::Real;

/// Input elements that a task of the gather works on at a time.
const GATHERED: usize = 1 << 17;
/// Longest segment.
const SEGMENT: usize = 128;
/// Pixels whose sums take as long as reading their weights.
pub(super) const READ: usize = 32;

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
pub(super) struct Phase {
    pub(super) pixels: Vec<Pixel>,
    /// Place among the packed taps, and input offset in elements.
    pub(super) taps: Vec<(usize, usize)>,
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

    /// Of a forward pass whose outputs lie `pitch` elements apart.
    pub(super) fn forward(d: &Dims, pitch: usize) -> Vec<Self> {
        let axes = [0, 1].map(|a| {
            axis(d.output[a], |o| {
                let input =
                    |k: usize| (o * d.spec.stride + k).checked_sub(d.spec.padding[a]).filter(|&i| i < d.input[a]);
                (0..d.kernel[a]).filter_map(|k| Some((k, input(k)?))).collect()
            })
        });
        Self::all(&axes, [d.input[1], d.i], [d.output[1], pitch], d.kernel[1])
    }

    /// The taps of `channels` each as runs of elements that are consecutive in the input and in the packed weights.
    pub(super) fn runs(&self, channels: usize) -> Vec<Segment> {
        let mut runs: Vec<Segment> = Vec::new();
        for &(tap, offset) in &self.taps {
            let row = tap * channels;
            match runs.last_mut() {
                Some(run) if run.offset + run.len == offset && run.row + run.len == row => run.len += channels,
                _ => runs.push(Segment { offset, row, len: channels }),
            }
        }
        runs
    }
}

/// How weights `[O, I/G, Kh, Kw]` of a group are read as `[tap][k][n]`.
struct WeightLayout {
    /// Elements of a group.
    group: usize,
    k_stride: usize,
    n_stride: usize,
    /// Kernel position of each packed tap.
    taps: Vec<usize>,
}

/// A gather over every image: in each group `k` input channels to `n` output channels.
pub(super) struct Plan {
    phases: Vec<Phase>,
    in_len: usize,
    out_len: usize,
    groups: usize,
    k: usize,
    n: usize,
    weight: WeightLayout,
}

/// Images of a task, at most so many, given the work that some images are: those that keep the threads busy the shortest.
pub(super) fn images_of_task(n_images: usize, most: usize, work: impl Fn(usize) -> usize) -> usize {
    let rounds = |images: usize| n_images.div_ceil(images).div_ceil(threads());
    (1..=most.min(n_images)).rev().min_by_key(|&images| rounds(images) * work(images)).unwrap_or(1)
}

impl Plan {
    pub(super) fn forward(d: &Dims) -> Self {
        let (taps, [k, n]) = (d.kernel[0] * d.kernel[1], d.of_group());
        Self {
            phases: Phase::forward(d, d.o),
            in_len: d.input[0] * d.input[1] * d.i,
            out_len: d.output[0] * d.output[1] * d.o,
            groups: d.spec.groups,
            k,
            n,
            weight: WeightLayout { group: n * k * taps, k_stride: taps, n_stride: k * taps, taps: (0..taps).collect() },
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
        let (taps, [n, k]) = (d.kernel[0] * d.kernel[1], d.of_group());
        let columns = d.kernel[1];
        Self {
            phases: Phase::all(&axes, [d.output[1], d.o], [d.input[1], d.i], columns),
            in_len: d.output[0] * d.output[1] * d.o,
            out_len: d.input[0] * d.input[1] * d.i,
            groups: d.spec.groups,
            k,
            n,
            weight: WeightLayout {
                group: n * k * taps,
                k_stride: n * taps,
                n_stride: taps,
                taps: order[0].iter().flat_map(|&ky| order[1].iter().map(move |&kx| ky * columns + kx)).collect(),
            },
        }
    }

    /// The runs of a phase, cut to segments that blocks of weights are made of.
    fn segments(&self, phase: &Phase) -> Vec<Segment> {
        let cut = |run: Segment| {
            (0..run.len).step_by(SEGMENT).map(move |first| Segment {
                offset: run.offset + first,
                row: run.row + first,
                len: SEGMENT.min(run.len - first),
            })
        };
        phase.runs(self.k).into_iter().flat_map(cut).collect()
    }

    fn rows(&self) -> usize {
        self.weight.taps.len() * self.k
    }

    /// Elements of a group's weights in panels.
    fn packed_len<T: Real>(&self) -> usize {
        panels::<T>(self.n, T::vectors()).iter().map(|p| self.rows() * p.vectors * T::lanes()).sum()
    }

    /// The weights as `[group][panel][tap][k][panel width]`, zero in the last panel's unused columns.
    fn pack<T: Real>(&self, weights: &[T]) -> Vec<T> {
        let panels = panels::<T>(self.n, T::vectors());
        let most = (self.rows() * T::vectors() * T::lanes()).max(1);
        let of_group = self.packed_len::<T>();
        // One group's panels are tasks, and otherwise groups are.
        let task = if self.groups == 1 { most } else { of_group };
        fill(self.groups * of_group, task, |at, out| {
            let weights = &weights[at / of_group * self.weight.group..][..self.weight.group];
            for (out, panel) in out.chunks_mut(most).zip(&panels[at % of_group / most..]) {
                self.pack_panel(weights, panel, out);
            }
        })
    }

    fn pack_panel<T: Real>(&self, weights: &[T], &Panel { first, columns, vectors }: &Panel, out: &mut [T]) {
        let width = vectors * T::lanes();
        if columns < width {
            out.fill(T::ZERO);
        }
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
    }

    /// Whether the narrow kernel does this sum: few outputs, and whole vectors of inputs.
    fn is_narrow<T: Real>(&self) -> bool {
        self.groups == 1 && self.n <= NARROW && self.k.is_multiple_of(T::lanes())
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
        // Each phase of a task is in whole tiles and reads its weights.
        let phase = |p: &Phase, images: usize| p.taps.len() * ((images * p.pixels.len()).next_multiple_of(ROWS) + READ);
        let work = |images: usize| self.phases.iter().map(|p| phase(p, images)).sum();
        let group = images_of_task(n_images, GATHERED / self.in_len.max(1), work);
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
            for group in 0..self.groups {
                for (phase, (segments, pixels)) in self.phases.iter().zip(&work) {
                    let pixels = &pixels[..count * phase.pixels.len()];
                    self.run_phase(group, input, out, pixels, segments, &packed, &panels, bias);
                }
            }
            finish(at, out);
        })
    }

    #[allow(clippy::too_many_arguments)]
    fn run_phase<T: Real>(
        &self,
        group: usize,
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
        let (input, out) = (input[group * self.k..].as_ptr(), out[group * self.n..].as_mut_ptr());
        let bias = bias.map(|b| &b[group * self.n..][..self.n]);
        let mut panel_at = group * self.packed_len::<T>();
        for panel @ &Panel { first, columns, vectors } in panels {
            let depth = panel.depth::<T>();
            let mut start = bias.map_or(Start::Zero, |b| Start::Bias(&b[first..first + columns]));
            let mut rest = segments;
            loop {
                let mut len = 0;
                let block = rest.iter().take_while(|s| {
                    len += s.len;
                    len <= depth
                });
                let (block, after) = rest.split_at(block.count());
                // SAFETY: offsets come from the plan, whose pixels and segments stay inside one image and one output image;
                // `repeat` moves them by whole images of this group.
                unsafe {
                    T::run(&Gather {
                        input,
                        output: out.add(first),
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
pub(super) fn repeat(pixels: &[Pixel], images: usize, input_len: usize, output_len: usize) -> Vec<Pixel> {
    (0..images)
        .flat_map(|g| {
            pixels.iter().map(move |p| Pixel { input: p.input + g * input_len, output: p.output + g * output_len })
        })
        .collect()
}
