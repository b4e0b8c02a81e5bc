//! A machine that does nothing and counts what it is asked for: launches and bytes of networks of any size, at no cost.

use std::cell::Cell;
use std::rc::Rc;

use candle_core::{DType, Device, Result, Tensor};

use super::call::Call;
use super::convolution::{Dims, Pass};
use super::emulated::address;
use super::interface::{Machine, Replay};

/// Counts; what is in memory means nothing.
#[derive(Default)]
pub struct Counting {
    /// Calls so far.
    pub calls: Cell<usize>,
    /// Allocations so far.
    pub allocations: Cell<usize>,
}

struct Nothing;

impl Replay for Nothing {
    fn replay(&self) -> Result<()> {
        Ok(())
    }
}

impl Counting {
    /// A fresh one.
    pub fn new() -> Rc<Self> {
        Rc::default()
    }
}

impl Machine for Counting {
    fn alloc(&self, dims: &[usize], dtype: DType) -> Result<Tensor> {
        self.allocations.update(|n| n + 1);
        Tensor::zeros(dims, dtype, &Device::Cpu)
    }

    fn address(&self, t: &Tensor) -> Result<u64> {
        address(t)
    }

    fn send(&self, _: &[f32], _: &Tensor) -> Result<()> {
        Ok(())
    }

    fn channels_last(&self, _: Pass, _: &Dims, _: DType) -> Result<bool> {
        Ok(true)
    }

    fn run(&self, _: &Call) -> Result<()> {
        self.calls.update(|n| n + 1);
        Ok(())
    }

    fn ready(&self, _: Vec<Call>) -> Result<Box<dyn Replay>> {
        Ok(Box::new(Nothing))
    }

    fn timed(&self, calls: &[Call], _: usize) -> Result<Vec<f64>> {
        Ok(vec![0.0; calls.len()])
    }
}
