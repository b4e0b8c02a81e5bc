//! Inception-v3 as the FID uses it (Szegedy et al. 2016; the variant of the original FID code): average pools do not count
//! padding, the pool branch of Mixed_7c is a max pool, ε of batch norm is 1e-3 and folded into the convolutions, there is
//! no auxiliary head. Images `[N, 299, 299, 3]` to pooled features `[N, 2048]`.

use candle_core::{DType, Result, Tensor};

use crate::metrics::weights::Weights;
use crate::nn::conv::{ConvSpec, Then, conv2d_then};
use crate::nn::kernel::{Kernel, Next};
use crate::nn::pool::{max_pool3, mean_pool3};
use crate::nn::resample::global_pool;

/// Width of the pooled features.
pub const FEATURES: usize = 2048;
const EPSILON: f64 = 1e-3;

/// Convolution, folded batch norm, ReLU.
struct Unit {
    weight: Kernel,
    bias: Tensor,
    spec: ConvSpec,
}

impl Unit {
    fn run(&self, x: &Tensor) -> Result<Tensor> {
        conv2d_then(x, &self.weight, Some(&self.bias), self.spec, (Then::Leaky(0.0), Next::Any))
    }
}

/// What a branch does besides convolving.
enum Step {
    Unit(Unit),
    Mean,
    Max {
        stride: usize,
        padding: usize,
    },
    /// Both of two units on the same input, side by side.
    Split([Unit; 2]),
}

type Branch = Vec<Step>;

/// A stage of the network: branches on the same input, their outputs side by side.
struct Stage {
    name: &'static str,
    branches: Vec<Branch>,
}

/// The network's convolutional part.
pub struct Network {
    stages: Vec<Stage>,
}

/// Takes a unit out of a file's tensors.
fn unit(
    weights: &mut Weights,
    name: &str,
    [i, o]: [usize; 2],
    kernel: [usize; 2],
    stride: usize,
    padding: [usize; 2],
) -> Result<Unit> {
    let weight = weights.take(&format!("{name}.conv.weight"), &[o, i, kernel[0], kernel[1]])?.to_dtype(DType::F64)?;
    let mut of = |part: &str| weights.take(&format!("{name}.bn.{part}"), &[o])?.to_dtype(DType::F64);
    let (gamma, beta) = (of("weight")?, of("bias")?);
    let (mean, variance) = (of("running_mean")?, of("running_var")?);
    let scale = (gamma / (variance + EPSILON)?.sqrt()?)?;
    let bias = (beta - (mean * &scale)?)?;
    let weight = weight.broadcast_mul(&scale.reshape((o, 1, 1, 1))?)?;
    Ok(Unit {
        weight: Kernel::new(&weight.to_dtype(DType::F32)?.contiguous()?.to_device(&weights.device)?)?,
        bias: bias.to_dtype(DType::F32)?.to_device(&weights.device)?,
        spec: ConvSpec { stride, padding, groups: 1 },
    })
}

/// Declares the units of one stage.
struct Namer<'a> {
    stage: &'static str,
    weights: &'a mut Weights,
}

impl Namer<'_> {
    /// A unit that keeps the size: kernels 1×1, 3×3, 5×5, 1×7, 7×1, 1×3, 3×1.
    fn same(&mut self, name: &str, channels: [usize; 2], kernel: [usize; 2]) -> Result<Unit> {
        let padding = kernel.map(|k| k / 2);
        unit(self.weights, &format!("{}.{name}", self.stage), channels, kernel, 1, padding)
    }

    /// A 3×3 unit of stride 2 without padding.
    fn down(&mut self, name: &str, channels: [usize; 2]) -> Result<Unit> {
        unit(self.weights, &format!("{}.{name}", self.stage), channels, [3, 3], 2, [0, 0])
    }

    /// `name`, or `name_1`, `name_2`, … when there are several, in a row.
    fn chain(&mut self, name: &str, input: usize, units: &[(usize, [usize; 2])]) -> Result<Branch> {
        let mut channels = input;
        let mut branch = Vec::new();
        for (n, &(out, kernel)) in units.iter().enumerate() {
            let name = if units.len() == 1 { name.to_owned() } else { format!("{name}_{}", n + 1) };
            branch.push(Step::Unit(self.same(&name, [channels, out], kernel)?));
            channels = out;
        }
        Ok(branch)
    }

    fn pooled(&mut self, pool: Step, channels: [usize; 2]) -> Result<Branch> {
        Ok(vec![pool, Step::Unit(self.same("branch_pool", channels, [1, 1])?)])
    }

    /// 35×35 pixels.
    fn a(mut self, input: usize, pool: usize) -> Result<Stage> {
        let branches = vec![
            self.chain("branch1x1", input, &[(64, [1, 1])])?,
            self.chain("branch5x5", input, &[(48, [1, 1]), (64, [5, 5])])?,
            self.chain("branch3x3dbl", input, &[(64, [1, 1]), (96, [3, 3]), (96, [3, 3])])?,
            self.pooled(Step::Mean, [input, pool])?,
        ];
        Ok(Stage { name: self.stage, branches })
    }

    /// 35×35 to 17×17 pixels.
    fn b(mut self, input: usize) -> Result<Stage> {
        let first = self.same("branch3x3dbl_1", [input, 64], [1, 1])?;
        let second = self.same("branch3x3dbl_2", [64, 96], [3, 3])?;
        let branches = vec![
            vec![Step::Unit(self.down("branch3x3", [input, 384])?)],
            vec![Step::Unit(first), Step::Unit(second), Step::Unit(self.down("branch3x3dbl_3", [96, 96])?)],
            vec![Step::Max { stride: 2, padding: 0 }],
        ];
        Ok(Stage { name: self.stage, branches })
    }

    /// 17×17 pixels, `c` channels inside.
    fn c(mut self, c: usize) -> Result<Stage> {
        let (row, column) = ([1, 7], [7, 1]);
        let branches = vec![
            self.chain("branch1x1", 768, &[(192, [1, 1])])?,
            self.chain("branch7x7", 768, &[(c, [1, 1]), (c, row), (192, column)])?,
            self.chain("branch7x7dbl", 768, &[(c, [1, 1]), (c, column), (c, row), (c, column), (192, row)])?,
            self.pooled(Step::Mean, [768, 192])?,
        ];
        Ok(Stage { name: self.stage, branches })
    }

    /// 17×17 to 8×8 pixels.
    fn d(mut self) -> Result<Stage> {
        let mut seven = vec![Step::Unit(self.same("branch7x7x3_1", [768, 192], [1, 1])?)];
        seven.push(Step::Unit(self.same("branch7x7x3_2", [192, 192], [1, 7])?));
        seven.push(Step::Unit(self.same("branch7x7x3_3", [192, 192], [7, 1])?));
        seven.push(Step::Unit(self.down("branch7x7x3_4", [192, 192])?));
        let first = self.same("branch3x3_1", [768, 192], [1, 1])?;
        let three = vec![Step::Unit(first), Step::Unit(self.down("branch3x3_2", [192, 320])?)];
        Ok(Stage { name: self.stage, branches: vec![three, seven, vec![Step::Max { stride: 2, padding: 0 }]] })
    }

    /// 8×8 pixels.
    fn e(mut self, input: usize, pool: Step) -> Result<Stage> {
        let split = |me: &mut Self, name: &str| -> Result<Step> {
            let row = me.same(&format!("{name}a"), [384, 384], [1, 3])?;
            Ok(Step::Split([row, me.same(&format!("{name}b"), [384, 384], [3, 1])?]))
        };
        let one = self.chain("branch1x1", input, &[(320, [1, 1])])?;
        let first = self.same("branch3x3_1", [input, 384], [1, 1])?;
        let three = vec![Step::Unit(first), split(&mut self, "branch3x3_2")?];
        let first = self.same("branch3x3dbl_1", [input, 448], [1, 1])?;
        let second = self.same("branch3x3dbl_2", [448, 384], [3, 3])?;
        let double = vec![Step::Unit(first), Step::Unit(second), split(&mut self, "branch3x3dbl_3")?];
        let pooled = self.pooled(pool, [input, 192])?;
        Ok(Stage { name: self.stage, branches: vec![one, three, double, pooled] })
    }
}

impl Network {
    /// The network of these weights, which are taken out of them.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(weights: &mut Weights) -> Result<Self> {
        let mut stages = Vec::new();
        let stem = [
            ("Conv2d_1a_3x3", [3, 32], 3, 2, 0),
            ("Conv2d_2a_3x3", [32, 32], 3, 1, 0),
            ("Conv2d_2b_3x3", [32, 64], 3, 1, 1),
            ("maxpool_1", [0, 0], 0, 0, 0),
            ("Conv2d_3b_1x1", [64, 80], 1, 1, 0),
            ("Conv2d_4a_3x3", [80, 192], 3, 1, 0),
            ("maxpool_2", [0, 0], 0, 0, 0),
        ];
        for (name, channels, kernel, stride, padding) in stem {
            let step = if kernel == 0 {
                Step::Max { stride: 2, padding: 0 }
            } else {
                Step::Unit(unit(weights, name, channels, [kernel; 2], stride, [padding; 2])?)
            };
            stages.push(Stage { name, branches: vec![vec![step]] });
        }
        fn at<'a>(stage: &'static str, weights: &'a mut Weights) -> Namer<'a> {
            Namer { stage, weights }
        }
        stages.push(at("Mixed_5b", weights).a(192, 32)?);
        stages.push(at("Mixed_5c", weights).a(256, 64)?);
        stages.push(at("Mixed_5d", weights).a(288, 64)?);
        stages.push(at("Mixed_6a", weights).b(288)?);
        for (name, inside) in [("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)] {
            stages.push(at(name, weights).c(inside)?);
        }
        stages.push(at("Mixed_7a", weights).d()?);
        stages.push(at("Mixed_7b", weights).e(1280, Step::Mean)?);
        stages.push(at("Mixed_7c", weights).e(2048, Step::Max { stride: 1, padding: 1 })?);
        Ok(Self { stages })
    }

    /// Pooled features `[N, 2048]` of images `[N, 299, 299, 3]`; `see` is shown each stage's output.
    ///
    /// # Errors
    /// On images of another shape or dtype.
    pub fn forward(&self, images: &Tensor, see: &mut dyn FnMut(&str, &Tensor) -> Result<()>) -> Result<Tensor> {
        let mut x = images.clone();
        for stage in &self.stages {
            let outputs: Vec<Tensor> = stage.branches.iter().map(|b| branch(b, &x)).collect::<Result<_>>()?;
            x = beside(&outputs)?;
            see(stage.name, &x)?;
        }
        let (_, h, w, _) = x.dims4()?;
        global_pool(&x, 1.0 / (h * w) as f64)?.flatten_from(1)
    }
}

fn branch(steps: &[Step], x: &Tensor) -> Result<Tensor> {
    let mut x = x.clone();
    for step in steps {
        x = match step {
            Step::Unit(unit) => unit.run(&x)?,
            Step::Mean => mean_pool3(&x)?,
            Step::Max { stride, padding } => max_pool3(&x, *stride, *padding)?,
            Step::Split([a, b]) => beside(&[a.run(&x)?, b.run(&x)?])?,
        };
    }
    Ok(x)
}

fn beside(parts: &[Tensor]) -> Result<Tensor> {
    match parts {
        [one] => Ok(one.clone()),
        many => Tensor::cat(many, 3)?.contiguous(),
    }
}
