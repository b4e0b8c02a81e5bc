"""Times the convolutions of shapes.json and their gradients in PyTorch (oneDNN), float32 on the CPU.

    python kernels.py --threads 2 [--channels-last]

Prints one line of JSON: seconds by shape and pass. Needs: pip install torch
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

SHAPES = json.loads(Path(__file__).parent.with_name("shapes.json").read_text())


def seconds(run):
    run()
    times, begin = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - begin < 0.2:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def passes(shape, layout):
    stride, padding, groups = [shape["stride"]] * 2, shape["padding"], shape.get("groups", 1)
    x = torch.randn(shape["images"], shape["in"], shape["side"], shape["side"]).contiguous(memory_format=layout)
    w = torch.randn(shape["out"], shape["in"] // groups, *shape["kernel"]).contiguous(memory_format=layout)
    dy = torch.conv2d(x, w, None, stride, padding, 1, groups)

    def gradient(mask):
        return lambda: torch.ops.aten.convolution_backward(
            dy, x, w, None, stride, padding, [1, 1], False, [0, 0], groups, mask)

    return {
        "forward": lambda: torch.conv2d(x, w, None, stride, padding, 1, groups),
        "input gradient": gradient([True, False, False]),
        "weight gradient": gradient([False, True, False]),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--channels-last", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    with torch.no_grad():
        print(json.dumps({s["name"]: {name: seconds(run) for name, run in passes(s, layout).items()} for s in SHAPES}))


if __name__ == "__main__":
    main()
