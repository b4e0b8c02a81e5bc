//! Antialiased resampling as PIL does it (Pillow's `Resample.c`): how data sets come to the size they are trained at, which
//! is also what torchvision's `Resize` does to an image file.

/// The source pixels of one target pixel: the first, and a weight for each from there on.
#[derive(Debug)]
pub struct Taps {
    /// Index of the first source pixel.
    pub first: usize,
    /// Weights, which sum to one.
    pub weights: Vec<f64>,
}

/// Fractional bits of the weights in the passes over bytes.
const PRECISION: u32 = 22;

/// The taps of `output` pixels from `input` ones under a kernel of `support` pixels on each side, stretched when shrinking.
pub fn antialiased(input: usize, output: usize, kernel: fn(f64) -> f64, support: f64) -> Vec<Taps> {
    let scale = input as f64 / output as f64;
    let stretch = scale.max(1.0);
    let reach = support * stretch;
    (0..output)
        .map(|o| {
            let centre = (o as f64 + 0.5) * scale;
            let first = (centre - reach + 0.5).max(0.0) as usize;
            let end = ((centre + reach + 0.5) as usize).min(input);
            let raw: Vec<f64> = (first..end).map(|i| kernel((i as f64 - centre + 0.5) / stretch)).collect();
            let sum: f64 = raw.iter().sum();
            Taps { first, weights: raw.iter().map(|w| w / sum).collect() }
        })
        .collect()
}

/// Triangle kernel.
fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

/// One pass over bytes: `out[o] = Σ weight·source(first + k)` in fixed point, for each of `lanes` interleaved values.
fn pass(source: &[u8], taps: &[Taps], lanes: usize, out: &mut [u8]) {
    for (taps, out) in taps.iter().zip(out.chunks_exact_mut(lanes)) {
        let mut sums = vec![1i64 << (PRECISION - 1); lanes];
        for (pixel, weight) in source[taps.first * lanes..].chunks_exact(lanes).zip(&taps.weights) {
            let weight = (weight * f64::from(1u32 << PRECISION)).round() as i64;
            for (sum, &value) in sums.iter_mut().zip(pixel) {
                *sum += weight * i64::from(value);
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = (sum >> PRECISION).clamp(0, 255) as u8;
        }
    }
}

/// `[height, width, 3]` bytes to `[side, side, 3]` by the antialiased bilinear kernel: columns first, rounded to bytes after
/// each pass, as PIL does.
pub fn bilinear(pixels: &[u8], [height, width]: [usize; 2], side: usize) -> Vec<u8> {
    let mut wide = vec![0; height * side * 3];
    if width == side {
        wide.copy_from_slice(pixels);
    } else {
        let columns = antialiased(width, side, triangle, 1.0);
        for (line, out) in pixels.chunks_exact(width * 3).zip(wide.chunks_exact_mut(side * 3)) {
            pass(line, &columns, 3, out);
        }
    }
    if height == side {
        return wide;
    }
    let mut out = vec![0; side * side * 3];
    pass(&wide, &antialiased(height, side, triangle, 1.0), side * 3, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halving_is_the_tent_over_four_pixels() {
        // A row 0, 8, 16, 24: each target pixel sees its neighbours with weights 1/8, 3/8, 3/8, 1/8, cut off at the border.
        let row: Vec<u8> = [0, 8, 16, 24].iter().flat_map(|&v| [v; 3]).collect();
        let image = row.repeat(4);
        let got = bilinear(&image, [4, 4], 2);
        let want =
            [(3.0 * 0.0 + 3.0 * 8.0 + 16.0) / 7.0, (8.0 + 3.0 * 16.0 + 3.0 * 24.0) / 7.0].map(|v: f64| v.round() as u8);
        assert_eq!(got, [[want[0]; 3], [want[1]; 3]].concat().repeat(2));
        assert_eq!(bilinear(&image, [4, 4], 4), image);
    }
}
