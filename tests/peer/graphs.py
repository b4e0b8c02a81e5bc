"""Compares exported graphs with the generators they are of: the same latents, the same images in onnxruntime and here.

    PGN_BENCH_EXPORTS=exports cargo test --release --test export
    python graphs.py --binary target/release/pgn-bench exports

exports: a folder of exported runs; those of the test are every architecture, with both statistics of batch normalisation, and a run with
numbers. Each graph is checked by the onnx package, its README's metadata read by PyYAML and huggingface_hub, its program run. Prints the
largest difference of images and exits with 1 where it is above 1e-4.
Needs: pip install onnx onnxruntime safetensors pyyaml huggingface_hub pillow
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx
import onnxruntime
import yaml
from huggingface_hub import ModelCard
from safetensors.numpy import load_file

LARGEST = 1e-4


def images(binary, export, graph, folder):
    """Latents, classes and images of the imported run, by the generator and statistics that the graph says."""
    notes = {note.key: note.value for note in graph.metadata_props}
    mode = "running" if "running statistics" in notes["batch_norm"] else "batch"
    subprocess.run([binary, "import", export, "-o", folder / "run"], check=True, stdout=subprocess.DEVNULL)
    (run,) = (path.parent for path in (folder / "run").rglob("checkpoint.safetensors"))
    out = folder / "images.safetensors"
    args = ["sample", run, "-n", "32", "-o", out, "--generator", notes["generator"], "--batch-norm", mode]
    subprocess.run([binary, *args], check=True)
    return load_file(out)


def check_card(export, folder):
    """How many results the Hub reads, and how many pictures the program draws."""
    text = (export / "README.md").read_text()
    yaml.safe_load(text.split("---\n")[1])
    results = ModelCard(text).data.eval_results or []
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    home = os.getcwd()
    try:
        os.chdir(folder)
        os.symlink(export / "generator.onnx", "generator.onnx")
        exec(compile(program, "README.md", "exec"), {})
    finally:
        os.chdir(home)
    return len(results), len(list(folder.glob("*.png")))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, type=Path)
    parser.add_argument("exports", type=Path)
    args = parser.parse_args()
    worst = 0
    print("| export | largest difference of 32 images | largest value | results read | pictures drawn |\n|---|---|---|---|---|")
    for export in sorted(path.parent.resolve() for path in args.exports.glob("*/generator.onnx")):
        graph = onnx.load(export / "generator.onnx")
        onnx.checker.check_model(graph, full_check=True)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            ours = images(args.binary.resolve(), export, graph, folder)
            feeds = {"z": ours["z"]} | ({"y": ours["labels"].argmax(1)} if "labels" in ours else {})
            (theirs,) = onnxruntime.InferenceSession(export / "generator.onnx").run(None, feeds)
            assert theirs.shape == ours["images"].shape and theirs.dtype == "float32"
            difference = abs(theirs - ours["images"]).max()
            results, pictures = check_card(export, folder)
        print(f"| {export.name} | {difference:.1e} | {abs(theirs).max():.3f} | {results} | {pictures} |")
        worst = max(worst, difference)
    sys.exit(1 if worst > LARGEST else 0)


if __name__ == "__main__":
    main()
