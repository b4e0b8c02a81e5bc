"""Writes small files in the true formats of data sets, by the libraries that write the real ones.

    python make.py      (needs: pip install lmdb pyarrow pillow numpy torch safetensors)

Image i is a gradient whose red is i. lmdb-*: environments with keys 0, 1, …; with keys side-index and a length; raw.
faces.parquet: a Hugging Face image table. cifar-10-python.tar.gz, cifar-10-binary.tar.gz: two images a batch. small.jpg, small.rgb: a JPEG and its pixels.
released.pt: a checkpoint as the released code saves it, resnet32 at 1/128 width after two steps; released.safetensors: latents
and the images of its two generators.
"""

import io
import pickle
import shutil
import sys
import tarfile
from pathlib import Path

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save_file

HERE = Path(__file__).parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE.parents[1] / "benches/peer"))
from networks import ResnetCritic, ResnetGenerator  # noqa: E402


def image(i, side):
    y, x = np.mgrid[:side, :side]
    return np.stack([np.full_like(x, i), x * 255 // side, y * 255 // side], -1).astype(np.uint8)


def encoded(i, side, kind):
    out = io.BytesIO()
    Image.fromarray(image(i, side)).save(out, kind)
    return out.getvalue()


def environment(name, entries):
    shutil.rmtree(HERE / name, ignore_errors=True)
    with lmdb.open(str(HERE / name), map_size=1 << 20) as env, env.begin(write=True) as txn:
        for key, value in entries:
            txn.put(key.encode(), value)
    (HERE / name / "lock.mdb").unlink()


def python2(name, labels, planes):
    """The batch as Python 2 pickled it, with byte strings, which Python 3 no longer writes."""
    text = lambda s: b"U" + bytes([len(s)]) + s.encode()
    small = lambda n: b"K" + bytes([n]) if n < 256 else b"M" + n.to_bytes(2, "little")
    dtype = (b"cnumpy\ndtype\n" + text("u1") + small(0) + small(1) + b"\x87R(" + small(3) + text("|") + b"NNN"
             + 2 * b"J\xff\xff\xff\xff" + small(0) + b"tb")
    data = planes.tobytes()
    array = (b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + small(0) + b"\x85" + text("b") + b"\x87R("
             + small(1) + small(planes.shape[0]) + small(planes.shape[1]) + b"\x86" + dtype + b"\x89"
             + b"T" + len(data).to_bytes(4, "little") + data + b"tb")
    return (b"\x80\x02}(" + text("batch_label") + text(name) + text("labels") + b"](" + b"".join(map(small, labels))
            + b"e" + text("data") + array + text("filenames") + b"](" + len(labels) * text("x.png") + b"eu.")


def cifar():
    batches = {f"data_batch_{k}": range(2 * k - 2, 2 * k) for k in range(1, 6)} | {"test_batch": range(10, 12)}
    with tarfile.open(HERE / "cifar-10-python.tar.gz", "w:gz") as python, \
            tarfile.open(HERE / "cifar-10-binary.tar.gz", "w:gz") as binary:
        # The archives are not in order of number.
        for name, indices in sorted(batches.items(), reverse=True):
            planes = np.stack([image(i, 32).transpose(2, 0, 1).reshape(-1) for i in indices])
            labels = [i % 10 for i in indices]
            pickled = python2(name, labels, planes)
            assert np.array_equal(pickle.loads(pickled, encoding="bytes")[b"data"], planes)
            records = b"".join(bytes([label]) + plane.tobytes() for label, plane in zip(labels, planes))
            for archive, member, content in ((python, f"cifar-10-batches-py/{name}", pickled),
                                             (binary, f"cifar-10-batches-bin/{name}.bin", records)):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def jpeg():
    """An image of odd size with colour in fine detail, and what Pillow decodes it to."""
    y, x = np.mgrid[:24, :31]
    pixels = np.stack([x * 37 % 256, y * 53 % 256, (x + y) * 29 % 256], -1).astype(np.uint8)
    Image.fromarray(pixels).save(HERE / "small.jpg", quality=80, subsampling="4:2:0")
    (HERE / "small.rgb").write_bytes(np.asarray(Image.open(HERE / "small.jpg")).tobytes())


def released():
    torch.manual_seed(1)
    generator, average, critic = ResnetGenerator(2), ResnetGenerator(2), ResnetCritic(1)
    optim_g, optim_d = (torch.optim.Adam(net.parameters(), betas=(0.0, 0.9)) for net in (generator, critic))
    for _ in range(2):
        for optimiser, sign in ((optim_d, 1), (optim_g, -1)):
            optimiser.zero_grad()
            (sign * critic(generator(torch.randn(4, 128))).mean()).backward()
            optimiser.step()
    z = torch.randn(6, 128)
    with torch.no_grad():
        save_file({"z": z, "raw": generator(z), "ema": average(z)}, HERE / "released.safetensors")
    torch.save({"net_G": generator.state_dict(), "net_D": critic.state_dict(), "ema_G": average.state_dict(),
                "optim_G": optim_g.state_dict(), "optim_D": optim_d.state_dict(), "fixed_z": z, "best_IS": 1.0,
                "best_FID": 100.0, "step": 2}, HERE / "released.pt")


def main():
    # Enough entries for branch pages, and one value that needs pages of its own.
    environment("lmdb-index", [(str(i), encoded(i, 16, "PNG")) for i in range(120)])
    environment("lmdb-side", [(f"16-{i:05}", encoded(i, 16, "JPEG")) for i in range(20)] + [("length", b"20")])
    environment("lmdb-raw", [(str(i), image(i, 48).tobytes()) for i in range(12)])
    environment("lmdb-sizes", [("8-00000", encoded(0, 8, "PNG")), ("16-00000", encoded(0, 16, "PNG"))])
    images = [{"bytes": encoded(i, 16, "PNG"), "path": f"{i}.png"} for i in range(30)]
    table = pa.table({"image": pa.array(images), "label": pa.array([i % 2 for i in range(30)], pa.int64())})
    pq.write_table(table, HERE / "faces.parquet", row_group_size=8)
    cifar()
    jpeg()
    released()


if __name__ == "__main__":
    main()
