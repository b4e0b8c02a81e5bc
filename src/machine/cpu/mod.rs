//! The CPU: element types and their vector units, the register-tiled loops, loops in parallel.

pub mod functions;
pub mod kernel;
#[cfg(target_arch = "aarch64")]
mod neon;
pub mod panels;
pub mod parallel;
pub mod real;
pub mod rows;
pub mod schedule;
pub mod winograd;
#[cfg(target_arch = "x86_64")]
mod x86;
