"""The user's photographs and the published benchmarks as a collection: looked through, unpacked, never copied twice.

Decided here: the user's folders stay where they are. Each must hold pictures of at least one class, and no class folder
may be empty; classes without a folder, and what is left out, are counted and shown, not refused: ImageNet-mini
is ImageNet with most pictures gone. A benchmark is there when fetch brought its archive.
"""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from cgn.core.errors import ArtifactError, ConfigError, shortened
from cgn.core.files import readable, replacing, user_path
from cgn.data import archives, image_folders, sources
from cgn.data.prepared_sets import FolderContents, PreparedSet, SetName, inspect_folder, internal_set
from cgn.data.wnids import wnids

SURVEY = "survey.json"
"""Set -> digest of names and sizes, as `cgn.imagenet.survey` writes it."""


class Named(Protocol):
    """The user's folders, as `prepare.folders` names them."""

    @property
    def train(self) -> str: ...
    @property
    def val(self) -> str: ...
    @property
    def stylized(self) -> str | None: ...
    @property
    def imagenet_c(self) -> str | None: ...


def user_sets(folders: Named, *, variant: str) -> dict[SetName, FolderContents]:
    """The user's folders that are named. Raises ConfigError with the dotted key of one that does not do."""
    named: dict[SetName, str | None] = {
        "train": folders.train,
        "val": folders.val,
        "stylized": folders.stylized,
        "imagenet_c": folders.imagenet_c,
    }
    found: dict[SetName, FolderContents] = {}
    for name, told in named.items():
        if told is not None:
            key = f"imagenet.{variant}.prepare.folders.{name}"
            folder = user_path(told)
            if not folder.is_dir():
                raise ConfigError(f"{key} is {told!r}: there is no folder {folder}; give the folder of the pictures")
            try:
                found[name] = _seen(folder, name)
            except ArtifactError as error:
                raise ConfigError(f"{key} is {told!r}: {error}") from None
    return found


def benchmark_sets(assets: Path, data: Path) -> dict[str, PreparedSet]:
    """The benchmarks whose files fetch brought, unpacked into `data`."""
    packed: Mapping[SetName, tuple[tuple[sources.Asset, ...], archives.Place]] = {
        "imagenet9": ((sources.BACKGROUNDS_CHALLENGE,), image_folders.imagenet9_member),
        "cue_conflict": ((sources.CUE_CONFLICT,), image_folders.cue_conflict_member),
        "imagenet_c": (sources.IMAGENET_C, image_folders.imagenet_c_member),
    }
    found: dict[str, PreparedSet] = {}
    for name, (files, place) in packed.items():
        brought = [assets / file.name for file in files if (assets / file.name).is_file()]
        if brought:
            archives.unpack(brought, data / name, place=place)
            found[name] = internal_set(data, name)
    if all((assets / file.name).is_file() for file in sources.FROST):
        for file in sources.FROST:
            with replacing(data / "frost" / file.name) as temporary:
                shutil.copyfile(assets / file.name, temporary)
        found["frost"] = internal_set(data, "frost")
    return found


def _seen(folder: Path, name: SetName) -> FolderContents:
    """What a folder holds, and a line that says so."""
    contents = inspect_folder(folder, name, classes=wnids())
    if contents.empty:
        raise ArtifactError(
            f"{folder} holds class folders without a picture: {shortened(contents.empty)}; fill or remove them"
        )
    classes = len(wnids()) - len(contents.absent)
    of = f"{len(contents.corruptions)} corruptions" if contents.corruptions else f"{classes:,} classes"
    print(f"{name}: {len(contents.sizes):,} pictures of {of} in {readable(str(folder))}", flush=True)
    if contents.absent:
        _note(f"{name} has {len(contents.absent):,} classes without a folder: {shortened(contents.absent)}")
    for stray in contents.strays:
        _note(f"{name} has {stray.count:,} files or folders that are left out: {stray}")
    return contents


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)
