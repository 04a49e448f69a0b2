"""Folders of labelled images, in the layouts of ImageNet and of the benchmarks: which images there are, which labels.

    class folders    <class>/<any name>.JPEG                            ImageNet, ImageNet-mini, Stylized-ImageNet
    ImageNet-9       <variation>/val/<00_dog ... 08_fish>/<any name>    Xiao et al., ICLR 2021
    ImageNet-C       [noise/]<corruption>/<severity>/<class>/<name>     Hendrycks & Dietterich, ICLR 2019
    cue conflict     <shape>/<shape><k>-<texture><k>.png                Geirhos et al., ICLR 2019

All code lists folders by these functions, so that the images that are counted, shown, trained on and
evaluated are the same. Nothing is dropped silently. A file that is hidden, is not an image by its name, or has no label
by its path is counted in `strays` with the reason; whether an image can be decoded is known when it is read
(`cgn.imagenet.data.datasets`). Links are followed. Names are text (`cgn.core.files.readable`), and images are sorted by
name, so the order is the same on every file system.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from cgn.core.errors import ArtifactError
from cgn.core.files import on_disk, readable, walk
from cgn.data.decoding import SUFFIXES
from cgn.imagenet.data.wnids import wnids

VARIATIONS = ("original", "mixed_same", "mixed_rand", "mixed_next", "only_fg", "no_fg", "only_bg_b", "only_bg_t")
SUPERCLASSES = 9
SEVERITIES = (1, 2, 3, 4, 5)
SEVERITY_FOLDERS = frozenset(map(str, SEVERITIES))
WNIDS = frozenset(wnids())
STIMULI = ("stimuli", "style-transfer-preprocessed-512")
STIMULUS = re.compile(r"([a-z]+)\d+-([a-z]+)\d+\.png")
HIDDEN = "hidden (a name with a dot in front)"
SHOWN = 5
"""Names in a message about many."""


@dataclass(frozen=True, kw_only=True)
class Stray:
    """Files and folders that are left out for one reason: how many, and the first few."""

    reason: str
    count: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        more = f" and {self.count - len(self.names):,} more" if self.count > len(self.names) else ""
        return f"{', '.join(self.names)}{more}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """The images below `root`: `names` are relative paths, `labels` by cue, each as long as `names`."""

    root: Path
    names: tuple[str, ...]
    labels: Mapping[str, tuple[int, ...]]
    strays: tuple[Stray, ...]
    """Files and folders that are left out."""
    absent: tuple[str, ...] = ()
    """Classes without a folder."""
    empty: tuple[str, ...] = ()
    """Classes whose folder has no image."""

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        """The path by which an image can be opened."""
        return self.root / on_disk(self.names[index])


@dataclass(frozen=True, kw_only=True)
class Imagenet9Folders:
    """ImageNet-9's variations that are present, in the order of VARIATIONS, and the names of those that are missing."""

    present: Mapping[str, ImageFolder]
    missing: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CorruptionFolders:
    """ImageNet-C's folders by condition, "fog/3", and the names of the corruptions that are missing."""

    present: Mapping[str, ImageFolder]
    missing: tuple[str, ...]


def class_folders(root: Path, *, classes: Sequence[str]) -> ImageFolder:
    """A folder for each class; the label is its name's index in `classes`, 0 to len(classes) - 1.

    Some of the classes may be absent. Raises ArtifactError when `root` is missing or no class folder has an image.
    """
    places = {name: place for place, name in enumerate(classes)}
    return _sorted_into(root, places, shown=f"{classes[0]} ... {classes[-1]}")


def imagenet9(root: Path) -> Imagenet9Folders:
    """The variations below `root`. Raises ArtifactError when there is none, or one without an image."""
    _check_folder(root)
    present = {name: _variation(root / name / "val") for name in VARIATIONS if (root / name).is_dir()}
    if not present:
        inside = next((path.parent for path in sorted(root.glob("*/original")) if path.is_dir()), None)
        hint = f"; {inside} looks like the folder to give" if inside else ""
        raise ArtifactError(f"{root} has no variation of ImageNet-9 ({', '.join(VARIATIONS)}){hint}")
    return Imagenet9Folders(present=present, missing=tuple(name for name in VARIATIONS if name not in present))


def cue_conflict(root: Path, *, categories: Sequence[str]) -> ImageFolder:
    """Stimuli with the labels "shape" and "texture", indices in `categories`; also those whose two cues agree.

    Raises ArtifactError when `root` is missing or holds no stimulus.
    """
    places = {name: place for place, name in enumerate(categories)}
    found, strays = _visible(root)
    names, shapes, textures = [], [], []
    for name in found:
        path = PurePosixPath(name)
        cues = STIMULUS.fullmatch(path.name)
        if cues is None or not {cues[1], cues[2]} <= places.keys():
            strays.append((name, f"not named <shape><number>-<texture><number>.png of the {len(places)} categories"))
        elif len(path.parts) > 1 and path.parent.name != cues[1]:
            strays.append((name, "not in the folder of the shape that its name gives"))
        else:
            names.append(name)
            shapes.append(places[cues[1]])
            textures.append(places[cues[2]])
    kept = _by_reason(strays)
    _check_any(root, names, kept, wanted="stimulus <shape><number>-<texture><number>.png")
    labels = {"shape": tuple(shapes), "texture": tuple(textures)}
    return ImageFolder(root=root, names=tuple(names), labels=labels, strays=kept)


def imagenet_c(root: Path, *, corruptions: Sequence[str], classes: Sequence[str]) -> CorruptionFolders:
    """Published folders of `corruptions`, each with all five severities, in `root` or in a folder of their kind in it.

    Raises ArtifactError when there is none, when one lacks a severity, or when one is present twice.
    """
    homes, _ = corruption_folders(root, names=corruptions)
    present: dict[str, ImageFolder] = {}
    for name in (name for name in corruptions if name in homes):
        home = homes[name]
        if lacking := [str(severity) for severity in SEVERITIES if not (home / str(severity)).is_dir()]:
            raise ArtifactError(f"{home} lacks the severities {', '.join(lacking)}: a corruption needs all five")
        present |= {f"{name}/{s}": class_folders(home / str(s), classes=classes) for s in SEVERITIES}
    if not present:
        raise ArtifactError(
            f"{root} has no corruption of ImageNet-C (<corruption>/<severity>/): {', '.join(corruptions)}"
        )
    return CorruptionFolders(present=present, missing=tuple(name for name in corruptions if f"{name}/1" not in present))


def corruption_folders(root: Path, *, names: Sequence[str] = ()) -> tuple[dict[str, Path], tuple[Stray, ...]]:
    """Corruption -> its folder, of `names` or, without, of all that have a severity; and what is left out beside them.

    A corruption is in `root` or in a folder of its kind. Raises ArtifactError when one is in two folders.
    """
    _check_folder(root)
    found: dict[str, Path] = {}
    strays: list[tuple[str, str]] = []
    waiting = [(root, 0)]
    while waiting:
        folder, depth = waiting.pop(0)
        for path in sorted(folder.iterdir()):
            name = readable(path.relative_to(root).as_posix())
            if path.name.startswith("."):
                strays.append((name, HIDDEN))
            elif not path.is_dir():
                strays.append((name, "not in <corruption>/<severity>/<class>/"))
            elif path.name in names if names else any((path / str(severity)).is_dir() for severity in SEVERITIES):
                if (other := found.setdefault(readable(path.name), path)) != path:
                    raise ArtifactError(f"{path.name} is in {other} and in {path}: keep one of the two")
            elif depth == 0:
                waiting.append((path, 1))
            else:
                strays.append((name, "a folder without the severities 1 to 5"))
    return found, _by_reason(strays)


def imagenet9_member(path: PurePosixPath) -> PurePosixPath | None:
    """The path below ImageNet-9's folder for an archive's member; None for one that is not wanted.

    .../<variation>/val/<class>/<file> from the variation on; `fg_mask` too.
    """
    for start, (name, below) in enumerate(zip(path.parts, path.parts[1:], strict=False)):
        if name in (*VARIATIONS, "fg_mask") and below == "val" and len(path.parts) == start + 4:
            return PurePosixPath(*path.parts[start:])
    return None


def cue_conflict_member(path: PurePosixPath) -> PurePosixPath | None:
    """The same for cue conflict: .../stimuli/style-transfer-preprocessed-512/<shape>/<file> from the shape on."""
    return PurePosixPath(*path.parts[-2:]) if path.parts[-4:-2] == STIMULI else None


def imagenet_c_member(path: PurePosixPath) -> PurePosixPath | None:
    """The same for ImageNet-C: .../<corruption>/<severity>/<wnid>/<file> from the corruption on."""
    parts = path.parts[-4:]
    wanted = len(parts) == 4 and parts[1] in SEVERITY_FOLDERS and parts[2] in WNIDS
    return PurePosixPath(*parts) if wanted else None


def balanced_subset(folder: ImageFolder, *, images: int) -> tuple[int, ...]:
    """Indices of `images` images, sorted: the first of every class, then the second, ...; all of them where few.

    Where the last of these rounds is incomplete, its classes are spread over all classes.
    """
    rounds: list[list[int]] = []
    seen: dict[int, int] = {}
    for place, label in enumerate(folder.labels["shape"]):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] > len(rounds):
            rounds.append([])
        rounds[seen[label] - 1].append(place)
    taken: list[int] = []
    for places in rounds:
        wanted = min(len(places), images - len(taken))
        taken += [places[number * len(places) // wanted] for number in range(wanted)]
    return tuple(sorted(taken))


def _variation(folder: Path) -> ImageFolder:
    """The nine folders are identified by their leading number, as the words after it differ between releases."""
    _check_folder(folder)
    places = {path.name: int(path.name[:2]) for path in folder.iterdir() if re.match(r"0[0-8]_", path.name)}
    found = _sorted_into(folder, places, shown="00_dog ... 08_fish")
    absent = tuple(f"{number:02d}_" for number in range(SUPERCLASSES) if number not in places.values())
    return replace(found, absent=absent)


def _sorted_into(root: Path, places: Mapping[str, int], *, shown: str) -> ImageFolder:
    """Every image, with the label of its first folder as "shape"."""
    found, strays = _visible(root)
    names, labels = [], []
    foreign = f"not in a class folder ({shown})"
    unknown = f"not an image by its name ({', '.join(sorted(SUFFIXES))})"
    for name in found:
        folder = name.partition("/")[0] if "/" in name else ""
        if folder not in places:
            strays.append((name, foreign))
        elif not is_image(name):
            strays.append((name, unknown))
        else:
            names.append(name)
            labels.append(places[folder])
    kept = _by_reason(strays)
    _check_any(root, names, kept, wanted=f"image in a class folder ({shown})")
    held = set(labels)
    absent = tuple(name for name in places if not (root / name).is_dir())
    return ImageFolder(
        root=root,
        names=tuple(names),
        labels={"shape": tuple(labels)},
        strays=kept,
        absent=absent,
        empty=tuple(name for name, place in places.items() if place not in held and name not in set(absent)),
    )


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122 (a million names)


def merge_strays(parts: Iterable[tuple[str, Sequence[Stray]]]) -> tuple[Stray, ...]:
    """What is left out of several folders, by reason; each folder's path is put before its names."""
    counts: dict[str, int] = {}
    names: dict[str, list[str]] = {}
    for folder, strays in parts:
        for stray in strays:
            counts[stray.reason] = counts.get(stray.reason, 0) + stray.count
            names.setdefault(stray.reason, []).extend(f"{folder}{name}" for name in stray.names)
    kept = [Stray(reason=why, count=count, names=tuple(sorted(names[why])[:SHOWN])) for why, count in counts.items()]
    return tuple(sorted(kept, key=lambda stray: stray.names))


def _visible(root: Path) -> tuple[Iterator[str], list[tuple[str, str]]]:
    """All files below `root` except hidden ones; (path, reason) of those and of what could not be followed."""
    _check_folder(root)
    walked = walk(root)
    hidden = {name for name in walked.files if name.startswith(".") or "/." in name}
    strays = [*walked.left_out, *((name, HIDDEN) for name in sorted(hidden))]
    return (name for name in walked.files if name not in hidden), strays


def _by_reason(strays: Iterable[tuple[str, str]]) -> tuple[Stray, ...]:
    """One `Stray` for each reason, in the order of their first names."""
    return merge_strays([("", [Stray(reason=reason, count=1, names=(name,)) for name, reason in strays])])


def _check_folder(root: Path) -> None:
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "is missing"
        raise ArtifactError(f"{root} {what}: give the folder that the benchmark was unpacked to")


def _check_any(root: Path, names: Sequence[str], strays: Sequence[Stray], *, wanted: str) -> None:
    if not names:
        others = f"{sum(stray.count for stray in strays):,} other files"
        held = f"{others}, such as {strays[0].names[0]}: {strays[0].reason}" if strays else "no file at all"
        raise ArtifactError(f"{root} holds no {wanted}, but {held}")
