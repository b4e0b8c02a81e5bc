//! What a convolution multiplies with.

use candle_core::{DType, Result, Tensor};

use super::op::either;
use super::order::Order;
use crate::machine::current::is_machine;
use crate::machine::precision::Precision;
use crate::words;

/// A weight `[O, I, Kh, Kw]`, its elements in the order that the CPU or the device takes them in ([`Order`]).
#[derive(Clone, Debug)]
pub struct Kernel {
    data: Tensor,
    shape: [usize; 4],
}

impl Kernel {
    /// Of a weight `[O, I, Kh, Kw]` in the files' order.
    ///
    /// # Errors
    /// When it has another rank.
    pub fn new(w: &Tensor) -> Result<Self> {
        let (o, i, kh, kw) = w.dims4()?;
        let shape = [o, i, kh, kw];
        match is_machine(w.device())? {
            true => Self::of(&Order::kernel(shape).to_device(&w.flatten_all()?)?, shape),
            false => Self::of(w, shape),
        }
    }

    /// Of elements that are in the right order.
    ///
    /// # Errors
    /// When there are not as many as the shape says.
    pub fn of(data: &Tensor, shape: [usize; 4]) -> Result<Self> {
        Ok(Self { data: data.reshape(&shape[..])?, shape })
    }

    /// The weight `[O, I, Kh, Kw]` in the files' order.
    ///
    /// # Errors
    /// When the device fails.
    pub fn tensor(&self) -> Result<Tensor> {
        match is_machine(self.data.device())? {
            true => Order::kernel(self.shape).to_file(&self.data.flatten_all()?)?.reshape(&self.shape[..]),
            false => Ok(self.data.clone()),
        }
    }

    /// Its elements, in the order that they are in.
    pub fn data(&self) -> &Tensor {
        &self.data
    }

    /// `[O, I, Kh, Kw]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }
}

/// What takes a result next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Anything.
    Any,
    /// Convolutions and products alone: it may be made as their [`operand`] at once.
    Operand,
}

impl Next {
    /// The element type of a result, in the networks' type `element`, on a device.
    pub fn element(self, element: DType) -> DType {
        let half = self == Self::Operand && element == DType::F32 && Precision::current() == Precision::Bf16;
        if half { DType::BF16 } else { element }
    }
}

/// A tensor as convolutions and products on a device take it: in bfloat16, where that is the precision.
///
/// # Errors
/// When the device fails.
pub fn operand(x: &Tensor) -> Result<Tensor> {
    if x.dtype() != DType::F32 || Precision::current() != Precision::Bf16 {
        return Ok(x.clone());
    }
    either(
        [x],
        || Ok(x.clone()),
        |tape, [array]| {
            let out = tape.alloc_of(array.dims, DType::BF16)?;
            tape.each("to_bf16", array.len(), words![tape.memory(&out)?, array])?;
            Ok(out)
        },
    )
}
