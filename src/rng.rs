//! Random numbers by name: a stream is a pure function of (seed, purpose, step), so a run has no generator state to save
//! and any step can be drawn again.

use rand::{Rng, RngExt, SeedableRng, TryRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use sha2::{Digest, Sha256};

/// A counter-based generator (ChaCha with 8 rounds).
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of `purpose` (a path such as `critic/latents`) at `step` of the run with `seed`.
    pub fn new(seed: u64, purpose: &str, step: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        hash.update(step.to_le_bytes());
        hash.update(purpose.as_bytes());
        Self(ChaCha8Rng::from_seed(hash.finalize().into()))
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        self.0.random()
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f64 {
        self.0.sample(StandardNormal)
    }

    /// Uniform in `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }

    /// `true` with probability ½.
    pub fn coin(&mut self) -> bool {
        self.0.random()
    }

    /// `n` standard normals as f32.
    pub fn normals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal() as f32).collect()
    }

    /// The same, each drawn anew until its absolute value is at most `bound`, which is above 0.
    pub fn normals_within(&mut self, n: usize, bound: f32) -> Vec<f32> {
        let mut one = || loop {
            let z = self.normal() as f32;
            if z.abs() <= bound {
                break z;
            }
        };
        (0..n).map(|_| one()).collect()
    }

    /// A permutation of `0..n` (Fisher–Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

impl TryRng for Stream {
    type Error = std::convert::Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(self.0.next_u32())
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(self.0.next_u64())
    }
    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Self::Error> {
        self.0.fill_bytes(dst);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_named_and_portable() {
        let draw = |seed, purpose: &str, step| Stream::new(seed, purpose, step).uniform();
        assert_eq!(draw(1, "a", 2), draw(1, "a", 2));
        assert_ne!(draw(1, "a", 2), draw(1, "a", 3));
        assert_ne!(draw(1, "a", 2), draw(1, "b", 2));
        assert_ne!(draw(1, "a", 2), draw(2, "a", 2));
        let mut s = Stream::new(7, "portable", 0);
        let mean: f64 = (0..20_000).map(|_| s.normal()).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03, "{mean}");
        assert_eq!(Stream::new(7, "z", 0).normals_within(50, f32::INFINITY), Stream::new(7, "z", 0).normals(50));
        let within = Stream::new(7, "z", 0).normals_within(20_000, 0.5);
        // Of a normal cut at ±0.5 the variance is 1 − 2·0.5·φ(0.5)/(2Φ(0.5) − 1) = 0.08059.
        let variance = within.iter().map(|&z| f64::from(z).powi(2)).sum::<f64>() / 20_000.0;
        assert!(within.iter().all(|z| z.abs() <= 0.5) && (variance - 0.08059).abs() < 0.003, "{variance}");
        let mut sorted = s.permutation(100);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<u32>>());
    }
}
