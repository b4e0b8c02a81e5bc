//! Images that one asks a generator for: of a seed, a class, from truncated latents.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use candle_core::{Device, Tensor};
use common::{CLASSES, Folder, run, untrained};

/// Latents, images and classes, as `sample` writes them with these arguments.
fn drawn(home: &Folder, of: &Path, more: &[&str]) -> (Vec<f32>, Vec<f32>, Option<Tensor>) {
    let path = home.join("drawn.safetensors");
    let args = ["sample", of.to_str().unwrap(), "-n", "12", "-o", path.to_str().unwrap()];
    let (code, _, stderr) = run(&home.0, &[&args[..], more].concat());
    assert_eq!(code, 0, "{more:?}: {stderr}");
    let mut all = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let mut values = |name: &str| all.remove(name).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    (values("z"), values("images"), all.remove("labels"))
}

#[test]
fn a_seed_a_class_and_a_truncation_are_drawn() {
    let home = Folder::new("sample");
    let [plain, conditional] = ["cnn32", "biggan32"].map(|arch| untrained(&home.0, arch, 0.03));
    let (z, images, labels) = drawn(&home, &plain, &["--seed", "5"]);
    assert_eq!((z.len(), images.len(), labels.is_none()), (12 * 128, 12 * 3 * 32 * 32, true));
    assert_eq!(drawn(&home, &plain, &["--seed", "5"]).1, images);
    assert_ne!(drawn(&home, &plain, &["--seed", "6"]).1, images);
    assert!(z.iter().any(|z| z.abs() > 0.5));
    let (cut, others, _) = drawn(&home, &plain, &["--seed", "5", "--truncation", "0.5"]);
    assert!(cut.iter().all(|z| z.abs() <= 0.5) && cut.iter().any(|z| z.abs() > 0.4) && others != images);
    // The first number that is within the bound is the first that is drawn.
    assert_eq!(z.iter().find(|z| z.abs() <= 0.5), cut.first());
    assert_eq!(drawn(&home, &plain, &["--seed", "5", "--truncation", "1e9"]).0, z);

    let (_, _, labels) = drawn(&home, &conditional, &["--class", "3"]);
    let ones = labels.unwrap().to_vec2::<f32>().unwrap();
    assert!(ones.iter().all(|row| (0..CLASSES).all(|class| row[class] == f32::from(u8::from(class == 3)))));

    // A grid has a column for each class, and of one class as many as are asked for; a folder may be there if it is empty.
    let grid = home.join("grid.png");
    let [one, grid_of] = [&conditional, &grid].map(|path| path.to_str().unwrap());
    for (more, columns) in [(&[][..], CLASSES as u32), (&["--class", "9"], 4)] {
        let args = [&["sample", one, "-n", "8", "--columns", "4", "-o", grid_of], more].concat();
        assert_eq!(run(&home.0, &args).0, 0);
        assert_eq!(image::open(&grid).unwrap().width(), 2 + columns * 66);
    }
    let folder = home.join("images");
    std::fs::create_dir(&folder).unwrap();
    let args = ["sample", one, "-n", "3", "--class", "9", "--truncation", "1", "-o", folder.to_str().unwrap()];
    assert_eq!(run(&home.0, &args).0, 0);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3);
    assert!(!home.join("images.part").exists());
}

#[test]
fn what_a_generator_cannot_draw_is_refused() {
    let home = Folder::new("sample-refused");
    let [plain, conditional] = ["cnn32", "biggan32"].map(|arch| untrained(&home.0, arch, 0.03));
    for (of, more, said) in [
        (&plain, &["--class", "0"][..], "--class: cnn32 is unconditional"),
        (&conditional, &["--class", "10"], "--class 10: biggan32-pgn-s0 knows the classes 0 to 9"),
        (&plain, &["--truncation", "0"], "expected a number from 0.01"),
        (&plain, &["--truncation", "nan"], "expected a number from 0.01"),
    ] {
        let args = ["sample", of.to_str().unwrap(), "-o", "nowhere.png"];
        let (code, _, stderr) = run(&home.0, &[&args[..], more].concat());
        assert!(code == 2 && stderr.contains(said), "{more:?}: {stderr}");
    }
}
