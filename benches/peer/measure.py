"""Times the metrics of torch-fidelity and scipy: the counterpart of `examples/measure.rs`.

    python measure.py --what inception --weights inception.safetensors --repeat 3 --threads 2
    python measure.py --what inception --weights inception.safetensors --repeat 3 --device cuda --precision f32 --images 1000
    python measure.py --what fid --repeat 3 --threads 2

inception: features of --images images of 32x32 pixels by torch-fidelity's extractor, on a GPU 125 at a time. fid: mean, covariance and the distance by
scipy's matrix square root, as pytorch-fid computes it, of two sets of 5,000 features of 2,048 dimensions.
Prints one line of JSON after one warm-up. Needs: pip install torch numpy scipy safetensors torch-fidelity
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time

SHAPE = (5000, 2048)


def inception(weights, count, device, precision):
    import torch
    from safetensors.torch import load_file
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    state = {k: v.float() for k, v in load_file(weights).items()}
    state |= {k.replace("weight", "num_batches_tracked"): torch.tensor(0) for k in state if k.endswith("bn.weight")}
    state |= {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save(state, file.name)
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=file.name)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    if device != "cpu":
        network = network.to(device).to(memory_format=torch.channels_last)
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision != "f32"

    def run():
        with torch.no_grad():
            for part in images.split(count if device == "cpu" else 125):
                network(part.to(device))[0].cpu()

    return run


def fid():
    import numpy as np
    from scipy import linalg

    rng = np.random.default_rng(0)
    sets = [rng.standard_normal(SHAPE, dtype=np.float32) for _ in range(2)]

    def run():
        (m1, c1), (m2, c2) = ((x.mean(0, dtype=np.float64), np.cov(x, rowvar=False)) for x in sets)
        root = linalg.sqrtm(c1 @ c2)
        return ((m1 - m2) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2 * np.trace(root).real

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=["inception", "fid"], required=True)
    parser.add_argument("--weights")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["f32", "tf32"], help="tf32 if not given, on a GPU")
    args = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    run = inception(args.weights, args.images, args.device, args.precision) if args.what == "inception" else fid()
    times = []
    for _ in range(1 + args.repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    print(json.dumps({"what": args.what, "median_s": statistics.median(times[1:]), "times_s": times[1:]}))


if __name__ == "__main__":
    sys.exit(main())
