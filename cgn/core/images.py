"""Images: conversion between floats in [-1,1] and bytes, PNG, and sheets of examples.

Legend: B batch, H height, W width. Floats are (B,3,H,W) or (B,1,H,W) tensors; bytes are (B,H,W,3) or (B,H,W) uint8.
[-1,1] maps linearly to [0,255], rounded; no image is stretched to its own minimum and maximum.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cgn.core.files import replacing

if TYPE_CHECKING:
    import torch

TILE_PIXELS = (64, 256)
"""The smallest and the largest tile of a sheet."""
LABEL = (122, 130, 140)
"""Grey that can be read on white and on black: a sheet is transparent between its tiles."""
Bytes = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def to_bytes(images: "torch.Tensor") -> Bytes:
    """(B,C,H,W) floats in [-1,1] -> (B,H,W,C) uint8; values outside are clipped."""
    import torch

    scaled = images.detach().float().add(1).mul(127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def from_bytes(images: "Bytes | torch.Tensor") -> "torch.Tensor":
    """(B,H,W,C) uint8 -> (B,C,H,W) float32 in [-1,1]; the inverse of `to_bytes` to half a grey level."""
    import torch

    return torch.as_tensor(images).permute(0, 3, 1, 2).to(torch.float32).div(127.5).sub(1).contiguous()


def png(image: Bytes) -> bytes:
    """One (H,W,3) or (H,W) uint8 image as PNG. Equal pixels give equal bytes for one version of Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def sheet(
    rows: Sequence[tuple[str, "torch.Tensor"]], *, tile_pixels: int | None = None, gap_pixels: int = 3
) -> Image.Image:
    """One labelled row of tiles for each (name, (B,1 or 3,H,W) images in [-1,1]).

    Images become tiles of `tile_pixels`: enlarged without blur, or reduced by averaging pixels. Without `tile_pixels`,
    tiles have the size of the largest image, within TILE_PIXELS.
    """
    if tile_pixels is None:
        smallest, largest = TILE_PIXELS
        tile_pixels = max(smallest, min(largest, max(images.shape[-1] for _, images in rows)))
    font = ImageFont.load_default(size=max(12, tile_pixels // 5))
    margin = max(int(font.getlength(name)) for name, _ in rows) + 4 * gap_pixels
    step = tile_pixels + gap_pixels
    columns = max(len(images) for _, images in rows)
    page = Image.new("RGBA", (margin + columns * step, len(rows) * step + gap_pixels))
    pen = ImageDraw.Draw(page)
    for row, (name, images) in enumerate(rows):
        top = gap_pixels + row * step
        pen.text((2 * gap_pixels, top + tile_pixels // 2), name, fill=LABEL, font=font, anchor="lm")
        for column, image in enumerate(to_bytes(images.expand(-1, 3, -1, -1))):
            kind = Image.Resampling.NEAREST if len(image) <= tile_pixels else Image.Resampling.BOX
            tile = Image.fromarray(image).resize((tile_pixels, tile_pixels), kind)
            page.paste(tile, (margin + column * step, top))
    return page


def save_image(image: Image.Image, path: Path) -> None:
    """Save as PNG, whole or not at all."""
    with replacing(path) as temporary:
        image.save(temporary, format="PNG", optimize=True)
