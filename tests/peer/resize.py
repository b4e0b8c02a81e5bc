"""Compares how data sets are resized with Pillow's antialiased bilinear: 100 images of 96×96 and 100 of 32×32 to 48×48 pixels.

    python resize.py --binary target/release/pgn-bench        (needs: pip install pillow numpy safetensors)
"""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

YAML = """
name: resize
dataset: {{folder: {folder}}}
image_size: 48
methods: [none]
seeds: [0]
train: {{steps: 1, critic_steps: 1, critic_batch: 2, generator_batch: 2, critic_lr: 1e-4, generator_lr: 1e-4, beta1: 0,
  beta2: 0.9, lr_decay: none, ema_decay: 0.9, ema_start: 0, width: 0.02, loss: hinge}}
architectures: {{cnn48: }}
eval: {{every: 1, images: 100, reference: train, batch_norm: batch, weights: [raw], extractor: classifier}}
scales: {{smoke: }}
"""


def worst(binary, side, rng):
    """Largest difference in levels."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        want = []
        for label in "ab":
            (root / "images" / label).mkdir(parents=True)
            for i in range(50):
                # Noise over a gradient: both smooth and rough images.
                ramp = np.linspace(0, 255, side)[:, None, None] * rng.random(3)
                pixels = np.clip(ramp + rng.normal(0, rng.uniform(0, 120), (side, side, 3)), 0, 255).astype(np.uint8)
                image = Image.fromarray(pixels)
                image.save(root / "images" / label / f"{i}.png")
                want.append(np.asarray(image.resize((48, 48), Image.Resampling.BILINEAR)))
        (root / "resize.yaml").write_text(YAML.format(folder=root / "images"))
        subprocess.run([binary, "run", root / "resize.yaml", "--scale", "smoke", "-o", root / "out"], check=True,
                       capture_output=True, env=dict(os.environ, PGN_BENCH_CACHE=str(root / "cache")))
        (cached,) = (root / "cache" / "images").iterdir()
        got = load_file(cached)["pixels"]
    return int(np.abs(got.astype(int) - np.stack(want).astype(int)).max())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    for side in (96, 32):
        print(f"{side} to 48 pixels, 100 images: at most {worst(args.binary, side, rng)} levels from Pillow")


if __name__ == "__main__":
    main()
