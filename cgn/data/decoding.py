"""Pictures as they are found in benchmark folders -> 8-bit RGB: one decoder for all of them.

Decided here: what a file is, its bytes say, not its name, and only the formats of `FORMATS` are tried. Pixels are taken
as torchvision's reader takes them (greyscale is repeated, an alpha channel is dropped, CMYK goes by Pillow's formula),
with two exceptions: 16-bit greyscale keeps its high byte, as 16-bit colour does, where a plain conversion would clip it
to white; and a picture whose EXIF says that it lies on its side is turned upright. A broken EXIF block turns nothing.
A picture of more than `MAX_PIXELS` is not read: it would take hundreds of megabytes in each process that reads some.
"""

import re
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cgn.core.errors import ArtifactError
from cgn.core.files import readable

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})

MAX_PIXELS = 1 << 26
"""8192 x 8192; cameras take up to 61 million, and Pillow warns from 89 million on."""

# What Pillow's readers raise at bytes that are not what their header promises.
BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, ArithmeticError, struct.error,
    MemoryError, RecursionError, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


def check_pixels(picture: Image.Image) -> None:
    """Raise ValueError for a picture, opened and not loaded, that has too many pixels."""
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"it has {width} x {height} = {width * height:,} pixels, allowed: {MAX_PIXELS:,}")


def decode(path: Path) -> Image.Image:
    """One picture as mode RGB. Raises ArtifactError naming the file when its pixels cannot all be read, or too many."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata; the pixels count here
            with Image.open(path, formats=FORMATS) as picture:
                check_pixels(picture)
                picture.load()
                return _rgb(_upright(picture))
    except BROKEN as error:
        raise ArtifactError(f"{readable(str(path))} cannot be read: {_reason(error)}") from None


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        high = np.asarray(picture).astype(np.uint16) >> 8
        return Image.fromarray(high.astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {picture.mode!r} have no agreed range; save it with 8 or 16 bits a channel")
    if picture.mode == "P" and "transparency" in picture.info:
        return picture.convert("RGBA").convert("RGB")
    return picture.convert("RGB")


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except BROKEN:
        return picture


def _reason(error: BaseException) -> str:
    """Pillow's words without the path, which the message has already."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is no picture of a known format ({', '.join(FORMATS)})"
    if isinstance(error, Image.DecompressionBombError):  # of twice the pixels that Pillow's own limit allows
        count = re.search(r"\((\d+) pixels\)", str(error))
        return f"it has {int(count[1]) if count else 'too many':,} pixels, allowed: {MAX_PIXELS:,}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__
