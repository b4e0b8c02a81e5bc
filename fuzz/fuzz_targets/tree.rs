//! Names of files in a tree, a line each, and after an empty line the labels that a file says: every image is in one split at most,
//! and has a class below their number.
#![no_main]

use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use pgn_bench::data::Split;
use pgn_bench::data::source::tree::{Holds, Tree, classes, images_of, part, stated};

fuzz_target!(|text: &str| {
    let (names, json) = text.split_once("\n\n").unwrap_or((text, ""));
    let (root, mut tree) = (Path::new("set"), Tree::default());
    names.lines().for_each(|name| tree.add(PathBuf::from(name), || name.ends_with('!')));
    let images = match tree.holds(root) {
        Ok(Holds::Images(images)) => images,
        Ok(Holds::Tables(paths) | Holds::Environments(paths)) => {
            let of = |split| part(root, paths.clone(), split).map_or(0, |of| of.len());
            assert!(Split::ALL.into_iter().all(|(_, split)| of(split) <= paths.len()));
            return;
        }
        Err(_) => return,
    };
    let mut counted = 0;
    for (_, split) in Split::ALL {
        let Ok((below, of)) = images_of(root, images.clone(), split) else { continue };
        assert!(of.iter().all(|image| images.contains(&below.join(image))));
        counted += if split == Split::All { 0 } else { of.len() };
        for labels in [classes(root, &of), stated(root, json.as_bytes(), &below, &of)].into_iter().flatten().flatten() {
            assert!(labels.of.len() == of.len() && labels.of.iter().all(|&l| usize::from(l) < labels.classes));
        }
    }
    assert!(counted <= images.len());
});
