"""Interventions on the causes: factual (one label, one noise for all) and counterfactual (do(label) for each)."""

import torch

from cgn.mechanisms.generator import Cause, Causes


def factual(label: torch.Tensor, *, noise_size: int, image_size: int, stream: torch.Generator) -> Causes:
    """(B,) labels -> causes whose three mechanisms share label and noise; the tile offsets are their own."""
    noise = torch.randn((len(label), noise_size), generator=stream)
    shared = [
        Cause(noise=noise, label=label, offsets=_offsets(len(label), image_size=image_size, stream=stream))
        for _ in range(3)
    ]
    return Causes(shape=shared[0], texture=shared[1], background=shared[2])


def counterfactual(
    *,
    shape: torch.Tensor,
    texture: torch.Tensor,
    background: torch.Tensor,
    images_per_mask: int,
    noise_size: int,
    image_size: int,
    stream: torch.Generator,
) -> Causes:
    """Causes with labels and noise of their own for each mechanism.

    `shape` holds (M,) labels, one a mask; `texture` and `background` hold (M*images_per_mask,) labels, the images of a
    mask side by side.
    """
    causes = {}
    for role, label in (("shape", shape), ("texture", texture), ("background", background)):
        noise = torch.randn((len(label), noise_size), generator=stream)
        causes[role] = Cause(
            noise=noise, label=label, offsets=_offsets(len(label), image_size=image_size, stream=stream)
        )
    mask = causes["shape"]
    causes["shape"] = Cause(**{k: v.repeat_interleave(images_per_mask, 0) for k, v in vars(mask).items()})
    return Causes(**causes)


def _offsets(count: int, *, image_size: int, stream: torch.Generator) -> torch.Tensor:
    return torch.randint(image_size + 1, (count, 2), generator=stream)
