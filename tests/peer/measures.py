"""Reference values of the measures, by the codes that users know them from, on features that are stored beside the values:
`cargo test --release --test measures` holds ours against them.

    python measures.py --dgm-eval DIR --infinity DIR --fidelity DIR --cmmd distance.py [--golden DIR] OUT

OUT: a folder; tests/golden holds what is written without --golden.
--dgm-eval, --infinity, --fidelity: checkouts of layer6ai-labs/dgm-eval, mchong6/FID_IS_infinity and toshas/torch-fidelity (for MIND, which
0.4 does not have). --cmmd: `cmmd/distance.py` of google-research. None is changed: where it draws at random, the draw is replaced by the
first rows, which is what ours takes.
--golden: a folder with Inception features of CIFAR-10 and images; the weights are in `weights` beside it.
Needs: pip install torch torchvision numpy scipy scikit-learn safetensors torchmetrics==1.9.0 torch-fidelity==0.4.0 prdc==0.2 jax
"""

import argparse
import ast
import importlib.util
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch_fidelity.defaults
from safetensors.torch import load_file, save_file
from scipy import linalg
from sklearn.linear_model import LinearRegression

K = 5


def module(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def functions(path, names, scope):
    """Functions of a file whose imports cannot all be met."""
    tree = ast.parse(Path(path).read_text())
    tree.body = [node for node in tree.body if getattr(node, "name", None) in names]
    exec(compile(tree, str(path), "exec"), scope)
    return SimpleNamespace(**scope)


class Peers:
    def __init__(self, args):
        dgm = args.dgm_eval / "dgm_eval" / "metrics"
        self.fd, self.kd, self.authpct = (module(n, dgm / f"{n}.py") for n in ("fd", "mmd", "authpct"))
        self.cmmd = module("cmmd", args.cmmd)
        torch_fidelity.defaults.DEFAULTS.setdefault("mind_num_projections", 1000)
        self.mind = module("mind", args.fidelity / "torch_fidelity" / "metric_mind.py")
        self.activations = {}
        self.infinity = functions(
            args.infinity / "score_infinity.py",
            {"calculate_FID_infinity_path", "calculate_IS_infinity_path", "calculate_inception_score",
             "numpy_calculate_frechet_distance"},
            {"np": np, "linalg": linalg, "LinearRegression": LinearRegression, "load_inception_net": lambda: None,
             "compute_path_statistics": lambda path, *_, **__: self.activations[path]})

    def fd_infinity(self, real, generated):
        rng, np.random.default_rng = np.random.default_rng, lambda: SimpleNamespace(choice=lambda a, n, replace: a[:n])
        try:
            return self.fd.compute_FD_infinity(real, generated)
        finally:
            np.random.default_rng = rng

    def is_infinity(self, real, generated, logits):
        """And FID∞ by the same code."""
        probabilities = torch.softmax(torch.from_numpy(logits).double(), 1).numpy()
        self.activations = {"real": (real, None), "generated": (generated, probabilities)}
        shuffle, np.random.shuffle = np.random.shuffle, lambda _: None
        least = max(len(generated) // 10, 2)
        try:
            return (self.infinity.calculate_FID_infinity_path("real", "generated", min_fake=least),
                    self.infinity.calculate_IS_infinity_path("generated", min_fake=least))
        finally:
            np.random.shuffle = shuffle

    def of_embeddings(self, real, generated):
        """CMMD, as published in float32 and in float64."""
        import jax

        x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (real.astype(np.float64), generated.astype(np.float64)))
        single = float(self.cmmd.mmd(x.astype(np.float32), y.astype(np.float32)))
        jax.config.update("jax_enable_x64", True)
        double = float(self.cmmd.mmd(x, y))
        jax.config.update("jax_enable_x64", False)
        return single, double


def manifold(real, generated):
    from prdc import compute_prdc
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    closed = calculate_precision_recall_full(torch.from_numpy(generated).double(), torch.from_numpy(real).double(), K)
    open_balls = compute_prdc(real.astype(np.float64), generated.astype(np.float64), K)
    return open_balls | dict(zip(("precision_closed", "recall_closed"), closed))


def memorisation(real, generated):
    """torchmetrics takes the mean over the first set, and gives it the real one; the paper's is over generated images."""
    from torchmetrics.image.mifid import _compute_cosine_distance, _mifid_compute

    x, y = (torch.from_numpy(v).double() for v in (generated, real))
    statistics = [s for t in (x, y) for s in (t.mean(0), t.T.cov(), t)]
    return {
        "memorisation_distance": float(_compute_cosine_distance(x, y, 2.0)),
        "memorisation_distance_of_real": float(_compute_cosine_distance(y, x, 2.0)),
        "mifid": float(_mifid_compute(*statistics)),
    }


def mind(peers, real, generated, directions):
    """MIND along given directions, which are drawn where the code draws them."""
    n = min(len(real), len(generated))
    draw, torch.randn = torch.randn, lambda *_, **__: directions.clone()
    try:
        values = peers.mind.mind_features_to_metric(
            torch.from_numpy(real[:n]), torch.from_numpy(generated[:n]), mind_num_projections=len(directions), cuda=False,
            rng_seed=0, verbose=False)
    finally:
        torch.randn = draw
    return values["monge_inception_distance"]


def values(peers, real, generated, logits, directions):
    """All that has a reference; of fewer rows than columns, what a singular covariance does not spoil."""
    n = min(len(real), len(generated))
    found = {
        "kd": peers.kd.compute_polynomial_mmd(real[:n].astype(np.float64), generated[:n].astype(np.float64)),
        "kd_f32": peers.kd.compute_polynomial_mmd(real[:n], generated[:n]),
        "auth_pct": peers.authpct.compute_authpct(real, generated),
        "mind": mind(peers, real, generated, directions),
    }
    found |= manifold(real, generated)
    if real.any(axis=1).all():
        found["cmmd_f32"], found["cmmd"] = peers.of_embeddings(real, generated)
    of_memory = memorisation(real, generated)
    if len(real) <= real.shape[1]:
        del of_memory["mifid"]
        return found | of_memory
    found |= of_memory
    found["fd"] = peers.fd.compute_FD_with_reps(real.astype(np.float64), generated.astype(np.float64))
    found["fd_infinity"] = peers.fd_infinity(real.astype(np.float64), generated.astype(np.float64))
    found["fid_infinity"], found["is_infinity"] = peers.is_infinity(
        real.astype(np.float64), generated.astype(np.float64), logits)
    return found


def record(peers, path, real, generated, logits=None, count=40):
    directions = torch.randn(count, real.shape[1], generator=torch.Generator().manual_seed(1))
    directions /= directions.norm(dim=1, keepdim=True)
    found = values(peers, real.numpy(), generated.numpy(), None if logits is None else logits.numpy(), directions)
    tensors = {"real": real, "generated": generated, "directions": directions}
    if logits is not None:
        tensors["logits"] = logits
    # What was computed in f32 where f64 was to be had is there to be seen.
    tensors |= {f"want.{name}": torch.tensor([float(v)], dtype=torch.float64)
                for name, v in found.items() if not name.endswith("_f32")}
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata={"k": str(K)})
    print(f"{path}:", ", ".join(f"{name} {float(v):.9g}" for name, v in sorted(found.items())))


def drawn():
    """Two sets of small features: of any sign and far apart; as a network gives them after a ReLU, many of them near copies, two of zeros."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(12, 12)) / 3
    normal = rng.normal(size=(300, 12)) @ mix, 0.8 * rng.normal(size=(240, 12)) @ mix + 0.2
    positive = np.maximum(rng.normal(size=(200, 12)) + 0.7, 0.0)
    near = positive[rng.permutation(200)][:120] + 0.15 * rng.normal(size=(120, 12))
    near = np.maximum(np.concatenate([near, rng.normal(size=(80, 12)) + 0.9]), 0.0)
    positive[7], near[9] = 0.0, 0.0
    for name, sets in (("normal", normal), ("positive", (positive, near))):
        real, generated = (torch.from_numpy(v.astype(np.float32)) for v in sets)
        yield name, real, generated, torch.from_numpy(rng.normal(size=(len(generated), 10)).astype(np.float32) * 2)


def statistics(path, real, other):
    """As guided-diffusion computes and leaves them."""
    (mu, sigma), (mu_s, sigma_s) = ((np.mean(v, axis=0), np.cov(v, rowvar=False)) for v in (real.numpy(), other.numpy()))
    np.savez(path, mu=mu, sigma=sigma, mu_s=mu_s, sigma_s=sigma_s)


def spatial(golden, path):
    """What torch-fidelity's network has after `Mixed_6d.branch1x1`, its first 7 channels by row and column, and sFID of 64 + 64 images
    (f64: the trace of the root is the sum of the singular values of the centred features' product)."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    state = {k: v.float() for k, v in load_file(golden / "../weights/inception_v3_proxy.safetensors").items()}
    state |= {k.replace("weight", "num_batches_tracked"): torch.tensor(0) for k in state if k.endswith("bn.weight")}
    state = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)} | state
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save(state, file.name)
        network = FeatureExtractorInceptionV3("i", ["2048"], feature_extractor_weights_path=file.name)
    seen = []
    network.Mixed_6d.branch1x1.register_forward_hook(lambda _, __, out: seen.append(out[:, :7].permute(0, 2, 3, 1).flatten(1)))

    def of(images):
        seen.clear()
        for part in images.split(16):
            network(part)
        return torch.cat(seen)

    images = load_file(golden / "inception_stages.safetensors")
    tensors = {f"{name}.spatial": of(images[f"{name}.u8"]) for name in ("cifar32", "square48", "wide", "large")}
    cifar10 = load_file(golden / "inception_cifar10.safetensors")
    x, y = (of(cifar10[f"{split}_u8"][:64]).double() for split in ("train", "test"))
    (m, x), (k, y) = ((t.mean(0), (t - t.mean(0)) / (len(t) - 1) ** 0.5) for t in (x, y))
    sfid = (m - k).square().sum() + x.square().sum() + y.square().sum() - 2 * torch.linalg.svdvals(x @ y.T).sum()
    tensors["sfid_64"] = sfid.reshape(1)
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("dgm-eval", "infinity", "fidelity", "cmmd"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--golden", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    peers = Peers(args)
    with torch.no_grad():
        if args.golden is None:
            for name, *of in drawn():
                record(peers, args.out / f"measures_{name}.safetensors", *of)
            statistics(args.out / "measures.npz", of[0], of[1])
        else:
            features = load_file(args.golden / "inception_cifar10.safetensors")
            record(peers, args.out / "measures_inception.safetensors", features["train_pool3"], features["test_pool3"])
            spatial(args.golden, args.out / "spatial.safetensors")


if __name__ == "__main__":
    sys.exit(main())
