//! A small classifier trained on a data set's own labels in seconds: the extractor that needs no file. Its scores compare
//! runs with each other and are never those of an Inception network; its name in every row says so.

use std::path::Path;

use candle_core::{D, Device, Tensor};

use super::{BATCH, Extractor, Features};
use crate::critic::{Critic, layer};
use crate::data::source::Picture;
use crate::data::{Images, to_tensor};
use crate::error::{Error, Result};
use crate::files::{Turn, cache_folder, sha256, write_bytes};
use crate::machine::compute::Compute;
use crate::nn::op::numbers;
use crate::optim::{Adam, Pace, linear_decay};
use crate::rng::Stream;

const CHANNELS: [usize; 3] = [24, 48, 96];
const STEPS: u64 = 600;
const SIZE: usize = 64;
/// Images that the accuracy is taken from.
const JUDGED: usize = 3000;
const RATE: f64 = 2e-3;

/// A trained classifier; its features are the pooled activations before the last layer. It is on the CPU wherever the networks are:
/// what it measures is the same everywhere.
pub struct Classifier {
    net: Critic,
    id: String,
    sha256: String,
    classes: usize,
}

impl Classifier {
    /// Reads the classifier of a data set from the user's cache, or trains it and leaves it there.
    ///
    /// # Errors
    /// When the cache cannot be written, or holds a damaged file.
    pub fn cached(train: &Images, progress: &mut dyn FnMut(u64, u64)) -> Result<Self> {
        let folder = cache_folder()?.join("extractors");
        Compute::cpu().run(|| Self::in_folder(&folder, train, progress))
    }

    fn in_folder(folder: &Path, train: &Images, progress: &mut dyn FnMut(u64, u64)) -> Result<Self> {
        let data = train.name.split(':').next().unwrap_or_default();
        let id = format!("classifier-{data}{}-s{STEPS}", train.side);
        let labels: Vec<u8> = train.labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        let learned = format!("{} {} {}", train.fingerprint(), sha256(&labels), train.classes);
        let path = folder.join(format!("{id}-{}.safetensors", &sha256(learned.as_bytes())[..12]));
        let mut net =
            layer::classifier(CHANNELS, train.classes, &mut Stream::new(0, "classifier/init", 0), &Device::Cpu)?;
        let turn = if path.is_file() { None } else { Some(Turn::take(&path)?) };
        if path.is_file() {
            let damaged =
                |e: candle_core::Error| Error::content(&path, format!("{e}; remove the file to train it again"));
            let mut tensors =
                candle_core::safetensors::load(&path, &Device::Cpu).map_err(damaged)?.into_iter().collect();
            net.params.take_from(&mut tensors, "").map_err(damaged)?;
        } else {
            train_on(&mut net, train, progress)?;
            write_bytes(&path, &serialise(&net)?)?;
        }
        drop(turn);
        let sha256 = sha256(&serialise(&net)?);
        Ok(Self { net, id, sha256, classes: train.classes })
    }

    /// Share of the first 3,000 images that it classifies rightly.
    ///
    /// # Errors
    /// When the network fails.
    pub fn accuracy_on(&self, images: &Images) -> Result<f64> {
        let (n, mut right) = (images.len().min(JUDGED), 0);
        let batches = images.pixels.chunks(BATCH * images.stride()).zip(images.labels[..n].chunks(BATCH));
        for (pixels, labels) in batches {
            let (_, f) = self.passed(pixels, images.side)?;
            let guesses: Vec<u32> = f.argmax(D::Minus1)?.to_vec1()?;
            right += guesses.iter().zip(labels).filter(|(g, l)| **g == u32::from(**l)).count();
        }
        Ok(right as f64 / n.max(1) as f64)
    }

    /// Features and logits.
    fn passed(&self, pixels: &[u8], side: usize) -> Result<(Tensor, Tensor)> {
        Compute::cpu().run(|| {
            let pass = self.net.forward(&to_tensor(pixels, side, &Device::Cpu)?, None, false)?;
            Ok((pass.features(&self.net)?, pass.f))
        })
    }
}

fn serialise(net: &Critic) -> Result<Vec<u8>> {
    safetensors::serialize(net.params.named()?, None)
        .map_err(|e| Error::invalid(format!("cannot serialise weights: {e}")))
}

/// Softmax cross-entropy by Adam with a linearly decaying rate.
fn train_on(net: &mut Critic, images: &Images, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let mut adam = Adam::new(net.params.flat(), 0.9)?;
    for step in 0..STEPS {
        let mut stream = Stream::new(0, "classifier/batch", step);
        let picks: Vec<usize> = (0..SIZE).map(|_| stream.below(images.len())).collect();
        let pixels: Vec<u8> = picks.iter().flat_map(|&i| images.image(i).iter().copied()).collect();
        let pass = net.forward(&to_tensor(&pixels, images.side, &Device::Cpu)?, None, true)?;
        let target: Vec<f32> = picks
            .iter()
            .flat_map(|&i| (0..images.classes).map(move |k| f32::from(usize::from(images.labels[i]) == k)))
            .collect();
        let target = Tensor::from_vec(target, (SIZE, images.classes), &Device::Cpu)?;
        let c = ((candle_nn::ops::softmax(&pass.f, D::Minus1)? - target)? / SIZE as f64)?;
        let gradients = net.params.zeros_like()?;
        net.first_order(&pass, &c, &gradients)?;
        let pace = Pace { rate: RATE * linear_decay(step, 0, STEPS), beta2: 0.999 };
        let schedule = numbers(&Adam::schedule(adam.beta1(), step + 1, pace), net.params.flat())?;
        adam.step(net.params.flat(), gradients.flat(), &schedule)?;
        progress(step + 1, STEPS);
    }
    Ok(())
}

impl Extractor for Classifier {
    fn id(&self) -> &str {
        &self.id
    }

    fn weights_sha256(&self) -> &str {
        &self.sha256
    }

    fn resize(&self) -> &'static str {
        "none"
    }

    fn dim(&self) -> usize {
        CHANNELS[2]
    }

    fn classes(&self) -> Option<usize> {
        Some(self.classes)
    }

    fn extract(&self, pictures: &[Picture]) -> Result<Features> {
        let [height, width] = pictures.first().map_or([0; 2], |p| p.size);
        if height != width || pictures.iter().any(|p| p.size != [height, width]) {
            return Err(Error::invalid(format!("{} takes square images of one size, not {height}×{width}", self.id)));
        }
        let pixels: Vec<u8> = pictures.iter().flat_map(|p| p.pixels.iter().copied()).collect();
        let (features, logits) = self.passed(&pixels, height)?;
        Ok(Features { features, logits: Some(logits), spatial: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, Split, load};

    #[test]
    fn it_learns_the_shapes_and_is_read_back() {
        let shapes = Dataset::Known("shapes".to_owned());
        let [train, test] = [Split::Train, Split::Test].map(|s| load(&shapes, s, 16, &mut |_, _| {}).unwrap());
        let folder = std::env::temp_dir().join(format!("pgn-bench-classifier-{}", std::process::id()));
        let first = Classifier::in_folder(&folder, &train, &mut |_, _| {}).unwrap();
        let accuracy = first.accuracy_on(&test).unwrap();
        assert!(accuracy > 0.6, "{accuracy}");
        let again = Classifier::in_folder(&folder, &train, &mut |_, _| panic!("trained again")).unwrap();
        assert_eq!(first.sha256, again.sha256);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
