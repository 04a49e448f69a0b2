"""The miniature world's data sets on disk, in the formats of the real ones.

    train/<00_dog>/<wnid>_<number>.png        ImageFolder, all labels equal; val/ the same
    masks/train/<00_dog>/<same name>          true masks, grey, 255 is object; masks/val/ the same
    imagenet9/<variation>/val/<00_dog>/...    the backgrounds challenge (Xiao et al., ICLR 2021); fg_mask/ holds .npy
    cue_conflict/<dog>/<dog3>-<bird3>.png     stimuli as of Geirhos et al. (ICLR 2019), those without conflict included
    frost1.png ... frost6.jpg                 panes for the corruption frost; ImageNet-C has six photographs

Legend: N images, class after class; B panes, S image size. Images are (N,3,S,S) in [-1,1].
Class folders and file names are the published ones (`fg_<image>_bg_<image>` where backgrounds are mixed). Images are
PNG where ImageNet-9 has JPEG, so that black is black. The background of a cue-conflict stimulus is of neither class, so
it is no cue. In the mixed variations, an image gets the true background of another image; the published sets, which
cannot see behind their objects, tile that image's largest strip beside the object. Masks have soft edges, so an outline
is blended where the published one is cut. A set is written beside its final path and moved there when it is complete.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cgn.core.files import explained, replacing
from cgn.core.images import Bytes, png, to_bytes
from cgn.core.outputs import partial_folder
from cgn.core.seeding import derive, numpy_stream
from cgn.download.sources import FROST
from cgn.mechanisms import compose
from cgn.miniature.world.primitives import (
    Floats,
    Keys,
    Labels,
    Rng,
    blend,
    edge,
    fractal_noise,
    hashed,
    paint,
    value_noise,
)
from cgn.miniature.world.scenes import CLASSES, Scene, index_batches, scene

CLASS_FOLDERS = (
    "00_dog", "01_bird", "02_wheeled vehicle", "03_reptile", "04_carnivore",
    "05_insect", "06_musical instrument", "07_primate", "08_fish",
)  # fmt: skip
WORDNET = (
    "n02084071", "n01503061", "n04576211", "n01661091", "n02075296", "n02159955", "n03800933", "n02469914", "n02512053",
)  # fmt: skip
VARIATIONS = ("original", "mixed_same", "mixed_rand", "mixed_next", "only_fg", "no_fg", "only_bg_b", "only_bg_t")
BLACK = -1.0
"""Of ImageNet-9. The background's class is any of the nine in mixed_rand, the next one in mixed_next."""
PANE_SIZE = 192
JPEG_QUALITY = 95


def write_sets(
    folder: Path,
    *,
    seed: int,
    image_size: int,
    train_per_class: int,
    val_per_class: int,
    per_variation: int,
    per_pair: int = 1,
) -> None:
    """Write all the sets under `folder`; existing ones are replaced.

    `per_variation`: images of each class in each ImageNet-9 variation, 2 or more. `per_pair`: cue-conflict images of
    each pair of shape and texture. Raises ValueError for sizes that `scene` refuses.
    """
    for split, per_class in (("train", train_per_class), ("val", val_per_class)):
        write_split(folder, split, seed=seed, image_size=image_size, per_class=per_class)
    write_imagenet9(folder / "imagenet9", seed=seed, image_size=image_size, per_class=per_variation)
    write_cue_conflict(folder / "cue_conflict", seed=seed, image_size=image_size, per_pair=per_pair)


def write_split(folder: Path, split: str, *, seed: int, image_size: int, per_class: int) -> None:
    """One ImageFolder `<folder>/<split>` and its true masks in `<folder>/masks/<split>`."""
    labels, numbers = _numbered(per_class)
    with _whole(folder / split) as images, _whole(folder / "masks" / split) as masks:
        for chosen in index_batches(len(labels)):
            kinds = labels[chosen]
            drawn = scene(kinds, kinds, kinds, seed=derive(seed, split), index=chosen, image_size=image_size)
            names = [f"{_home(label, number)}.png" for label, number in zip(kinds, numbers[chosen], strict=True)]
            _save(images, names, to_bytes(drawn.image))
            _save(masks, names, to_bytes(2 * drawn.mask - 1)[..., 0])


def write_imagenet9(folder: Path, *, seed: int, image_size: int, per_class: int) -> None:
    """The eight variations of the same 9 x `per_class` scenes, and `fg_mask`: (S,S) arrays, true on the object."""
    labels, numbers = _numbered(per_class)
    own = [_home(label, number) for label, number in zip(labels, numbers, strict=True)]
    exchanged(labels, seed=seed)  # raises before anything is drawn
    index = np.arange(len(labels))
    drawn = scene(labels, labels, labels, seed=derive(seed, "imagenet9"), index=index, image_size=image_size)
    with _whole(folder) as root:
        for name, variation in variations(drawn, labels, seed=seed).items():
            stems = own
            if name.startswith("mixed_"):
                pairs = zip(own, variation.background_of, strict=True)
                stems = [_mixed_name(fore, background=own[back]) for fore, back in pairs]
            _save(root / name / "val", [f"{stem}.png" for stem in stems], to_bytes(variation.images))
        for stem, mask in zip(own, (drawn.mask[:, 0] > 0.5).numpy(), strict=True):
            path = root / "fg_mask" / "val" / f"{stem}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, mask)


@dataclass(frozen=True, kw_only=True)
class Variation:
    """`images` (N,3,S,S) in [-1,1]; `background_of` (N,): the index of the image whose background each one shows."""

    images: torch.Tensor
    background_of: Labels


def variations(scene: Scene, labels: Labels, *, seed: int) -> Mapping[str, Variation]:
    """The eight variations of ImageNet-9 of the same factual scenes; `labels` (N,): at least two of each class."""
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
    found = {name: Variation(images=image, background_of=own) for name, image in images.items()}
    found |= {name: mixed(partners) for name, partners in exchanged(labels, seed=seed).items()}
    return {name: found[name] for name in VARIATIONS}


def exchanged(labels: Labels, *, seed: int) -> dict[str, Labels]:
    """For each mixed variation the index of the image that each one gets its background from, (N,); never its own."""
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
    """(N,1,S,S) in [0,1] -> (N,1,S,S), true in the bounding box of the mask."""
    covered = mask > 0
    rows, columns = covered.any(3, keepdim=True), covered.any(2, keepdim=True)
    return _between(rows, dim=2) & _between(columns, dim=3)


def tiled(images: torch.Tensor, boxed: torch.Tensor) -> torch.Tensor:
    """(N,3,S,S): each image's largest strip above, below or beside its box, tiled over the whole image.

    The image is black where the box leaves no strip.
    """
    out = torch.full_like(images, BLACK)
    for place, (image, box) in enumerate(zip(images, boxed[:, 0], strict=True)):
        tile = _largest_strip(image, box)
        if tile.numel():
            rows = torch.arange(image.shape[1]) % tile.shape[1]
            columns = torch.arange(image.shape[2]) % tile.shape[2]
            out[place] = tile[:, rows[:, None], columns]
    return out


def write_cue_conflict(folder: Path, *, seed: int, image_size: int, per_pair: int) -> None:
    """`<shape><k>-<texture><k>.png` for all 81 pairs and k = 1..`per_pair`; `dog3` is one dog whatever its texture."""
    each = len(CLASSES)
    shape, texture, number = (axis.ravel() for axis in np.indices((each, each, per_pair)))
    behind = _neither(shape, texture, seed=seed)
    with _whole(folder) as root:
        for chosen in index_batches(len(shape)):
            s, t, k = shape[chosen], texture[chosen], number[chosen]
            drawn = scene(s, t, behind[chosen], seed=derive(seed, "cue_conflict"), index=k, image_size=image_size)
            names = [
                f"{CLASSES[i]}/{CLASSES[i]}{n + 1}-{CLASSES[j]}{n + 1}.png" for i, j, n in zip(s, t, k, strict=True)
            ]
            _save(root, names, to_bytes(drawn.image))


def write_frost(folder: Path, *, seed: int) -> int:
    """Write `frost1.png` to `frost6.jpg`, named like ImageNet-C's photographs, into `folder`; returns how many."""
    for asset, pane in zip(FROST, to_bytes(torch.from_numpy(2 * panes(len(FROST), seed=seed) - 1)), strict=True):
        kind = "PNG" if asset.name.endswith(".png") else "JPEG"
        with replacing(folder / asset.name) as temporary:
            Image.fromarray(pane).save(temporary, format=kind, quality=JPEG_QUALITY)
    return len(FROST)


def panes(count: int, *, seed: int) -> Floats:
    """Frozen panes (count,3,S,S) in [0,1], S = 192: facets of ice, each with needles in its own direction."""
    rng = Rng(np.arange(count), seed=seed, stream="frost")
    places = ((np.arange(PANE_SIZE, dtype=np.float32) + 0.5) * (2 / PANE_SIZE) - 1).astype(np.float32)
    x, y = (np.repeat(axis[None], count, axis=0) for axis in np.meshgrid(places, places))
    size = rng.uniform(4.0, 7.0)
    coarse, turn = _facets(size * x + 20, size * y + 20, rng.key())
    fine, finer_turn = _facets(2.7 * size * x + 60, 2.7 * size * y + 60, rng.key())
    needles = _needles(x, y, turn, rng.key(), breadth=22) * _needles(x, y, finer_turn, rng.key(), breadth=46)
    thick = fractal_noise(1.6 * x + 9, 1.6 * y + 9, rng.key())
    seams = np.maximum(edge(coarse - 0.05, 0.1), 0.6 * edge(fine - 0.04, 0.1))
    ice = np.clip(0.15 + 0.55 * thick + 0.5 * needles + 0.45 * seams - 0.2, 0, 1)
    cold = paint(rng.color(40, 66, 98), rng.color(132, 168, 200), thick)
    return np.clip(paint(cold, rng.color(238, 246, 252, vary=0.03), ice), 0, 1)


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


def _neither(shape: Labels, texture: Labels, *, seed: int) -> Labels:
    """A class that is neither, drawn uniformly from the other ones."""
    scores = numpy_stream(seed, "miniature", "cue_conflict").random((len(shape), len(CLASSES)))
    for taken in (shape, texture):
        scores[np.arange(len(shape)), taken] = -1
    drawn: Labels = scores.argmax(1)
    return drawn


def _numbered(per_class: int) -> tuple[Labels, Labels]:
    """Labels (9 * per_class,), class after class, and each image's number within its class."""
    labels, numbers = np.indices((len(CLASSES), per_class))
    return labels.ravel(), numbers.ravel()


def _home(label: int, number: int) -> str:
    return f"{CLASS_FOLDERS[label]}/{WORDNET[label]}_{number:05d}"


def _mixed_name(foreground: str, *, background: str) -> str:
    home, stem = foreground.split("/")
    return f"{home}/fg_{stem}_bg_{background.split('/')[1]}"


def _save(folder: Path, names: list[str], images: Bytes) -> None:
    for home in {Path(name).parent for name in names}:
        (folder / home).mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, images, strict=True):
        (folder / name).write_bytes(png(image))


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """Yield a folder to write in; on success it replaces `folder`."""
    partial = partial_folder(folder)
    with explained(folder):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)


def _facets(x: Floats, y: Floats, key: Keys) -> tuple[Floats, Floats]:
    """Distances from the seam between two cells, in cells, and a number in [0,1) for each cell."""
    nearest = np.full(x.shape, 9, dtype=np.float32)
    second, cell = nearest.copy(), np.zeros_like(nearest)
    column, row = np.floor(x), np.floor(y)
    for across in (-1, 0, 1):
        for down in (-1, 0, 1):
            left, top = column + across, row + down
            seed_x, seed_y = left + hashed(left, top, key), top + hashed(left, top, key + np.uint32(1))
            distance = np.hypot(x - seed_x, y - seed_y)
            closer = distance < nearest
            second = np.where(closer, nearest, np.minimum(second, distance))
            cell = np.where(closer, hashed(left, top, key + np.uint32(2)), cell)
            nearest = np.minimum(nearest, distance)
    return second - nearest, cell


def _needles(x: Floats, y: Floats, turn: Floats, key: Keys, *, breadth: float) -> Floats:
    """Ridges in [0,1] along the direction `turn` (0 to 1: half a circle)."""
    cos, sin = np.cos(np.pi * turn), np.sin(np.pi * turn)
    along, across = cos * x + sin * y, cos * y - sin * x
    ridge = 1 - np.abs(2 * value_noise(0.16 * breadth * along + 50, breadth * across + 50, key) - 1)
    return blend(np.zeros_like(ridge), ridge, ridge)
