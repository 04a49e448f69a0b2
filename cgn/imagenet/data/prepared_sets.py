"""The image sets that the ImageNet track's prepare writes or finds: folders of images, and a manifest that lists them.

    train/ val/ stylized/ imagenet_c/     the miniature's own, or the user's folders, in their place
    imagenet9/ cue_conflict/ frost/       drawn, or unpacked from the benchmarks' archives
    masks/                                the miniature's true masks

A set's folder is looked up by name. The manifest has each folder's path, relative to the data folder or
absolute, and what was found in it, so the user's sets are neither copied nor linked. It has the names of the classes
too, in the order of the labels: a folder without one of the classes shifts no label.

    files/<set>.tsv.gz                    a line for each file of the set: its bytes, a tab, its path from the folder

Before a set is read, it is compared with that list, by names and sizes: hashing all of ImageNet would take an hour.
"""

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from cgn.core.errors import ArtifactError, shortened
from cgn.core.files import MANIFEST, on_disk, read_json, readable, replacing, sha256, walk, write_json
from cgn.imagenet.data.image_folders import (
    SHOWN,
    Stray,
    class_folders,
    corruption_folders,
    imagenet_c,
    is_image,
    merge_strays,
)

SetName = Literal["train", "val", "stylized", "imagenet_c", "imagenet9", "cue_conflict", "frost", "masks"]
"""`imagenet_c` is published, <corruption>/<severity>/<class>/...; where it is absent it is computed from `val`."""

FILES = "files"
AGAIN = "run prepare again, and what follows from it, or put the folder back as it was"


@dataclass(frozen=True, kw_only=True)
class PreparedSet:
    """One set: how many images, and the digest of its files' names and bytes (of a user's folder: names and sizes)."""

    folder: str
    images: int
    digest: str
    listed: str = ""
    """Digest of its files' names and sizes; empty where prepare did not list them."""


@dataclass(frozen=True, kw_only=True)
class FolderContents:
    """The content of a user's folder: `sizes` in bytes by the name of each image, and what is left out."""

    folder: Path
    sizes: Mapping[str, int]
    strays: tuple[Stray, ...]
    absent: tuple[str, ...]
    """Classes without a folder."""
    empty: tuple[str, ...]
    """Classes whose folder has no image."""
    corruptions: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Of names and sizes."""
        return _digest(self.sizes, lambda name: str(self.sizes[name]))


@dataclass(frozen=True, kw_only=True)
class PreparedSets:
    """The sets of a data folder `root`; `facts` are track, variant, seed and how the sets were prepared."""

    root: Path
    facts: Mapping[str, Any]
    class_names: tuple[str, ...]
    """Class folders in the order of the labels: the miniature's nine, or ImageNet's 1000 WordNet ids."""
    sets: Mapping[str, PreparedSet]

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def has(self, name: SetName) -> bool:
        """Whether prepare found or wrote this set."""
        return name in self.sets

    def folder(self, name: SetName) -> Path:
        """A set's folder. Raises ArtifactError when there is no such set, or when its folder is missing now."""
        if name not in self.sets:
            raise ArtifactError(
                f"{self.root} has no set {name!r}, only {', '.join(self.sets)}: add it by fetch.extras or "
                "prepare.folders in params.yaml and run prepare again"
            )
        folder = self.root / self.sets[name].folder
        if not folder.is_dir():
            raise ArtifactError(f"the folder of {name}, {folder}, is missing since {self.root} was made: put it back")
        return folder

    def unchanged(self, name: SetName) -> Path:
        """A set's folder, checked before its images are read: unchanged since prepare by its files' names and sizes.

        Raises ArtifactError saying what was added, removed or has another size.
        """
        folder, held = self.folder(name), self.sets[name]
        if not held.listed:
            return folder
        try:
            foreign = Path(held.folder).is_absolute()
            now = (
                inspect_folder(folder, name, classes=self.class_names).sizes
                if foreign
                else _sizes(folder, walk(folder).files)
            )
        except ArtifactError as error:
            raise ArtifactError(f"{readable(str(folder))} has changed since prepare: {error}; {AGAIN}") from None
        if _digest(now, lambda file: str(now[file])) != held.listed:
            changes = _changes(self.files(name), now)
            raise ArtifactError(f"{readable(str(folder))} has changed since prepare: {changes}; {AGAIN}")
        return folder

    def files(self, name: SetName) -> dict[str, int]:
        """Size by name of the files that prepare found. Raises ArtifactError when its list is missing or broken."""
        path = self.root / FILES / f"{name}.tsv.gz"
        try:
            text = gzip.decompress(path.read_bytes()).decode()
            rows = (line.partition("\t") for line in text.split("\n")[:-1])
            found = {file: int(size) for size, _, file in rows}
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise ArtifactError(f"{path} is missing or broken ({error}): run prepare again") from None
        if _digest(found, lambda file: str(found[file])) != self.sets[name].listed:
            raise ArtifactError(f"{path} is missing or broken (not what {MANIFEST} says): run prepare again")
        return found


def inspect_folder(folder: Path, name: SetName, *, classes: Sequence[str]) -> FolderContents:
    """List one of the user's folders. Raises ArtifactError when it has no image where one should be."""
    if name != "imagenet_c":
        listed = class_folders(folder, classes=classes)
        sizes = _sizes(folder, listed.names)
        return FolderContents(
            folder=folder, sizes=sizes, strays=listed.strays, absent=listed.absent, empty=listed.empty
        )
    homes, strays = corruption_folders(folder)
    found = imagenet_c(folder, corruptions=tuple(homes), classes=classes).present if homes else {}
    if not found:
        raise ArtifactError(f"{folder} holds no corruption of ImageNet-C, such as fog/1/{classes[0]}")
    subfolders = [(readable(images.root.relative_to(folder).as_posix()), images) for images in found.values()]
    names = [f"{home}/{file}" for home, images in subfolders for file in images.names]
    return FolderContents(
        folder=folder,
        sizes=_sizes(folder, names),
        strays=merge_strays([("", strays), *((f"{home}/", images.strays) for home, images in subfolders)]),
        absent=tuple(sorted({name for _, images in subfolders for name in images.absent})),
        empty=tuple(f"{home}/{name}" for home, images in subfolders for name in images.empty),
        corruptions=tuple(homes),
    )


def internal_set(root: Path, name: SetName) -> PreparedSet:
    """The set in `<root>/<name>`, identified by the bytes of all its files; they are listed in `root`."""
    folder = root / name
    files = walk(folder).files
    listed = _list_files(root, name, _sizes(folder, files))
    digest = _digest(files, lambda file: sha256(folder / on_disk(file)))
    return PreparedSet(folder=name, images=sum(map(is_image, files)), digest=digest, listed=listed)


def external_set(contents: FolderContents, *, root: Path, name: SetName) -> PreparedSet:
    """A user's folder as a set, identified by names and sizes, as hashing all of ImageNet takes an hour."""
    listed = _list_files(root, name, contents.sizes)
    folder = str(contents.folder.resolve())
    return PreparedSet(folder=folder, images=len(contents.sizes), digest=listed, listed=listed)


def _list_files(root: Path, name: SetName, sizes: Mapping[str, int]) -> str:
    """Write files/<set>.tsv.gz; return the digest of its content."""
    text = "".join(f"{sizes[file]}\t{file}\n" for file in sorted(sizes))
    with replacing(root / FILES / f"{name}.tsv.gz") as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))
    return _digest(sizes, lambda file: str(sizes[file]))


def _sizes(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """Bytes by name. Raises ArtifactError for a file that disappears meanwhile."""
    try:
        return {name: os.stat(f"{folder}/{on_disk(name)}").st_size for name in names}  # noqa: PTH116 (a million)
    except OSError as error:
        raise ArtifactError(f"{readable(str(error.filename))} cannot be read: {error.strerror}") from None


def _changes(before: Mapping[str, int], now: Mapping[str, int]) -> str:
    """What differs, in words."""
    kinds = {
        "added": sorted(now.keys() - before.keys()),
        "removed": sorted(before.keys() - now.keys()),
        "of another size": sorted(name for name in before.keys() & now.keys() if before[name] != now[name]),
    }
    return ", ".join(
        f"{len(names):,} {what} ({shortened(names, shown=SHOWN)})" for what, names in kinds.items() if names
    )


def _digest(files: Iterable[str], value: Callable[[str], str]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file}\0{value(file)}\n".encode())
    return digest.hexdigest()


def write_prepared_sets(prepared: PreparedSets) -> None:
    """Write the manifest into `prepared.root`."""
    unknown = sorted(prepared.sets.keys() - set(get_args(SetName)))
    assert not unknown, unknown
    manifest = {
        "facts": dict(prepared.facts),
        "class_names": list(prepared.class_names),
        "sets": {name: asdict(held) for name, held in prepared.sets.items()},
    }
    write_json(prepared.root / MANIFEST, manifest)


def read_prepared_sets(data: Path) -> PreparedSets:
    """Read what `write_prepared_sets` wrote. Raises ArtifactError for anything else."""
    manifest = read_json(data / MANIFEST)
    try:
        return PreparedSets(
            root=data,
            facts=dict(manifest["facts"]),
            class_names=tuple(str(name) for name in manifest["class_names"]),
            sets={name: PreparedSet(**held) for name, held in manifest["sets"].items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ArtifactError(
            f"{data / MANIFEST} is not a list of image sets: give the folder that prepare made for imagenet"
        ) from None
