//! CelebA-HQ in its three layouts. A test of its own process, because it sets where data is looked for.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::Path;

use common::Folder;
use pgn_bench::data::{Dataset, Split, load};

#[test]
fn it_comes_as_lmdb_folder_or_parquet_and_its_last_tenth_is_the_test_split() {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let celebahq = Dataset::Known("celebahq".to_owned());
    let hub = "data/train-00000-of-00001.parquet";
    for (layout, n) in [("16/data.mdb", 120), ("train-00000-of-00001.parquet", 30), (hub, 30), ("images", 20)] {
        let home = Folder::new("celebahq");
        let place = home.join("celebahq").join(layout);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        match layout {
            "16/data.mdb" => drop(std::fs::copy(from.join("lmdb-index/data.mdb"), place).unwrap()),
            "images" => (0..n).for_each(|i| {
                let image = image::RgbImage::from_pixel(16, 16, image::Rgb([i as u8, 0, 0]));
                image.save(home.join("celebahq").join(format!("{i}.png"))).unwrap();
            }),
            _ => drop(std::fs::copy(from.join("faces.parquet"), place).unwrap()),
        }
        // SAFETY: this process has no other thread.
        unsafe {
            std::env::set_var("PGN_BENCH_DATA", &home.0);
            std::env::set_var("PGN_BENCH_CACHE", home.join("cache"));
        }
        let mut decoded = 0;
        let mut split = |split: Split, side: usize| load(&celebahq, split, side, &mut |_, _| decoded += 1).unwrap();
        let (all, train, test) = (split(Split::All, 16), split(Split::Train, 16), split(Split::Test, 16));
        assert_eq!((all.len(), train.len(), test.len(), all.classes), (n, n - n / 10, n / 10, 1), "{layout}");
        // Red is the number of the image.
        assert_eq!(usize::from(test.image(0)[0]), n - n / 10, "{layout}");
        assert_eq!(train.image(3), all.image(3));
        if layout != "16/data.mdb" {
            assert_eq!(split(Split::Test, 8).image(0).len(), 8 * 8 * 3);
        }
        assert_eq!(decoded, if layout == "16/data.mdb" { 1 } else { 2 }, "{layout}: each size is decoded once");
        assert!(
            load(&celebahq, Split::Unlabeled, 16, &mut |_, _| {}).unwrap_err().to_string().contains("no such split")
        );
    }
}
