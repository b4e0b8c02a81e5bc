"""Writes layouts/: twelve images in every layout that people keep them in, by the programs that write those.

    python layouts.py      (needs: pip install numpy pillow pyarrow)

Image i has 16×16 pixels and a red of i; its class is i % 3.
"""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

OUT = Path(__file__).parent / "layouts"
N = 12


def pixels(i):
    y, x = np.mgrid[:16, :16]
    return np.stack([np.full_like(x, i), x * 16, y * 16], -1).astype(np.uint8)


def png(i):
    out = io.BytesIO()
    Image.fromarray(pixels(i)).save(out, "PNG")
    return out.getvalue()


def table(name, labels=None, images=None, column="image", rows=range(N)):
    images = images or pa.array([{"bytes": png(i), "path": f"{i}.png"} for i in rows])
    columns = {column: images}
    if labels is not None:
        columns["label"] = labels
    (OUT / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), OUT / name)


def zipped(name, kind, names, more):
    with zipfile.ZipFile(OUT / name, "w", kind) as archive:
        for i, path in enumerate(names):
            archive.writestr(path, png(i))
        for path, text in more.items():
            archive.writestr(path, text)


OUT.mkdir(exist_ok=True)
classes = [i % 3 for i in range(N)]
for name, kind in [("uint8", pa.uint8()), ("int32", pa.int32()), ("int64", pa.int64()), ("uint16", pa.uint16())]:
    table(f"{name}.parquet", pa.array(classes, kind))
names = ["ant", "bee", "cow"]
table("text.parquet", pa.array([names[k] for k in classes]))
table("dictionary.parquet", pa.array([names[k] for k in classes]).dictionary_encode())
table("none.PARQUET")
table("unlabelled.parquet", pa.array([-1] * N))
table("null.parquet", pa.array([None] * N, pa.int64()))
table("imagenet.parquet", pa.array([i % 2 * 999 for i in range(N)]))
table("floats.parquet", pa.array([0.5] * N))
table("binary.parquet", images=pa.array([png(i) for i in range(N)]), column="picture")
table("struct.parquet", images=pa.array([{"bytes": None, "path": f"files/{i}.png"} for i in range(N)],
                                         pa.struct([("bytes", pa.binary()), ("path", pa.string())])))
table("path.parquet", images=pa.array([f"files/{i}.png" for i in range(N)]), column="file_name")
(OUT / "files").mkdir(exist_ok=True)
for i in range(N):
    (OUT / f"files/{i}.png").write_bytes(png(i))
# As a repository of the Hub is cloned.
table("hub/data/train-00000-of-00002.parquet", pa.array(classes[:5]), rows=range(5))
table("hub/data/train-00001-of-00002.parquet", pa.array(classes[5:]), rows=range(5, N))
table("hub/data/test-00000-of-00001.parquet", pa.array(classes[:4]), rows=range(4))
(OUT / "hub/README.md").write_text("A clone.\n")
(OUT / "hub/.gitattributes").write_text("")
# As StyleGAN's tool packs data sets, and as one packs a folder.
stylegan = [f"00000/img{i:08}.png" for i in range(N)]
labels = {"labels": [[path, k] for path, k in zip(stylegan, classes)]}
zipped("dataset.zip", zipfile.ZIP_STORED, stylegan, {"dataset.json": json.dumps(labels)})
# One name for two images.
zipped("twice.zip", zipfile.ZIP_STORED, ["0.png", "1.png", "0.png"], {})
with zipfile.ZipFile(OUT / "classes.ZIP", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("__MACOSX/._0.png", "x")
    for i in range(N):
        archive.writestr(f"{names[i % 3]}/{i}.png", png(i))
# As guided-diffusion saves samples.
images = np.stack([pixels(i) for i in range(N)])
np.savez(OUT / "samples.npz", images, np.array(classes))
np.savez_compressed(OUT / "compressed.npz", images)
np.save(OUT / "array.npy", images)
