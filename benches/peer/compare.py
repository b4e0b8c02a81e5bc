"""Alternates a peer and pgn-bench on the same work and prints the ratio of each pair: training updates against PyTorch's
double backward, and the cost of a method against no method; with --kernels each convolution against oneDNN; with --weights
Inception features against torch-fidelity and the Fréchet distance against scipy; with --vit DINOv2's against transformers.

    python compare.py --binaries target/release/examples [--pairs 7] [--only cnn32:pgn:critic] [--kernels] [--weights FILE]
    python compare.py --binaries target/release/examples --isa avx2 [--kernels]
    python compare.py --binaries target/release/examples --only dinov2 --vit FOLDER      (made by tests/golden/vit.py --full SIZE FOLDER)
    python compare.py --binaries target/release/examples --device cuda [--precision tf32] [--burst 20] [--compile]

Each side runs in a process of its own with the same number of threads, limited to the same instruction set with --isa. Ratios are pgn-bench's time over the peer's; for
kernels, pgn-bench's rate over the peer's. On a GPU the peer's memory is what its tensors took at most, ours what was in use
at most, workspaces included in both. Needs: pip install torch numpy scipy safetensors torch-fidelity transformers, and cargo.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CASES = [
    ("cnn32", "none", "critic"), ("cnn32", "sn", "critic"), ("cnn32", "gn", "critic"), ("cnn32", "pgn", "critic"),
    ("cnn32", "gp1", "critic"), ("cnn32", "r1r2", "critic"), ("cnn32", "pgn", "generator"), ("cnn32", "pgn", "whole"),
    ("resnet32", "none", "critic"), ("resnet32", "gn", "critic"), ("resnet32", "pgn", "critic"), ("resnet32", "r1r2", "critic"),
    ("resnet32", "pgn", "generator"), ("resnet32", "pgn", "whole"),
]
GPU_CASES = [(arch, "pgn", "whole") for arch in ("cnn32", "resnet32", "biggan32")] + [
    ("cnn32", "none", "critic"), ("cnn32", "pgn", "critic"), ("cnn32", "pgn", "generator"),
    ("resnet32", "pgn", "critic"), ("resnet32", "pgn", "generator"),
]
METHOD_COST = [("cnn32", "pgn", "none"), ("resnet32", "pgn", "none")]
ISAS = {"native": {}, "avx2": {"PGN_BENCH_ISA": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2",
                               "MKL_ENABLE_INSTRUCTIONS": "AVX2"}}


def environment(args):
    return dict(os.environ, RAYON_NUM_THREADS=str(args.threads), **ISAS[args.isa])


def run(command, args):
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment(args))
    return json.loads(done.stdout.splitlines()[-1])


def compare(name, peer, ours, args):
    pairs = [(run(peer, args), run(ours, args)) for _ in range(args.pairs)]
    theirs, mine = ([side["median_s"] for side in sides] for sides in zip(*pairs))
    ratios = sorted(o / t for t, o in zip(theirs, mine))
    memory = "–"
    if all(side.get("peak_bytes") for side in pairs[0]):
        memory = f"{statistics.median(o['peak_bytes'] / t['peak_bytes'] for t, o in pairs):.2f}×"
    print(f"| {name} | {statistics.median(theirs):.3g} | {statistics.median(mine):.3g} "
          f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f}) | {memory} |", flush=True)


def kernel_seconds(args):
    """Of our kernels, by shape and pass."""
    shapes = json.loads((Path(__file__).parent.with_name("shapes.json")).read_text())
    with tempfile.TemporaryDirectory() as home:
        env = dict(environment(args), CRITERION_HOME=home)
        subprocess.run(["cargo", "bench", "--locked", "--quiet", "--bench", "kernels", "--", "(gradient|forward)$"],
                       check=True, capture_output=True, env=env)
        return {s["name"]: {name: json.loads((Path(home) / s["name"] / name / "new" / "estimates.json").read_text())
                            ["median"]["point_estimate"] / 1e9
                            for name in ("forward", "input gradient", "weight gradient")} for s in shapes}


def kernels(args):
    layouts = {"": [], ", channels last": ["--channels-last"]}
    script = [sys.executable, str(Path(__file__).with_name("kernels.py")), "--threads", str(args.threads)]
    pairs = [([run(script + flags, args) for flags in layouts.values()], kernel_seconds(args))
             for _ in range(args.pairs)]
    print("\n| rate over oneDNN's | " + " | ".join(f"{name}{layout}" for layout in layouts for name in pairs[0][1]["cnn32 main.2"])
          + " |\n|---|---|---|---|---|---|---|")
    for shape, passes in pairs[0][1].items():
        ratios = [statistics.median(theirs[k][shape][name] / ours[shape][name] for theirs, ours in pairs)
                  for k in range(len(layouts)) for name in passes]
        print(f"| {shape} | " + " | ".join(f"{r:.2f}" for r in ratios) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", type=Path, required=True, help="folder of the built examples")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--repeat", type=int, default=3, help="rounds timed in each process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--isa", choices=ISAS, default="native", help="instruction set of both sides")
    parser.add_argument("--only", default="", help="ARCH:METHOD:WHAT, inception, fid or dinov2-SIZE; any part of it")
    parser.add_argument("--weights", help="Inception weights with pytorch-fid's names (.safetensors)")
    parser.add_argument("--vit", type=Path, help="folder with dinov2-small, -base, -large")
    parser.add_argument("--kernels", action="store_true", help="only the convolution kernels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="tf32", help="of a GPU: f32 or tf32")
    parser.add_argument("--burst", type=int, default=20, help="updates between two waits for a GPU")
    parser.add_argument("--compile", action="store_true", help="on a GPU, give the peer's networks to torch.compile")
    args = parser.parse_args()
    if args.kernels:
        return kernels(args)
    cases = [(":".join(case), "step", ["--arch", case[0], "--method", case[1], "--what", case[2]]) for case in (CASES if args.device == "cpu" else GPU_CASES)]
    if args.weights:
        cases += [("inception", "measure", ["--what", "inception", "--weights", args.weights]),
                  ("fid", "measure", ["--what", "fid"])]
    if args.vit:
        cases += [(file.parent.name, "vit", ["--what", "dinov2", "--weights", str(file), "--images", "16"])
                  for file in sorted(args.vit.glob("dinov2-*/model.safetensors"))]
    if args.device != "cpu":
        # The distance itself is computed on the CPU.
        cases = [(name, script, flags + ["--device", args.device, "--precision", args.precision]
                  + (["--burst", str(args.burst)] if script == "step" else ["--images", "1000"]))
                 for name, script, flags in cases if name != "fid"]
    print("| work | peer s | pgn-bench s | ratio (median, min–max) | peak memory |\n|---|---|---|---|---|", flush=True)
    for name, script, flags in cases:
        if args.only not in name:
            continue
        flags = flags + ["--repeat", str(args.repeat)]
        peer = [sys.executable, str(Path(__file__).with_name(script + ".py")), "--threads", str(args.threads)]
        compiled = ["--compile"] if args.compile and script == "step" else []
        binary = args.binaries / ("measure" if script == "vit" else script)
        compare(name, peer + flags + compiled, [str(binary)] + flags, args)
    for arch, method, base in METHOD_COST if args.device == "cpu" else []:
        name = f"{arch}:{method}:critic over {base}"
        if args.only in name:
            sides = [[str(args.binaries / "step"), "--arch", arch, "--method", m, "--what", "critic",
                      "--repeat", str(args.repeat)] for m in (base, method)]
            compare(name, *sides, args)


if __name__ == "__main__":
    main()
