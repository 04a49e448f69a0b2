"""The corruptions of ImageNet-C, made on batches: fifteen for the benchmark and four extra, at five severities.

Hendrycks & Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR 2019,
with the parameters for 224-pixel images as the package `imagecorruptions` has them. Mini-ImageNet-C is these, on the
central 224-pixel crops of ImageNet-mini's validation images.
Decided here: a corrupted image is a function of the image, its number, the corruption, the severity and the seed, so
neither order nor batch size changes it. Every number is drawn on the CPU by the image's own generator, so a GPU makes
the same picture up to a grey level. Severity 0 is refused: it would be the clean image, which no corruption made.
ImageNet-C's own files went through JPEG (quality 85) once more when they were saved; these have not.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch

from cgn.core.errors import ConfigError
from cgn.corruptions import blur, digital, noise, weather
from cgn.corruptions.draws import Corruption, Draws, draws_for
from cgn.corruptions.filters import whole
from cgn.corruptions.ice import check_ice
from cgn.corruptions.spatter import spatter

BENCHMARK: Mapping[str, Corruption] = MappingProxyType(
    {
        "gaussian_noise": noise.gaussian_noise,
        "shot_noise": noise.shot_noise,
        "impulse_noise": noise.impulse_noise,
        "defocus_blur": blur.defocus_blur,
        "glass_blur": blur.glass_blur,
        "motion_blur": blur.motion_blur,
        "zoom_blur": blur.zoom_blur,
        "snow": weather.snow,
        "frost": weather.frost,
        "fog": weather.fog,
        "brightness": digital.brightness,
        "contrast": digital.contrast,
        "elastic_transform": digital.elastic_transform,
        "pixelate": digital.pixelate,
        "jpeg_compression": digital.jpeg_compression,
    }
)
"""The fifteen that mCE averages over, in the paper's order."""

EXTRA: Mapping[str, Corruption] = MappingProxyType(
    {
        "speckle_noise": noise.speckle_noise,
        "gaussian_blur": blur.gaussian_blur,
        "spatter": spatter,
        "saturate": digital.saturate,
    }
)
"""The four held out for validation."""

CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType({**BENCHMARK, **EXTRA})
SEVERITIES = (1, 2, 3, 4, 5)
SMALLEST = 64
"""Pixels; on a smaller image the longest motion blur is about as long as the image."""


def corrupt(
    images: torch.Tensor,
    *,
    name: str,
    severity: int,
    numbers: Sequence[int],
    seed: int,
    ice: Sequence[torch.Tensor] = (),
) -> torch.Tensor:
    """(B,3,H,W) uint8 RGB -> the same, corrupted, on the same device.

    `numbers`: B numbers, one an image, such as its place in the data set; they tell the images' random numbers apart.
    `ice`: what `ice.read_ice` made of the photographs; only the corruption `frost` needs it.
    Raises ConfigError for an unknown name or severity, for other images, and for frost without its photographs.
    """
    if len(numbers) != len(images):
        raise ConfigError(f"{len(images)} images have {len(numbers)} numbers: give one number for each image")
    draws = draws_for(numbers, name=name, severity=severity, seed=seed, device=images.device)
    return corrupt_with(images, name=name, severity=severity, draws=draws, ice=ice)


def corrupt_with(
    images: torch.Tensor, *, name: str, severity: int, draws: Draws, ice: Sequence[torch.Tensor] = ()
) -> torch.Tensor:
    """`corrupt` with the source of random numbers passed in."""
    if name not in CORRUPTIONS:
        raise ConfigError(f"unknown corruption {name!r}; known: {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ConfigError(f"severity {severity!r} of {name}: allowed are 1, 2, 3, 4 and 5 (a clean image needs none)")
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < SMALLEST:
        raise ConfigError(
            f"images of shape {tuple(images.shape)} and {images.dtype}: expected (B,3,H,W) and torch.uint8, "
            f"H and W at least {SMALLEST}"
        )
    if name == "frost":
        check_ice(ice, height=images.shape[2], width=images.shape[3])
    if not len(images):
        return images.clone()
    return whole(CORRUPTIONS[name](images.to(torch.float32), severity, draws, ice)).to(torch.uint8)
