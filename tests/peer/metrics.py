"""Compares IS, FID, KID and precision/recall with torch-fidelity and pytorch-fid on the same folders of images, and the two
containers of PyTorch weights with each other.

    python metrics.py --binary target/release/pgn-bench --weights inception.safetensors A B

A, B: folders of images. The weights are given to all as the .pth file that the peers read; a last layer of random
numbers stands in where they have none.
Needs: pip install torch torchvision numpy scipy safetensors torch-fidelity pytorch-fid
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file


def ours(binary, *args):
    done = subprocess.run([binary, *args, "--json"], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[0])["values"]


def pth(weights, folder):
    """The weights as pytorch-fid's file (legacy container) and as a zip."""
    state = {k: v.float() for k, v in load_file(weights).items()}
    state |= {k.replace("weight", "num_batches_tracked"): torch.tensor(0) for k in state if k.endswith("bn.weight")}
    last = {"fc.weight": torch.randn(1008, 2048, generator=torch.Generator().manual_seed(0)) / 8, "fc.bias": torch.zeros(1008)}
    state = last | state
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(state, folder / "zip.pth")
    return folder / "legacy.pth", folder / "zip.pth"


def pytorch_fid(weights, a, b):
    from pytorch_fid import fid_score, inception

    inception.load_state_dict_from_url = lambda *_, **__: torch.load(weights)
    return fid_score.calculate_fid_given_paths([str(a), str(b)], 50, "cpu", 2048, num_workers=0)


def torch_fidelity(weights, a, b, size):
    import torch_fidelity as peer

    shared = {"input1": str(a), "input2": str(b), "cuda": False, "verbose": False, "cache": False,
              "feature_extractor_weights_path": str(weights)}
    distances = peer.calculate_metrics(
        **shared, isc=True, fid=True, kid=True, kid_subsets=1, kid_subset_size=size, samples_shuffle=False)
    return distances | peer.calculate_metrics(
        **shared, prc=True, feature_extractor="inception-v3-compat", feature_layer_prc="2048")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    args = parser.parse_args()
    size = min(sum(1 for _ in folder.iterdir()) for folder in (args.a, args.b))
    with tempfile.TemporaryDirectory() as folder:
        legacy, zipped = pth(args.weights, Path(folder))
        rows = []
        tf = torch_fidelity(legacy, args.a, args.b, size)
        fid = {resize: [ours(args.binary, "fid", str(args.a), str(args.b), "--weights", str(w), "--resize", resize)["fid"]
                        for w in (legacy, zipped)] for resize in ("tf", "torch")}
        rows.append(("FID, legacy against zip container", fid["tf"][0], fid["tf"][1]))
        rows.append(("FID, torch-fidelity (tf resize)", fid["tf"][0], tf["frechet_inception_distance"]))
        rows.append(("FID, pytorch-fid (torch resize)", fid["torch"][0], pytorch_fid(legacy, args.a, args.b)))
        kid = ours(args.binary, "kid", str(args.a), str(args.b), "--weights", str(legacy), "--subsets", "1",
                   "--size", str(size))
        rows.append((f"KID of all {size}, torch-fidelity", kid["kid_all"], tf["kernel_inception_distance_mean"]))
        score = ours(args.binary, "is", str(args.a), "--weights", str(legacy), "--order", "file")
        rows.append(("IS, torch-fidelity", score["is_mean"], tf["inception_score_mean"]))
        rows.append(("IS deviation, torch-fidelity", score["is_std"], tf["inception_score_std"]))
        pr = ours(args.binary, "pr", str(args.b), str(args.a), "--weights", str(legacy))
        rows += [(f"{k}, torch-fidelity", pr[k], tf[k]) for k in ("precision", "recall")]
    print("| measure | pgn-bench | peer | difference | relative |\n|---|---|---|---|---|")
    for name, mine, theirs in rows:
        print(f"| {name} | {mine:.9g} | {theirs:.9g} | {abs(mine - theirs):.1e} | {abs(mine / theirs - 1):.1e} |")


if __name__ == "__main__":
    sys.exit(main())
