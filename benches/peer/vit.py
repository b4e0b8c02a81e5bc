"""Times DINOv2 of transformers, as EDM2 measures with it (images of 32x32 pixels, PyTorch's antialiased bicubic): the counterpart of
`examples/measure.rs --what dinov2`.

    python ../../tests/golden/vit.py --full large FOLDER          random weights: dinov2-large/model.safetensors
    python vit.py --weights FOLDER/dinov2-large/model.safetensors --repeat 3 --threads 2 [--images 16] [--batch 16] [--device cuda]

Prints one line of JSON after one warm-up. Needs: pip install torch numpy safetensors transformers
"""

import argparse
import json
import os
import statistics
import sys
import time


def network(weights):
    from transformers import Dinov2Model

    return Dinov2Model.from_pretrained(os.path.dirname(os.path.abspath(weights))).eval().requires_grad_(False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=["dinov2"], default="dinov2")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["f32", "tf32"], help="tf32 if not given, on a GPU")
    args = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    import torch

    torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = args.precision != "f32"
    model = network(args.weights).to(args.device)
    images = torch.randint(0, 256, (args.images, 3, 32, 32), dtype=torch.uint8)
    mean, deviation = (torch.tensor(v, device=args.device).reshape(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))

    def run():
        with torch.inference_mode():
            for part in images.split(args.batch):
                x = torch.nn.functional.interpolate(part.to(args.device).float(), size=(224, 224), mode="bicubic", antialias=True)
                model(pixel_values=(x / 255 - mean) / deviation).last_hidden_state[:, 0].cpu()

    times = []
    for _ in range(1 + args.repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    print(json.dumps({"what": args.what, "median_s": statistics.median(times[1:]), "times_s": times[1:]}))


if __name__ == "__main__":
    sys.exit(main())
