"""Writes formats/: one image in every format and mode that is read, and beside each file in NAME.rgb what Pillow makes of it.

    python formats.py      (needs: pip install pillow)
"""

import io
import random
from pathlib import Path

from PIL import Image

OUT = Path(__file__).parent / "formats"
SIZE = (19, 13)


def picture(seed, alpha=False):
    draw = random.Random(seed)
    image = Image.new("RGBA" if alpha else "RGB", SIZE)
    for y in range(SIZE[1]):
        for x in range(SIZE[0]):
            colour = (13 * x, 19 * y, (x * y + draw.randrange(40)) % 256)
            image.putpixel((x, y), colour + ((31 * x + 7 * y) % 256,) if alpha else colour)
    return image


def write(name, image, **options):
    path = OUT / name
    image.save(path, **options)
    path.with_name(name + ".rgb").write_bytes(Image.open(path).convert("RGB").tobytes())


OUT.mkdir(exist_ok=True)
rgb, rgba = picture(1), picture(2, alpha=True)
other = picture(3)
palette = rgb.quantize(16)
write("lossless.webp", rgb, lossless=True)
write("lossless-rgba.webp", rgba, lossless=True, exact=True)
write("lossy.webp", rgb, quality=80)
write("lossy-rgba.webp", rgba, quality=60)
write("animated.webp", rgb, save_all=True, append_images=[other], lossless=True)
write("rgb.bmp", rgb)
write("grey.bmp", rgb.convert("L"))
write("palette.bmp", palette)
write("bits.bmp", rgb.convert("1"))
write("rgba.bmp", rgba)
write("palette.gif", palette)
write("transparent.gif", palette, transparency=3)
write("animated.gif", palette, save_all=True, append_images=[other.quantize(16)])
write("grey.gif", rgb.convert("L"))
write("rgb.tif", rgb)
write("lzw.tiff", rgb, compression="tiff_lzw")
write("deflate.tif", rgb, compression="tiff_adobe_deflate")
write("packbits.tif", rgb, compression="packbits")
write("grey.tif", rgb.convert("L"))
write("rgba.tif", rgba)
write("turned.tif", rgb, tiffinfo={274: 6})
write("bits.tif", rgb.convert("1"))
write("cmyk.tif", rgb.convert("CMYK"))
write("rgb.ppm", rgb)
write("grey.pgm", rgb.convert("L"))
write("bits.pbm", rgb.convert("1"))
write("rgb.jfif", rgb, format="JPEG", quality=90)
write("progressive.jpg", rgb, quality=75, progressive=True)
write("grey.jpg", rgb.convert("L"), quality=75)
write("cmyk.jpg", rgb.convert("CMYK"), quality=90)
write("palette.png", palette, transparency=3)
write("bits.png", rgb.convert("1"))
write("grey-alpha.png", rgba.convert("LA"))
