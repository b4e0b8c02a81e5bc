//! `shapes`: the embedded data set. Ten classes of shapes in random colour, place, size and turn on a shaded background,
//! drawn from signed distances with soft edges, so that any size looks alike and no file is needed.

use rayon::prelude::*;

use super::{Images, Pixels, Split};
use crate::rng::Stream;

const CLASSES: usize = 10;
const TRAIN: usize = 12_000;
const TEST: usize = 3_000;

/// Signed distance (negative inside) of a point to the shape of a class, in units of its radius.
fn distance(class: usize, x: f64, y: f64) -> f64 {
    let (ax, ay) = (x.abs(), y.abs());
    let r = x.hypot(y);
    match class {
        // disc
        0 => r - 1.0,
        // square
        1 => ax.max(ay) - 0.85,
        // triangle
        2 => (0.866 * ax + 0.5 * y).max(-y) - 0.55,
        // ring
        3 => (r - 0.75).abs() - 0.25,
        // plus
        4 => (ax.max(ay) - 1.0).max(ax.min(ay) - 0.3),
        // bar
        5 => (ax - 1.1).max(ay - 0.35),
        // crescent
        6 => (r - 1.0).max(0.85 - (x - 0.45).hypot(y)),
        // half disc
        7 => (r - 1.0).max(y),
        // hexagon
        8 => (0.866 * ax + 0.5 * ay).max(ay) - 0.85,
        // frame
        _ => (ax.max(ay) - 0.7).abs() - 0.22,
    }
}

/// Hue in turns, saturation and value in 0..1, to red, green, blue.
fn colour(hue: f64, saturation: f64, value: f64) -> [f64; 3] {
    std::array::from_fn(|channel| {
        let k = (hue * 6.0 + [5.0, 3.0, 1.0][channel]) % 6.0;
        value * (1.0 - saturation * k.min(4.0 - k).clamp(0.0, 1.0))
    })
}

fn image(split: Split, index: usize, side: usize, out: &mut [u8]) -> u16 {
    let mut s = Stream::new(0, &format!("shapes/{split}"), index as u64);
    let mut between = |low: f64, high: f64| low + (high - low) * s.uniform();
    let class = (between(0.0, 1.0) * CLASSES as f64) as usize % CLASSES;
    let hue = between(0.0, 1.0);
    let ground = [0, 1].map(|_| colour(hue + between(-0.06, 0.06) + 1.0, between(0.2, 0.6), between(0.15, 0.55)));
    let figure = colour(hue + between(0.3, 0.7), between(0.5, 1.0), between(0.75, 1.0));
    let (cx, cy) = (between(-0.3, 0.3), between(-0.3, 0.3));
    let radius = between(0.35, 0.62);
    let (sin, cos) = between(-0.5, 0.5).sin_cos();
    let (shade_sin, shade_cos) = between(0.0, std::f64::consts::TAU).sin_cos();
    let pixel = 2.0 / side as f64;
    for (n, rgb) in out.chunks_exact_mut(3).enumerate() {
        let (x, y) = (((n % side) as f64 + 0.5) * pixel - 1.0, ((n / side) as f64 + 0.5) * pixel - 1.0);
        let (u, v) = ((x - cx) / radius, (y - cy) / radius);
        let d = distance(class, cos * u + sin * v, cos * v - sin * u) * radius;
        let cover = (0.5 - d / pixel).clamp(0.0, 1.0);
        let shade = (0.5 + 0.5 * (shade_cos * x + shade_sin * y)).clamp(0.0, 1.0);
        for (channel, byte) in rgb.iter_mut().enumerate() {
            let back = ground[0][channel] * (1.0 - shade) + ground[1][channel] * shade;
            *byte = (255.0 * (back + cover * (figure[channel] - back))).round() as u8;
        }
    }
    class as u16
}

/// Draws a split at `side`×`side` pixels.
pub(super) fn draw(split: Split, side: usize) -> Images {
    let n = match split {
        Split::Test => TEST,
        _ => TRAIN,
    };
    let stride = side * side * 3;
    let mut pixels = vec![0; n * stride];
    let labels = pixels.par_chunks_mut(stride.max(1)).enumerate().map(|(i, out)| image(split, i, side, out)).collect();
    Images::new(&format!("shapes:{split}"), side, Pixels::Memory(pixels), labels, CLASSES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawing_is_deterministic_and_varied() {
        let (a, b) = (draw(Split::Test, 16), draw(Split::Test, 16));
        assert_eq!(a.fingerprint(), b.fingerprint());
        assert_eq!(a.len(), TEST);
        for class in 0..CLASSES as u16 {
            assert!(a.labels.iter().filter(|&&l| l == class).count() > TEST / 20, "class {class}");
        }
        assert_ne!(a.image(0), a.image(1));
        assert_ne!(draw(Split::Train, 16).image(0), a.image(0));
    }

    #[test]
    fn every_class_is_partly_inside() {
        for class in 0..CLASSES {
            let inside = (0..400)
                .filter(|i| distance(class, f64::from(i % 20) / 10.0 - 0.95, f64::from(i / 20) / 10.0 - 0.95) < 0.0)
                .count();
            assert!((60..360).contains(&inside), "class {class}: {inside} of 400 points inside");
        }
    }
}
