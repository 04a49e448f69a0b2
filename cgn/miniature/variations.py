"""The eight variations of ImageNet-9 (Xiao et al., ICLR 2021), made of scenes whose layers are known.

Legend: N images, class after class; S image size. All images are (N,3,S,S) in [-1,1].
Decided here: backgrounds are exchanged for the true background of another image of the set; the published sets, which
cannot see behind their objects, tile that image's largest strip beside the object instead. Masks have soft edges, so
an object's outline is blended where the published one is cut. The other class is any of nine in mixed_rand, the
following one in mixed_next.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from cgn.core.seeding import numpy_stream
from cgn.mechanisms import compose
from cgn.miniature.draws import Labels
from cgn.miniature.scenes import CLASSES, Scene

VARIATIONS = ("original", "mixed_same", "mixed_rand", "mixed_next", "only_fg", "no_fg", "only_bg_b", "only_bg_t")
BLACK = -1.0


@dataclass(frozen=True, kw_only=True)
class Variation:
    """`images` (N,3,S,S) in [-1,1]; `background_of` (N,): whose background each shows."""

    images: torch.Tensor
    background_of: Labels


def variations(scene: Scene, labels: Labels, *, seed: int) -> Mapping[str, Variation]:
    """All eight of the same factual scenes; `labels` (N,) are their classes, two images or more of each of the nine."""
    own, black = np.arange(len(labels)), torch.full_like(scene.foreground, BLACK)
    boxed = bounding_boxes(scene.mask)

    def mixed(partners: Labels) -> Variation:
        images = compose(scene.mask, scene.foreground, scene.background[torch.from_numpy(partners)])
        return Variation(images=images, background_of=partners)

    images = {
        "original": scene.image,
        "only_fg": compose(scene.mask, scene.foreground, black),
        "no_fg": compose(scene.mask, black, scene.background),
        "only_bg_b": torch.where(boxed, black, scene.image),
        "only_bg_t": torch.where(boxed, tiled(scene.image, boxed), scene.image),
    }
    made = {name: Variation(images=image, background_of=own) for name, image in images.items()}
    made |= {name: mixed(partners) for name, partners in exchanged(labels, seed=seed).items()}
    return {name: made[name] for name in VARIATIONS}


def exchanged(labels: Labels, *, seed: int) -> dict[str, Labels]:
    """For each mixed variation whose background each image gets, (N,) each; never its own."""
    counts = np.bincount(labels, minlength=len(CLASSES))
    if len(counts) > len(CLASSES) or counts.min() < 2:
        raise ValueError(f"images by class: {counts.tolist()}; expected two or more of each of {len(CLASSES)} classes")
    random = numpy_stream(seed, "miniature", "variations")
    wanted = {
        "mixed_same": labels,
        "mixed_rand": random.integers(0, len(CLASSES), len(labels)),
        "mixed_next": (labels + 1) % len(CLASSES),
    }
    members = [np.flatnonzero(labels == label) for label in range(len(CLASSES))]
    return {
        name: np.array([_other(members[kind], own, random) for own, kind in enumerate(kinds)])
        for name, kinds in wanted.items()
    }


def bounding_boxes(mask: torch.Tensor) -> torch.Tensor:
    """(N,1,S,S) in [0,1] -> (N,1,S,S), true in the smallest upright box that holds all of the mask."""
    covered = mask > 0
    rows, columns = covered.any(3, keepdim=True), covered.any(2, keepdim=True)
    return _between(rows, dim=2) & _between(columns, dim=3)


def tiled(images: torch.Tensor, boxed: torch.Tensor) -> torch.Tensor:
    """(N,3,S,S): each image's largest strip above, below or beside its box, repeated over the whole image.

    Where a box leaves no strip the image is black.
    """
    out = torch.full_like(images, BLACK)
    for place, (image, box) in enumerate(zip(images, boxed[:, 0], strict=True)):
        tile = _largest_strip(image, box)
        if tile.numel():
            rows = torch.arange(image.shape[1]) % tile.shape[1]
            columns = torch.arange(image.shape[2]) % tile.shape[2]
            out[place] = tile[:, rows[:, None], columns]
    return out


def _largest_strip(image: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    rows, columns = box.any(1).nonzero()[:, 0], box.any(0).nonzero()[:, 0]
    if not len(rows):
        return image
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    strips = [image[:, :, :left], image[:, :, right:], image[:, :top], image[:, bottom:]]
    return max(strips, key=torch.numel)


def _between(hit: torch.Tensor, *, dim: int) -> torch.Tensor:
    """True from the first hit to the last."""
    count = hit.int()
    return (count.cumsum(dim) > 0) & (count.flip(dim).cumsum(dim).flip(dim) > 0)


def _other(members: Labels, own: int, random: np.random.Generator) -> int:
    others = members[members != own]
    return int(others[random.integers(len(others))])
