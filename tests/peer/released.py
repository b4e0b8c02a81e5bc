"""Compares an imported checkpoint of the released GN or PGN code with that code: the same latents, the same images.

    python released.py --binary target/release/pgn-bench --repo GNGAN-PyTorch --checkpoint logs/…/model.pt \
        --experiment experiments/cifar10.yaml --only arch=cnn32,method=gn,seed=0

--repo: a clone of the released code. Prints the largest difference for net_G and ema_G, which make images with the
statistics of their batch, as that code always does. Needs: pip install torch safetensors
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

NETS = {"cnn32": ("dcgan", "Generator32"), "cnn48": ("dcgan", "Generator48"), "resnet32": ("resnet", "ResGenerator32"),
        "resnet48": ("resnet", "ResGenerator48"), "biggan32": ("biggan", "Generator32")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("binary", "repo", "checkpoint", "experiment", "only"):
        parser.add_argument("--" + name, required=True)
    args = parser.parse_args()
    sys.path.insert(0, args.repo)
    arch = dict(item.split("=") for item in args.only.split(","))["arch"]
    module, name = NETS[arch]
    net = getattr(__import__("models." + module, fromlist=[name]), name)(128, 10)
    checkpoint = torch.load(args.checkpoint, map_location="cpu", weights_only=False)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        subprocess.run([args.binary, "import", args.checkpoint, args.experiment, "--only", args.only, "-o", out], check=True,
                       stdout=subprocess.DEVNULL)
        (run,) = (path.parent for path in out.rglob("checkpoint.safetensors"))
        for ours, theirs in (("raw", "net_G"), ("ema", "ema_G")):
            file = out / f"{ours}.safetensors"
            subprocess.run([args.binary, "sample", run, "-n", "64", "--generator", ours, "-o", file], check=True)
            sample = load_file(file)
            net.load_state_dict(checkpoint[theirs])
            labels = [sample["labels"].argmax(1)] if "labels" in sample else []
            with torch.no_grad():
                images = net(sample["z"], *labels)
            print(f"{arch} {theirs}: largest difference of 64 images {(images - sample['images']).abs().max():.1e}")


if __name__ == "__main__":
    main()
