"""The corruptions of ImageNet-C, applied to batches: fifteen for the benchmark and four extra, at five severities.

Hendrycks & Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR 2019,
with the parameters for 224-pixel images of the package `imagecorruptions`. The files of ImageNet-C were saved as JPEG
(quality 85) after the corruption; these images are not.

A corrupted image is a function of the image, its number, the corruption, the severity and the seed; neither order nor
batch size changes it, and a GPU returns the same image up to one grey level. Mini-ImageNet-C is the fifteen on the
central 224-pixel crops of ImageNet-mini's validation images.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch

from cgn.core.errors import ConfigError
from cgn.corruptions import blur, digital, weather
from cgn.corruptions.filters import whole
from cgn.corruptions.random_numbers import Corruption, RandomNumbers, random_numbers
from cgn.corruptions.weather import check_ice, spatter

BENCHMARK: Mapping[str, Corruption] = MappingProxyType(
    {
        "gaussian_noise": digital.gaussian_noise,
        "shot_noise": digital.shot_noise,
        "impulse_noise": digital.impulse_noise,
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
        "speckle_noise": digital.speckle_noise,
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

    `numbers`: B numbers, one for each image, such as its index in the dataset; each seeds its image's random numbers.
    `ice`: the photographs from `weather.read_ice`; only the corruption `frost` needs them.
    Raises ConfigError for an unknown name or severity, for images of another type or size, and for frost without its
    photographs.
    """
    if len(numbers) != len(images):
        raise ConfigError(f"{len(images)} images have {len(numbers)} numbers: give one number for each image")
    draws = random_numbers(numbers, name=name, severity=severity, seed=seed, device=images.device)
    return corrupt_with(images, name=name, severity=severity, draws=draws, ice=ice)


def corrupt_with(
    images: torch.Tensor, *, name: str, severity: int, draws: RandomNumbers, ice: Sequence[torch.Tensor] = ()
) -> torch.Tensor:
    """`corrupt` with the random numbers passed in."""
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
