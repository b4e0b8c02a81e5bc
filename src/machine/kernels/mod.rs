//! The devices' kernels in CUDA C, compiled at run time for `real` of one element type. Every one takes the same structure of
//! 64-bit words, so that a launch needs no signature, and is named after its operator.
//!
//! Sums have a fixed partition and are taken in double, so results do not change from one call to the next. A kernel that sums
//! over several blocks is finished by the last block that is done, which counters tell: they are zero again when it ends.

/// Words a kernel is given.
pub const WORDS: usize = 16;
/// Threads of a block.
pub const THREADS: usize = 256;
/// Columns and rows of a block that sums over rows.
pub const TILE: [usize; 2] = [32, 8];
/// Counters of blocks that are done; a kernel uses at most one for each block of columns.
pub const COUNTERS: usize = 4096;

/// All kernels. Before them go the type `real`, and what `KERNEL(name)` and `BLOCK_KERNEL(name)` (its threads meet at barriers)
/// declare.
pub const SOURCE: &str = concat!(
    include_str!("base.cu"),
    include_str!("elementwise.cu"),
    include_str!("sums.cu"),
    include_str!("batch_norm.cu"),
    include_str!("transformer.cu"),
    include_str!("spectral.cu"),
    include_str!("resample.cu"),
    include_str!("images.cu"),
    include_str!("losses.cu"),
);
