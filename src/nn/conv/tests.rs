//! The three proofs of each kernel, over odd sizes, strides, paddings and channel counts that leave ragged tiles.

use candle_core::{DType, Tensor};

use super::*;
use crate::machine::precision::Precision;
use crate::nn::activation::{leaky_relu, leaky_relu_slope};
use crate::nn::batch_norm::{Affine, Statistics, batch_norm_relu, batch_norm_relu_grad};
use crate::nn::image::add_scaled_bias;
use crate::nn::kernel::operand;
use crate::nn::testing::{
    adjoint, central_difference, close, device, dot, kernel, on_device, on_machine, random, tensors_close,
};

struct Case {
    n: usize,
    size: [usize; 2],
    i: usize,
    o: usize,
    kernel: [usize; 2],
    spec: ConvSpec,
}

fn cases() -> Vec<Case> {
    let grouped = |n, size, [i, o, groups]: [usize; 3], kernel, stride, padding| {
        let spec = ConvSpec { stride, padding, groups };
        Case { n, size, i, o, kernel, spec }
    };
    let case = |n, size, i, o, kernel, stride, padding| grouped(n, size, [i, o, 1], kernel, stride, padding);
    vec![
        case(2, [5, 7], 3, 4, [3, 3], 1, [1, 1]),
        case(3, [6, 6], 4, 70, [4, 4], 2, [1, 1]),
        case(1, [9, 8], 33, 5, [3, 3], 2, [0, 0]),
        case(2, [7, 7], 130, 3, [3, 3], 1, [1, 1]),
        case(2, [4, 4], 5, 1, [4, 4], 1, [0, 0]),
        case(9, [1, 1], 300, 65, [1, 1], 1, [0, 0]),
        case(1, [6, 9], 2, 3, [1, 7], 1, [0, 3]),
        case(1, [11, 5], 2, 3, [5, 3], 3, [2, 1]),
        case(2, [5, 5], 3, 2, [1, 1], 2, [0, 0]),
        case(1, [8, 8], 100, 40, [3, 3], 1, [1, 1]),
        case(2, [5, 6], 16, 3, [3, 3], 1, [1, 1]),
        case(2, [6, 6], 3, 32, [4, 4], 2, [1, 1]),
        case(5, [4, 4], 48, 1, [4, 4], 1, [0, 0]),
        case(40, [8, 8], 7, 9, [3, 3], 1, [1, 1]),
        case(4, [12, 9], 64, 64, [3, 3], 1, [1, 1]),
        grouped(3, [5, 6], [12, 8, 4], [3, 3], 1, [1, 1]),
        grouped(2, [7, 8], [48, 48, 3], [3, 3], 1, [1, 1]),
        grouped(2, [7, 6], [6, 9, 3], [3, 3], 2, [1, 0]),
        grouped(1, [24, 24], [16, 8, 2], [3, 3], 1, [1, 1]),
        grouped(3, [4, 3], [140, 134, 2], [1, 1], 1, [0, 0]),
        grouped(1, [4, 5], [256, 260, 2], [3, 3], 1, [1, 1]),
        // Depthwise: a basis over the whole image, and what overlaps.
        grouped(7, [4, 4], [37, 37, 37], [4, 4], 1, [0, 0]),
        grouped(2, [6, 8], [5, 5, 5], [4, 4], 2, [1, 1]),
    ]
}

fn tensors(c: &Case) -> (Tensor, Kernel, Tensor) {
    let x = random("x", &[c.n, c.size[0], c.size[1], c.i]);
    let w = kernel("w", [c.o, c.i / c.spec.groups, c.kernel[0], c.kernel[1]]);
    let y = conv2d(&x, &w, None, c.spec).unwrap();
    on_device(&y);
    let dy = random("dy", y.dims());
    (x, w, dy)
}

/// The definition, one multiplication at a time.
fn naive(c: &Case, x: &Tensor, w: &Kernel, output: &[usize]) -> Tensor {
    let read = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let (x, w) = (read(x), read(&w.tensor().unwrap()));
    let [h, wd] = c.size;
    let [of_input, of_output] = [c.i, c.o].map(|channels| channels / c.spec.groups);
    let mut out = Vec::new();
    for n in 0..c.n {
        for oy in 0..output[1] {
            for ox in 0..output[2] {
                for o in 0..c.o {
                    let mut sum = 0.0;
                    let first = o / of_output * of_input;
                    for i in 0..of_input {
                        for ky in 0..c.kernel[0] {
                            for kx in 0..c.kernel[1] {
                                let iy = (oy * c.spec.stride + ky).wrapping_sub(c.spec.padding[0]);
                                let ix = (ox * c.spec.stride + kx).wrapping_sub(c.spec.padding[1]);
                                if iy < h && ix < wd {
                                    sum += x[((n * h + iy) * wd + ix) * c.i + first + i]
                                        * w[((o * of_input + i) * c.kernel[0] + ky) * c.kernel[1] + kx];
                                }
                            }
                        }
                    }
                    out.push(sum);
                }
            }
        }
    }
    Tensor::from_vec(out, output, device()).unwrap()
}

#[test]
fn forward_is_the_loop_nest() {
    for c in cases() {
        let (x, w, dy) = tensors(&c);
        tensors_close(&conv2d(&x, &w, None, c.spec).unwrap(), &naive(&c, &x, &w, dy.dims()), 1e-13);
    }
}

#[test]
fn bias_is_added_once() {
    for c in cases() {
        let (x, w, dy) = tensors(&c);
        let b = random("b", &[c.o]);
        let with = conv2d(&x, &w, Some(&b), c.spec).unwrap();
        let without = conv2d(&x, &w, None, c.spec).unwrap().broadcast_add(&b).unwrap();
        tensors_close(&with, &without, 1e-13);
        let bi = random("bi", &[c.i]);
        if transposed_size([dy.dims()[1], dy.dims()[2]], c.kernel, c.spec) == c.size {
            let with = conv_transpose2d(&dy, &w, Some(&bi), c.spec).unwrap();
            let without = conv_transpose2d(&dy, &w, None, c.spec).unwrap().broadcast_add(&bi).unwrap();
            tensors_close(&with, &without, 1e-13);
        }
    }
}

#[test]
fn gradients_are_adjoint_to_the_forward_pass() {
    for c in cases() {
        let (x, w, dy) = tensors(&c);
        let y = conv2d(&x, &w, None, c.spec).unwrap();
        adjoint(&y, &dy, &x, &conv2d_input_grad(&dy, &w, c.spec, c.size).unwrap());
        adjoint(&y, &dy, w.data(), conv2d_weight_grad(&x, &dy, c.spec, c.kernel).unwrap().data());
    }
}

#[test]
fn gradients_are_central_differences() {
    for c in cases() {
        let (x, w, dy) = tensors(&c);
        let (vx, vw) = (random("vx", x.dims()), random("vw", w.data().dims()));
        let loss = |x: &Tensor, w: &Kernel| Ok(dot(&conv2d(x, w, None, c.spec)?, &dy));
        central_difference(|x| loss(x, &w), &x, &vx, &conv2d_input_grad(&dy, &w, c.spec, c.size).unwrap());
        let dw = conv2d_weight_grad(&x, &dy, c.spec, c.kernel).unwrap();
        central_difference(|at| loss(&x, &Kernel::of(at, w.shape())?), w.data(), &vw, dw.data());
    }
}

#[test]
fn weight_gradients_are_added() {
    for c in cases() {
        let (x, w, dy) = tensors(&c);
        let (dw, into) = (conv2d_weight_grad(&x, &dy, c.spec, c.kernel).unwrap(), w.data().copy().unwrap());
        add_conv2d_weight_grad(&x, &dy, c.spec, c.kernel, &into).unwrap();
        tensors_close(&into, &(w.data() + dw.data()).unwrap(), 1e-14);
    }
}

#[test]
fn bfloat16_rounds_operands_and_results() {
    if !on_machine() {
        return;
    }
    Precision::Bf16.during(|| {
        for c in cases() {
            let (x, w, dy) = tensors(&c);
            let half = |t: &Tensor| operand(&t.to_dtype(DType::F32).unwrap()).unwrap();
            let double = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
            let (xh, wh, dyh) = (half(&x), Kernel::of(&half(w.data()), w.shape()).unwrap(), half(&dy));
            assert_eq!(xh.dtype(), DType::BF16);
            // What the rounded operands give; the result is rounded once more, or added in f32 after that.
            let (xr, wr, dyr) = (double(&xh), Kernel::of(&double(wh.data()), w.shape()).unwrap(), double(&dyh));
            let y = conv2d(&xh, &wh, None, c.spec).unwrap();
            assert_eq!(y.dtype(), DType::F32);
            let want = conv2d(&xr, &wr, None, c.spec).unwrap();
            tensors_close(&double(&y), &want, 3e-3);
            let then = (Then::Leaky(0.1), Next::Operand);
            let leaky = conv2d_then(&xh, &wh, None, c.spec, then).unwrap();
            assert_eq!(leaky.dtype(), DType::BF16);
            tensors_close(&double(&leaky), &leaky_relu(&want, 0.1).unwrap(), 6e-3);
            let dx = conv2d_input_grad(&dyh, &wh, c.spec, c.size).unwrap();
            tensors_close(&double(&dx), &conv2d_input_grad(&dyr, &wr, c.spec, c.size).unwrap(), 3e-3);
            let into = Tensor::zeros(w.data().elem_count(), DType::F32, device()).unwrap();
            add_conv2d_weight_grad(&xh, &dyh, c.spec, c.kernel, &into).unwrap();
            let want = conv2d_weight_grad(&xr, &dyr, c.spec, c.kernel).unwrap();
            tensors_close(&double(&into), &want.data().flatten_all().unwrap(), 3e-3);
        }
    });
}

#[test]
fn single_precision_agrees_with_double() {
    for c in cases() {
        let (x, w, dy) = tensors(&c);
        // Minimal filtering rounds more often, and cuDNN may take it anywhere.
        let d = Dims::new("test", c.n, c.size, w.shape(), c.spec).unwrap();
        let filtered = winograd::applies(&d);
        let tolerance = if device().is_cpu() && !filtered { 1e-6 } else { 1e-5 };
        let single = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
        let back = |t: Tensor| {
            assert_eq!(t.dtype(), DType::F32);
            t.to_dtype(DType::F64).unwrap()
        };
        let (xs, ws, dys) = (single(&x), Kernel::of(&single(w.data()), w.shape()).unwrap(), single(&dy));
        tensors_close(
            &back(conv2d(&xs, &ws, None, c.spec).unwrap()),
            &conv2d(&x, &w, None, c.spec).unwrap(),
            tolerance,
        );
        let dx = conv2d_input_grad(&dys, &ws, c.spec, c.size).unwrap();
        tensors_close(&back(dx), &conv2d_input_grad(&dy, &w, c.spec, c.size).unwrap(), tolerance);
        let dw = conv2d_weight_grad(&xs, &dys, c.spec, c.kernel).unwrap();
        let want = conv2d_weight_grad(&x, &dy, c.spec, c.kernel).unwrap();
        tensors_close(&back(dw.data().clone()), want.data(), tolerance);
    }
}

/// Of 64 channels and more: 3×3 taps of stride 1, 4×4 of stride 2; sides that leave ragged tiles.
fn filtered() -> Vec<Case> {
    let case = |n, size, i, o, kernel, stride, padding| Case {
        n,
        size,
        i,
        o,
        kernel: [kernel; 2],
        spec: ConvSpec { stride, padding, groups: 1 },
    };
    vec![
        case(3, [4, 4], 64, 80, 3, 1, [1, 1]),
        case(2, [9, 6], 64, 64, 3, 1, [0, 1]),
        case(1, [5, 17], 144, 64, 3, 1, [2, 1]),
        case(5, [8, 8], 64, 80, 4, 2, [1, 1]),
        case(2, [11, 14], 80, 64, 4, 2, [0, 1]),
        case(1, [9, 10], 64, 64, 4, 2, [2, 3]),
    ]
}

#[test]
fn minimal_filtering_is_the_same_sum() {
    for c in filtered() {
        let (x, w, b) = (
            random("x", &[c.n, c.size[0], c.size[1], c.i]),
            kernel("w", [c.o, c.i, c.kernel[0], c.kernel[1]]),
            random("b", &[c.o]),
        );
        let d = Dims::new("test", c.n, c.size, w.shape(), c.spec).unwrap();
        let dy = random("dy", &d.output_dims());
        let read = |t: &Tensor| t.to_device(&candle_core::Device::Cpu).unwrap().flatten_all().unwrap().to_vec1::<f64>();
        let single = |v: &[f64]| v.iter().map(|&v| v as f32).collect::<Vec<_>>();
        let (x64, w64, b64, dy64) =
            (read(&x).unwrap(), read(&w.tensor().unwrap()).unwrap(), read(&b).unwrap(), read(&dy).unwrap());
        let (x32, w32, b32, dy32) = (single(&x64), single(&w64), single(&b64), single(&dy64));
        // Relative to the largest value.
        let check = |name: &str, want: &[f64], double: &[f64], single: &[f32], direct: &[f32]| {
            let largest = want.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
            let error = |of: &dyn Fn(usize) -> f64| {
                (0..want.len()).map(|k| (of(k) - want[k]).abs()).fold(0.0, f64::max) / largest
            };
            assert_eq!([want.len(); 2], [double.len(), single.len()]);
            let [f64s, f32s, direct] =
                [error(&|k| double[k]), error(&|k| single[k].into()), error(&|k| direct[k].into())];
            println!(
                "{:?} {} → {}, {name}: f64 {f64s:.1e}, f32 {f32s:.1e}, the sum itself {direct:.1e}",
                c.kernel, c.i, c.o
            );
            assert!(f64s < 1e-14 && f32s < 1e-5);
        };
        let (nothing, nothing32) = (|_: usize, _: &mut [f64]| {}, |_: usize, _: &mut [f32]| {});
        let want = read(&naive(&c, &x, &w, &d.output_dims()).broadcast_add(&b).unwrap()).unwrap();
        let plan = winograd::Plan::forward(&d);
        check(
            "forward",
            &want,
            &plan.run(&x64, &w64, Some(&b64), d.n, nothing),
            &plan.run(&x32, &w32, Some(&b32), d.n, nothing32),
            &cpu::Plan::forward(&d).run(&x32, &w32, Some(&b32), d.n, nothing32),
        );
        let (plan, direct) = (winograd::Plan::input_grad(&d), cpu::Plan::input_grad(&d));
        check(
            "input gradient",
            &direct.run(&dy64, &w64, None, d.n, nothing),
            &plan.run(&dy64, &w64, None, d.n, nothing),
            &plan.run(&dy32, &w32, None, d.n, nothing32),
            &direct.run(&dy32, &w32, None, d.n, nothing32),
        );
        check(
            "weight gradient",
            &weight_grad::weight_grad(&d, &x64, &dy64),
            &winograd::weight_grad(&d, &x64, &dy64),
            &winograd::weight_grad(&d, &x32, &dy32),
            &weight_grad::weight_grad(&d, &x32, &dy32),
        );
    }
}

#[test]
fn linear_is_a_matrix_product() {
    let (x, w, b) = (random("x", &[7, 37]), random("w", &[5, 37]), random("b", &[5]));
    let kernel = Kernel::new(&w.reshape((5, 37, 1, 1)).unwrap()).unwrap();
    let y = linear(&x, &kernel, Some(&b)).unwrap();
    let want = x.matmul(&w.t().unwrap()).unwrap().broadcast_add(&b).unwrap();
    tensors_close(&y, &want, 1e-13);
    let dy = random("dy", &[7, 5]);
    let dw = linear_weight_grad(&x, &dy).unwrap().tensor().unwrap().reshape((5, 37)).unwrap();
    tensors_close(&dw, &dy.t().unwrap().matmul(&x).unwrap(), 1e-13);
}

#[test]
fn transposed_convolution_is_the_adjoint() {
    let spec = ConvSpec::new(2, 1);
    let (x, w) = (random("x", &[2, 3, 4, 6]), kernel("w", [6, 5, 4, 4]));
    let y = conv_transpose2d(&x, &w, None, spec).unwrap();
    assert_eq!(y.dims(), [2, 6, 8, 5]);
    let dy = random("dy", y.dims());
    adjoint(&y, &dy, &x, &conv_transpose2d_input_grad(&dy, &w, spec).unwrap());
    adjoint(&y, &dy, w.data(), conv_transpose2d_weight_grad(&x, &dy, spec, [4, 4]).unwrap().data());
}

#[test]
fn bad_shapes_are_refused() {
    let (x, w) = (random("x", &[1, 4, 4, 3]), kernel("w", [2, 5, 3, 3]));
    let error = conv2d(&x, &w, None, ConvSpec::new(1, 1)).unwrap_err().to_string();
    assert!(error.contains("[1, 4, 4, 3]") && error.contains("[1, 4, 4, 5]"), "{error}");
    let w = kernel("w", [2, 3, 7, 7]);
    let error = conv2d(&x, &w, None, ConvSpec::new(1, 0)).unwrap_err().to_string();
    assert!(error.contains("larger than the padded input"), "{error}");
    let w = kernel("w", [2, 3, 3, 3]);
    let w = Kernel::of(&w.data().to_dtype(DType::U8).unwrap(), w.shape()).unwrap();
    assert!(conv2d(&x, &w, None, ConvSpec::new(1, 1)).is_err());
    close(conv2d_flops(&[2, 4, 4, 3], [5, 3, 3, 3], ConvSpec::new(1, 1)).unwrap() as f64, 8640.0, 0.0);
    let two = ConvSpec::new(1, 1).grouped(2);
    close(conv2d_flops(&[2, 4, 4, 6], [4, 3, 3, 3], two).unwrap() as f64, 6912.0, 0.0);
    let error = conv2d(&x, &kernel("w", [3, 2, 3, 3]), None, two).unwrap_err().to_string();
    assert!(error.contains("3 output channels do not divide by 2 groups"), "{error}");
    assert!(conv2d(&x, &kernel("w", [4, 2, 3, 3]), None, two).is_err());
    assert!(conv2d_weight_grad(&x, &random("dy", &[1, 4, 4, 4]), two, [3, 3]).is_err());
}

#[test]
fn what_follows_a_convolution_is_done_to_its_output() {
    let spec = ConvSpec::new(2, 1);
    let (x, w, b) = (random("x", &[3, 7, 9, 4]), kernel("w", [5, 4, 3, 3]), random("b", &[5]));
    let plain = conv2d(&x, &w, Some(&b), spec).unwrap();
    let leaky = conv2d_then(&x, &w, Some(&b), spec, (Then::Leaky(0.1), Next::Any)).unwrap();
    tensors_close(&leaky, &leaky_relu(&plain, 0.1).unwrap(), 1e-15);

    let (c, y) = (random("c", &[3]), random("y", plain.dims()));
    let bare = conv2d(&x, &w, None, spec).unwrap();
    let then = Then::ScaledBiasSlope { c: &c, bias: &b, y: &y, alpha: 0.1 };
    let got = conv2d_then(&x, &w, None, spec, (then, Next::Any)).unwrap();
    tensors_close(&got, &leaky_relu_slope(&add_scaled_bias(&bare, &c, &b).unwrap(), &y, 0.1).unwrap(), 1e-14);

    let dy = random("dy", plain.dims());
    let back = conv2d_input_grad(&dy, &w, spec, [7, 9]).unwrap();
    let got = conv2d_input_grad_then(&dy, &w, spec, [7, 9], (Then::Slope { y: &x, alpha: 0.0 }, Next::Any)).unwrap();
    tensors_close(&got, &leaky_relu_slope(&back, &x, 0.0).unwrap(), 1e-15);
    assert!(conv2d_input_grad_then(&dy, &w, spec, [7, 9], (Then::Slope { y: &dy, alpha: 0.0 }, Next::Any)).is_err());
}

#[test]
fn what_batch_norm_needs_is_noted() {
    let spec = ConvSpec::new(2, 1);
    let (x, w, b) = (random("x", &[3, 6, 8, 4]), kernel("w", [5, 4, 4, 4]), random("b", &[5]));
    let plus = random("plus", &[3, 3, 4, 5]);
    let sum = (conv2d(&x, &w, Some(&b), spec).unwrap() + &plus).unwrap();
    let (gamma, beta) = (random("gamma", &[5]), random("beta", &[5]));
    let affine = Affine { gamma: &gamma, beta: &beta, more: 0.0 };
    let normalise = |x: &Tensor, noted: Option<&Tally>| batch_norm_relu(x, noted, affine, Statistics::Batch, 1e-5);
    let noted = Tally::default();
    let then = (Then::Sum { plus: Some(&plus), noted: Some(&noted) }, Next::Any);
    let got = conv2d_then(&x, &w, Some(&b), spec, then).unwrap();
    tensors_close(&got, &sum, 1e-14);
    tensors_close(&normalise(&got, Some(&noted)).unwrap().0, &normalise(&sum, None).unwrap().0, 1e-13);

    // The same way back, and with coefficients of the channel or of the image.
    let dy = random("dy", &[3, 3, 4, 5]);
    let dx = conv2d_input_grad(&dy, &w, spec, [6, 8]).unwrap();
    for shape in [&[4][..], &[3, 4]] {
        let affine = Affine { gamma: &random("gamma", shape), beta: &random("beta", shape), more: 0.0 };
        let coefficients = batch_norm_relu(&x, None, affine, Statistics::Batch, 1e-5).unwrap().1;
        let grad = |dy: &Tensor, noted: Option<&Tally>| {
            let (dx, of_images) = batch_norm_relu_grad(dy, &x, &coefficients, noted, None, Next::Any).unwrap();
            let [gamma, beta] = of_images.unwrap();
            [dx, gamma, beta]
        };
        let noted = Tally::default();
        let then = (Then::GradSums { x: &x, coefficients: &coefficients, noted: &noted }, Next::Any);
        let got = conv2d_input_grad_then(&dy, &w, spec, [6, 8], then).unwrap();
        tensors_close(&got, &dx, 1e-15);
        for (got, want) in grad(&got, Some(&noted)).iter().zip(&grad(&dx, None)) {
            tensors_close(got, want, 1e-13);
        }
    }

    let (noted, w) = (Tally::default(), kernel("w", [4, 5, 4, 4]));
    let y = conv_transpose2d(&x, &w, Some(&b), spec).unwrap();
    let then = Then::Sum { plus: None, noted: Some(&noted) };
    let got = conv_transpose2d_then(&x, &w, Some(&b), spec, then).unwrap();
    tensors_close(&normalise(&got, Some(&noted)).unwrap().0, &normalise(&y, None).unwrap().0, 1e-13);
    if !on_machine() {
        assert!(normalise(&got, Some(&Tally::default())).is_err());
    }
}
