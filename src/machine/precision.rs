//! What products of f32 numbers are computed in on a device.

use std::cell::Cell;

/// A precision. Sums are f32 in each, and so is everything beside convolutions and matrix products.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// f32 throughout.
    F32,
    /// Factors rounded to TF32 (10 bits of mantissa).
    Tf32,
    /// Factors and results of convolutions and products rounded to bfloat16 (7 bits of mantissa).
    Bf16,
}

thread_local! {
    static CURRENT: Cell<Precision> = const { Cell::new(Precision::F32) };
}

impl Precision {
    /// All by name.
    pub const ALL: [(&str, Self); 3] = [("f32", Self::F32), ("tf32", Self::Tf32), ("bf16", Self::Bf16)];

    /// The name on the command line.
    pub fn id(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }

    /// The name of the precision of a device as rows name it.
    pub fn of(device: &str) -> &'static str {
        let known = Self::ALL.iter().find(|(name, _)| device.ends_with(&format!(" {name}")));
        known.map_or(Self::F32.id(), |(name, _)| name)
    }

    /// The one that calls of devices have from now on in this thread.
    pub fn set(self) {
        CURRENT.set(self);
    }

    /// The one that calls of devices have now.
    pub fn current() -> Self {
        CURRENT.get()
    }

    /// Runs `work` in this precision, and goes back to the one before.
    pub fn during<R>(self, work: impl FnOnce() -> R) -> R {
        let before = Self::current();
        self.set();
        let result = work();
        before.set();
        result
    }
}
