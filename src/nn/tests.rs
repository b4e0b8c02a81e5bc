//! The three proofs of the operators beside convolution: a naive loop nest, the adjoint identity, central differences.

use candle_core::{Result, Tensor};

use super::activation::{add, leaky_relu, leaky_relu_slope, tanh, tanh_grad};
use super::batch_norm::{batch_norm_relu, batch_norm_relu_grad, channel_moments};
use super::image::{add_scaled_bias, channel_sum, norm, scale_images, squared_distance};
use super::pool::{max_pool3, mean_pool3};
use super::resample::{avg_pool2, avg_pool2_grad, global_pool, global_pool_grad, upsample2, upsample2_grad};
use super::testing::{adjoint, central_difference, close, device, dot, on_device, random, tensors_close, values};

/// `[n, h, w, c]` from a function of the indices.
fn naive(dims: [usize; 4], f: impl Fn(usize, usize, usize, usize) -> f64) -> Tensor {
    let [n, h, w, c] = dims;
    let all = (0..n * h * w * c).map(|i| f(i / (h * w * c), i / (w * c) % h, i / c % w, i % c)).collect();
    Tensor::from_vec::<_, f64>(all, &dims[..], device()).unwrap()
}

fn at(x: &[f64], dims: [usize; 4], [n, h, w, c]: [usize; 4]) -> f64 {
    x[((n * dims[1] + h) * dims[2] + w) * dims[3] + c]
}

const DIMS: [usize; 4] = [3, 4, 6, 5];

#[test]
fn resampling_is_its_definition_and_its_gradient_the_adjoint() {
    let x = random("x", &DIMS);
    let v = values(&x);
    let [n, h, w, c] = DIMS;
    let up = upsample2(&x).unwrap();
    tensors_close(&up, &naive([n, 2 * h, 2 * w, c], |n, y, x, c| at(&v, DIMS, [n, y / 2, x / 2, c])), 1e-15);
    let dy = random("dy", up.dims());
    adjoint(&up, &dy, &x, &upsample2_grad(&dy).unwrap());

    let pooled = avg_pool2(&x).unwrap();
    let mean = |n, y, x, c| (0..4).map(|k| at(&v, DIMS, [n, 2 * y + k / 2, 2 * x + k % 2, c])).sum::<f64>() / 4.0;
    tensors_close(&pooled, &naive([n, h / 2, w / 2, c], mean), 1e-15);
    let dy = random("dy", pooled.dims());
    adjoint(&pooled, &dy, &x, &avg_pool2_grad(&dy).unwrap());
    assert!(avg_pool2(&random("odd", &[1, 3, 4, 2])).unwrap_err().to_string().contains("3×4"));

    let global = global_pool(&x, 0.5).unwrap();
    let sum = |n, _, _, c| 0.5 * (0..h * w).map(|k| at(&v, DIMS, [n, k / w, k % w, c])).sum::<f64>();
    tensors_close(&global, &naive([n, 1, 1, c], sum), 1e-14);
    let dy = random("dy", global.dims());
    adjoint(&global, &dy, &x, &global_pool_grad(&dy, 0.5, [h, w]).unwrap());
}

#[test]
fn resampling_gradients_are_central_differences() {
    let (x, v) = (random("x", &DIMS), random("v", &DIMS));
    let check = |f: &dyn Fn(&Tensor) -> Result<Tensor>, grad: &dyn Fn(&Tensor) -> Result<Tensor>| {
        let dy = random("dy", f(&x).unwrap().dims());
        central_difference(|x| Ok(dot(&f(x)?, &dy)), &x, &v, &grad(&dy).unwrap());
    };
    check(&upsample2, &upsample2_grad);
    check(&avg_pool2, &avg_pool2_grad);
    check(&|x| global_pool(x, 0.5), &|dy| global_pool_grad(dy, 0.5, [4, 6]));
}

#[test]
fn pooling_over_windows_is_its_definition() {
    let dims = [2, 7, 8, 3];
    let x = random("x", &dims);
    let v = values(&x);
    // The pixels of the window of an output, those beyond the border left out.
    let window = |n, y, w, c, stride: usize, padding: usize| -> Vec<f64> {
        let inside = |o: usize, k: usize, extent: usize| (o * stride + k).checked_sub(padding).filter(|&i| i < extent);
        let pixels = (0..9).filter_map(|k| Some((inside(y, k / 3, dims[1])?, inside(w, k % 3, dims[2])?)));
        pixels.map(|(y, w)| at(&v, dims, [n, y, w, c])).collect()
    };
    for (stride, padding, size) in [(1, 1, [7, 8]), (2, 0, [3, 3]), (2, 1, [4, 4])] {
        let max = |n, y, w, c| window(n, y, w, c, stride, padding).into_iter().fold(f64::NEG_INFINITY, f64::max);
        tensors_close(&max_pool3(&x, stride, padding).unwrap(), &naive([2, size[0], size[1], 3], max), 0.0);
    }
    let mean = |n, y, w, c| {
        let pixels = window(n, y, w, c, 1, 1);
        pixels.iter().sum::<f64>() / pixels.len() as f64
    };
    tensors_close(&mean_pool3(&x).unwrap(), &naive(dims, mean), 1e-15);
    assert!(max_pool3(&random("small", &[1, 2, 4, 1]), 1, 0).unwrap_err().to_string().contains("2×4"));
}

#[test]
fn activations() {
    let (x, v, dy) = (random("x", &DIMS), random("v", &DIMS), random("dy", &DIMS));
    for alpha in [0.0, 0.1] {
        let y = leaky_relu(&x, alpha).unwrap();
        let want: Vec<f64> = values(&x).iter().map(|&x| if x > 0.0 { x } else { alpha * x }).collect();
        assert_eq!(values(&y), want);
        let dx = leaky_relu_slope(&dy, &y, alpha).unwrap();
        // The slope is a diagonal matrix: its own adjoint.
        adjoint(&leaky_relu_slope(&v, &y, alpha).unwrap(), &dy, &v, &dx);
        central_difference(|x| Ok(dot(&leaky_relu(x, alpha)?, &dy)), &x, &v, &dx);
    }
    let y = tanh(&x).unwrap();
    on_device(&y);
    tensors_close(&y, &naive(DIMS, |n, h, w, c| at(&values(&x), DIMS, [n, h, w, c]).tanh()), 1e-15);
    let dx = tanh_grad(&dy, &y).unwrap();
    adjoint(&tanh_grad(&v, &y).unwrap(), &dy, &v, &dx);
    central_difference(|x| Ok(dot(&tanh(x)?, &dy)), &x, &v, &dx);
    assert!(add(&x, &random("other", &[2, 2])).is_err());
}

#[test]
fn per_image_operators() {
    let (x, s, b) = (random("x", &DIMS), random("s", &[3]), random("b", &[5]));
    let (v, sv) = (values(&x), values(&s));
    let image = 4 * 6 * 5;
    let want: Vec<f64> = v.chunks(image).map(|i| i.iter().map(|x| (x - 1.0) * (x - 1.0)).sum()).collect();
    for (got, want) in values(&squared_distance(&x, 1.0).unwrap()).iter().zip(want) {
        close(*got, want, 1e-14);
    }
    close(norm(&x).unwrap().to_scalar().unwrap(), v.iter().map(|x| x * x).sum::<f64>().sqrt(), 1e-14);
    let scaled = scale_images(&x, &s, 0.5).unwrap();
    tensors_close(&scaled, &naive(DIMS, |n, y, w, c| sv[n] * (at(&v, DIMS, [n, y, w, c]) - 0.5)), 1e-15);
    let bv = values(&b);
    let biased = add_scaled_bias(&x, &s, &b).unwrap();
    tensors_close(&biased, &naive(DIMS, |n, y, w, c| at(&v, DIMS, [n, y, w, c]) + sv[n] * bv[c]), 1e-15);
    // The bias gradient is the adjoint of adding the bias.
    adjoint(&(biased - &x).unwrap(), &x, &b, &channel_sum(&x, &s).unwrap());
    assert!(channel_sum(&x, &b).is_err());
}

#[test]
fn batch_norm_is_its_definition() {
    let (x, gamma, beta) = (random("x", &DIMS), random("gamma", &[5]), random("beta", &[5]));
    let (v, g, b) = (values(&x), values(&gamma), values(&beta));
    let (mean, variance) = channel_moments(&x).unwrap();
    for c in 0..5 {
        let channel: Vec<f64> = v.iter().skip(c).step_by(5).copied().collect();
        let m = channel.iter().sum::<f64>() / channel.len() as f64;
        close(values(&mean)[c], m, 1e-14);
        let var = channel.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / channel.len() as f64;
        close(values(&variance)[c], var, 1e-14);
    }
    let (m, s) = (values(&mean), values(&variance));
    let y = batch_norm_relu(&x, [&gamma, &beta], [&mean, &variance], 1e-5).unwrap().0;
    let want = |n, h, w, c| (g[c] * (at(&v, DIMS, [n, h, w, c]) - m[c]) / (s[c] + 1e-5f64).sqrt() + b[c]).max(0.0);
    tensors_close(&y, &naive(DIMS, want), 1e-13);

    let (gamma, beta) = (random("gamma", &[3, 5]), random("beta", &[3, 5]));
    let (g, b) = (values(&gamma), values(&beta));
    let y = batch_norm_relu(&x, [&gamma, &beta], [&mean, &variance], 1e-5).unwrap().0;
    let of_image = |n: usize, h, w, c: usize| {
        let k = 5 * n + c;
        (g[k] * (at(&v, DIMS, [n, h, w, c]) - m[c]) / (s[c] + 1e-5f64).sqrt() + b[k]).max(0.0)
    };
    tensors_close(&y, &naive(DIMS, of_image), 1e-13);
    let two = random("two", &[2, 5]);
    assert!(batch_norm_relu(&x, [&two, &two], [&mean, &variance], 1e-5).is_err());
}

#[test]
fn batch_norm_gradients_are_central_differences() {
    for shape in [&[5][..], &[3, 5]] {
        batch_norm_gradients(shape);
    }
}

/// γ and β of this shape: one a channel, or one an image and channel.
fn batch_norm_gradients(shape: &[usize]) {
    let (x, gamma, beta) = (random("x", &DIMS), random("gamma", shape), random("beta", shape));
    let dy = random("dy", &DIMS);
    let run = |x: &Tensor, gamma: &Tensor, beta: &Tensor| {
        let (mean, variance) = channel_moments(x)?;
        batch_norm_relu(x, [gamma, beta], [&mean, &variance], 1e-5)
    };
    let coefficients = run(&x, &gamma, &beta).unwrap().1;
    let [dx, dgamma, dbeta] = batch_norm_relu_grad(&dy, &x, &coefficients).unwrap();
    let loss = |x: &Tensor, g: &Tensor, b: &Tensor| Ok(dot(&run(x, g, b)?.0, &dy));
    central_difference(|x| loss(x, &gamma, &beta), &x, &random("vx", &DIMS), &dx);
    central_difference(|g| loss(&x, g, &beta), &gamma, &random("vg", shape), &dgamma);
    central_difference(|b| loss(&x, &gamma, b), &beta, &random("vb", shape), &dbeta);
    // Linear in dy: the input gradient's own adjoint identity.
    let other = random("other", &DIMS);
    let twice = batch_norm_relu_grad(&(&dy + &other).unwrap(), &x, &coefficients).unwrap()[0].clone();
    let sum = (dx + &batch_norm_relu_grad(&other, &x, &coefficients).unwrap()[0]).unwrap();
    tensors_close(&twice, &sum, 1e-13);
}
