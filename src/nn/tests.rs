//! The three proofs of the operators beside convolution: a naive loop nest, the adjoint identity, central differences.

use candle_core::{Result, Tensor};

use super::activation::{add, leaky_relu, leaky_relu_slope, tanh, tanh_grad};
use super::batch_norm::{Affine, Coefficients, Statistics, batch_norm_relu, batch_norm_relu_grad, channel_moments};
use super::image::{
    add_channel_sum, add_scaled_bias, channel_sum, clear, combine_images, join, mix_images, norm, ones, scale_images,
    select_class, squared_distance,
};
use super::kernel::Next;
use super::matrix::{add_transposed_product, product};
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
    let scaled = scale_images(&x, &s).unwrap();
    tensors_close(&scaled, &naive(DIMS, |n, y, w, c| sv[n] * at(&v, DIMS, [n, y, w, c])), 1e-15);
    let bv = values(&b);
    let biased = add_scaled_bias(&x, &s, &b).unwrap();
    tensors_close(&biased, &naive(DIMS, |n, y, w, c| at(&v, DIMS, [n, y, w, c]) + sv[n] * bv[c]), 1e-15);
    // The bias gradient is the adjoint of adding the bias.
    adjoint(&(biased - &x).unwrap(), &x, &b, &channel_sum(&x, &s).unwrap());
    assert!(channel_sum(&x, &b).is_err());
    let into = random("into", &[5]);
    let sum = (&into + channel_sum(&x, &s).unwrap()).unwrap();
    add_channel_sum(&x, Some(&s), &into).unwrap();
    tensors_close(&into, &sum, 1e-14);
    let plain = channel_sum(&x, &ones(3, &x).unwrap()).unwrap();
    clear(&into).unwrap();
    add_channel_sum(&x, None, &into).unwrap();
    tensors_close(&into, &plain, 1e-14);
}

#[test]
fn two_batches_are_joined_and_combined() {
    let (x, y, [s, c, t]) = (random("x", &DIMS), random("y", &DIMS), ["s", "c", "t"].map(|name| random(name, &[3])));
    let (xv, yv, [sv, cv, tv]) = (values(&x), values(&y), [&s, &c, &t].map(values));
    let both = join(&x, &y).unwrap();
    assert_eq!((both.dims(), values(&both)), (&[6, 4, 6, 5][..], [xv.clone(), yv.clone()].concat()));
    let at = |v: &[f64], i: [usize; 4]| at(v, DIMS, i);
    let mixed = |n: usize, h, w, c| sv[n] * at(&xv, [n, h, w, c]) + (1.0 - sv[n]) * at(&yv, [n, h, w, c]);
    tensors_close(&mix_images([&x, &y], &s).unwrap(), &naive(DIMS, mixed), 1e-15);
    let all = |n: usize, h, w, k| cv[n] * at(&xv, [n, h, w, k]) + sv[n] * at(&yv, [n, h, w, k]) + tv[n];
    tensors_close(&combine_images([&x, &y], [&c, &s, &t]).unwrap(), &naive(DIMS, all), 1e-15);
    assert!(combine_images([&x, &y], [&c, &s, &random("other", &[2])]).is_err());
    assert!(mix_images([&x, &y], &random("other", &[2])).is_err());

    let labels = super::image::one_hot(&[2, 0, 1], 5, candle_core::DType::F64, device()).unwrap();
    let scores = random("scores", &[3, 1, 1, 5]);
    let of = values(&scores);
    assert_eq!(values(&select_class(&scores, &labels).unwrap()), [of[2], of[5], of[11]]);
}

#[test]
fn products_are_those_of_matrices() {
    let (a, b) = (random("a", &[4, 7]), random("b", &[7, 3]));
    tensors_close(&product(&a, &b).unwrap(), &a.matmul(&b).unwrap(), 1e-14);
    let (into, c) = (random("into", &[7, 5]), random("c", &[4, 5]));
    let want = (&into + a.t().unwrap().matmul(&c).unwrap()).unwrap();
    add_transposed_product(&a, &c, &into).unwrap();
    tensors_close(&into, &want, 1e-14);
    assert!(product(&a, &c).is_err());
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
    let given = Statistics::Given([&mean, &variance]);
    let y = batch_norm_relu(&x, None, affine(&gamma, &beta), given, 1e-5).unwrap().0;
    let want = |n, h, w, c| (g[c] * (at(&v, DIMS, [n, h, w, c]) - m[c]) / (s[c] + 1e-5f64).sqrt() + b[c]).max(0.0);
    let want = naive(DIMS, want);
    tensors_close(&y, &want, 1e-13);
    let of_batch = batch_norm_relu(&x, None, affine(&gamma, &beta), Statistics::Batch, 1e-5).unwrap().0;
    tensors_close(&of_batch, &want, 1e-13);
    // Running statistics as PyTorch's: the variance is the unbiased one.
    let (running_mean, running_variance) = (random("rm", &[5]), random("rv", &[5]));
    let moved =
        |old: &Tensor, new: &Tensor, scale: f64| ((old * 0.9).unwrap() + (new * (0.1 * scale)).unwrap()).unwrap();
    let rows = 72.0;
    let [to_mean, to_variance] =
        [moved(&running_mean, &mean, 1.0), moved(&running_variance, &variance, rows / (rows - 1.0))];
    let statistics = Statistics::Moving([&running_mean, &running_variance], 0.1);
    let less = (&gamma - 1.0).unwrap();
    let with_more = Affine { more: 1.0, ..affine(&less, &beta) };
    tensors_close(&batch_norm_relu(&x, None, with_more, statistics, 1e-5).unwrap().0, &want, 1e-13);
    tensors_close(&running_mean, &to_mean, 1e-14);
    tensors_close(&running_variance, &to_variance, 1e-14);

    let (gamma, beta) = (random("gamma", &[3, 5]), random("beta", &[3, 5]));
    let (g, b) = (values(&gamma), values(&beta));
    let y = batch_norm_relu(&x, None, affine(&gamma, &beta), given, 1e-5).unwrap().0;
    let of_image = |n: usize, h, w, c: usize| {
        let k = 5 * n + c;
        (g[k] * (at(&v, DIMS, [n, h, w, c]) - m[c]) / (s[c] + 1e-5f64).sqrt() + b[k]).max(0.0)
    };
    tensors_close(&y, &naive(DIMS, of_image), 1e-13);
    let two = random("two", &[2, 5]);
    assert!(batch_norm_relu(&x, None, affine(&two, &two), given, 1e-5).is_err());
}

fn affine<'a>(gamma: &'a Tensor, beta: &'a Tensor) -> Affine<'a> {
    Affine { gamma, beta, more: 0.0 }
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
        batch_norm_relu(x, None, affine(gamma, beta), Statistics::Batch, 1e-5)
    };
    let coefficients = run(&x, &gamma, &beta).unwrap().1;
    let gradient = |dy: &Tensor, coefficients: &Coefficients| {
        let (dx, of_images) = batch_norm_relu_grad(dy, &x, coefficients, None, None, Next::Any).unwrap();
        let [dgamma, dbeta] = of_images.unwrap().map(|t| t.reshape(shape).unwrap());
        (dx, dgamma, dbeta)
    };
    let (dx, dgamma, dbeta) = gradient(&dy, &coefficients);
    let into = [random("into", shape), random("other into", shape)];
    let before = into.clone().map(|t| t.copy().unwrap());
    let (again, none) =
        batch_norm_relu_grad(&dy, &x, &coefficients, None, Some([&into[0], &into[1]]), Next::Any).unwrap();
    assert!(none.is_none());
    tensors_close(&again, &dx, 1e-14);
    for ((into, before), of) in into.iter().zip(&before).zip([&dgamma, &dbeta]) {
        tensors_close(into, &(before + of).unwrap(), 1e-14);
    }
    let loss = |x: &Tensor, g: &Tensor, b: &Tensor| Ok(dot(&run(x, g, b)?.0, &dy));
    central_difference(|x| loss(x, &gamma, &beta), &x, &random("vx", &DIMS), &dx);
    central_difference(|g| loss(&x, g, &beta), &gamma, &random("vg", shape), &dgamma);
    central_difference(|b| loss(&x, &gamma, b), &beta, &random("vb", shape), &dbeta);
    // Linear in dy: the input gradient's own adjoint identity.
    let other = random("other", &DIMS);
    let twice = gradient(&(&dy + &other).unwrap(), &coefficients).0;
    let sum = (dx + gradient(&other, &coefficients).0).unwrap();
    tensors_close(&twice, &sum, 1e-13);
}
