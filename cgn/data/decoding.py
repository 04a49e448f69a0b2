"""Decoding: an image file from outside -> 8-bit RGB, within bounds.

A file's format is recognised by its bytes, not its name, and only those of `FORMATS` are tried. Pixels
are read as torchvision reads them (greyscale is repeated, an alpha channel is dropped, CMYK is converted by Pillow),
with two exceptions: 16-bit greyscale keeps its high byte, as 16-bit colour does, where a plain conversion would clip it
to white; and an image is rotated as its EXIF says. A broken EXIF block is ignored. An image of more than `MAX_PIXELS`
is not read: it would take hundreds of megabytes in each process that reads some.
"""

import io
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

# What Pillow's readers raise for bytes that contradict their header.
DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, ArithmeticError, struct.error,
    MemoryError, RecursionError, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


def check_pixels(image: Image.Image) -> None:
    """Raise ValueError for an image, opened and not loaded, that has too many pixels."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"it has {width} x {height} = {width * height:,} pixels, allowed: {MAX_PIXELS:,}")


def decode(file: Path | bytes, *, name: str = "") -> Image.Image:
    """An image file, or its bytes, as mode RGB.

    Raises ArtifactError naming it, by its path or `name`, when its pixels cannot all be read, or are too many.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about odd metadata, which does not matter here
            with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS) as image:
                check_pixels(image)
                image.load()
                return _rgb(_upright(image))
    except DECODE_ERRORS as error:
        raise ArtifactError(f"{name or readable(str(file))} cannot be read: {_reason(error)}") from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        high = np.asarray(image).astype(np.uint16) >> 8
        return Image.fromarray(high.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode!r} have no agreed range; save it with 8 or 16 bits a channel")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except DECODE_ERRORS:
        return image


def _reason(error: BaseException) -> str:
    """Pillow's message without the path, which is in ours."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is not an image of a known format ({', '.join(FORMATS)})"
    if isinstance(error, Image.DecompressionBombError):  # of twice the pixels that Pillow's own limit allows
        count = re.search(r"\((\d+) pixels\)", str(error))
        return f"it has {int(count[1]) if count else 'too many':,} pixels, allowed: {MAX_PIXELS:,}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__
