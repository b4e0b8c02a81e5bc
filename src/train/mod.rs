//! Training: the step, the loop around it, checkpoints, logs, evaluation and sample grids.

pub mod checkpoint;
pub mod cost;
mod direct;
pub mod evaluate;
pub mod existing;
pub mod feed;
pub mod grid;
pub mod import;
pub mod instrument;
pub mod lock;
pub mod log;
pub mod probe;
pub mod profile;
pub mod recorded;
pub mod rows;
pub mod run;
pub mod step;
pub mod tensorboard;
pub mod update;
