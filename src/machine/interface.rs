//! What operators need of a device.

use candle_core::{DType, Result, Tensor};

use super::call::Call;
use super::convolution::{Dims, Pass};

/// A device.
pub trait Machine {
    /// A tensor of memory that is not initialised.
    ///
    /// # Errors
    /// When there is not as much.
    fn alloc(&self, dims: &[usize], dtype: DType) -> Result<Tensor>;

    /// Address of a tensor of this machine, which must be contiguous.
    ///
    /// # Errors
    /// When it is not, or lies elsewhere.
    fn address(&self, t: &Tensor) -> Result<u64>;

    /// Sends numbers into a tensor's memory, from its start.
    ///
    /// # Errors
    /// When there are more than it has, or the device fails.
    fn send(&self, numbers: &[f32], into: &Tensor) -> Result<()>;

    /// Whether a convolution takes its channels last.
    ///
    /// # Errors
    /// When the device fails.
    fn channels_last(&self, pass: Pass, d: &Dims, element: DType) -> Result<bool>;

    /// Does what is called for, after everything that was called for before.
    ///
    /// # Errors
    /// When the device refuses it.
    fn run(&self, call: &Call) -> Result<()>;

    /// Makes calls ready to be made together, again and again.
    ///
    /// # Errors
    /// When the device refuses one.
    fn ready(&self, calls: Vec<Call>) -> Result<Box<dyn Replay>>;

    /// Seconds that each call takes, when it is made after those before it; the last round of `rounds`.
    ///
    /// # Errors
    /// When the device refuses one.
    fn timed(&self, calls: &[Call], rounds: usize) -> Result<Vec<f64>>;
}

/// Calls that can be made again.
pub trait Replay {
    /// Makes them all, in order.
    ///
    /// # Errors
    /// When the device refuses one.
    fn replay(&self) -> Result<()>;
}
