//! The allocator of everything built on this crate, and the most memory that training used, of the process or of a GPU.
//!
//! Activations of tens of megabytes come and go many times a step. The system's allocator returns their pages and pays for
//! each page again; this one keeps them, and [`keep_pages`] makes it keep them from one training step to the next.

use candle_core::{Device, Result};
use libmimalloc_sys::{mi_collect, mi_option_set};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc's `mi_option_e`, which the bindings leave out.
const PURGE_DELAY: i32 = 15;
/// Longer than a training step of any network on a few cores. Without a limit (−1) mimalloc reuses pages less, as measured.
const DELAY_MS: std::ffi::c_long = 30_000;

/// Keeps the pages of freed memory for half a minute, not for a second: zeroing them anew was an eighth of a training step.
pub fn keep_pages() {
    // SAFETY: sets an integer option, which mimalloc reads atomically at each purge.
    unsafe { mi_option_set(PURGE_DELAY, DELAY_MS) }
}

/// Forgets the peak, so that [`peak_bytes`] is that of what comes next (on the CPU: Linux; nothing elsewhere).
///
/// # Errors
/// When the GPU's driver refuses.
pub fn reset_peak(device: &Device) -> Result<()> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return super::cuda::reset_peak(device);
    }
    let Device::Cpu = device else { return Ok(()) };
    // SAFETY: returns pages that nothing uses, or they would count.
    unsafe { mi_collect(true) }
    // Where the system does not let us, the peak stays the whole process's.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    Ok(())
}

/// Most bytes since [`reset_peak`]: that this process has had resident (Linux; zero elsewhere), or in use on the GPU.
///
/// # Errors
/// When the GPU's driver does not say.
pub fn peak_bytes(device: &Device) -> Result<u64> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return super::cuda::peak_bytes(device);
    }
    let Device::Cpu = device else { return Ok(0) };
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(kib.unwrap_or(0) * 1024)
}
