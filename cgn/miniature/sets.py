"""The miniature world's data sets on disk, in the formats of the real ones.

    train/<00_dog>/<wnid>_<number>.png        ImageFolder, all labels equal; val/ the same
    masks/train/<00_dog>/<same name>          true masks, grey, 255 is object; masks/val/ the same
    imagenet9/<variation>/val/<00_dog>/...    the backgrounds challenge's folders, fg_mask/ as .npy among them
    cue_conflict/<dog>/<dog3>-<bird3>.png     Geirhos et al.'s stimuli, those without conflict among them

Decided here: pictures are PNG where ImageNet-9 has JPEG, so that black is black. Class folders and file names are the
published ones (`fg_<image>_bg_<image>` where backgrounds are mixed). A stimulus's background is of neither class, so it
speaks for neither. A set is written beside its place and moved there when it is whole.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cgn.core.files import explained
from cgn.core.images import Bytes, png, to_bytes
from cgn.core.outputs import partial_folder
from cgn.core.seeding import derive, numpy_stream
from cgn.miniature.draws import Labels
from cgn.miniature.scenes import CLASSES, scene
from cgn.miniature.variations import exchanged, variations

CLASS_FOLDERS = (
    "00_dog", "01_bird", "02_wheeled vehicle", "03_reptile", "04_carnivore",
    "05_insect", "06_musical instrument", "07_primate", "08_fish",
)  # fmt: skip
WORDNET = (
    "n02084071", "n01503061", "n04576211", "n01661091", "n02075296", "n02159955", "n03800933", "n02469914", "n02512053",
)  # fmt: skip
IMAGES_PER_BATCH = 288


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
    """Write all the sets under `folder`; what stands there under their names is replaced.

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
        for chosen in _batches(len(labels)):
            kinds = labels[chosen]
            drawn = scene(kinds, kinds, kinds, seed=derive(seed, split), index=chosen, image_size=image_size)
            names = [f"{_home(label, number)}.png" for label, number in zip(kinds, numbers[chosen], strict=True)]
            _save(images, names, to_bytes(drawn.image))
            _save(masks, names, to_bytes(2 * drawn.mask - 1)[..., 0])


def write_imagenet9(folder: Path, *, seed: int, image_size: int, per_class: int) -> None:
    """The eight variations of the same 9 x `per_class` scenes, and `fg_mask`: (S,S) arrays, true on the object."""
    labels, numbers = _numbered(per_class)
    own = [_home(label, number) for label, number in zip(labels, numbers, strict=True)]
    exchanged(labels, seed=seed)  # refuses what cannot be mixed before anything is drawn
    index = np.arange(len(labels))
    drawn = scene(labels, labels, labels, seed=derive(seed, "imagenet9"), index=index, image_size=image_size)
    with _whole(folder) as root:
        for name, made in variations(drawn, labels, seed=seed).items():
            stems = own
            if name.startswith("mixed_"):
                pairs = zip(own, made.background_of, strict=True)
                stems = [_mixed_name(fore, background=own[back]) for fore, back in pairs]
            _save(root / name / "val", [f"{stem}.png" for stem in stems], to_bytes(made.images))
        for stem, mask in zip(own, (drawn.mask[:, 0] > 0.5).numpy(), strict=True):
            path = root / "fg_mask" / "val" / f"{stem}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, mask)


def write_cue_conflict(folder: Path, *, seed: int, image_size: int, per_pair: int) -> None:
    """`<shape><k>-<texture><k>.png` for all 81 pairs and k = 1..`per_pair`; `dog3` is one dog whatever its texture."""
    each = len(CLASSES)
    shape, texture, number = (axis.ravel() for axis in np.indices((each, each, per_pair)))
    behind = _neither(shape, texture, seed=seed)
    with _whole(folder) as root:
        for chosen in _batches(len(shape)):
            s, t, k = shape[chosen], texture[chosen], number[chosen]
            drawn = scene(s, t, behind[chosen], seed=derive(seed, "cue_conflict"), index=k, image_size=image_size)
            names = [
                f"{CLASSES[i]}/{CLASSES[i]}{n + 1}-{CLASSES[j]}{n + 1}.png" for i, j, n in zip(s, t, k, strict=True)
            ]
            _save(root, names, to_bytes(drawn.image))


def _neither(shape: Labels, texture: Labels, *, seed: int) -> Labels:
    """Classes drawn evenly from those that are neither."""
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


def _batches(count: int) -> Iterator[Labels]:
    for start in range(0, count, IMAGES_PER_BATCH):
        yield np.arange(start, min(start + IMAGES_PER_BATCH, count))


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
