//! Augmentation of images that a critic sees, real and generated: pixel blitting, colours and cutout (Karras et al. 2020, ADA), each
//! affine in the image, so that a critic behind it is piecewise linear still.

use candle_core::{Result, Shape, Tensor, bail};

use super::op::{Made, Op, View, apply, same_dims};
use super::resample::images;
use crate::machine::call::Array;
use crate::machine::cpu::parallel::fill;
use crate::machine::cpu::real::Real;
use crate::machine::tape::Tape;
use crate::rng::Stream;
use crate::words;

/// Numbers an image: whether it is mirrored, quarter turns, pixels it is shifted by to the right and down (what comes in is the reflection
/// at the border); three rows of a colour matrix with what is added; first and last-but-one column and row of what is black.
pub const NUMBERS: usize = 20;
const COLOUR: usize = 4;
const BLACK: usize = 16;
/// Largest shift as a share of the side.
const SHIFT: f64 = 0.125;
/// Probability of each colour operation over that of the others.
const COLOURS: f64 = 0.5;
/// Standard deviations: brightness, binary logarithms of contrast and saturation.
const DEVIATIONS: [f64; 3] = [0.2, 0.5, 1.0];
/// Side of the black square as a share of the image's.
const CUTOUT: f64 = 0.5;
const CHANNELS: usize = 3;

/// Colour operations of one image, in this order.
#[derive(Clone, Copy, Debug)]
pub struct Colours {
    /// Added to every channel.
    pub brightness: f64,
    /// Multiplies every channel.
    pub contrast: f64,
    /// Whether luma is reflected.
    pub flips_luma: bool,
    /// Rotation around the luma axis in radians.
    pub hue: f64,
    /// Multiplies what is orthogonal to that axis.
    pub saturation: f64,
}

impl Colours {
    /// Three rows of a matrix of colours, each with what is added.
    pub fn matrix(&self) -> [[f64; 4]; 3] {
        let third = 1.0 / 3.0;
        let (sine, cosine) = self.hue.sin_cos();
        let root = third.sqrt() * sine;
        // Parts along the axis and orthogonal to it, and the turn of the latter.
        let along = if self.flips_luma { -1.0 } else { 1.0 };
        let entry = |row: usize, column: usize| {
            let same = if row == column { 1.0 } else { 0.0 };
            let turn = match (column + 3 - row) % 3 {
                1 => -root,
                2 => root,
                _ => 0.0,
            };
            self.contrast * (along * third + self.saturation * (cosine * (same - third) + turn))
        };
        [0, 1, 2].map(|row| {
            let colours = [0, 1, 2].map(|column| entry(row, column));
            let added = colours.iter().sum::<f64>() * self.brightness;
            [colours[0], colours[1], colours[2], added]
        })
    }
}

/// What is done to `n` images of `side` pixels, each operation with probability `p`: [`NUMBERS`] numbers an image.
pub fn drawn(stream: &mut Stream, n: usize, side: usize, p: f64) -> Vec<f32> {
    let mut numbers = Vec::with_capacity(n * NUMBERS);
    for _ in 0..n {
        let happens = |p: f64, stream: &mut Stream| stream.uniform() < p;
        let mirrored = happens(p, stream) && stream.coin();
        let turns = if happens(p, stream) { stream.below(4) } else { 0 };
        let mut shift = [0.0; 2];
        if happens(p, stream) {
            shift = shift.map(|_| ((2.0 * stream.uniform() - 1.0) * SHIFT * side as f64).round());
        }
        let [brightness, contrast, saturation] = DEVIATIONS;
        let normal = |deviation: f64, stream: &mut Stream| f64::from(stream.normals(1)[0]) * deviation;
        let p_colour = COLOURS * p;
        let colours = Colours {
            brightness: if happens(p_colour, stream) { normal(brightness, stream) } else { 0.0 },
            contrast: if happens(p_colour, stream) { normal(contrast, stream).exp2() } else { 1.0 },
            flips_luma: happens(p_colour, stream) && stream.coin(),
            hue: if happens(p_colour, stream) { (2.0 * stream.uniform() - 1.0) * std::f64::consts::PI } else { 0.0 },
            saturation: if happens(p_colour, stream) { normal(saturation, stream).exp2() } else { 1.0 },
        };
        let mut black = [0.0; 4];
        if happens(p, stream) {
            // Pixels whose centres are nearer than half the square's side.
            for ends in black.chunks_exact_mut(2) {
                let centre = stream.uniform();
                let end = |half: f64| ((centre + half) * side as f64 - 0.5).clamp(-1.0, side as f64);
                ends[0] = (end(-CUTOUT / 2.0).floor() + 1.0).max(0.0);
                ends[1] = end(CUTOUT / 2.0).ceil();
            }
        }
        let of = [f64::from(u8::from(mirrored)), turns as f64, shift[0], shift[1]];
        let of = of.into_iter().chain(colours.matrix().concat()).chain(black);
        numbers.extend(of.map(|v| v as f32));
    }
    numbers
}

/// What is done to the places of pixels.
struct Blit {
    side: usize,
    mirrored: bool,
    turns: usize,
    shift: [isize; 2],
    black: [usize; 4],
}

impl Blit {
    fn new<T: Real>(of: &[T], side: usize) -> Self {
        let whole = |k: usize| of[k].to_f64() as isize;
        Self {
            side,
            mirrored: whole(0) != 0,
            turns: whole(1) as usize,
            shift: [whole(2), whole(3)],
            black: [0, 1, 2, 3].map(|k| whole(BLACK + k) as usize),
        }
    }

    fn is_black(&self, x: usize, y: usize) -> bool {
        let [left, right, top, bottom] = self.black;
        (left..right).contains(&x) && (top..bottom).contains(&y)
    }

    /// The pixel that comes to a place, before it was mirrored and turned.
    fn source(&self, x: usize, y: usize) -> [usize; 2] {
        let last = self.side as isize - 1;
        let reflected = |at: isize| {
            if at < 0 {
                -at
            } else if at > last {
                2 * last - at
            } else {
                at
            }
        };
        let (x, y) = (reflected(x as isize - self.shift[0]) as usize, reflected(y as isize - self.shift[1]) as usize);
        let last = last as usize;
        let [x, y] = match self.turns {
            1 => [last - y, x],
            2 => [last - x, last - y],
            3 => [y, last - x],
            _ => [x, y],
        };
        if self.mirrored { [last - x, y] } else { [x, y] }
    }
}

/// The colour matrix of an image's numbers.
fn colours<T: Real>(of: &[T]) -> [[T; 4]; 3] {
    [0, 1, 2].map(|row| [0, 1, 2, 3].map(|k| of[COLOUR + 4 * row + k]))
}

fn check(name: &str, x: &[usize], by: &[usize]) -> Result<[usize; 2]> {
    let [n, h, w, c] = images(name, x)?;
    same_dims(name, &[n, NUMBERS], by)?;
    if h != w || c != CHANNELS {
        bail!("{name}: expected square images of three channels, got {x:?}")
    }
    Ok([n, h])
}

/// With what is added to colours, or without.
struct Forward(bool);

impl Op<2> for Forward {
    const NAME: &'static str = "augment";
    fn cpu<T: Real>(&self, [x, by]: [View<T>; 2]) -> Made<T> {
        let [n, side] = check(Self::NAME, x.dims, by.dims)?;
        let image = side * side * CHANNELS;
        let out = fill(n * image, image, |at, out: &mut [T]| {
            let of = &by.data[at / image * NUMBERS..][..NUMBERS];
            let (blit, matrix, source) = (Blit::new(of, side), colours(of), &x.data[at..][..image]);
            for (place, pixel) in out.chunks_exact_mut(CHANNELS).enumerate() {
                let [from_x, from_y] = blit.source(place % side, place / side);
                let from = &source[(from_y * side + from_x) * CHANNELS..][..CHANNELS];
                for (o, row) in pixel.iter_mut().zip(matrix) {
                    let added = if self.0 { row[3] } else { T::ZERO };
                    let colour = row[0] * from[0] + row[1] * from[1] + row[2] * from[2] + added;
                    *o = if blit.is_black(place % side, place / side) { T::ZERO } else { colour };
                }
            }
        });
        Ok((out, Shape::from(x.dims)))
    }
    fn device(&self, tape: &Tape, [x, by]: [Array; 2]) -> Result<Tensor> {
        let [_, side] = check(Self::NAME, x.dims, by.dims)?;
        tape.made(Self::NAME, x.dims, words![x, by, side, self.0])
    }
}

struct Adjoint;

impl Op<2> for Adjoint {
    const NAME: &'static str = "augment_adjoint";
    fn cpu<T: Real>(&self, [g, by]: [View<T>; 2]) -> Made<T> {
        let [n, side] = check(Self::NAME, g.dims, by.dims)?;
        let image = side * side * CHANNELS;
        let out = fill(n * image, image, |at, out: &mut [T]| {
            out.fill(T::ZERO);
            let of = &by.data[at / image * NUMBERS..][..NUMBERS];
            let (blit, matrix) = (Blit::new(of, side), colours(of));
            for (place, g) in g.data[at..][..image].chunks_exact(CHANNELS).enumerate() {
                if blit.is_black(place % side, place / side) {
                    continue;
                }
                let [to_x, to_y] = blit.source(place % side, place / side);
                let to = &mut out[(to_y * side + to_x) * CHANNELS..][..CHANNELS];
                for (k, o) in to.iter_mut().enumerate() {
                    *o += matrix[0][k] * g[0] + matrix[1][k] * g[1] + matrix[2][k] * g[2];
                }
            }
        });
        Ok((out, Shape::from(g.dims)))
    }
    fn device(&self, tape: &Tape, [g, by]: [Array; 2]) -> Result<Tensor> {
        let [_, side] = check(Self::NAME, g.dims, by.dims)?;
        tape.made(Self::NAME, g.dims, words![g, by, side])
    }
}

/// Images `[N, H, H, 3]` augmented by numbers `[N, NUMBERS]`.
///
/// # Errors
/// When the shapes are others.
pub fn augment(x: &Tensor, by: &Tensor) -> Result<Tensor> {
    apply(&Forward(true), [x, by])
}

/// The same without what is added to colours: its linear part.
///
/// # Errors
/// As for [`augment`].
pub fn augment_linear(v: &Tensor, by: &Tensor) -> Result<Tensor> {
    apply(&Forward(false), [v, by])
}

/// The adjoint of [`augment_linear`].
///
/// # Errors
/// As for [`augment`].
pub fn augment_adjoint(g: &Tensor, by: &Tensor) -> Result<Tensor> {
    apply(&Adjoint, [g, by])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{adjoint, close, device, on_device, random, tensors_close, values};

    #[test]
    fn colours_are_the_products_of_the_released_matrices() {
        // Of ADA's augment.py in float64: translate3d, scale3d, Householder reflection, rotate3d, saturation.
        let a = Colours { brightness: 0.3, contrast: 1.5, flips_luma: false, hue: 0.0, saturation: 1.0 };
        let b = Colours { brightness: -0.2, contrast: 0.7, flips_luma: true, hue: 0.9, saturation: 1.7 };
        let want_a = [[1.5, 0.0, 0.0, 0.45], [0.0, 1.5, 0.0, 0.45], [0.0, 0.0, 1.5, 0.45]];
        let [x, y, z] = [0.259_810_574_828_060_25, -1.018_087_549_956_947_5, 0.058_276_975_128_886_87];
        let want_b = [[x, y, z, 0.14], [z, x, y, 0.14], [y, z, x, 0.14]];
        for (of, want) in [(a, want_a), (b, want_b)] {
            let off = of.matrix().concat().into_iter().zip(want.concat()).map(|(got, want)| (got - want).abs());
            assert!(off.fold(0.0, f64::max) < 1e-7, "{:?} is not {want:?}", of.matrix());
        }
    }

    const N: usize = 12;
    const SIDE: usize = 5;

    /// Every mirroring and turn, with shifts and black parts.
    fn numbers() -> Vec<f64> {
        let image = |k: usize| {
            let head = [(k / 4 % 2) as f64, (k % 4) as f64, (k % 5) as f64 - 2.0, (k % 3) as f64 - 1.0];
            let colours: Vec<f64> = (0..12).map(|i| ((k * 12 + i) as f64).sin()).collect();
            let black = if k < 4 { [0.0; 4] } else { [1.0, 4.0, (k % 3) as f64, 3.0] };
            [&head[..], &colours, &black].concat()
        };
        (0..N).flat_map(image).collect()
    }

    /// By the matrices of homogeneous coordinates that lead from a place to where its colour comes from.
    fn by_definition(x: &[f64], by: &[f64], adds: bool) -> Vec<f64> {
        let half = (SIDE as f64 - 1.0) / 2.0;
        let reflect = |at: f64| {
            let at = at.round() as i64;
            let last = SIDE as i64 - 1;
            (if at < 0 {
                -at
            } else if at > last {
                2 * last - at
            } else {
                at
            }) as usize
        };
        let mut out = Vec::new();
        for (n, of) in by.chunks_exact(NUMBERS).enumerate() {
            for place in 0..SIDE * SIDE {
                let (px, py) = ((place % SIDE) as f64, (place / SIDE) as f64);
                let (dx, dy) = (px - half - of[2], py - half - of[3]);
                let (sine, cosine) = (of[1] * std::f64::consts::FRAC_PI_2).sin_cos();
                let (rx, ry) = (cosine * dx - sine * dy, sine * dx + cosine * dy);
                let sx = if of[0] != 0.0 { -rx } else { rx };
                let from = (n * SIDE * SIDE + reflect(ry + half) * SIDE + reflect(sx + half)) * 3;
                let black = px >= of[16] && px < of[17] && py >= of[18] && py < of[19];
                for row in of[4..16].chunks_exact(4) {
                    let colour: f64 =
                        (0..3).map(|k| row[k] * x[from + k]).sum::<f64>() + if adds { row[3] } else { 0.0 };
                    out.push(if black { 0.0 } else { colour });
                }
            }
        }
        out
    }

    #[test]
    fn places_and_colours_are_those_of_the_definition_and_the_adjoint_is_one() {
        let by = Tensor::from_vec(numbers(), (N, NUMBERS), device()).unwrap();
        let dims = [N, SIDE, SIDE, 3];
        let (x, g) = (random("x", &dims), random("g", &dims));
        for (got, adds) in [(augment(&x, &by).unwrap(), true), (augment_linear(&x, &by).unwrap(), false)] {
            on_device(&got);
            let want = Tensor::from_vec(by_definition(&values(&x), &numbers(), adds), &dims[..], device()).unwrap();
            tensors_close(&got, &want, 1e-14);
        }
        adjoint(&augment_linear(&x, &by).unwrap(), &g, &x, &augment_adjoint(&g, &by).unwrap());
        assert!(augment(&x, &random("other", &[N, 3])).is_err());
    }

    #[test]
    fn each_operation_happens_as_often_as_is_asked() {
        let (n, side, p) = (20_000, 32, 0.4);
        let drawn = drawn(&mut Stream::new(0, "augment", 0), n, side, p);
        let share = |happens: fn(&[f32]) -> bool| {
            drawn.chunks_exact(NUMBERS).filter(|of| happens(of)).count() as f64 / n as f64
        };
        close(share(|of| of[0] != 0.0), p / 2.0, 0.05);
        close(share(|of| of[1] != 0.0), p * 0.75, 0.05);
        // A shift of at most four pixels each way, one in 81 of which is none, those at the ends half as likely.
        close(share(|of| of[2] != 0.0 || of[3] != 0.0), p * (1.0 - 1.0 / 64.0), 0.05);
        close(share(|of| of[17] > of[16] && of[19] > of[18]), p, 0.05);
        let plain = (1.0 - COLOURS * p).powi(4) * (1.0 - COLOURS * p / 2.0);
        let is_plain = |of: &[f32]| of[4..16] == [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        close(share(is_plain), plain, 0.05);
        assert!(drawn.chunks_exact(NUMBERS).all(|of| of[17] - of[16] <= 16.0 && of[19] <= 32.0 && of[2].abs() <= 4.0));
    }
}
