"""Makes the small PyTorch files of this folder: the same two tensors in both containers, and files that are bad in one way
each.

    python make.py [FOLDER]

Needs: pip install torch numpy
"""

import os
import pickle
import sys
from pathlib import Path

import torch

GOOD = {"Conv2d_1a_3x3.conv.weight": torch.arange(864, dtype=torch.float32).reshape(32, 3, 3, 3) / 864,
        "Conv2d_1a_3x3.bn.num_batches_tracked": torch.tensor(7)}


class Malicious:
    def __reduce__(self):
        return os.system, ("touch pgn-bench-was-here",)


def main(folder):
    def save(name, tensors, **options):
        torch.save(tensors, folder / name, **options)

    save("zip.pth", GOOD)
    save("legacy.pth", GOOD, _use_new_zipfile_serialization=False)
    save("shape.pth", GOOD | {"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 3, 5, 5)}, _use_new_zipfile_serialization=False)
    save("dtype.pth", GOOD | {"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 3, 3, 3, dtype=torch.int64)})
    save("complex.pth", GOOD | {"x": torch.zeros(2, dtype=torch.complex64)})
    save("expand.pth", {"a": torch.zeros(1).expand(2_400_000_000)}, _use_new_zipfile_serialization=False)
    save("renamed.pth", {"net." + k: v for k, v in GOOD.items()})
    (folder / "malicious.pth").write_bytes(pickle.dumps({"Conv2d_1a_3x3.conv.weight": Malicious()}, protocol=2))
    save("malicious_zip.pth", GOOD | {"x": Malicious()})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
