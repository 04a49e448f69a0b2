"""What goes into the mechanisms, and the interventions on it: factual, and counterfactual, do(label) for each.

Legend: B images, M masks, Z noise size.
"""

from dataclasses import dataclass, fields

import torch

REACH = 2.0
"""Truncated noise lies in [-2,2] times the truncation."""


@dataclass(frozen=True, kw_only=True)
class Cause:
    """What goes into one mechanism: (B,Z) noise, (B,) labels; (B,2) offsets where the mechanism draws tiles."""

    noise: torch.Tensor
    label: torch.Tensor
    offsets: torch.Tensor | None = None

    def of(self, chosen: torch.Tensor | slice) -> "Cause":
        """The causes of some images."""
        offsets = None if self.offsets is None else self.offsets[chosen]
        return Cause(noise=self.noise[chosen], label=self.label[chosen], offsets=offsets)

    def to(self, device: torch.device) -> "Cause":
        """The same on another device."""
        offsets = None if self.offsets is None else self.offsets.to(device)
        return Cause(noise=self.noise.to(device), label=self.label.to(device), offsets=offsets)


@dataclass(frozen=True, kw_only=True)
class Causes:
    """One cause for each mechanism. Equal labels make a factual image, other ones a counterfactual."""

    shape: Cause
    texture: Cause
    background: Cause

    def of(self, chosen: torch.Tensor | slice) -> "Causes":
        """The causes of some images."""
        return Causes(**{role.name: getattr(self, role.name).of(chosen) for role in fields(self)})

    def to(self, device: torch.device) -> "Causes":
        """The same causes on another device."""
        return Causes(**{role.name: getattr(self, role.name).to(device) for role in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Prior:
    """How noise is drawn: standard normal, or where there is a truncation, that within [-2,2], times it.

    `tile_size`: where mechanisms draw tiles, offsets are drawn from 0 to it (included).
    """

    noise_size: int
    tile_size: int | None = None
    truncation: float | None = None

    def noise(self, count: int, stream: torch.Generator) -> torch.Tensor:
        """(count,Z)."""
        size = (count, self.noise_size)
        if self.truncation is None:
            return torch.randn(size, generator=stream)
        drawn = torch.empty(size)
        return torch.nn.init.trunc_normal_(drawn, a=-REACH, b=REACH, generator=stream).mul_(self.truncation)

    def cause(self, label: torch.Tensor, stream: torch.Generator, *, noise: torch.Tensor | None = None) -> Cause:
        """A cause with these (B,) labels, and this noise or noise of its own."""
        drawn = self.noise(len(label), stream) if noise is None else noise
        if self.tile_size is None:
            return Cause(noise=drawn, label=label)
        offsets = torch.randint(self.tile_size + 1, (len(label), 2), generator=stream)
        return Cause(noise=drawn, label=label, offsets=offsets)


def factual(label: torch.Tensor, *, prior: Prior, stream: torch.Generator) -> Causes:
    """(B,) labels -> causes whose three mechanisms share label and noise; tile offsets are their own."""
    noise = prior.noise(len(label), stream)
    shape, texture, background = (prior.cause(label, stream, noise=noise) for _ in range(3))
    return Causes(shape=shape, texture=texture, background=background)


def counterfactual(
    *,
    shape: torch.Tensor,
    texture: torch.Tensor,
    background: torch.Tensor,
    images_per_mask: int = 1,
    prior: Prior,
    stream: torch.Generator,
) -> Causes:
    """Causes with labels and noise of their own for each mechanism.

    `shape` holds (M,) labels, one a mask; `texture` and `background` hold (M*images_per_mask,) labels, the images of a
    mask side by side.
    """
    mask, foreground, behind = (prior.cause(label, stream) for label in (shape, texture, background))
    repeated = torch.arange(len(shape)).repeat_interleave(images_per_mask)
    return Causes(shape=mask.of(repeated), texture=foreground, background=behind)
