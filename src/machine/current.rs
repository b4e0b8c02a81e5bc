//! Which machine a tensor belongs to: a GPU's to that GPU, the CPU's to none, or to the one that stands in its place.

use std::cell::RefCell;
use std::rc::Rc;

use candle_core::{Device, Result, bail};

use super::interface::Machine;

thread_local! {
    static STAND_IN: RefCell<Option<Rc<dyn Machine>>> = const { RefCell::new(None) };
}

/// Lets a machine that keeps its memory on the CPU stand for it in this thread from now on, or none.
pub fn stand_in(machine: Option<Rc<dyn Machine>>) {
    STAND_IN.set(machine);
}

/// Runs `work` with a machine standing for the CPU, and goes back to what was so before.
pub fn during<R>(machine: Option<Rc<dyn Machine>>, work: impl FnOnce() -> R) -> R {
    let before = STAND_IN.replace(machine);
    let result = work();
    STAND_IN.set(before);
    result
}

/// The machine of a device; none is the CPU's own loops.
///
/// # Errors
/// When the device does not start, or nothing here computes on it.
pub fn of(device: &Device) -> Result<Option<Rc<dyn Machine>>> {
    match device {
        Device::Cpu => Ok(STAND_IN.with_borrow(Clone::clone)),
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => Ok(Some(super::cuda::gpu(device)?)),
        _ => bail!("this build does not compute on {device:?}"),
    }
}

/// Whether a device computes by a machine, and so keeps weights in the order that machines take them in.
///
/// # Errors
/// As for [`of`].
pub fn is_machine(device: &Device) -> Result<bool> {
    Ok(of(device)?.is_some())
}
