//! Where to compute, by name, and how precisely: the CPU in f32, or an NVIDIA GPU in f32 or TF32.

use candle_core::Device;

use crate::error::{Error, Result};

/// What products of f32 numbers are computed in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// f32 throughout.
    F32,
    /// Factors rounded to TF32 (10 bits of mantissa), sums in f32.
    Tf32,
}

impl Precision {
    /// Both by name.
    pub const ALL: [(&str, Self); 2] = [("f32", Self::F32), ("tf32", Self::Tf32)];

    /// The name on the command line.
    pub fn id(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
        }
    }

    /// The name of the precision of a device as rows name it.
    pub fn of(device: &str) -> &'static str {
        if device.ends_with(Self::Tf32.id()) { Self::Tf32.id() } else { Self::F32.id() }
    }
}

/// An open device.
#[derive(Clone, Debug)]
pub struct Compute {
    /// The device.
    pub device: Device,
    /// Its precision.
    pub precision: Precision,
}

impl Compute {
    /// The CPU.
    pub fn cpu() -> Self {
        Self { device: Device::Cpu, precision: Precision::F32 }
    }

    /// Opens `cpu`, `cuda` or `cuda:N`; on a GPU the precision is TF32 unless another is asked for, and convolutions may be
    /// asked to give the same bits every time.
    ///
    /// # Errors
    /// When the device is unknown or not there, or the precision is not one of it.
    pub fn open(name: &str, precision: Option<Precision>, deterministic: bool) -> Result<Self> {
        let number = match name.split_once(':') {
            _ if name == "cpu" => None,
            _ if name == "cuda" => Some(0),
            Some(("cuda", number)) => number.parse().ok(),
            _ => None,
        };
        match (number, precision) {
            (Some(number), _) => gpu(number, precision.unwrap_or(Precision::Tf32), deterministic),
            (None, _) if name != "cpu" => Err(Error::invalid(format!("--device {name}: expected cpu, cuda or cuda:N"))),
            (None, Some(Precision::Tf32)) => Err(Error::invalid("--precision tf32: the cpu computes in f32 only")),
            (None, _) => Ok(Self::cpu()),
        }
    }

    /// The name in result rows.
    pub fn id(&self) -> String {
        if self.device.is_cpu() { "cpu".to_owned() } else { format!("cuda {}", self.precision.id()) }
    }

    /// Runs `work` on the device in this precision, whatever precision others use.
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        #[cfg(feature = "cuda")]
        if self.device.is_cuda() {
            return crate::nn::device::cuda::with_tf32(self.precision == Precision::Tf32, work);
        }
        work()
    }
}

#[cfg(feature = "cuda")]
fn gpu(number: usize, precision: Precision, deterministic: bool) -> Result<Compute> {
    let device = crate::nn::device::cuda::open(number, precision == Precision::Tf32, deterministic)
        .map_err(|e| Error::invalid(format!("--device cuda:{number}: no such GPU, or no driver for it: {e}")))?;
    Ok(Compute { device, precision })
}

#[cfg(not(feature = "cuda"))]
fn gpu(number: usize, _: Precision, _: bool) -> Result<Compute> {
    Err(Error::invalid(format!(
        "--device cuda:{number}: this build computes on the cpu only; build it with `--features cuda`"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named() {
        let open = |name, precision| Compute::open(name, precision, false).map(|c| c.id()).map_err(|e| e.to_string());
        assert_eq!(open("cpu", None), Ok("cpu".to_owned()));
        assert_eq!(open("cpu", Some(Precision::F32)), Ok("cpu".to_owned()));
        assert!(open("cpu", Some(Precision::Tf32)).unwrap_err().contains("f32 only"));
        for wrong in ["gpu", "cuda:", "cuda:x", "cpu:0"] {
            assert!(open(wrong, None).unwrap_err().contains("expected cpu, cuda or cuda:N"), "{wrong}");
        }
        #[cfg(not(feature = "cuda"))]
        assert!(open("cuda", None).unwrap_err().contains("--features cuda"));
        assert_eq!(
            [Precision::of("cpu"), Precision::of("cuda f32"), Precision::of("cuda tf32")],
            ["f32", "f32", "tf32"]
        );
    }
}
