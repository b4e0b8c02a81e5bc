//! Every architecture at full size has exactly the parameters of the released code; r3gan48, which is not released, those of r3gan32 but
//! for a basis of 6×6 pixels and for classes.

#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device};
use pgn_bench::critic::{ARCHITECTURES, Critic, side as side_of};
use pgn_bench::generators::Generator;
use pgn_bench::rng::Stream;

/// (id, side, parameters of generator and critic)
const RELEASED: [(&str, usize, [usize; 2]); 10] = [
    ("cnn32", 32, [3_813_379, 5_860_865]),
    ("cnn48", 48, [5_134_339, 5_871_105]),
    ("resnet32", 32, [4_276_739, 1_053_825]),
    ("resnet48", 48, [4_878_083, 4_859_073]),
    ("resnet128", 128, [32_150_787, 38_419_137]),
    ("resnet256", 256, [37_135_107, 43_401_409]),
    ("biggan32", 32, [4_304_387, 4_207_361]),
    ("r3gan32", 32, [20_781_952, 21_280_512]),
    ("r3gan48", 48, [20_732_160 + 768 * 20, 20_683_776 + 768 * 20]),
    ("r3gan64", 64, [22_429_824, 22_381_440]),
];

#[test]
fn parameter_counts_are_those_of_the_released_code() {
    assert_eq!(RELEASED.map(|(id, ..)| id), ARCHITECTURES);
    for (id, side, [g, d]) in RELEASED {
        let mut stream = Stream::new(0, "test", 0);
        let critic = Critic::new(id, 1.0, 10, false, &mut stream, DType::F32, &Device::Cpu).unwrap();
        let generator = Generator::new(id, 1.0, 10, &mut stream, DType::F32, &Device::Cpu).unwrap();
        assert_eq!((generator.side, generator.params.len(), critic.params.len()), (side, g, d), "{id}");
        assert_eq!(side_of(id), side);
        // The critic takes the generator's images.
        assert!(critic.flops([1, side, side, 3]).unwrap() > 0);
    }
}
