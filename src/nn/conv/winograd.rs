//! Convolutions of 3×3 taps and stride 1, and of 4×4 taps and stride 2, by Winograd's minimal filtering: tiles of 4×4 outputs are
//! products of transformed inputs and transformed kernels, a matrix product for each of the transform's points.
//!
//! A stride of 2 is a sum over the four parities of the input's rows and columns, each with 2×2 taps and stride 1 (*views*); the
//! gradient in its input is such a convolution for each parity of what it makes (*jobs*). With 3×3 taps there is one of either.
//!
//! Legend: ξ point of the transform, t tile, k input channel (of a view, view after view), n output channel.

use std::ops::Range;

use super::cpu::{READ, images_of_task};
use super::weight_grad::PIXELS;
use crate::machine::convolution::Dims;
use crate::machine::cpu::kernel::{Gather, Outer, Pixel, ROWS, Segment, Start};
use crate::machine::cpu::panels::{Panel, panels};
use crate::machine::cpu::parallel::{chunks, collect, fill, scatter};
use crate::machine::cpu::real::Real;
use crate::machine::cpu::winograd::{self, Square, TILE, Transform};

/// Tiles that are transformed at a time: enough to use a panel of weights again, few enough that their values stay near.
const TILES: usize = 16 * ROWS;
/// The same of the weight gradient, whose sums are as large as the transformed weights.
const SUMMED: usize = 512;
/// Fewest channels on either side: with less, the transforms cost more than they save.
const CHANNELS: usize = 32;
/// Fewest tiles for kernels of 2 and of 3 taps a side: for less, transforming the kernels costs more than it saves.
const FEWEST: [usize; 2] = [128, 32];
/// What the channels are a multiple of.
const VECTOR: usize = winograd::BLOCK;
/// Elements between the end of a point's plane and the next, or the planes would fall on the same lines of the cache.
const GAP: usize = 16;

/// What a job reads of the input, and the taps that it meets.
struct View {
    /// Input position that the first point of the first tile reads.
    offset: [isize; 2],
    stride: usize,
    /// Kernel positions, row by row.
    taps: Vec<usize>,
}

/// Elements between the transformed values of one point and the next, one tile and the next, one block of channels and the next.
#[derive(Clone, Copy)]
struct Layout {
    plane: usize,
    tile: usize,
    block: usize,
}

/// A convolution of stride 1 between parts of the images.
struct Job {
    views: Vec<View>,
    /// Output position of the first tile's first value, and between two.
    offset: [usize; 2],
    stride: usize,
    /// Outputs along each axis.
    positions: [usize; 2],
}

impl Job {
    fn tiles(&self) -> [usize; 2] {
        self.positions.map(|p| p.div_ceil(TILE))
    }
}

/// A convolution or the gradient in its input, of `k` to `n` channels.
pub(super) struct Plan {
    taps: usize,
    jobs: Vec<Job>,
    input: [usize; 2],
    output: [usize; 2],
    k: usize,
    n: usize,
    /// Strides of the weights `[O, I, Kh, Kw]`.
    strides: [usize; 2],
}

/// Whether sums of this type may be done here: single precision alone. A constant, so that what never runs is not compiled.
pub(super) const fn takes<T: Real>() -> bool {
    size_of::<T>() == size_of::<f32>()
}

/// Whether this sum is done here: of enough channels and tiles.
pub(super) fn applies(d: &Dims) -> bool {
    let tiles = d.n * d.output.map(|side| side / TILE).iter().product::<usize>();
    d.spec.groups == 1
        && matches!((d.kernel, d.spec.stride), ([3, 3], 1) | ([4, 4], 2))
        && [d.i, d.o].iter().all(|&c| c >= CHANNELS && c.is_multiple_of(VECTOR))
        && tiles >= FEWEST[taps(d) - 2]
}

/// Taps of each view along an axis.
fn taps(d: &Dims) -> usize {
    d.kernel[0] / d.spec.stride
}

/// The places of a square, `[row, column]`, row by row.
fn square(side: usize) -> impl Iterator<Item = [usize; 2]> {
    (0..side * side).map(move |i| [i / side, i % side])
}

impl Plan {
    /// Output u meets input `stride`·(u + j) + s − padding at kernel position `stride`·j + s.
    pub(super) fn forward(d: &Dims) -> Self {
        let (stride, padding, weights) = (d.spec.stride, d.spec.padding, d.kernel[0] * d.kernel[1]);
        let view = |s: [usize; 2]| View {
            offset: [0, 1].map(|a| s[a] as isize - padding[a] as isize),
            stride,
            taps: square(taps(d)).map(|j| (stride * j[0] + s[0]) * d.kernel[1] + stride * j[1] + s[1]).collect(),
        };
        let views = square(stride).map(view).collect();
        Self {
            taps: taps(d),
            jobs: vec![Job { views, offset: [0; 2], stride: 1, positions: d.output }],
            input: d.input,
            output: d.output,
            k: d.i,
            n: d.o,
            strides: [weights, d.i * weights],
        }
    }

    /// Input `stride`·u + c meets output u + e − j at kernel position `stride`·j + s.
    pub(super) fn input_grad(d: &Dims) -> Self {
        let (stride, last, weights) = (d.spec.stride, taps(d) - 1, d.kernel[0] * d.kernel[1]);
        let job = |c: [usize; 2]| {
            let s = [0, 1].map(|a| (c[a] + d.spec.padding[a]) % stride);
            let e = [0, 1].map(|a| (c[a] + d.spec.padding[a]) / stride);
            let tap = |j: [usize; 2]| {
                let [y, x] = [0, 1].map(|a| stride * (last - j[a]) + s[a]);
                y * d.kernel[1] + x
            };
            let view = View {
                offset: e.map(|e| e as isize - last as isize),
                stride: 1,
                taps: square(taps(d)).map(tap).collect(),
            };
            let positions = [0, 1].map(|a| (d.input[a] - c[a]).div_ceil(stride));
            Job { views: vec![view], offset: c, stride, positions }
        };
        Self {
            taps: taps(d),
            jobs: square(stride).map(job).collect(),
            input: d.output,
            output: d.input,
            k: d.o,
            n: d.i,
            strides: [d.i * weights, weights],
        }
    }

    /// Transforms a square of runs of channels, each without gaps.
    ///
    /// # Safety
    /// As for [`Real::run`].
    unsafe fn transform<T: Real>(&self, transform: Transform, from: &[*const T], to: &[*mut T], channels: usize) {
        unsafe { T::run(&Square { transform, taps: self.taps, from, to, channels, pitch: VECTOR, bias: None }) }
    }

    /// Points of the transform.
    fn points(&self) -> usize {
        (self.taps + TILE - 1).pow(2)
    }

    fn in_len(&self) -> usize {
        self.input[0] * self.input[1] * self.k
    }

    fn out_len(&self) -> usize {
        self.output[0] * self.output[1] * self.n
    }

    /// The transformed weights of a job, `[ξ, panel, k, panel width]`.
    fn weights<T: Real>(&self, job: &Job, weights: &[T], panels: &[Panel]) -> Vec<T> {
        let rows = job.views.len() * self.k;
        let blocks = self.k.div_ceil(VECTOR);
        let [k_stride, n_stride] = self.strides;
        let mut transformed = Vec::new();
        scatter(
            &mut transformed,
            self.points() * rows * self.n,
            panels.len() * job.views.len() * blocks,
            |task, out: *mut T| {
                let (panel, view, block) =
                    (&panels[task / blocks / job.views.len()], task / blocks % job.views.len(), task % blocks);
                let width = panel.columns;
                let mut square = vec![T::ZERO; self.taps * self.taps * width];
                for k in block * VECTOR..((block + 1) * VECTOR).min(self.k) {
                    for c in 0..width {
                        let w = &weights[(panel.first + c) * n_stride + k * k_stride..];
                        for (t, &tap) in job.views[view].taps.iter().enumerate() {
                            square[t * width + c] = w[tap];
                        }
                    }
                    let from: Vec<_> = square.chunks_exact(width).map(<[T]>::as_ptr).collect();
                    let row = panel.first * rows + (view * self.k + k) * width;
                    // SAFETY: each point's plane holds `rows` × n values, of which this row of this panel is this task's.
                    unsafe {
                        let to: Vec<_> = (0..self.points()).map(|p| out.add(p * rows * self.n + row)).collect();
                        self.transform(Transform::Weight, &from, &to, width);
                    }
                }
            },
        );
        transformed
    }

    /// Transforms the squares of `images` that some tiles read.
    fn inputs<T: Real>(&self, job: &Job, images: &[T], tiles: Range<usize>, out: *mut T, layout: Layout) {
        let side = self.taps + TILE - 1;
        let zeros = vec![T::ZERO; self.k];
        let [_, across] = job.tiles();
        let each = job.tiles().iter().product::<usize>();
        let mut from = vec![zeros.as_ptr(); side * side];
        for (at, tile) in tiles.enumerate() {
            let image = &images[tile / each * self.in_len()..][..self.in_len()];
            let origin = [tile % each / across, tile % across].map(|t| t * TILE);
            for (v, view) in job.views.iter().enumerate() {
                let place = |a: usize, p: usize| {
                    let at = ((origin[a] + p) * view.stride) as isize + view.offset[a];
                    usize::try_from(at).ok().filter(|&at| at < self.input[a])
                };
                for y in 0..side {
                    let row = place(0, y);
                    for x in 0..side {
                        from[y * side + x] = match (row, place(1, x)) {
                            (Some(y), Some(x)) => image[(y * self.input[1] + x) * self.k..].as_ptr(),
                            _ => zeros.as_ptr(),
                        };
                    }
                }
                // SAFETY: the caller's planes hold these tiles.
                unsafe {
                    let first = out.add(at * layout.tile + v * self.k / VECTOR * layout.block);
                    let to: Vec<_> = (0..side * side).map(|p| first.add(p * layout.plane)).collect();
                    T::run(&Square {
                        transform: Transform::Input,
                        taps: self.taps,
                        from: &from,
                        to: &to,
                        channels: self.k,
                        pitch: layout.block,
                        bias: None,
                    });
                }
            }
        }
    }

    /// The place in an image of `[rows, columns]` × `n` of each value of a tile, where it has one.
    fn places(&self, job: &Job, tile: usize) -> impl Iterator<Item = Option<usize>> {
        let across = job.tiles()[1];
        let origin = [tile / across, tile % across].map(|t| t * TILE);
        let (offset, stride, positions) = (job.offset, job.stride, job.positions);
        let (columns, n) = (self.output[1], self.n);
        (0..TILE * TILE).map(move |i| {
            let at = [origin[0] + i / TILE, origin[1] + i % TILE];
            let [y, x] = [0, 1].map(|a| at[a] * stride + offset[a]);
            (at[0] < positions[0] && at[1] < positions[1]).then_some((y * columns + x) * n)
        })
    }

    /// As [`Plan::run`](super::cpu::Plan::run).
    pub(super) fn run<T: Real>(
        &self,
        images: &[T],
        weights: &[T],
        bias: Option<&[T]>,
        n_images: usize,
        finish: impl Fn(usize, &mut [T]) + Sync,
    ) -> Vec<T> {
        let panels = panels::<T>(self.n, T::vectors());
        let jobs: Vec<_> = self.jobs.iter().map(|job| (job, self.weights(job, weights, &panels))).collect();
        let each = self.jobs[0].tiles().iter().product::<usize>();
        let group = images_of_task(n_images, TILES / each, |images| images * each + READ);
        fill(n_images * self.out_len(), group * self.out_len(), |at, out| {
            let (image, count) = (at / self.out_len(), out.len() / self.out_len());
            let input = &images[image * self.in_len()..][..count * self.in_len()];
            for (job, weights) in &jobs {
                self.job(job, input, weights, &panels, bias, out);
            }
            finish(at, out);
        })
    }

    fn job<T: Real>(
        &self,
        job: &Job,
        images: &[T],
        weights: &[T],
        panels: &[Panel],
        bias: Option<&[T]>,
        out: &mut [T],
    ) {
        let rows = job.views.len() * self.k;
        let points = self.points();
        let each = job.tiles().iter().product::<usize>();
        let tiles = out.len() / self.out_len() * each;
        let block = tiles.min(TILES);
        let planes = [block * rows + GAP, block * self.n + GAP];
        let mut values: Vec<T> = Vec::with_capacity(points * planes[0]);
        let mut products: Vec<T> = Vec::with_capacity(points * planes[1]);
        let (values, products) = (values.as_mut_ptr(), products.as_mut_ptr());
        let mut spare = vec![T::ZERO; self.n];
        let pixels: Vec<_> = (0..block).map(|t| Pixel { input: t * rows, output: t * self.n }).collect();
        for first in (0..tiles).step_by(block) {
            let count = block.min(tiles - first);
            self.inputs(
                job,
                images,
                first..first + count,
                values,
                Layout { plane: planes[0], tile: rows, block: VECTOR },
            );
            for p in 0..points {
                for panel in panels {
                    let depth = panel.depth::<T>();
                    for k in (0..rows).step_by(depth) {
                        // SAFETY: the planes hold `count` tiles of `rows` and n values; the weights `rows` × n a point.
                        unsafe {
                            let panel_at = weights.as_ptr().add(p * rows * self.n + panel.first * rows);
                            T::run(&Gather {
                                input: values.add(p * planes[0]),
                                output: products.add(p * planes[1] + panel.first),
                                pixels: &pixels[..count],
                                segments: &[Segment { offset: k, row: k, len: depth.min(rows - k) }],
                                panel: panel_at,
                                panel_rows: rows,
                                vectors: panel.vectors,
                                columns: panel.columns,
                                start: if k == 0 { Start::Zero } else { Start::Output },
                            });
                        }
                    }
                }
            }
            for t in 0..count {
                let tile = first + t;
                let image = out[tile / each * self.out_len()..][..self.out_len()].as_mut_ptr();
                // SAFETY: places lie within an image, n values each; the products are those of this tile.
                unsafe {
                    let from: Vec<_> =
                        (0..points).map(|p| products.add(p * planes[1] + t * self.n).cast_const()).collect();
                    let to: Vec<_> = self
                        .places(job, tile % each)
                        .map(|place| place.map_or(spare.as_mut_ptr(), |at| image.add(at)))
                        .collect();
                    T::run(&Square {
                        transform: Transform::Output,
                        taps: self.taps,
                        from: &from,
                        to: &to,
                        channels: self.n,
                        pitch: VECTOR,
                        bias,
                    });
                }
            }
        }
    }
}

/// As [`weight_grad`](super::weight_grad::weight_grad).
pub(super) fn weight_grad<T: Real>(d: &Dims, x: &[T], dy: &[T]) -> Vec<T> {
    let plan = Plan::forward(d);
    let job = &plan.jobs[0];
    let (rows, points) = (job.views.len() * d.i, plan.points());
    let each = job.tiles().iter().product::<usize>();
    let tiles = d.n * each;
    let panels = panels::<T>(d.o, T::vectors());
    let block = tiles.min(SUMMED);
    // Inputs in blocks of channels, each read from end to end; output gradients tile by tile.
    let run = block * VECTOR + GAP;
    let layout = Layout { plane: rows / VECTOR * run, tile: VECTOR, block: run };
    let delta = Layout { plane: block * (d.o + GAP), tile: d.o + GAP, block: VECTOR };
    let pixels: Vec<_> = (0..block).map(|t| Pixel { input: t * layout.tile, output: t * delta.tile }).collect();
    // Of each point and panel, `[rows, panel width]`.
    let mut sums = collect(points * panels.len(), |at| vec![T::ZERO; rows * panels[at % panels.len()].columns]);
    let zeros = vec![T::ZERO; d.o];
    let (mut values, mut deltas) = (Vec::new(), Vec::new());
    for first in (0..tiles).step_by(block) {
        let count = block.min(tiles - first);
        let some = |task: usize| task * ROWS..((task + 1) * ROWS).min(count);
        scatter(&mut values, points * layout.plane, count.div_ceil(ROWS), |task, out: *mut T| {
            let tiles = first + some(task).start..first + some(task).end;
            // SAFETY: each task writes its own tiles.
            plan.inputs(job, x, tiles, unsafe { out.add(some(task).start * layout.tile) }, layout);
        });
        scatter(&mut deltas, points * delta.plane, count.div_ceil(ROWS), |task, out: *mut T| {
            for t in some(task) {
                let image = &dy[(first + t) / each * plan.out_len()..][..plan.out_len()];
                let from: Vec<_> = plan
                    .places(job, (first + t) % each)
                    .map(|place| place.map_or(zeros.as_ptr(), |at| image[at..].as_ptr()))
                    .collect();
                // SAFETY: as above.
                unsafe {
                    let to: Vec<_> = (0..points).map(|p| out.add(p * delta.plane + t * delta.tile)).collect();
                    plan.transform(Transform::OutputGrad, &from, &to, d.o);
                }
            }
        });
        chunks(&mut sums, 1, |at, of_task| {
            let (p, panel) = (at / panels.len(), &panels[at % panels.len()]);
            for pixels in pixels[..count].chunks(PIXELS) {
                for (b, sums) in of_task[0].chunks_exact_mut(VECTOR * panel.columns).enumerate() {
                    // SAFETY: the planes hold `count` tiles of `rows` and o values.
                    unsafe {
                        T::run(&Outer {
                            input: values.as_ptr().add(p * layout.plane + b * layout.block),
                            delta: deltas.as_ptr().add(p * delta.plane + panel.first),
                            pixels,
                            rows: VECTOR,
                            vectors: panel.vectors,
                            output: sums.as_mut_ptr(),
                        });
                    }
                }
            }
        });
    }
    let taps = d.kernel[0] * d.kernel[1];
    let blocks = d.i.div_ceil(VECTOR);
    let mut out = Vec::new();
    scatter(&mut out, d.o * d.i * taps, panels.len() * blocks, |task, out: *mut T| {
        let (at, block) = (task / blocks, task % blocks);
        let panel = &panels[at];
        let mut square = vec![T::ZERO; plan.taps * plan.taps * panel.columns];
        for i in block * VECTOR..((block + 1) * VECTOR).min(d.i) {
            for (v, view) in job.views.iter().enumerate() {
                let row = (v * d.i + i) * panel.columns;
                let from: Vec<_> = (0..points).map(|p| sums[p * panels.len() + at][row..].as_ptr()).collect();
                let to: Vec<_> = square.chunks_exact_mut(panel.columns).map(<[T]>::as_mut_ptr).collect();
                // SAFETY: rows of the sums and of `square` are as long as the panel is wide.
                unsafe { plan.transform(Transform::WeightGrad, &from, &to, panel.columns) };
                for (t, &tap) in view.taps.iter().enumerate() {
                    for c in 0..panel.columns {
                        // SAFETY: the weights of this panel and these input channels are this task's.
                        unsafe { *out.add(((panel.first + c) * d.i + i) * taps + tap) = square[t * panel.columns + c] };
                    }
                }
            }
        }
    });
    out
}
