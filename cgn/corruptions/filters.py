"""The linear maps that several corruptions share: separable ones as two matrices, the others by Fourier transform.

A blur along rows and columns is two products with square matrices. Their size does not depend on the blur's width, they
contain the treatment of the border, and each image has its own product or transform: so the result does not depend on
the batch.

Shapes: B batch, C channels, H height, W width; float32 grey levels.
"""

import math
from typing import Literal

import torch
from torch.nn import functional

ROUNDING = 2e-4
"""Grey levels: the error of float32. A value this little below a whole level counts as that level."""


def whole(images: torch.Tensor) -> torch.Tensor:
    """Grey levels clipped to [0,255] and floored (not rounded, as published); still float32."""
    return images.add(ROUNDING).clamp(0, 255).floor()


def separable(images: torch.Tensor, *, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """(B,C,H,W) -> rows (h,H) @ each channel @ columns (w,W) transposed: (B,C,h,w)."""
    flat = images.flatten(0, 1)
    mixed = torch.bmm(torch.bmm(rows.expand(len(flat), -1, -1), flat), columns.T.expand(len(flat), -1, -1))
    return mixed.view(*images.shape[:2], *mixed.shape[1:])


def gaussian(
    size: int,
    *,
    sigma: float,
    device: torch.device,
    widths: float = 4,
    border: Literal["repeated", "mirrored"] = "repeated",
) -> torch.Tensor:
    """(size,size): the Gaussian blur of a line, cut at `widths` standard deviations; its rows add up to 1."""
    reach = int(widths * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-offsets.double().square() / (2 * sigma**2))
    places = torch.arange(size)[:, None] + offsets
    if border == "mirrored":  # ... 2 1 0 | 0 1 2 ...
        places = torch.where(places < 0, -1 - places, torch.where(places >= size, 2 * size - 1 - places, places))
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix.scatter_add_(1, places.clamp(0, size - 1), (weights / weights.sum()).expand(size, -1))
    return matrix.to(device, torch.float32)


def blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """(B,C,H,W) -> its Gaussian blur, the border pixel repeated."""
    rows, columns = (gaussian(size, sigma=sigma, device=images.device) for size in images.shape[-2:])
    return separable(images, rows=rows, columns=columns)


def correlated(images: torch.Tensor, kernels: torch.Tensor, *, border: Literal["replicate", "reflect"]) -> torch.Tensor:
    """(B,C,H,W) with (B or 1,k,k) kernels, k odd: at each place the sum of kernel times surroundings."""
    reach, (height, width) = kernels.shape[-1] // 2, images.shape[-2:]
    padded = functional.pad(images, (reach,) * 4, mode=border)
    size = [32 * math.ceil(side / 32) for side in padded.shape[-2:]]  # lengths with small factors
    # Each image by itself: the last bits of a transform depend on how many are done together.
    spectra = [torch.fft.rfft2(kernel, s=size).conj() for kernel in kernels]
    spectra *= len(images) // len(kernels)
    pairs = zip(padded, spectra, strict=True)
    found = [torch.fft.irfft2(torch.fft.rfft2(image, s=size) * spectrum, s=size) for image, spectrum in pairs]
    return torch.stack(found)[..., :height, :width]


def streaks(degrees: torch.Tensor, *, radius: int, sigma: float) -> torch.Tensor:
    """(B,) directions -> (B,k,k) kernels of a motion by 0 to 2 * radius pixels, weighted by half a Gaussian."""
    steps = torch.arange(2 * radius + 1, dtype=torch.float64, device=degrees.device)
    weights = torch.exp(-steps.square() / (2 * sigma**2))
    angles = torch.deg2rad(degrees.double())[:, None]
    rows = torch.ceil(steps * angles.sin() - 0.5).long() + 2 * radius
    columns = torch.ceil(steps * angles.cos() - 0.5).long() + 2 * radius
    side = 4 * radius + 1
    kernels = torch.zeros(len(degrees), side * side, dtype=torch.float64, device=degrees.device)
    kernels.scatter_add_(1, rows * side + columns, (weights / weights.sum()).expand(len(degrees), -1))
    return kernels.float().view(-1, side, side)


def magnified(images: torch.Tensor, factor: float) -> torch.Tensor:
    """(B,C,H,W) -> its middle `factor` times as large, linearly interpolated from corner to corner: at least (H,W).

    Not torch's own interpolation: its last bits depend on the number of threads. Whole rows are taken, once along each
    axis: selecting columns is ten times slower.
    """
    for _ in ("rows", "columns"):
        size = images.shape[-2]
        kept = math.ceil(size / factor)
        places = torch.linspace(0, kept - 1, round(kept * factor), dtype=torch.float64, device=images.device)
        before = places.long().clamp(max=kept - 2)
        first = (size - kept) // 2 + before
        part = (places - before).float()[:, None]
        rows = torch.lerp(images.index_select(-2, first), images.index_select(-2, first + 1), part)
        images = rows.mT.contiguous()
    return images
