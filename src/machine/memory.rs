//! The allocator of everything built on this crate, and the most memory that training used, of the process or of a GPU.
//!
//! Activations of tens of megabytes come and go many times a step. The system's allocator returns their pages and pays for
//! each page again; this one keeps them, and [`keep_pages`] makes it keep them from one training step to the next.

use candle_core::{Device, Result};
use libmimalloc_sys::{mi_collect, mi_option_set, mi_process_info};

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

/// Forgets the peak, so that [`peak_bytes`] is that of what comes next. On the CPU only Linux can: elsewhere it stays the
/// whole process's.
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
    // Nor does every Linux let us.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    Ok(())
}

/// Most bytes since [`reset_peak`] that this process has had resident, or in use on the GPU; none where the system does not say.
///
/// # Errors
/// When the GPU's driver does not say.
pub fn peak_bytes(device: &Device) -> Result<Option<u64>> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return super::cuda::peak_bytes(device).map(Some);
    }
    let Device::Cpu = device else { return Ok(None) };
    Ok(high_water_mark().or_else(of_process).filter(|&bytes| bytes > 0))
}

/// Linux's, which [`reset_peak`] lowers.
fn high_water_mark() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib =
        status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Some(kib? * 1024)
}

/// What `getrusage` says of the whole process, in bytes whatever the system counts in.
fn of_process() -> Option<u64> {
    let (mut peak, no) = (0usize, std::ptr::null_mut());
    // SAFETY: writes the one number, and nothing where it gets a null.
    unsafe { mi_process_info(no, no, no, no, &raw mut peak, no, no, no) }
    u64::try_from(peak).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_holds_what_was_touched() {
        let touched = std::hint::black_box(vec![1u8; 32 << 20]);
        for peak in [peak_bytes(&Device::Cpu).unwrap(), of_process()] {
            assert!(peak.unwrap() >= touched.len() as u64, "{peak:?}");
        }
    }
}
