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

/// Bicubic kernel with a = −1/2 (Keys 1981).
pub fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// A weight in the passes over bytes, in units of 2⁻²².
pub fn fixed_point(weight: f64) -> i32 {
    (weight * f64::from(1u32 << PRECISION)).round() as i32
}

/// One pass over bytes: `out[o] = Σ weight·source(first + k)` in fixed point, for each of `lanes` interleaved values.
fn pass(source: &[u8], taps: &[Taps], lanes: usize, out: &mut [u8]) {
    let mut sums = vec![0; lanes];
    for (taps, out) in taps.iter().zip(out.chunks_exact_mut(lanes)) {
        sums.fill(1i32 << (PRECISION - 1));
        for (pixel, &weight) in source[taps.first * lanes..].chunks_exact(lanes).zip(&taps.weights) {
            let weight = fixed_point(weight);
            for (sum, &value) in sums.iter_mut().zip(pixel) {
                *sum += weight * i32::from(value);
            }
        }
        for (out, sum) in out.iter_mut().zip(&sums) {
            *out = (sum >> PRECISION).clamp(0, 255) as u8;
        }
    }
}

/// `[height, width, 3]` bytes to those of other rows and columns: columns first, rounded to bytes after each pass, as PIL does.
pub fn resampled(pixels: &[u8], width: usize, rows: &[Taps], columns: &[Taps]) -> Vec<u8> {
    let [line, wide_line] = [width, columns.len()].map(|pixels| pixels * 3);
    let mut wide = vec![0; pixels.len() / line * wide_line];
    for (line, out) in pixels.chunks_exact(line).zip(wide.chunks_exact_mut(wide_line)) {
        pass(line, columns, 3, out);
    }
    let mut out = vec![0; rows.len() * wide_line];
    pass(&wide, rows, wide_line, &mut out);
    out
}

/// `[height, width, 3]` bytes to `[side, side, 3]` by the antialiased bilinear kernel, as [`resampled`].
pub fn bilinear(pixels: &[u8], [height, width]: [usize; 2], side: usize) -> Vec<u8> {
    if [height, width] == [side; 2] {
        return pixels.to_vec();
    }
    let [rows, columns] = [height, width].map(|extent| antialiased(extent, side, triangle, 1.0));
    resampled(pixels, width, &rows, &columns)
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
