"""Benchmark folders as their authors lay them out -> listings: which pictures there are, with which labels.

    class folders    <class>/<any name>.JPEG                            ImageNet, ImageNet-mini, Stylized-ImageNet
    ImageNet-9       <variation>/val/<00_dog ... 08_fish>/<any name>    Xiao et al., ICLR 2021
    ImageNet-C       [noise/]<corruption>/<severity>/<class>/<name>     Hendrycks & Dietterich, ICLR 2019
    cue conflict     <shape>/<shape><k>-<texture><k>.png                Geirhos et al., ICLR 2019

Decided here: nothing is dropped in silence. A file that is no picture by its name, or that lies where no label can be
told, stands in `strays` with the reason; whether a picture can be decoded shows when it is read (`cgn.data.pictures`).
Listings are sorted by name, so they are the same on every file system. Hidden files are not looked at.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cgn.core.errors import ArtifactError
from cgn.data.decoding import SUFFIXES

VARIATIONS = ("original", "mixed_same", "mixed_rand", "mixed_next", "only_fg", "no_fg", "only_bg_b", "only_bg_t")
SUPERCLASSES = 9
SEVERITIES = (1, 2, 3, 4, 5)
STIMULUS = re.compile(r"([a-z]+)\d+-([a-z]+)\d+\.png")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The pictures below `root`: `names` are paths from there, `labels` by cue, each as long as `names`."""

    root: Path
    names: tuple[str, ...]
    labels: Mapping[str, tuple[int, ...]]
    strays: tuple[str, ...]
    """Files and folders that are left out, each "path: reason"."""
    absent: tuple[str, ...] = ()
    """Classes without a folder."""

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, kw_only=True)
class Variations:
    """ImageNet-9's variations that are there, in the order of VARIATIONS, and the names of those that are not."""

    present: Mapping[str, Listing]
    missing: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Corrupted:
    """Prebuilt corruptions by condition, "fog/3", and the names of those that are not there."""

    present: Mapping[str, Listing]
    missing: tuple[str, ...]


def class_folders(root: Path, *, classes: Sequence[str]) -> Listing:
    """A folder for each class; the label is the folder's place in `classes`, 0 to len(classes) - 1.

    Some of the classes may be absent. Raises ArtifactError when `root` is missing or no picture lies in a class folder.
    """
    places = {name: place for place, name in enumerate(classes)}
    return _sorted_into(root, places, shown=f"{classes[0]} ... {classes[-1]}")


def imagenet9(root: Path) -> Variations:
    """The variations below `root`. Raises ArtifactError when there is none, or one without a picture."""
    _check_folder(root)
    present = {name: _variation(root / name / "val") for name in VARIATIONS if (root / name).is_dir()}
    if not present:
        inside = next((path.parent for path in sorted(root.glob("*/original")) if path.is_dir()), None)
        hint = f"; {inside} looks like the folder to give" if inside else ""
        raise ArtifactError(f"{root} has no variation of ImageNet-9 ({', '.join(VARIATIONS)}){hint}")
    return Variations(present=present, missing=tuple(name for name in VARIATIONS if name not in present))


def cue_conflict(root: Path, *, categories: Sequence[str]) -> Listing:
    """Stimuli with the labels "shape" and "texture", places in `categories`; also those whose two cues agree.

    Raises ArtifactError when `root` is missing or holds no stimulus.
    """
    places = {name: place for place, name in enumerate(categories)}
    names, shapes, textures, strays = [], [], [], []
    for path in _files(root):
        name = path.relative_to(root).as_posix()
        cues = STIMULUS.fullmatch(path.name)
        if cues is None or not {cues[1], cues[2]} <= places.keys():
            strays.append(f"{name}: not named <shape><number>-<texture><number>.png of the {len(places)} categories")
        elif path.parent != root and path.parent.name != cues[1]:
            strays.append(f"{name}: lies in {path.parent.name}/, its name says {cues[1]}")
        else:
            names.append(name)
            shapes.append(places[cues[1]])
            textures.append(places[cues[2]])
    _check_any(root, names, strays, wanted="stimulus <shape><number>-<texture><number>.png")
    labels = {"shape": tuple(shapes), "texture": tuple(textures)}
    return Listing(root=root, names=tuple(names), labels=labels, strays=tuple(strays))


def imagenet_c(root: Path, *, corruptions: Sequence[str], classes: Sequence[str]) -> Corrupted:
    """Prebuilt folders of `corruptions`, each with all five severities, below `root` or a folder of kinds in it.

    Raises ArtifactError when there is none, when one lacks a severity, or when one is there twice.
    """
    homes = corruption_homes(root, names=corruptions)
    present: dict[str, Listing] = {}
    for name in corruptions:
        if name in homes:
            present |= {f"{name}/{s}": class_folders(homes[name] / str(s), classes=classes) for s in SEVERITIES}
    if not present:
        raise ArtifactError(
            f"{root} has no corruption of ImageNet-C (<corruption>/<severity>/): {', '.join(corruptions)}"
        )
    return Corrupted(present=present, missing=tuple(name for name in corruptions if f"{name}/1" not in present))


def corruption_homes(root: Path, *, names: Sequence[str] | None = None) -> dict[str, Path]:
    """Corruption -> its folder, below `root` or, as the benchmark is published, a folder of kinds in it, by name.

    `names`: only these are looked at. Raises ArtifactError when a corruption lacks a severity, or lies in two folders.
    """
    _check_folder(root)
    numbers = [str(severity) for severity in SEVERITIES]
    homes: dict[str, Path] = {}
    for home in sorted((*root.glob("*/"), *root.glob("*/*/")), key=lambda path: (path.name, path)):
        lacking = [number for number in numbers if not (home / number).is_dir()]
        if lacking == numbers or (names is not None and home.name not in names):
            continue
        if lacking:
            raise ArtifactError(f"{home} lacks the severities {', '.join(lacking)}: a corruption needs all five")
        if home.name in homes:
            raise ArtifactError(f"{home.name} lies in {homes[home.name]} and in {home}: keep one of the two")
        homes[home.name] = home
    return homes


def evenly(listing: Listing, *, images: int) -> tuple[int, ...]:
    """Places of `images` pictures, in order: the first of every class, then the second, ...; all of them where few.

    Where the last of these rounds is not whole, the classes in it are spread over all.
    """
    rounds: list[list[int]] = []
    seen: dict[int, int] = {}
    for place, label in enumerate(listing.labels["shape"]):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] > len(rounds):
            rounds.append([])
        rounds[seen[label] - 1].append(place)
    taken: list[int] = []
    for places in rounds:
        wanted = min(len(places), images - len(taken))
        taken += [places[number * len(places) // wanted] for number in range(wanted)]
    return tuple(sorted(taken))


def _variation(folder: Path) -> Listing:
    """The nine folders are known by their leading number, as the words behind it differ between releases."""
    _check_folder(folder)
    places = {path.name: int(path.name[:2]) for path in folder.iterdir() if re.match(r"0[0-8]_", path.name)}
    found = _sorted_into(folder, places, shown="00_dog ... 08_fish")
    absent = tuple(f"{number:02d}_" for number in range(SUPERCLASSES) if number not in places.values())
    return replace(found, absent=absent)


def _sorted_into(root: Path, places: Mapping[str, int], *, shown: str) -> Listing:
    """Every picture with the place of its first folder as the label "shape"."""
    names, labels, strays = [], [], []
    for path in _files(root):
        name = path.relative_to(root).as_posix()
        folder = name.partition("/")[0] if "/" in name else ""
        if folder not in places:
            strays.append(f"{name}: not in a class folder ({shown})")
        elif path.suffix.lower() not in SUFFIXES:
            strays.append(f"{name}: no picture by its name ({', '.join(sorted(SUFFIXES))})")
        else:
            names.append(name)
            labels.append(places[folder])
    _check_any(root, names, strays, wanted=f"picture in a class folder ({shown})")
    absent = tuple(name for name in places if not (root / name).is_dir())
    return Listing(root=root, names=tuple(names), labels={"shape": tuple(labels)}, strays=tuple(strays), absent=absent)


def _files(root: Path) -> list[Path]:
    """All files below `root` but hidden ones, sorted by their path's text."""
    _check_folder(root)
    files = ((path.relative_to(root).as_posix(), path) for path in root.rglob("*") if path.is_file())
    return [path for name, path in sorted(files) if not any(part.startswith(".") for part in name.split("/"))]


def _check_folder(root: Path) -> None:
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "is missing"
        raise ArtifactError(f"{root} {what}: give the folder that the benchmark was unpacked to")


def _check_any(root: Path, names: Sequence[str], strays: Sequence[str], *, wanted: str) -> None:
    if not names:
        held = f"{len(strays)} other files, such as {strays[0]}" if strays else "no file at all"
        raise ArtifactError(f"{root} holds no {wanted}, but {held}")
