//! Functions of an f32 in plain operations without branches, which the compiler makes vectors of, and one of an f64 for the proofs.

/// ln 2 in two parts, of which products of the first with whole numbers below 2¹¹ are exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// Added to a number below 2²² in magnitude, leaves its nearest whole number in the lowest bits of the sum.
const TO_WHOLE: f32 = 12_582_912.0;
/// Between these the result is a normal number.
const LEAST: f32 = -87.33;
const MOST: f32 = 88.37;

/// eˣ to 2 units in the last place, of x between −87.33 and 88.37; beyond them, as at them.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = if x < LEAST { LEAST } else { x };
    let x = if x > MOST { MOST } else { x };
    let shifted = x * std::f32::consts::LOG2_E + TO_WHOLE;
    let whole = shifted - TO_WHOLE;
    let r = (x - whole * LN_2[0]) - whole * LN_2[1];
    // The series to the seventh power: |r| ≤ ½ ln 2, so the rest is 6e-9.
    let mut sum = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = sum * r + c;
    }
    sum * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// Φ(−z)·exp(z²/2) for z ≥ 0 as a polynomial of (z − 2)/(z + 2): the one whose largest error in Φ is least, 5e-9.
const TAIL: [f32; 8] = [
    0.168_102_01,
    -0.250_952_4,
    0.090_054_27,
    0.001_963_070_5,
    -0.009_475_625,
    -0.002_101_153_7,
    0.000_435_374_16,
    0.000_206_508_12,
];

/// Φ(x), the share of a standard normal below x, to 1.2e-7.
#[inline(always)]
pub fn normal_cdf(x: f32) -> f32 {
    let z = x.abs();
    let s = (z - 2.0) / (z + 2.0);
    let [first @ .., last] = TAIL;
    let mut sum = last;
    for c in first.into_iter().rev() {
        sum = sum * s + c;
    }
    let beyond = sum * exp(-0.5 * z * z);
    if x > 0.0 { 1.0 - beyond } else { beyond }
}

/// Φ(x) in double precision, by its series: to an absolute 1e-15.
pub fn normal_cdf_in_double(x: f64) -> f64 {
    if x.abs() > 9.0 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut sum, mut term, mut n) = (x, x, 1.0);
    while sum + term != sum {
        n += 2.0;
        term *= x * x / n;
        sum += term;
    }
    0.5 + sum * (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use statrs::function::erf::erfc;

    #[test]
    fn exponentials_are_right_to_the_last_places() {
        let worst = (-8733..=8837).map(|k| k as f32 * 0.01 + 0.003).filter(|x| (LEAST..=MOST).contains(x));
        let worst = worst.map(|x| (f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs()).fold(0.0, f64::max);
        assert!(worst < 2.4e-7, "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1e30) < 1.3e-38 && exp(f32::NAN).is_nan());
    }

    #[test]
    fn shares_of_a_normal_are_right_to_their_bound() {
        let error = |x: f32| (f64::from(normal_cdf(x)) - 0.5 * erfc(-f64::from(x) * 0.5f64.sqrt())).abs();
        let worst = (-1200..=1200).map(|k| error(k as f32 * 0.01)).fold(0.0, f64::max);
        assert!(worst < 1.2e-7, "{worst}");
    }
}
