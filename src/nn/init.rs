//! Initial weights, drawn from a named random stream (see [`crate::rng`]).

use crate::rng::Stream;

/// Distribution of a parameter's initial values.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Init {
    /// Every element this value.
    Constant(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Normal with standard deviation gain / √fan-in, fan-in from the weight's shape `[O, I, …]`.
    FanIn(f64),
    /// Normal with variance 2 / fan-in (He et al. 2015), fan-in from the weight's shape `[O, I, …]`.
    KaimingNormal,
    /// Uniform in ±√(6 / (fan-in + fan-out)) (Glorot and Bengio 2010), from the weight's shape `[O, I, …]`.
    XavierUniform,
    /// A random direction of length 1: the start of a power iteration.
    UnitVector,
}

impl Init {
    /// Values of a parameter of `shape`.
    pub fn draw(self, shape: &[usize], stream: &mut Stream) -> Vec<f64> {
        let n: usize = shape.iter().product();
        match self {
            Self::Constant(value) => vec![value; n],
            Self::Normal(std) => (0..n).map(|_| std * stream.normal()).collect(),
            Self::FanIn(gain) => {
                let fan_in: usize = shape.iter().skip(1).product();
                Self::Normal(gain / (fan_in.max(1) as f64).sqrt()).draw(shape, stream)
            }
            Self::KaimingNormal => {
                let fan_in: usize = shape.iter().skip(1).product();
                Self::Normal((2.0 / fan_in.max(1) as f64).sqrt()).draw(shape, stream)
            }
            Self::XavierUniform => {
                let kernel: usize = shape.iter().skip(2).product();
                let fans = kernel * shape.iter().take(2).sum::<usize>();
                let bound = (6.0 / fans.max(1) as f64).sqrt();
                (0..n).map(|_| bound * (2.0 * stream.uniform() - 1.0)).collect()
            }
            Self::UnitVector => {
                let v = Self::Normal(1.0).draw(shape, stream);
                let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
                v.into_iter().map(|x| x / norm.max(f64::MIN_POSITIVE)).collect()
            }
        }
    }
}
