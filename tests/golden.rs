//! Checks the critics, generators and whole training steps against reference files made by PyTorch's double backward, in
//! f64. Walks `tests/golden`, where it is there, and the folder in `PGN_BENCH_GOLDEN`, checks every file whose architecture is
//! known, prints the worst relative error of each, and fails when it found none to check in one of them.
//!
//! A value passes when it is within its tolerance. The files store their inputs rounded to f32, though, and where the
//! inputs that made the reference were not exactly representable, the reference itself is only known to what that rounding
//! does to it. So where a value exceeds its tolerance, the same computation runs on inputs moved at random within half a
//! unit in their last place, and the value passes only if the reference lies within a few times that measured spread; the
//! line of the file then says so. `tests/golden/recompute.py` rewrites a folder with references computed by PyTorch from
//! the stored inputs: there only gradients that are zero but for rounding need the second rule.
//!
//! In f32 and TF32 (`PGN_BENCH_PRECISION`) a relative error of 3e-4 and of 3e-2 passes, and beyond it the second rule holds for
//! inputs moved by 4 units in their last place, and by one of TF32's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::ExitCode;
use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor};
use pgn_bench::config::Schedule;
use pgn_bench::critic::{self, Critic};
use pgn_bench::generators::{self, Generator, Latents, Mode};
use pgn_bench::losses::Loss;
use pgn_bench::machine::compute::Compute;
use pgn_bench::machine::precision::Precision;
use pgn_bench::methods::{self, Choice};
use pgn_bench::nn::image::{channels_first, channels_last, one_hot};
use pgn_bench::nn::op::numbers;
use pgn_bench::nn::store::Store;
use pgn_bench::optim::{Pace, linear_decay};
use pgn_bench::rng::Stream;
use pgn_bench::train::step::{CriticBatch, Evaluated, GeneratorBatch, State, critic_gradients, generator_loss};

type Tensors = BTreeMap<String, Tensor>;

/// Where and in what the networks run: `PGN_BENCH_DEVICE` (cpu if not set) and `PGN_BENCH_PRECISION` (f64 if not set).
struct Setup {
    compute: Compute,
    dtype: DType,
    /// Least relative error that passes.
    tolerance: f64,
    /// By how many units in their last place inputs are moved to see what rounding does to a result.
    moved: f64,
}

impl Setup {
    fn device(&self) -> &Device {
        &self.compute.device
    }
}

static SETUP: LazyLock<Setup> = LazyLock::new(|| {
    let device = std::env::var("PGN_BENCH_DEVICE").unwrap_or_else(|_| {
        println!("golden: on the cpu; PGN_BENCH_DEVICE=cuda runs it on a GPU");
        "cpu".to_owned()
    });
    let (dtype, precision, tolerance, moved) = match std::env::var("PGN_BENCH_PRECISION").as_deref() {
        Err(_) | Ok("f64") => (DType::F64, Precision::F32, 0.0, 0.5),
        Ok("f32") => (DType::F32, Precision::F32, 3e-4, 4.0),
        // A TF32 number has 13 bits less than an f32.
        Ok("tf32") => (DType::F32, Precision::Tf32, 3e-2, 8192.0),
        // And a bfloat16 16.
        Ok("bf16") => (DType::F32, Precision::Bf16, 3e-1, 65536.0),
        Ok(other) => panic!("PGN_BENCH_PRECISION={other}: expected f64, f32, tf32 or bf16"),
    };
    Setup { compute: Compute::open(&device, Some(precision), false).unwrap(), dtype, tolerance, moved }
});

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Runs on moved inputs, and how many times their largest deviation the reference may be away.
const MOVED_RUNS: u64 = 8;
const SPREADS: f64 = 3.0;

struct File {
    tensors: Tensors,
    metadata: HashMap<String, String>,
    /// Computed values and their tolerances.
    got: BTreeMap<String, (Vec<f64>, f64)>,
}

/// Each value moved within some units in its last place as f32: half a one is what storing it would undo.
fn moved(key: &str, t: &Tensor, run: u64) -> Tensor {
    let mut stream = Stream::new(run, key, 0);
    let values = t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let values: Vec<f64> = values
        .iter()
        .map(|&v| {
            f64::from(v)
                + 2.0 * SETUP.moved * (stream.uniform() - 0.5) * (f64::from(v.abs().next_up()) - f64::from(v.abs()))
        })
        .collect();
    Tensor::from_vec(values, t.dims(), &Device::Cpu).unwrap()
}

impl File {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
        Self {
            metadata: header.metadata().clone().unwrap_or_default(),
            tensors: tensors.into_iter().collect(),
            got: BTreeMap::new(),
        }
    }

    fn with_moved_inputs(&self, run: u64) -> Self {
        let is_input = |k: &str| {
            k.starts_with("init") || k.starts_with("step") || ["x", "z", "x_aug", "eps", "cotangent"].contains(&k)
        };
        let tensors = self.tensors.iter().map(|(k, t)| {
            let t = if is_input(k) && t.dtype() == DType::F32 { moved(k, t, run) } else { t.clone() };
            (k.clone(), t)
        });
        Self { metadata: self.metadata.clone(), tensors: tensors.collect(), got: BTreeMap::new() }
    }

    fn meta(&self, key: &str) -> &str {
        self.metadata.get(key).unwrap_or_else(|| panic!("no metadata `{key}`"))
    }

    fn number(&self, key: &str) -> f64 {
        self.meta(key).parse().unwrap()
    }

    /// A number that may move from step to step; 0 where the file has none.
    fn at(&self, key: &str, step: u64) -> f64 {
        let number = |key: &str| self.metadata.get(key).map_or(0.0, |number| number.parse().unwrap());
        let from = number(key);
        if !self.metadata.contains_key(&format!("{key}_to")) {
            return from;
        }
        let seen = step * (number("n_dis") * number("batch_d")) as u64;
        Schedule::Cosine { from, to: number(&format!("{key}_to")), images: number("cosine_images") }.at(seen)
    }

    fn get(&self, key: &str) -> Tensor {
        let tensor = self.tensors.get(key).unwrap_or_else(|| panic!("no tensor `{key}`"));
        tensor.to_dtype(SETUP.dtype).unwrap().to_device(SETUP.device()).unwrap()
    }

    /// The reference's values.
    fn want(&self, key: &str) -> Vec<f64> {
        values(self.tensors.get(key).unwrap_or_else(|| panic!("no tensor `{key}`")))
    }

    /// Classes as ones among zeros, for a conditional architecture.
    fn labels(&self, key: &str) -> Option<Tensor> {
        critic::is_conditional(self.meta("arch")).then(|| {
            let labels = self.tensors.get(key).unwrap_or_else(|| panic!("no tensor `{key}`")).to_vec1::<i64>().unwrap();
            let labels: Vec<u16> = labels.into_iter().map(|y| y as u16).collect();
            one_hot(&labels, CLASSES, SETUP.dtype, SETUP.device()).unwrap()
        })
    }

    fn latents(&self, z: &str, y: &str) -> Latents {
        Latents { z: self.get(z), labels: self.labels(y) }
    }

    fn images(&self, key: &str) -> Tensor {
        channels_last(&self.get(key)).unwrap()
    }

    fn prefixed(&self, prefix: &str) -> Tensors {
        self.tensors.iter().filter(|(k, _)| k.starts_with(prefix)).map(|(k, t)| (k.clone(), t.clone())).collect()
    }

    fn check(&mut self, key: &str, got: &Tensor, tolerance: f64) {
        // Losses and their parts are reported in f64.
        assert!(got.dtype() == SETUP.dtype || got.rank() == 0 && got.dtype() == DType::F64, "{key}");
        assert!(got.device().same_device(SETUP.device()), "{key}");
        self.got.insert(key.to_owned(), (values(got), tolerance.max(SETUP.tolerance)));
    }

    fn check_state(&mut self, prefix: &str, state: &BTreeMap<String, Tensor>, tolerance: f64) {
        let keys: Vec<String> = self.prefixed(prefix).into_keys().collect();
        assert_eq!(keys.len(), state.len(), "{prefix}: {keys:?} against {:?}", state.keys());
        for key in keys {
            let tensor = state.get(&key[prefix.len()..]).unwrap_or_else(|| panic!("no parameter for `{key}`"));
            self.check(&key, tensor, tolerance);
        }
    }

    fn run(&mut self) {
        match self.kind() {
            Kind::Critic => check_critic(self),
            Kind::Generator => check_generator(self),
            Kind::Train => check_train(self),
        }
        .unwrap();
    }

    fn kind(&self) -> Kind {
        if self.tensors.contains_key("losses_d") {
            Kind::Train
        } else if self.tensors.contains_key("cotangent") {
            Kind::Generator
        } else {
            Kind::Critic
        }
    }

    /// Every key with its relative error and that error as a share of the tolerance, the worst last.
    fn errors(&self) -> Vec<(f64, f64, String)> {
        let mut errors: Vec<_> = self
            .got
            .iter()
            .map(|(key, (got, tolerance))| {
                let want = self.want(key);
                assert_eq!(got.len(), want.len(), "{key}");
                let (error, norm) = (distance(got, &want), distance(&want, &vec![0.0; want.len()]));
                // A reference of exactly zero is compared absolutely.
                let relative = if norm > 0.0 { error / norm } else { error };
                (relative / tolerance, relative, key.clone())
            })
            .collect();
        errors.sort_by(|a, b| a.0.total_cmp(&b.0));
        errors
    }
}

enum Kind {
    Critic,
    Generator,
    Train,
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

/// Checks one file and prints its line.
fn verdict(name: &str, mut file: File) -> bool {
    file.run();
    let errors = file.errors();
    let (within, beyond): (Vec<_>, Vec<_>) = errors.into_iter().partition(|e| e.0 <= 1.0);
    let worst = within.last().map_or(0.0, |e| e.0);
    print!("{name}: {} values within {worst:.1e} of their tolerance", within.len());
    if beyond.is_empty() {
        println!(": ok");
        return true;
    }
    let runs: Vec<File> = (0..MOVED_RUNS)
        .map(|run| {
            let mut moved = file.with_moved_inputs(run);
            moved.run();
            moved
        })
        .collect();
    let mut failed = Vec::new();
    let mut worst = (0.0, String::new());
    for (_, relative, key) in beyond {
        let got = &file.got[&key].0;
        let spread = runs.iter().map(|r| distance(&r.got[&key].0, got)).fold(0.0, f64::max);
        let want = file.want(&key);
        let spreads = distance(got, &want) / spread;
        if spreads > SPREADS {
            failed.push(format!("{key} (relative error {relative:.1e}, {spreads:.1} input-rounding spreads)"));
        } else if spreads > worst.0 {
            worst = (spreads, format!("{key} (relative error {relative:.1e}, {spreads:.1} spreads)"));
        }
    }
    if worst.0 > 0.0 {
        print!("; beyond it but within the rounding of the file's inputs, worst {}", worst.1);
    }
    println!("{}", if failed.is_empty() { ": ok".to_owned() } else { format!(": FAILED {}", failed.join(", ")) });
    failed.is_empty()
}

fn stream() -> Stream {
    Stream::new(0, "golden", 0)
}

fn load(params: &Store, buffers: &Store, mut from: Tensors, prefix: &str) {
    params.take_from(&mut from, prefix).unwrap();
    buffers.take_from(&mut from, prefix).unwrap();
    assert!(from.is_empty(), "unused tensors {:?}", from.keys());
}

/// The width multiplier whose rounded channels are those of the file: `layers` are tensors with their channels at full
/// width.
fn width(file: &File, layers: &[(String, usize)]) -> f64 {
    let (mut low, mut high) = (0f64, f64::INFINITY);
    for (key, full) in layers {
        let channels = file.get(key).dim(0).unwrap() as f64;
        // One is also the least there can be.
        low = low.max(if channels > 1.0 { (channels - 0.5) / *full as f64 } else { 0.0 });
        high = high.min((channels + 0.5) / *full as f64);
    }
    assert!(low < high, "no width gives these channels");
    (low + high) / 2.0
}

fn critic_of(file: &File, prefix: &str, spectral: bool) -> Critic {
    let suffix = if spectral { "weight_orig" } else { "weight" };
    let arch = file.meta("arch");
    let layers: &[(&str, usize)] = match arch {
        "cnn32" | "cnn48" => &[("main.0", 64), ("main.2", 128), ("main.6", 256), ("main.10", 512)],
        "resnet32" => &[("model.0.residual.0", 128)],
        "biggan32" => &[("blocks.0.residual.0", 256)],
        "r3gan32" => &[("ExtractionLayer.Layer", 768)],
        _ => &[("model.0.residual.0", 64), ("model.3.residual.1", 512)],
    };
    let layers: Vec<_> = layers.iter().map(|(name, full)| (format!("{prefix}{name}.{suffix}"), *full)).collect();
    let width = width(file, &layers);
    let critic = Critic::new(arch, width, CLASSES, spectral, &mut stream(), SETUP.dtype, SETUP.device()).unwrap();
    load(&critic.params, &critic.buffers, file.prefixed(prefix), prefix);
    critic
}

fn generator_of(file: &File, prefix: &str) -> Generator {
    let arch = file.meta("arch");
    let layers: &[(&str, usize)] = match arch {
        "cnn32" | "cnn48" => &[("main.0", 512), ("main.3", 256), ("main.6", 128), ("main.9", 64)],
        "resnet32" => &[("output.0", 256)],
        "biggan32" => &[("output_layer.0", 256)],
        "r3gan32" => &[("MainLayers.0.Layers.0.LinearLayer", 768)],
        _ => &[("output.0", 64), ("blocks.0.residual.0", if arch == "resnet48" { 512 } else { 1024 })],
    };
    let layers: Vec<_> = layers.iter().map(|(name, full)| (format!("{prefix}{name}.weight"), *full)).collect();
    let width = width(file, &layers);
    let generator = Generator::new(arch, width, CLASSES, &mut stream(), SETUP.dtype, SETUP.device()).unwrap();
    load(&generator.params, &generator.buffers, file.prefixed(prefix), prefix);
    generator
}

fn choice_of(file: &File) -> (Choice, Loss) {
    let id = match file.meta("method") {
        "pgnp" => "pgn-theory".to_owned(),
        "gn-bce" => "gn".to_owned(),
        other => other.replace("-cr", "+cr").replace("-r1r2", "+r1r2"),
    };
    let loss = match file.meta("loss") {
        "hinge" => Loss::Hinge,
        "bce" => Loss::Bce,
        "wass" => Loss::Wasserstein,
        "relativistic" => Loss::Relativistic,
        other => panic!("unknown loss {other}"),
    };
    assert_eq!((file.number("cr_weight"), file.number("penalty_weight")), (5.0, 10.0));
    (methods::find(&id).unwrap_or_else(|| panic!("unknown method {id}")), loss)
}

/// Classes of every conditional file.
const CLASSES: usize = 10;
const EXACT: f64 = 1e-9;
const ROUNDED: f64 = 1e-6;

fn check_critic(file: &mut File) -> candle_core::Result<()> {
    let (choice, loss) = choice_of(file);
    let method = choice.method.as_ref();
    let spectral = method.spectral();
    let n = file.number("n_real") as usize;
    let x = file.images("x");
    let total = x.dim(0)?;
    let (real, fake) = (x.narrow(0, 0, n)?.contiguous()?, x.narrow(0, n, total - n)?.contiguous()?);

    let y = file.labels("y");
    let labels = y
        .as_ref()
        .map(|y| Ok::<_, candle_core::Error>([y.narrow(0, 0, n)?, y.narrow(0, n, total - n)?]))
        .transpose()?;

    let critic = critic_of(file, "init.", spectral);
    let on_batch = Evaluated::new(&critic, &choice, (&x, None), y.as_ref(), true)?;
    file.check("f_hat", &on_batch.f_hat()?, EXACT);
    if !spectral {
        file.check("f", &on_batch.f()?, ROUNDED);
        let g = critic.input_gradient(&critic.forward(&x, y.as_ref(), false)?)?;
        file.check("grad_x", &channels_first(&g)?, ROUNDED);
        let (images, real) = if loss.pairs() { (&fake, Some(real.clone())) } else { (&x, None) };
        // Pairs are of one class.
        let of_images = labels.as_ref().map(|[real, _]| real).filter(|_| loss.pairs()).or(y.as_ref());
        let latents = Latents { z: images.clone(), labels: of_images.cloned() };
        let against = GeneratorBatch { latents, real, augmentation: None };
        let (value, cotangent) = generator_loss(&critic, method, loss, images, &against)?;
        file.check("loss_g", &value, EXACT);
        file.check("loss_g_grad_x", &channels_first(&cotangent)?, ROUNDED);
    }

    let critic = critic_of(file, "init.", spectral);
    let gradients = critic.params.zeros_like()?;
    let (mix, augmented) = (Some(file.get("eps")), Some(file.images("x_aug")));
    let gamma = Some(numbers(&[file.at("gamma", 0)], &x)?);
    let batch = CriticBatch { real, fake, labels, mix, augmented, augmentation: None, gamma };
    let report = critic_gradients(&critic, &choice, loss, &batch, &gradients)?;
    file.check("loss_d", &report.loss, EXACT);
    let none = report.loss.zeros_like()?;
    file.check("penalty", report.penalty.as_ref().unwrap_or(&none), EXACT);
    file.check("cr", report.consistency.as_ref().unwrap_or(&none), EXACT);
    file.check_state("grad.", &gradients.named()?, ROUNDED);
    file.check_state("after.", &critic.state()?, ROUNDED);
    Ok(())
}

fn check_generator(file: &mut File) -> candle_core::Result<()> {
    let generator = generator_of(file, "init.");
    let latents = file.latents("z", "y");
    let pass = generator.forward(&latents, Mode::Train)?;
    file.check("images", &channels_first(&pass.images)?, ROUNDED);
    let gradients = generator.params.zeros_like()?;
    generator.backward(pass, &file.images("cotangent"), &gradients)?;
    file.check_state("grad.", &gradients.named()?, ROUNDED);
    file.check_state("after.", &generator.state()?, ROUNDED);
    file.check("images_eval", &channels_first(&generator.images(&latents, Mode::Running)?)?, ROUNDED);
    Ok(())
}

fn check_train(file: &mut File) -> candle_core::Result<()> {
    let (choice, loss) = choice_of(file);
    let steps = file.number("steps") as u64;
    let critic = critic_of(file, "init_D.", choice.method.spectral());
    let mut state = State::new(generator_of(file, "init_G."), critic, file.number("beta1"))?;
    let (mut losses_d, mut losses_g) = (Vec::new(), Vec::new());
    for step in 0..steps {
        let factor = linear_decay(step, 0, steps);
        let pace = |rate: &str| Pace { rate: file.at(rate, step) * factor, beta2: file.at("beta2", step) };
        for k in 0..file.number("n_dis") as u64 {
            let at = |name: &str| format!("step{step}.d{k}.{name}");
            let fake = state.generator.images(&file.latents(&at("z"), &at("y_fake")), Mode::Train)?;
            let batch = CriticBatch {
                real: file.images(&at("x_real")),
                fake,
                labels: file.labels(&at("y_real")).zip(file.labels(&at("y_fake"))).map(|(r, f)| [r, f]),
                mix: Some(file.get(&at("eps"))),
                augmented: Some(file.images(&at("x_aug"))),
                augmentation: None,
                gamma: Some(numbers(&[file.at("gamma", step)], &file.get(&at("eps")))?),
            };
            let report = state.critic_update(&choice, loss, &batch, pace("lr_d"))?;
            let mut more = [report.penalty, report.consistency].into_iter().flatten();
            losses_d.push(more.try_fold(report.loss, |sum, more| sum + more)?);
        }
        let latents = file.latents(&format!("step{step}.g.z"), &format!("step{step}.g.y"));
        let real = loss.pairs().then(|| file.images(&format!("step{step}.g.x_real")));
        losses_g.push(state.generator_update(
            &choice,
            loss,
            &GeneratorBatch { latents, real, augmentation: None },
            pace("lr_g"),
        )?);
        state.update_average(file.number("ema_decay"))?;
    }
    for (key, losses) in [("losses_d", losses_d), ("losses_g", losses_g)] {
        file.check(key, &Tensor::stack(&losses, 0)?.to_dtype(SETUP.dtype)?, 1e-8);
    }
    file.check_state("final_D.", &state.critic.state()?, ROUNDED);
    file.check_state("final_G.", &state.generator.state()?, ROUNDED);
    file.check_state("final_EMA.", &state.average.state()?, ROUNDED);
    Ok(())
}

/// Checks every file of a folder: how many passed, and whether none failed.
fn check_folder(folder: &Path) -> Result<usize, usize> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    paths.sort();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for path in paths {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let kind = name.split('_').next().unwrap_or_default();
        if !["critic", "generator", "train"].contains(&kind) {
            continue;
        }
        let file = File::read(&path);
        let arch = file.meta("arch").to_owned();
        if !critic::ARCHITECTURES.contains(&arch.as_str()) || !generators::ARCHITECTURES.contains(&arch.as_str()) {
            println!("{name}: skipped, architecture {arch} is not known");
            skipped += 1;
            continue;
        }
        if verdict(&name, file) { passed += 1 } else { failed += 1 }
    }
    println!("golden: {passed} passed, {failed} failed, {skipped} skipped in {}", folder.display());
    if failed == 0 { Ok(passed) } else { Err(failed) }
}

fn main() -> ExitCode {
    // The second for a binary that was built elsewhere.
    let roots = [env!("CARGO_MANIFEST_DIR"), "."].map(|root| Path::new(root).join("tests/golden"));
    let mut folders: Vec<_> = roots.into_iter().filter(|folder| folder.is_dir()).take(1).collect();
    match std::env::var_os("PGN_BENCH_GOLDEN") {
        Some(folder) => folders.push(folder.into()),
        None => println!("golden: only the small files of the project; PGN_BENCH_GOLDEN names a folder of more"),
    }
    assert!(!folders.is_empty(), "no folder tests/golden here, and PGN_BENCH_GOLDEN names none");
    let good = folders.iter().all(|folder| check_folder(folder).is_ok_and(|n| n > 0));
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
