"""The corruptions' random numbers: one generator for each image, seeded by everything that defines the image.

The numbers are drawn on the CPU, image by image, and then moved to the device. A device's own generator would be
faster, but its numbers depend on the device and on the batch. A corruption uses only the protocol `RandomNumbers`, so a
test can pass the published code's numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from cgn.core.seeding import torch_stream


class RandomNumbers(Protocol):
    """Random numbers for B images, on their device; the first axis of what is returned is the image."""

    def normal(self, *shape: int) -> torch.Tensor:
        """(B,*shape) float32, standard normal."""

    def uniform(self, *shape: int) -> torch.Tensor:
        """(B,*shape) float32 in [0,1)."""

    def below(self, limits: Sequence[int], *shape: int) -> torch.Tensor:
        """(B,*shape) int64, image i's in 0 .. limits[i] - 1."""

    def poisson(self, rates: torch.Tensor) -> torch.Tensor:
        """Counts of the means `rates`, (B,3,H,W), in their shape and dtype."""


Corruption = Callable[[torch.Tensor, int, RandomNumbers, Sequence[torch.Tensor]], torch.Tensor]
"""((B,3,H,W) float32 grey levels in [0,255], severity, random numbers, ice) -> the same; not yet clipped or whole."""


@dataclass(frozen=True, kw_only=True)
class ImageGenerators:
    """RandomNumbers from one CPU generator for each image."""

    generators: tuple[torch.Generator, ...]
    device: torch.device

    def normal(self, *shape: int) -> torch.Tensor:
        """(B,*shape) float32, standard normal."""
        return self._each(lambda generator: torch.randn(shape, generator=generator))

    def uniform(self, *shape: int) -> torch.Tensor:
        """(B,*shape) float32 in [0,1)."""
        return self._each(lambda generator: torch.rand(shape, generator=generator))

    def below(self, limits: Sequence[int], *shape: int) -> torch.Tensor:
        """(B,*shape) int64, image i's in 0 .. limits[i] - 1."""
        pairs = zip(limits, self.generators, strict=True)
        return torch.stack([torch.randint(limit, shape, generator=g) for limit, g in pairs]).to(self.device)

    def poisson(self, rates: torch.Tensor) -> torch.Tensor:
        """Counts of the means `rates`, (B,3,H,W), in their shape and dtype."""
        pairs = zip(rates.cpu(), self.generators, strict=True)
        return torch.stack([torch.poisson(rate, generator=g) for rate, g in pairs]).to(self.device)

    def _each(self, draw: Callable[[torch.Generator], torch.Tensor]) -> torch.Tensor:
        return torch.stack([draw(generator) for generator in self.generators]).to(self.device)


def random_numbers(
    numbers: Sequence[int], *, name: str, severity: int, seed: int, device: torch.device
) -> ImageGenerators:
    """Random numbers for the images with these `numbers`, for one corruption and severity."""
    generators = tuple(torch_stream(seed, "corruption", name, severity, number) for number in numbers)
    return ImageGenerators(generators=generators, device=device)
