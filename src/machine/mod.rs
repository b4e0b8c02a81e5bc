//! What computes: the CPU's loops, and devices. Knows no network.
//!
//! An operator's form for a device only prepares calls and names addresses ([`tape`]), so the same code runs on a GPU (`cuda/`,
//! feature `cuda`) and, kernels included, on an emulation of one on the CPU ([`emulated`]); and what was called once can be
//! called again with other numbers in the same places ([`program`]).

pub mod call;
pub mod compute;
pub mod convolution;
pub mod counting;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod current;
pub mod emulated;
pub mod interface;
pub mod kernels;
pub mod memory;
pub mod precision;
pub mod program;
pub mod tape;
