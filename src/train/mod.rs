//! Training: the step, the loop, checkpoints and the log.

pub mod step;
