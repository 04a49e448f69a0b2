"""Random resized crops and mirror images, as torchvision's RandomResizedCrop and RandomHorizontalFlip draw them.

Legend: B pictures, S side of a crop.
Decided here: chance comes from outside, as rows of numbers in [0,1), so a picture's crop is a function of its row. A
crop covers `smallest` to all of the area, at a ratio of width to height of 3/4 to 4/3, even in its logarithm; ten tries
to fit it in, then the largest central one of an allowed ratio. Cut and shrunk by Pillow (bilinear, antialiased).
"""

import math

import numpy as np
import torch
from PIL import Image

TRIES = 10
NUMBERS = 2 * TRIES + 3
"""In a row: area and ratio of each try, then top, left and whether it is mirrored."""
NARROWEST, WIDEST = 3 / 4, 4 / 3


def draw(count: int, *, stream: torch.Generator) -> torch.Tensor:
    """(count, NUMBERS) float64 in [0,1)."""
    return torch.rand((count, NUMBERS), generator=stream, dtype=torch.float64)


def boxes(numbers: torch.Tensor, *, sizes: torch.Tensor, smallest: float) -> torch.Tensor:
    """Rows (B,NUMBERS), (B,2) widths and heights in pixels -> (B,4) int64: left, top, right, bottom."""
    tries = numbers[:, : 2 * TRIES].view(-1, TRIES, 2)
    width, height = sizes.double().unbind(1)
    area = (width * height)[:, None] * (smallest + (1 - smallest) * tries[..., 0])
    ratio = (math.log(NARROWEST) + (math.log(WIDEST) - math.log(NARROWEST)) * tries[..., 1]).exp()
    wide, high = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (wide >= 1) & (wide <= width[:, None]) & (high >= 1) & (high <= height[:, None])
    first = fits.int().argmax(1, keepdim=True)
    some = fits.any(1)
    central_wide = torch.minimum(width, (height * WIDEST).round())
    central_high = torch.minimum(height, (width / NARROWEST).round())
    wide = torch.where(some, wide.gather(1, first)[:, 0], central_wide)
    high = torch.where(some, high.gather(1, first)[:, 0], central_high)
    top = torch.where(some, (numbers[:, -3] * (height - high + 1)).floor(), ((height - high) / 2).floor())
    left = torch.where(some, (numbers[:, -2] * (width - wide + 1)).floor(), ((width - wide) / 2).floor())
    return torch.stack([left, top, left + wide, top + high], 1).long()


def crops(pictures: list[Image.Image], numbers: torch.Tensor, *, size: int, smallest: float) -> torch.Tensor:
    """B pictures of mode RGB and their rows (B,NUMBERS) -> (B,3,size,size) uint8."""
    sizes = torch.tensor([picture.size for picture in pictures]).view(-1, 2)
    out = np.empty((len(pictures), size, size, 3), dtype=np.uint8)
    chosen = boxes(numbers, sizes=sizes, smallest=smallest).tolist()
    for place, (picture, box, mirror) in enumerate(zip(pictures, chosen, numbers[:, -1].tolist(), strict=True)):
        cut = np.asarray(picture.crop(box).resize((size, size), Image.Resampling.BILINEAR))
        out[place] = cut[:, ::-1] if mirror < 0.5 else cut
    return torch.from_numpy(out).permute(0, 3, 1, 2)
