"""What the ImageNet track's prepare leaves behind: folders of pictures, and a manifest that says which there are.

    train/ val/ stylized/ imagenet_c/     the miniature's own, or the user's folders, where they lie
    imagenet9/ cue_conflict/ frost/       drawn, or unpacked from the benchmarks' archives
    masks/                                the miniature's true masks

Decided here: who reads a set asks for its folder by name. The manifest holds each folder's path, relative to the data
folder or absolute, and what was found in it, so the sets of the user are neither copied nor linked. The names of the
classes stand in it too, in the order of the labels: a folder that lacks a class shifts no number.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from cgn.core.errors import ArtifactError
from cgn.core.files import MANIFEST, read_json, sha256, write_json

SetName = Literal["train", "val", "stylized", "imagenet_c", "imagenet9", "cue_conflict", "frost", "masks"]
"""`imagenet_c` is prebuilt, <corruption>/<severity>/<class folder>/...; where it is absent it is made from `val`."""


@dataclass(frozen=True, kw_only=True)
class PictureSet:
    """One set: how many pictures, and the digest of its files' names and bytes (the user's folders: and sizes)."""

    folder: str
    images: int
    digest: str


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


def own_set(root: Path, name: SetName) -> PictureSet:
    """The set in `<root>/<name>`, known by the bytes of all its files, of which all but arrays are pictures."""
    folder = root / name
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    images = sum(not file.endswith(".npy") for file in files)
    return PictureSet(folder=name, images=images, digest=_digest(files, lambda file: sha256(folder / file)))


def foreign_set(folder: Path, names: Iterable[str]) -> PictureSet:
    """The user's pictures `names` in a folder: known by names and sizes, as hashing all of ImageNet takes an hour."""
    files = sorted(names)
    digest = _digest(files, lambda file: str((folder / file).stat().st_size))
    return PictureSet(folder=str(folder.resolve()), images=len(files), digest=digest)


def _digest(files: Iterable[str], told: Callable[[str], str]) -> str:
    digest = hashlib.sha256()
    for file in files:
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
