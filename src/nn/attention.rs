//! Scaled dot-product attention of several heads (Vaswani et al., arXiv 1706.03762), forward only.
//!
//! Legend: N images, T tokens of each, H heads of D = [`HEAD`] channels. Scores are never stored: on the CPU those of some queries at a
//! time stay in cache between the two products, which are the convolutions' register-tiled loop.

use candle_core::{Result, Shape, Tensor, bail};

use super::op::{Made, Op, View, apply};
use crate::machine::call::Array;
use crate::machine::cpu::kernel::{Pixel, ROWS};
use crate::machine::cpu::panels::{Panel, Rows, multiply, pack, panels, width};
use crate::machine::cpu::parallel::scatter;
use crate::machine::cpu::real::{Loop, Real, compiled};
use crate::machine::cpu::rows::{max, sum};
use crate::machine::tape::Tape;
use crate::words;

/// Channels of a head: those of nearly every published Vision Transformer, and whole panels on every machine.
pub const HEAD: usize = 64;
/// Queries whose scores are in cache at a time: whole tiles.
const QUERIES: usize = 11 * ROWS;
/// Queries of a block of threads on a device.
const ON_DEVICE: usize = 32;

struct Attention {
    queries: usize,
}

impl Attention {
    /// N, T, H.
    fn sizes(&self, qkv: &[usize]) -> Result<[usize; 3]> {
        match *qkv {
            [n, t, c] if c > 0 && c.is_multiple_of(3 * HEAD) && (1..=t).contains(&self.queries) => {
                Ok([n, t, c / (3 * HEAD)])
            }
            _ => bail!("{}: {} queries of {qkv:?}, expected [N, T, 3·H·{HEAD}]", Self::NAME, self.queries),
        }
    }
}

/// What a head works on.
struct Head<'a, T> {
    /// From the head's first channel of the image's first token.
    queries: &'a [T],
    /// Elements from one token to the next.
    pitch: usize,
    tokens: usize,
    /// `[D, T]` and `[T, D]` in panels.
    keys: Vec<T>,
    values: Vec<T>,
}

impl<'a, T: Real> Head<'a, T> {
    /// `qkv`: from the head's first channel of the image's first token.
    fn new(qkv: &'a [T], tokens: usize, heads: usize) -> Self {
        let (channels, pitch) = (heads * HEAD, 3 * heads * HEAD);
        let row = |token: usize, part: usize| &qkv[token * pitch + part * channels..][..HEAD];
        let keys = pack([HEAD, tokens], |token| row(token, 1));
        let mut values = Vec::with_capacity(tokens * HEAD);
        for Panel { first, columns, .. } in panels::<T>(HEAD, T::vectors()) {
            for token in 0..tokens {
                values.extend_from_slice(&row(token, 2)[first..][..columns]);
            }
        }
        Self { queries: qkv, pitch, tokens, keys, values }
    }

    /// What `count` queries from `first` on attend to, `out_pitch` elements apart; their scores are overwritten.
    ///
    /// # Safety
    /// `out` has room for them, and nobody else writes it.
    unsafe fn attend(&self, first: usize, count: usize, scores: &mut [T], (out, out_pitch): (*mut T, usize)) {
        let width = width::<T>(self.tokens);
        let pixels = |input: usize, output: usize| -> Vec<Pixel> {
            (0..count).map(|q| Pixel { input: q * input, output: q * output }).collect()
        };
        let queries = &self.queries[first * self.pitch..];
        // SAFETY: queries are rows of `qkv`, and rows of scores have whole vectors.
        unsafe {
            let rows = Rows { pixels: &pixels(self.pitch, width), input: queries.as_ptr(), apart: 1 };
            multiply(&rows, (&self.keys, [HEAD, self.tokens]), None, scores.as_mut_ptr());
        }
        let scale = T::from_f64(1.0 / (HEAD as f64).sqrt());
        let shares: Vec<T> = scores[..count * width]
            .chunks_exact_mut(width)
            .map(|row| compiled(Exponentials { row: &mut row[..self.tokens], scale }))
            .collect();
        // SAFETY: as the caller says; a head is whole vectors.
        unsafe {
            let rows = Rows { pixels: &pixels(width, out_pitch), input: scores.as_ptr(), apart: 1 };
            multiply(&rows, (&self.values, [self.tokens, HEAD]), None, out);
        }
        for (q, share) in shares.into_iter().enumerate() {
            // SAFETY: as the caller says.
            let out = unsafe { std::slice::from_raw_parts_mut(out.add(q * out_pitch), HEAD) };
            out.iter_mut().for_each(|o| *o *= share);
        }
    }
}

/// Scores to exponentials, not normalised; one over their sum.
struct Exponentials<'a, T> {
    row: &'a mut [T],
    scale: T,
}

impl<T: Real> Loop for Exponentials<'_, T> {
    type Out = T;
    #[inline(always)]
    fn run(self) -> T {
        let (largest, scale) = (max(self.row), self.scale);
        self.row.iter_mut().for_each(|x| *x = ((*x - largest) * scale).exp());
        T::ONE / sum(self.row, |x| x)
    }
}

impl Op<1> for Attention {
    const NAME: &'static str = "attention";
    fn cpu<T: Real>(&self, [qkv]: [View<T>; 1]) -> Made<T> {
        let [n, tokens, heads] = self.sizes(qkv.dims)?;
        let channels = heads * HEAD;
        let mut out = Vec::new();
        scatter(&mut out, n * self.queries * channels, n * heads, |task, out: *mut T| {
            let (image, at) = (task / heads, task % heads * HEAD);
            let head = Head::new(&qkv.data[image * tokens * 3 * channels + at..], tokens, heads);
            let mut scores = vec![T::ZERO; QUERIES.min(self.queries) * width::<T>(tokens)];
            for first in (0..self.queries).step_by(QUERIES) {
                let count = QUERIES.min(self.queries - first);
                // SAFETY: the head's channels of these queries, which no other task writes.
                unsafe {
                    let to = out.add((image * self.queries + first) * channels + at);
                    head.attend(first, count, &mut scores, (to, channels));
                }
            }
        });
        Ok((out, Shape::from((n, self.queries, channels))))
    }
    fn device(&self, tape: &Tape, [qkv]: [Array; 1]) -> Result<Tensor> {
        let [n, tokens, heads] = self.sizes(qkv.dims)?;
        let out = tape.alloc(&[n, self.queries, heads * HEAD])?;
        let grid = [self.queries.div_ceil(ON_DEVICE), heads, n];
        tape.launch(Self::NAME, grid, [256, 1], words![tape.memory(&out)?, qkv, tokens, self.queries])?;
        Ok(out)
    }
}

/// softmax(QKᵀ/√D)·V of each head, for the first `queries` tokens: queries, keys and values side by side `[N, T, 3·H·D]` →
/// `[N, queries, H·D]`.
///
/// # Errors
/// On other shapes, a non-contiguous tensor, or a dtype other than F32 and F64.
pub fn attention(qkv: &Tensor, queries: usize) -> Result<Tensor> {
    apply(&Attention { queries }, [qkv])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{close, device, on_device, random, values};

    #[test]
    fn it_is_the_definition() {
        for [n, t, heads, queries] in [[1, 1, 1, 1], [2, 70, 2, 70], [1, 331, 1, 3], [1, 130, 3, 67]] {
            let qkv = random("qkv", &[n, t, 3 * heads * HEAD]);
            let out = attention(&qkv, queries).unwrap();
            on_device(&out);
            assert_eq!(out.dims(), [n, queries, heads * HEAD]);
            let (qkv, out) = (values(&qkv), values(&out));
            let at = |image: usize, token: usize, part: usize, head: usize| {
                &qkv[((image * t + token) * 3 + part) * heads * HEAD + head * HEAD..][..HEAD]
            };
            for (k, got) in out.chunks(HEAD).enumerate() {
                let (image, query, head) = (k / heads / queries, k / heads % queries, k % heads);
                let dot = |key: usize| {
                    let pairs = at(image, query, 0, head).iter().zip(at(image, key, 1, head));
                    (pairs.map(|(q, k)| q * k).sum::<f64>() / 8.0).exp()
                };
                let shares: Vec<f64> = (0..t).map(dot).collect();
                let total: f64 = shares.iter().sum();
                for (d, &got) in got.iter().enumerate() {
                    let want = (0..t).map(|key| shares[key] * at(image, key, 2, head)[d]).sum::<f64>() / total;
                    close(got, want, 1e-12);
                }
            }
        }
        assert!(attention(&random("qkv", &[1, 3, 3 * HEAD]), 4).is_err());
        assert!(attention(&random("qkv", &[1, 3, 2 * HEAD]), 1).is_err());
        assert!(attention(&random("qkv", &[1, 3, 3 * HEAD]).to_device(device()).unwrap(), 3).is_ok());
    }

    #[test]
    fn large_scores_do_not_overflow() {
        let qkv = (random("qkv", &[1, 9, 3 * HEAD]) * 1e4).unwrap();
        let of = |t: &Tensor| values(&attention(t, 9).unwrap().to_dtype(candle_core::DType::F64).unwrap());
        let single = of(&qkv.to_dtype(candle_core::DType::F32).unwrap());
        for (got, want) in single.into_iter().zip(of(&qkv)) {
            close(got, want, 1e-5);
        }
    }
}
