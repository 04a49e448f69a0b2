"""The photographs of frozen panes that the corruption `frost` lays over an image.

Decided here: they are enlarged once, when they are read, as published for images of one size: by 1.1 (cubic), and by
as much more as it takes to cover the image.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.nn import functional

from cgn.core.errors import ArtifactError, ConfigError

DRAWN = 5
"""Of the six photographs, the published code draws among the first five only."""
ENLARGED = 1.1


def read_ice(paths: Sequence[Path], *, height: int, width: int) -> tuple[torch.Tensor, ...]:
    """(3,h,w) uint8 RGB of each photograph, h and w larger than `height` and `width`; in the order of the paths.

    Raises ArtifactError when one is missing or no picture.
    """
    return tuple(_enlarged(_read(path), height=height, width=width) for path in paths)


def check_ice(ice: Sequence[torch.Tensor], *, height: int, width: int) -> None:
    """Raise ConfigError unless there are photographs that cover images of this size."""
    if len(ice) < DRAWN:
        raise ConfigError(
            f"frost was given {len(ice)} photographs: it needs at least {DRAWN}, frost1.png to frost5.jpg; "
            "read them with cgn.corruptions.ice.read_ice"
        )
    for number, layer in enumerate(ice, start=1):
        if layer.shape[1] <= height or layer.shape[2] <= width:
            raise ConfigError(
                f"photograph {number} of frost is {layer.shape[1]}x{layer.shape[2]}, images are {height}x{width}: "
                "read the photographs with this height and width"
            )


def _read(path: Path) -> torch.Tensor:
    try:
        with Image.open(path) as picture:
            pixels = np.array(picture.convert("RGB"))  # three of them have an alpha channel, which is not used
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: run fetch again") from None
    except (UnidentifiedImageError, OSError) as error:
        raise ArtifactError(f"{path} is no whole picture ({error}): remove it and run fetch again") from None
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _enlarged(photograph: torch.Tensor, *, height: int, width: int) -> torch.Tensor:
    scale = ENLARGED * max(1.0, height / photograph.shape[1], width / photograph.shape[2])
    size = [math.ceil(side * scale) for side in photograph.shape[1:]]
    larger = functional.interpolate(photograph[None].float(), size=size, mode="bicubic", align_corners=False)
    return larger[0].round().clamp(0, 255).to(torch.uint8)
