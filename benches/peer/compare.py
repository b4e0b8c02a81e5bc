"""Alternates PyTorch (double backward) and pgn-bench on the same training update and prints the ratio of each pair.

    python compare.py --binary target/release/examples/step [--pairs 3] [--only cnn32:pgn:critic]

Each side runs in a process of its own with the same number of threads. Ratios are pgn-bench's time over PyTorch's.
Needs: pip install torch numpy safetensors
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

CASES = [
    ("cnn32", "none", "critic"), ("cnn32", "sn", "critic"), ("cnn32", "gn", "critic"), ("cnn32", "pgn", "critic"),
    ("cnn32", "gp1", "critic"), ("cnn32", "pgn", "generator"), ("cnn32", "pgn", "whole"),
    ("resnet32", "none", "critic"), ("resnet32", "pgn", "critic"), ("resnet32", "pgn", "generator"),
    ("resnet32", "pgn", "whole"),
]


def run(command, threads):
    env = dict(os.environ, RAYON_NUM_THREADS=str(threads))
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=3, help="updates timed in each process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="ARCH:METHOD:WHAT, any part of it")
    args = parser.parse_args()
    peer = [sys.executable, str(Path(__file__).with_name("step.py")), "--threads", str(args.threads)]
    print("| update | PyTorch s | pgn-bench s | ratio (median, min–max) | peak memory |\n|---|---|---|---|---|", flush=True)
    for case in CASES:
        if args.only not in ":".join(case):
            continue
        flags = ["--arch", case[0], "--method", case[1], "--what", case[2], "--repeat", str(args.repeat)]
        pairs = [(run(peer + flags, args.threads), run([args.binary] + flags, args.threads)) for _ in range(args.pairs)]
        theirs, ours = ([side["median_s"] for side in sides] for sides in zip(*pairs))
        ratios = sorted(o / t for t, o in zip(theirs, ours))
        memory = statistics.median(o["peak_rss_bytes"] / t["peak_rss_bytes"] for t, o in pairs)
        print(f"| {' '.join(case)} | {statistics.median(theirs):.3f} | {statistics.median(ours):.3f} "
              f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f}) | {memory:.2f}× |", flush=True)


if __name__ == "__main__":
    main()
