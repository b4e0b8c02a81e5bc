//! Spectral normalisation (Miyato et al. 2018) as a reparametrisation outside the layers: they see W̄ = W/σ with σ = uᵀWv,
//! W reshaped to `[O, rest]` and u, v from one power iteration in each training pass, constant in the gradient.

use candle_core::{Result, Shape, Tensor, bail};

use super::activation::add_assign;
use super::init::Init;
use super::op::{Made, Op, View, apply, either, same_dims};
use super::order::Order;
use super::store::{Builder, Id, Store};
use crate::machine::call::Word;
use crate::machine::cpu::parallel::{GRAIN, fill};
use crate::machine::cpu::real::Real;
use crate::machine::current::is_machine;
use crate::words;

/// Vectors of the power iteration, in a store of buffers.
#[derive(Clone, Debug)]
pub struct Spectral {
    /// `[O]`.
    u: Id,
    /// `[rest]`.
    v: Id,
    /// Guard of the vectors' normalisation.
    epsilon: f64,
}

/// W̄ of one weight, and what its gradient goes back by.
pub struct Normalised {
    /// `[O, rest]`.
    pub w: Tensor,
    u: Tensor,
    v: Tensor,
    /// 1/σ, without dimensions.
    inverse: Tensor,
}

/// What a pass does about the vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Power {
    /// It takes them as they are: PyTorch's evaluation mode.
    Still,
    /// It takes a power iteration and forgets it. Averaged vectors have lost their length, which this gives back.
    Once,
    /// It takes a power iteration, which moves them: training mode.
    Moving,
}

/// Partial sums that let the compiler use whole vectors.
const LANES: usize = 32;
/// Columns of a task.
const COLUMNS: usize = 512;

#[inline(always)]
fn dot<T: Real>(a: &[T], b: &[T]) -> f64 {
    let mut sums = [T::ZERO; LANES];
    let (mut x, mut y) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (x, y) in (&mut x).zip(&mut y) {
        for k in 0..LANES {
            sums[k] += x[k] * y[k];
        }
    }
    let rest: f64 = x.remainder().iter().zip(y.remainder()).map(|(&x, &y)| (x * y).to_f64()).sum();
    sums.iter().map(|s| s.to_f64()).sum::<f64>() + rest
}

fn matrix(name: &str, dims: &[usize]) -> Result<[usize; 2]> {
    match dims {
        &[rows, columns] if rows * columns > 0 => Ok([rows, columns]),
        dims => bail!("{name}: expected a matrix, got {dims:?}"),
    }
}

/// W·v.
struct Times;

impl Op<2> for Times {
    const NAME: &'static str = "matrix_times_vector";
    fn cpu<T: Real>(&self, [w, v]: [View<T>; 2]) -> Made<T> {
        let [rows, columns] = matrix(Self::NAME, w.dims)?;
        same_dims(Self::NAME, &[columns], v.dims)?;
        let row = |at: usize| T::from_f64(dot(&w.data[at * columns..][..columns], v.data));
        Ok((fill(rows, 1, |at, out| out[0] = row(at)), Shape::from(rows)))
    }
}

/// Wᵀ·u.
struct TransposedTimes;

impl Op<2> for TransposedTimes {
    const NAME: &'static str = "transposed_matrix_times_vector";
    fn cpu<T: Real>(&self, [w, u]: [View<T>; 2]) -> Made<T> {
        let [rows, columns] = matrix(Self::NAME, w.dims)?;
        same_dims(Self::NAME, &[rows], u.dims)?;
        let out = fill(columns, COLUMNS, |at, out| {
            out.fill(T::ZERO);
            for (row, &u) in w.data.chunks_exact(columns).zip(u.data) {
                for (o, &w) in out.iter_mut().zip(&row[at..]) {
                    *o += u * w;
                }
            }
        });
        Ok((out, Shape::from(columns)))
    }
}

/// Σ of the products of two tensors' elements.
struct Inner;

impl Op<2> for Inner {
    const NAME: &'static str = "inner_product";
    fn cpu<T: Real>(&self, [a, b]: [View<T>; 2]) -> Made<T> {
        same_dims(Self::NAME, a.dims, b.dims)?;
        let parts = fill(a.data.len().div_ceil(GRAIN), 1, |at, out| {
            let range = at * GRAIN..((at + 1) * GRAIN).min(a.data.len());
            out[0] = T::from_f64(dot(&a.data[range.clone()], &b.data[range]));
        });
        Ok((vec![T::from_f64(parts.iter().map(|p| p.to_f64()).sum())], Shape::from(1)))
    }
}

/// (G − u vᵀ)·s of u `[rows]`, v `[columns]` and s, one after the other.
struct PullBack;

impl Op<2> for PullBack {
    const NAME: &'static str = "spectral_pull_back";
    fn cpu<T: Real>(&self, [g, uvs]: [View<T>; 2]) -> Made<T> {
        let [rows, columns] = matrix(Self::NAME, g.dims)?;
        same_dims(Self::NAME, &[rows + columns + 1], uvs.dims)?;
        let (u, vs) = uvs.data.split_at(rows);
        let s = vs[columns];
        let out = fill(rows * columns, columns, |at, out| {
            let u = u[at / columns];
            for ((o, &g), &v) in out.iter_mut().zip(&g.data[at..]).zip(vs) {
                *o = (g - u * v) * s;
            }
        });
        Ok((out, Shape::from(g.dims)))
    }
}

fn unit(x: &Tensor, epsilon: f64) -> Result<Tensor> {
    let norm = x.sqr()?.sum_all()?.sqrt()?;
    let floor = (norm.zeros_like()? + epsilon)?;
    x.broadcast_mul(&norm.maximum(&floor)?.recip()?)
}

impl Spectral {
    /// Declares the vectors of the weight `name` of `shape` under PyTorch's names; their orders are those of the weight's rows and
    /// columns.
    pub fn declare(
        buffers: &mut Builder,
        name: &str,
        shape: &[usize],
        epsilon: f64,
        [of_rows, of_columns]: [Order; 2],
    ) -> Self {
        let rest = shape[1..].iter().product();
        Self {
            u: buffers.add_ordered(format!("{name}.weight_u"), &shape[..1], Init::UnitVector, of_rows),
            v: buffers.add_ordered(format!("{name}.weight_v"), &[rest], Init::UnitVector, of_columns),
            epsilon,
        }
    }
}

impl Normalised {
    /// Of one stored weight on the CPU.
    ///
    /// # Errors
    /// When the vectors do not fit it.
    pub fn of(stored: &Tensor, of: &Spectral, buffers: &Store, power: Power) -> Result<Self> {
        let matrix = stored.flatten_from(1)?;
        let (mut u, mut v) = (buffers.get(of.u)?.copy()?, buffers.get(of.v)?.copy()?);
        if power != Power::Still {
            v = unit(&apply(&TransposedTimes, [&matrix, &u])?, of.epsilon)?;
        }
        let wv = apply(&Times, [&matrix, &v])?;
        if power != Power::Still {
            u = unit(&wv, of.epsilon)?;
        }
        if power == Power::Moving {
            buffers.set(of.u, &u)?;
            buffers.set(of.v, &v)?;
        }
        let inverse = (&u * &wv)?.sum_all()?.recip()?;
        Ok(Self { w: matrix.broadcast_mul(&inverse)?, u, v, inverse })
    }

    /// Adds ∂L/∂W of the stored weight to `into`, from `gradient` = ∂L/∂W̄: (∂L/∂W̄ − ⟨∂L/∂W̄, W̄⟩·u vᵀ)/σ.
    ///
    /// # Errors
    /// When the gradient has another size.
    pub fn add_pull_back(&self, gradient: &Tensor, into: &Tensor) -> Result<()> {
        let gradient = gradient.flatten_all()?.reshape(self.w.dims())?;
        let cpu = || {
            let inner = apply(&Inner, [&gradient, &self.w])?;
            let uvs = Tensor::cat(&[&self.u.broadcast_mul(&inner)?, &self.v, &self.inverse.unsqueeze(0)?], 0)?;
            add_assign(into, &apply(&PullBack, [&gradient, &uvs])?)
        };
        either([&gradient, &self.w, into], cpu, |tape, [g, w, into]| {
            let inner = tape.dot(g, w, false)?;
            let [u, v, inverse] = [tape.array(&self.u)?, tape.array(&self.v)?, tape.array(&self.inverse)?];
            let words = words![into, g, v.len(), u, v, inverse, tape.array(&inner)?];
            tape.each("spectral_pull_back", into.len(), words)
        })
    }
}

/// A spectrally normalised weight of a network.
pub struct Member<'a> {
    /// The stored weight.
    pub weight: Id,
    /// Its rows, O.
    pub rows: usize,
    /// Its columns.
    pub columns: usize,
    /// Its vectors.
    pub spectral: &'a Spectral,
}

/// All spectrally normalised weights of a network on a device, whose norms are taken together.
pub struct Spectra {
    /// A row of 8 numbers for each, as the kernels read it.
    table: Tensor,
    places: Vec<Place>,
    /// Rows, columns and elements of all together.
    totals: [usize; 3],
    epsilon: f64,
}

struct Place {
    w: usize,
    rows: usize,
    columns: usize,
    u: usize,
    v: usize,
}

impl Spectra {
    /// Those of a network on a device; none where there are none, or on the CPU.
    ///
    /// # Errors
    /// When the device refuses the memory.
    pub fn new<'a>(params: &Store, buffers: &Store, of: impl Iterator<Item = Member<'a>>) -> Result<Option<Self>> {
        let device = params.flat().device();
        let (mut places, mut table, mut totals, mut epsilon) = (Vec::new(), Vec::new(), [0; 3], 0.0);
        for Member { weight, rows, columns, spectral } in of {
            let place = Place {
                w: params.offset(weight),
                rows,
                columns,
                u: buffers.offset(spectral.u),
                v: buffers.offset(spectral.v),
            };
            let row = [place.w, rows, columns, place.u, place.v, totals[0], totals[1], totals[2]];
            table.extend(row.map(|n| n as i64));
            places.push(place);
            totals = [totals[0] + rows, totals[1] + columns, totals[2] + rows * columns];
            epsilon = spectral.epsilon;
        }
        if places.is_empty() || !is_machine(device)? {
            return Ok(None);
        }
        let table = Tensor::from_vec(table, (places.len(), 8), device)?;
        Ok(Some(Self { table, places, totals, epsilon }))
    }

    /// The memory that its kernels read beside parameters and buffers.
    pub fn table(&self) -> &Tensor {
        &self.table
    }

    /// Every weight over its norm, in the order of the members.
    ///
    /// # Errors
    /// When the device fails.
    pub fn normalise(&self, params: &Store, buffers: &Store, power: Power) -> Result<Vec<Normalised>> {
        let (params, buffers) = (params.flat(), buffers.flat());
        let cpu = || bail!("weights are normalised one by one on the cpu");
        let (w, vectors, inverses) = either([params, buffers], cpu, |tape, [w, kept]| {
            let table = tape.memory(&self.table)?;
            let (n, [rows, columns, elements]) = (self.places.len(), self.totals);
            let vectors = tape.alloc(kept.dims)?;
            let inverses = tape.alloc(&[n])?;
            let out = tape.alloc(w.dims)?;
            let of_vectors = tape.memory(&vectors)?;
            let iterated = power != Power::Still;
            if iterated {
                let times = tape.alloc(&[columns])?;
                let times = tape.memory(&times)?;
                tape.each("spectral_transposed_times", columns, words![table, n, w, kept, times])?;
                tape.blocks("spectral_v", n, words![Word::Nothing, table, self.epsilon, times, of_vectors])?;
            } else {
                tape.each("copy", kept.len(), words![of_vectors, of_vectors, kept])?;
            }
            let times = tape.alloc(&[rows])?;
            let times = tape.memory(&times)?;
            tape.blocks("spectral_times", rows, words![Word::Nothing, table, n, w, of_vectors, times])?;
            let moved = (power == Power::Moving).then_some(kept);
            let inverse = tape.memory(&inverses)?;
            let words = words![Word::Nothing, table, self.epsilon, times, of_vectors, inverse, iterated, moved];
            tape.blocks("spectral_u", n, words)?;
            tape.each("spectral_divide", elements, words![table, n, w, inverse, tape.memory(&out)?])?;
            Ok((out, vectors, inverses))
        })?;
        let of = |(k, p): (usize, &Place)| {
            Ok(Normalised {
                w: w.narrow(0, p.w, p.rows * p.columns)?.reshape((p.rows, p.columns))?,
                u: vectors.narrow(0, p.u, p.rows)?,
                v: vectors.narrow(0, p.v, p.columns)?,
                inverse: inverses.get(k)?,
            })
        };
        self.places.iter().enumerate().map(of).collect()
    }
}
