"""Records what the reference code makes of images of six sizes before a Vision Transformer: tests/golden/vit_resize.json.

    python vit_resize.py [FILE]

dinov2-pil as dgm-eval and dinov2-float as EDM2 do it, dinov2-tf by torch-fidelity's own resize, clip-cmmd as CMMD's io_util. Each case is
a checksum of the bytes, where the protocol has them, and every 379th of the values that the network gets.
Needs: pip install torch numpy pillow; torch-fidelity (pip install --no-deps torch-fidelity)
"""

import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

SIZES = [(32, 32), (48, 48), (200, 320), (300, 224), (224, 224), (512, 384)]
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CLIP = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
EVERY = 379


def image(height, width):
    """Noise over a ramp, [height, width, 3], by whole numbers alone."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    index = ((y * width + x) * 3 + c).astype(np.uint64)
    noise = ((index * np.uint64(2654435761)) % np.uint64(1 << 32)) >> np.uint64(24)
    ramp = (y * 255 // height + x * 255 // width).astype(np.uint64) // np.uint64(2)
    return ((3 * ramp + noise) // np.uint64(4)).astype(np.uint8)


def levels(x, over, unit, mean, deviation):
    """[3, H, W] to what the network gets, in single precision."""
    shaped = lambda v: torch.tensor([unit * a for a in v], dtype=torch.float32).reshape(3, 1, 1)
    return (x.float() / over).sub(shaped(mean)).div(shaped(deviation))


def tensorflow_resize():
    package = Path(importlib.util.find_spec("torch_fidelity").origin).parent
    spec = importlib.util.spec_from_file_location("interpolate", package / "interpolate_compat_tensorflow.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.interpolate_bilinear_2d_like_tensorflow1x


def planes(pixels):
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


def record(values, pixels=None):
    values = values.permute(1, 2, 0).flatten()
    case = {"values": [float(f"{v:.9g}") for v in values[::EVERY].tolist()]}
    return case | ({"sha256": hashlib.sha256(np.array(pixels).tobytes()).hexdigest()} if pixels is not None else {})


def cases(pixels, tensorflow):
    height, width, _ = pixels.shape
    picture = Image.fromarray(pixels)
    resized = picture.resize((224, 224), Image.Resampling.BICUBIC)
    single = planes(pixels).float()[None]
    free = torch.nn.functional.interpolate(single, size=(224, 224), mode="bicubic", antialias=True)[0]
    bilinear = tensorflow(single, size=(224, 224), align_corners=False)[0]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    square = picture.crop((left, top, left + side, top + side)).resize((336, 336), Image.Resampling.BICUBIC)
    return {
        "dinov2-pil": record(levels(planes(resized), 255, 1, *IMAGENET), resized),
        "dinov2-float": record(levels(free, 255, 1, *IMAGENET)),
        "dinov2-tf": record(levels(bilinear, 1, 255, *IMAGENET)),
        "clip-cmmd": record(levels(planes(square), 255, 1, *CLIP), square),
    }


def main(path):
    tensorflow = tensorflow_resize()
    sizes = {f"{h}x{w}": cases(image(h, w), tensorflow) for h, w in SIZES}
    path.write_text(json.dumps(sizes) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "golden" / "vit_resize.json")
