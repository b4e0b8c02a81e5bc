//! Weights of Vision Transformers: deduced sizes, and tensors put into small networks, which see an image.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use pgn_bench::data::source::Picture;
use pgn_bench::machine::compute::Compute;
use pgn_bench::metrics::Extractor;
use pgn_bench::metrics::vit::{clip, dinov2};

fuzz_target!(|data: &[u8]| {
    let Ok(mut file) = tempfile::Builder::new().suffix(".safetensors").tempfile() else { return };
    if file.write_all(data).is_ok() {
        let read = [dinov2::from_file(file.path(), dinov2::Resize::Pil, Compute::cpu()), clip::from_file(file.path(), Compute::cpu())];
        for vit in read.into_iter().flatten() {
            let _ = vit.extract(&[Picture::rgb(vec![7; 5 * 3 * 3], [5, 3])]);
        }
    }
});
