"""The user's folders of photographs, where they are: what they hold, and whether that is what the survey saw.

Each must hold images of at least one class, and no class folder may be empty. Classes without a folder, and files that
are left out, are counted and shown, not refused: ImageNet-mini is ImageNet with most images gone.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from cgn.core.errors import ArtifactError, ConfigError, shortened
from cgn.core.files import read_json, readable, user_path
from cgn.imagenet.data.prepared_sets import FolderContents, SetName, inspect_folder
from cgn.imagenet.data.wnids import wnids

SURVEY = "survey.json"
"""Set -> digest of names and sizes, as `cgn.imagenet.survey` writes it."""


class CheckedFolders(Protocol):
    """The user's folders, as `prepare.folders` names them."""

    @property
    def train(self) -> str: ...
    @property
    def val(self) -> str: ...
    @property
    def stylized(self) -> str | None: ...
    @property
    def imagenet_c(self) -> str | None: ...


def check_survey(folder: Path, sets: Mapping[SetName, FolderContents]) -> None:
    """Raise ArtifactError where the survey in `folder` is not of what the sets hold now."""
    surveyed = read_json(folder / SURVEY)
    for name, contents in sets.items():
        if not isinstance(surveyed, dict) or surveyed.get(name) != contents.digest:
            raise ArtifactError(
                f"{folder / SURVEY} is not of the images that {name} holds now: run the survey again "
                "(python -m cgn survey)"
            )


def user_sets(folders: CheckedFolders, *, variant: str) -> dict[SetName, FolderContents]:
    """What each of the user's folders holds. Raises ConfigError with the dotted key of one that cannot be used."""
    named: dict[SetName, str | None] = {
        "train": folders.train,
        "val": folders.val,
        "stylized": folders.stylized,
        "imagenet_c": folders.imagenet_c,
    }
    found: dict[SetName, FolderContents] = {}
    for name, value in named.items():
        if value is None:
            continue
        key, folder = f"imagenet.{variant}.prepare.folders.{name}", user_path(value)
        if not folder.is_dir():
            raise ConfigError(f"{key} is {value!r}: there is no folder {folder}; give the folder of the images")
        try:
            found[name] = _contents(folder, name)
        except ArtifactError as error:
            raise ConfigError(f"{key} is {value!r}: {error}") from None
    return found


def _contents(folder: Path, name: SetName) -> FolderContents:
    """What a folder holds, and a line that says so."""
    contents = inspect_folder(folder, name, classes=wnids())
    if contents.empty:
        raise ArtifactError(
            f"{folder} holds class folders without a picture: {shortened(contents.empty)}; fill or remove them"
        )
    classes = len(wnids()) - len(contents.absent)
    of = f"{len(contents.corruptions)} corruptions" if contents.corruptions else f"{classes:,} classes"
    print(f"{name}: {len(contents.sizes):,} images of {of} in {readable(str(folder))}", flush=True)
    if contents.absent:
        _note(f"{name} has {len(contents.absent):,} classes without a folder: {shortened(contents.absent)}")
    for stray in contents.strays:
        _note(f"{name} has {stray.count:,} files or folders that are left out: {stray}")
    return contents


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)
