//! pgn-bench: trains GANs whose critic is normalised or penalised in different ways on the same generators, data and
//! seeds, measures them with the field's own metrics, and compares them.

pub mod cli;
pub mod config;
pub mod critic;
pub mod data;
pub mod error;
pub mod export;
pub mod files;
pub mod generators;
pub mod guard;
pub mod interrupt;
pub mod losses;
pub mod machine;
pub mod methods;
pub mod metrics;
pub mod nn;
pub mod npy;
pub mod onnx;
pub mod optim;
pub mod protobuf;
pub mod report;
pub mod results;
pub mod rng;
pub mod statistics;
pub mod train;
pub mod weights;
pub mod yaml;
