"""What the ImageNet track's prepare leaves behind: folders of pictures, and a manifest that says which there are.

    train/ val/ stylized/ imagenet_c/     the miniature's own, or the user's folders, where they lie
    imagenet9/ cue_conflict/ frost/       drawn, or unpacked from the benchmarks' archives
    masks/                                the miniature's true masks

Decided here: who reads a set asks for its folder by name. The manifest holds each folder's path, relative to the data
folder or absolute, and what was found in it, so the sets of the user are neither copied nor linked. The names of the
classes stand in it too, in the order of the labels: a folder that lacks a class shifts no number.

    files/<set>.tsv.gz                    a line for each file of the set: its bytes, a tab, its path from the folder

What is read later is compared with that list first, by names and sizes: to hash all of ImageNet would take an hour.
"""

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from cgn.core.errors import ArtifactError
from cgn.core.files import MANIFEST, on_disk, read_json, readable, replacing, sha256, walk, write_json
from cgn.data.benchmarks import Stray, class_folders, corruption_folders, few, imagenet_c, is_picture, merged

SetName = Literal["train", "val", "stylized", "imagenet_c", "imagenet9", "cue_conflict", "frost", "masks"]
"""`imagenet_c` is prebuilt, <corruption>/<severity>/<class folder>/...; where it is absent it is made from `val`."""

FILES = "files"
AGAIN = "run prepare again, and what follows from it, or put the folder back as it was"


@dataclass(frozen=True, kw_only=True)
class PictureSet:
    """One set: how many pictures, and the digest of its files' names and bytes (the user's folders: and sizes)."""

    folder: str
    images: int
    digest: str
    listed: str = ""
    """Digest of its files' names and sizes; empty where prepare did not list them."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a folder of the user's holds: `sizes` in bytes by the name of each picture, and what is beside them."""

    folder: Path
    sizes: Mapping[str, int]
    strays: tuple[Stray, ...]
    absent: tuple[str, ...]
    """Classes without a folder."""
    empty: tuple[str, ...]
    """Classes whose folder holds no picture."""
    corruptions: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Of names and sizes."""
        return _digest(self.sizes, lambda name: str(self.sizes[name]))


@dataclass(frozen=True, kw_only=True)
class Collection:
    """The sets below `root`; `facts` are track, variant, seed and how the sets came about."""

    root: Path
    facts: Mapping[str, Any]
    class_names: tuple[str, ...]
    """Class folders in the order of the labels: the miniature's nine, or ImageNet's 1000 WordNet ids."""
    sets: Mapping[str, PictureSet]

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def has(self, name: SetName) -> bool:
        """Whether prepare found or made this set."""
        return name in self.sets

    def folder(self, name: SetName) -> Path:
        """Where a set lies. Raises ArtifactError when there is none, or when its folder has gone since."""
        if name not in self.sets:
            raise ArtifactError(
                f"{self.root} has no set {name!r}, only {', '.join(self.sets)}: bring it by fetch.extras or "
                "prepare.folders in params.yaml and run prepare again"
            )
        folder = self.root / self.sets[name].folder
        if not folder.is_dir():
            raise ArtifactError(f"the folder of {name}, {folder}, has gone since {self.root} was made: put it back")
        return folder

    def unchanged(self, name: SetName) -> Path:
        """The same, for whoever reads its pictures: as prepare found it, by the names and sizes of its files.

        Raises ArtifactError saying what was added, removed or has another size.
        """
        folder, held = self.folder(name), self.sets[name]
        if not held.listed:
            return folder
        try:
            foreign = Path(held.folder).is_absolute()
            now = look(folder, name, classes=self.class_names).sizes if foreign else _sizes(folder, walk(folder).files)
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


def look(folder: Path, name: SetName, *, classes: Sequence[str]) -> Contents:
    """One of the user's folders. Raises ArtifactError when it holds no picture where one should be."""
    if name != "imagenet_c":
        listing = class_folders(folder, classes=classes)
        sizes = _sizes(folder, listing.names)
        return Contents(folder=folder, sizes=sizes, strays=listing.strays, absent=listing.absent, empty=listing.empty)
    homes, strays = corruption_folders(folder)
    found = imagenet_c(folder, corruptions=tuple(homes), classes=classes).present if homes else {}
    if not found:
        raise ArtifactError(f"{folder} holds no corruption of ImageNet-C, such as fog/1/{classes[0]}")
    listings = [(readable(listing.root.relative_to(folder).as_posix()), listing) for listing in found.values()]
    names = [f"{home}/{picture}" for home, listing in listings for picture in listing.names]
    return Contents(
        folder=folder,
        sizes=_sizes(folder, names),
        strays=merged([("", strays), *((f"{home}/", listing.strays) for home, listing in listings)]),
        absent=tuple(sorted({name for _, listing in listings for name in listing.absent})),
        empty=tuple(f"{home}/{name}" for home, listing in listings for name in listing.empty),
        corruptions=tuple(homes),
    )


def own_set(root: Path, name: SetName) -> PictureSet:
    """The set in `<root>/<name>`, known by the bytes of all its files; they are listed in `root`."""
    folder = root / name
    files = walk(folder).files
    listed = _list_files(root, name, _sizes(folder, files))
    digest = _digest(files, lambda file: sha256(folder / on_disk(file)))
    return PictureSet(folder=name, images=sum(map(is_picture, files)), digest=digest, listed=listed)


def foreign_set(contents: Contents, *, root: Path, name: SetName) -> PictureSet:
    """A folder of the user's as a set: known by names and sizes, as hashing all of ImageNet takes an hour."""
    listed = _list_files(root, name, contents.sizes)
    folder = str(contents.folder.resolve())
    return PictureSet(folder=folder, images=len(contents.sizes), digest=listed, listed=listed)


def _list_files(root: Path, name: SetName, sizes: Mapping[str, int]) -> str:
    """Write files/<set>.tsv.gz; the digest of what it says."""
    text = "".join(f"{sizes[file]}\t{file}\n" for file in sorted(sizes))
    with replacing(root / FILES / f"{name}.tsv.gz") as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))
    return _digest(sizes, lambda file: str(sizes[file]))


def _sizes(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """Bytes by name. Raises ArtifactError for a file that goes away meanwhile."""
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
    return ", ".join(f"{len(names):,} {what} ({few(names)})" for what, names in kinds.items() if names)


def _digest(files: Iterable[str], told: Callable[[str], str]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file}\0{told(file)}\n".encode())
    return digest.hexdigest()


def write_collection(collection: Collection) -> None:
    """Write the manifest into `collection.root`."""
    unknown = sorted(collection.sets.keys() - set(get_args(SetName)))
    assert not unknown, unknown
    told = {
        "facts": dict(collection.facts),
        "class_names": list(collection.class_names),
        "sets": {name: asdict(held) for name, held in collection.sets.items()},
    }
    write_json(collection.root / MANIFEST, told)


def read_collection(data: Path) -> Collection:
    """Read what `write_collection` wrote. Raises ArtifactError for anything else."""
    told = read_json(data / MANIFEST)
    try:
        return Collection(
            root=data,
            facts=dict(told["facts"]),
            class_names=tuple(str(name) for name in told["class_names"]),
            sets={name: PictureSet(**held) for name, held in told["sets"].items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ArtifactError(
            f"{data / MANIFEST} is no list of picture sets: give the folder that prepare made for imagenet"
        ) from None
