//! Where to compute, by name, and how precisely: the CPU in f32, or a device in f32, TF32 or bfloat16.

use std::rc::Rc;

use candle_core::Device;

use super::current;
use super::emulated::Emulated;
use super::precision::Precision;
use crate::error::{Error, Result};

/// An open device.
#[derive(Clone, Debug)]
pub struct Compute {
    /// The device.
    pub device: Device,
    /// Its precision.
    pub precision: Precision,
    /// Whether a device's training updates are recorded, and not made call by call.
    pub graph: bool,
    /// Whether it is emulated on the CPU.
    pub emulated: bool,
}

impl Compute {
    /// The CPU.
    pub fn cpu() -> Self {
        Self { device: Device::Cpu, precision: Precision::F32, graph: true, emulated: false }
    }

    /// Opens `cpu`, `cuda`, `cuda:N` or, in this thread, `emulated` (with the channels first in convolutions: `emulated:first`). On a
    /// GPU the precision is TF32 unless another is asked for, and convolutions may be asked to give the same bits every time.
    ///
    /// # Errors
    /// When the device is unknown or not there, or the precision is not one of it.
    pub fn open(name: &str, precision: Option<Precision>, deterministic: bool) -> Result<Self> {
        let open = match name.split_once(':') {
            None if name == "cpu" => match precision {
                None | Some(Precision::F32) => return Ok(Self::cpu()),
                Some(other) => {
                    return Err(Error::invalid(format!("--precision {}: the cpu computes in f32 only", other.id())));
                }
            },
            None if name == "emulated" => Some(emulated(true, precision)),
            Some(("emulated", "first")) => Some(emulated(false, precision)),
            None if name == "cuda" => Some(gpu(0, precision, deterministic)?),
            Some(("cuda", number)) => number.parse().ok().map(|n| gpu(n, precision, deterministic)).transpose()?,
            _ => None,
        };
        let Some(open) = open else {
            return Err(Error::invalid(format!("--device {name}: expected cpu, cuda or cuda:N")));
        };
        open.precision.set();
        Ok(open)
    }

    /// The same device in another precision.
    pub fn with(&self, precision: Precision) -> Self {
        Self { precision, ..self.clone() }
    }

    /// Whether networks live and compute on a machine, not on the CPU.
    pub fn is_machine(&self) -> bool {
        self.emulated || !self.device.is_cpu()
    }

    /// The name in result rows.
    pub fn id(&self) -> String {
        match self.is_machine() {
            false => "cpu".to_owned(),
            true => format!("{} {}", if self.emulated { "emulated" } else { "cuda" }, self.precision.id()),
        }
    }

    /// Runs `work` on the device in this precision, whatever precision others use.
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        if self.is_machine() { self.precision.during(work) } else { current::during(None, work) }
    }
}

fn emulated(channels_last: bool, precision: Option<Precision>) -> Compute {
    current::stand_in(Some(Rc::new(Emulated::new(channels_last))));
    Compute { precision: precision.unwrap_or(Precision::F32), emulated: true, ..Compute::cpu() }
}

#[cfg(feature = "cuda")]
fn gpu(number: usize, precision: Option<Precision>, deterministic: bool) -> Result<Compute> {
    let device = super::cuda::open(number, deterministic)
        .map_err(|e| Error::invalid(format!("--device cuda:{number}: no such GPU, or no driver for it: {e}")))?;
    Ok(Compute { device, precision: precision.unwrap_or(Precision::Tf32), ..Compute::cpu() })
}

#[cfg(not(feature = "cuda"))]
fn gpu(number: usize, _: Option<Precision>, _: bool) -> Result<Compute> {
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
        for precision in [Precision::Tf32, Precision::Bf16] {
            assert!(open("cpu", Some(precision)).unwrap_err().contains("f32 only"));
        }
        for wrong in ["gpu", "cuda:", "cuda:x", "cpu:0", "emulated:last"] {
            assert!(open(wrong, None).unwrap_err().contains("expected cpu, cuda or cuda:N"), "{wrong}");
        }
        #[cfg(not(feature = "cuda"))]
        assert!(open("cuda", None).unwrap_err().contains("--features cuda"));
        let of = ["cpu", "cuda f32", "cuda tf32", "emulated bf16"].map(Precision::of);
        assert_eq!(of, ["f32", "f32", "tf32", "bf16"]);
    }
}
