//! Files of weights, good and bad: each way to be bad has its own error. The files are made by `tests/weights/make.py`.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use common::{Folder, command, run};
use pgn_bench::machine::compute::Compute;
use pgn_bench::metrics::inception::Inception;
use pgn_bench::metrics::inception::resize::Resize;
use pgn_bench::weights::read;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/weights").join(name)
}

fn error(path: &Path) -> String {
    match Inception::from_file(path, None, Resize::Tf, Compute::cpu()) {
        Ok(_) => panic!("{} was accepted", path.display()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn both_containers_hold_the_same() {
    let (zip, legacy) = (read(&file("zip.pth")).unwrap(), read(&file("legacy.pth")).unwrap());
    assert_eq!(zip.keys().collect::<Vec<_>>(), legacy.keys().collect::<Vec<_>>());
    let values = |t: &Tensor| t.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
    for (name, a) in &zip {
        let b = &legacy[name];
        assert_eq!((a.dims(), a.dtype(), values(a)), (b.dims(), b.dtype(), values(b)), "{name}");
    }
    let weight = &zip["Conv2d_1a_3x3.conv.weight"];
    assert_eq!((weight.dims(), weight.dtype()), (&[32, 3, 3, 3][..], DType::F32));
    assert_eq!(values(weight)[863], f64::from(863.0f32 / 864.0));
}

#[test]
fn wrapped_weights_are_the_same_and_have_finite_numbers() {
    let home = Folder::new("wrapped-weights");
    let bare = read(&file("zip.pth")).unwrap();
    let path = home.join("wrapped.safetensors");
    let save = |tensors: HashMap<String, Tensor>| candle_core::safetensors::save(&tensors, &path).unwrap();
    for word in ["state_dict.", "model.", "module.", "_orig_mod.module.", "model_state_dict.module._orig_mod."] {
        let wrapped = bare.iter().map(|(name, t)| (format!("{word}{name}"), t.clone()));
        let beside = ("optimizer.state.0.exp_avg".to_owned(), bare["Conv2d_1a_3x3.conv.weight"].clone());
        save(wrapped.chain([beside]).collect());
        assert_eq!(read(&path).unwrap().keys().collect::<Vec<_>>(), bare.keys().collect::<Vec<_>>(), "{word}");
    }
    for (value, fits) in [(1.0, true), (f64::INFINITY, false), (f64::NAN, false), (1e300, false)] {
        save(HashMap::from([("a".to_owned(), Tensor::new(&[0.0, value], &candle_core::Device::Cpu).unwrap())]));
        match read(&path) {
            Ok(_) => assert!(fits, "{value}"),
            Err(e) => assert!(!fits && e.to_string().contains("tensor `a` has numbers that are not finite"), "{e}"),
        }
    }
}

#[test]
fn each_fault_has_its_own_message() {
    let cases = [
        ("zip.pth", "tensor `Conv2d_1a_3x3.bn.weight` is missing"),
        ("legacy.pth", "tensor `Conv2d_1a_3x3.bn.weight` is missing"),
        ("shape.pth", "tensor `Conv2d_1a_3x3.conv.weight` has shape [32, 3, 5, 5], expected [32, 3, 3, 3]"),
        ("dtype.pth", "tensor `Conv2d_1a_3x3.conv.weight` has dtype I64, expected a floating-point one"),
        ("renamed.pth", "tensor `Conv2d_1a_3x3.conv.weight` is missing"),
        ("complex.pth", "not a PyTorch file of weights"),
        ("expand.pth", "its tensors have 9600000000 bytes, but the file 358"),
        ("malicious.pth", "not a PyTorch file of weights"),
        // What its pickle would call is passed over, and the rest read.
        ("malicious_zip.pth", "tensor `Conv2d_1a_3x3.bn.weight` is missing"),
        ("make.py", "weights are a .safetensors, .pth, .pt or .bin file"),
        ("nowhere.pth", "cannot open"),
    ];
    for (name, expected) in cases {
        let message = error(&file(name));
        assert!(message.contains(expected) && message.contains(name), "{name}: {message}");
    }
    assert!(!Path::new("pgn-bench-was-here").exists(), "a pickle was executed");
}

#[test]
fn truncated_files_are_refused_wherever_they_end() {
    let home = Folder::new("truncated");
    for name in ["zip.pth", "legacy.pth"] {
        let bytes = std::fs::read(file(name)).unwrap();
        for share in 0..20 {
            let path = home.join(name);
            std::fs::write(&path, &bytes[..bytes.len() * share / 20]).unwrap();
            let message = error(&path);
            assert!(message.contains("not a PyTorch file of weights"), "{name} at {share}/20: {message}");
        }
    }
    let path = home.write("short.safetensors", "\u{1}");
    assert!(error(&path).contains("not a safetensors file"));
}

#[test]
fn files_of_something_else_say_what_they_are() {
    let home = Folder::new("other-weights");
    let save = |name: &str, tensor: &str| {
        let tensor = (tensor.to_owned(), Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap());
        candle_core::safetensors::save(&HashMap::from([tensor]), home.join(name)).unwrap();
        home.join(name)
    };
    let pointer = home.write("pointer.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:00\n");
    let (inception, other) = (save("i.safetensors", "Conv2d_1a_3x3.conv.weight"), save("o.safetensors", "fc.bias"));
    let vit = save("v.safetensors", "embeddings.patch_embeddings.projection.weight");
    for (options, expected) in [
        (&["--weights", "pointer.safetensors"][..], "is a pointer of Git LFS"),
        (&["--weights", "i.safetensors", "--head", "o.safetensors"], "o.safetensors: tensor `fc.weight` is missing"),
        (&["--weights", "v.safetensors"], "holds weights of DINOv2, not of Inception: give it as --dinov2"),
        (&["--dinov2", "i.safetensors", "--extractor", "dinov2"], "holds weights of Inception, not of DINOv2"),
    ] {
        let args = [&["fid", "shapes:train", "shapes:test"], options].concat();
        let output = command(&home.0, &args).current_dir(&home.0).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && stderr.contains(expected), "{options:?}: {stderr}");
    }
    assert!([pointer, inception, other, vit].iter().all(|path| path.is_file()));
}

#[test]
fn without_weights_the_remedy_is_named() {
    let home = Folder::new("no-weights");
    let (code, _, stderr) = run(&home.0, &["fid", "shapes:train", "shapes:test"]);
    assert!(code == 2 && stderr.contains("pgn-bench fetch inception") && stderr.contains("--weights"), "{stderr}");
}
