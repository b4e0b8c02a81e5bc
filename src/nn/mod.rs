//! Operators on images `[N, H, W, C]` (channels last), each with its gradients, over f32 and f64. Knows no GAN.
//!
//! Legend for the whole room: N images, H rows, W columns, C channels, "rows" = N·H·W pixels.

pub mod activation;
pub mod attention;
pub mod augment;
pub mod batch_norm;
pub mod conv;
pub mod fir;
pub mod fold;
pub mod image;
pub mod init;
pub mod kernel;
pub mod layer_norm;
pub mod matrix;
pub mod op;
pub mod order;
pub mod pool;
pub mod resample;
pub mod spectral;
pub mod store;
pub mod tally;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod weight;
