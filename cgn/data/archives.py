"""Benchmarks out of the tar archives that fetch brought: the wanted pictures, each in its place, and nothing else.

Decided here: an archive is read within bounds (`cgn.data.tars`). A member whose path is absolute or climbs with `..`
condemns the archive; of what is wanted, only regular files are taken, no links, no devices and no sparse files, and no
file twice. A benchmark is unpacked beside its place and moved there when it is whole; a refused archive leaves nothing.
"""

import os
import shutil
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from cgn.core.errors import ArtifactError
from cgn.core.files import explained
from cgn.core.outputs import partial_folder
from cgn.data import tars
from cgn.data.benchmarks import VARIATIONS
from cgn.data.wnids import wnids

Place = Callable[[PurePosixPath], PurePosixPath | None]
"""A member's path -> where it goes below the benchmark's folder; None: it is not wanted."""

STIMULI = ("stimuli", "style-transfer-preprocessed-512")
SEVERITIES = frozenset("12345")
_WNIDS = frozenset(wnids())


def imagenet9(path: PurePosixPath) -> PurePosixPath | None:
    """.../<variation>/val/<class>/<file> from the variation on; `fg_mask` too."""
    for start, (name, below) in enumerate(zip(path.parts, path.parts[1:], strict=False)):
        if name in (*VARIATIONS, "fg_mask") and below == "val" and len(path.parts) == start + 4:
            return PurePosixPath(*path.parts[start:])
    return None


def cue_conflict(path: PurePosixPath) -> PurePosixPath | None:
    """.../stimuli/style-transfer-preprocessed-512/<shape>/<file> from the shape on."""
    return PurePosixPath(*path.parts[-2:]) if path.parts[-4:-2] == STIMULI else None


def imagenet_c(path: PurePosixPath) -> PurePosixPath | None:
    """.../<corruption>/<severity>/<wnid>/<file> from the corruption on."""
    parts = path.parts[-4:]
    wanted = len(parts) == 4 and parts[1] in SEVERITIES and parts[2] in _WNIDS
    return PurePosixPath(*parts) if wanted else None


def unpack(archives: Iterable[Path], folder: Path, *, place: Place) -> int:
    """Unpack what is wanted of the archives into `folder`; how many files. A folder that is there is kept as it is.

    Raises ArtifactError, and leaves no `folder`, for what is no whole tar archive, for one that is out of bounds or
    reaches out of the folder, holds a link among the wanted files or one of them twice, and when none is in it.
    """
    if folder.is_dir():
        return sum(1 for path in folder.rglob("*") if path.is_file())
    partial = partial_folder(folder)
    with explained(folder):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            files = sum(_unpacked(archive, partial, place=place) for archive in archives)
            partial.replace(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return files


def _unpacked(archive: Path, folder: Path, *, place: Place) -> int:
    files = 0
    with tars.opened(archive) as members:
        for member, open_member in members:
            if (target := _target(archive, member, place=place)) is None:
                continue
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            if (folder / target).exists():
                raise ArtifactError(f"{archive} holds {str(target)!r} twice: remove it and run fetch again")
            with open_member() as held, (folder / target).open("xb") as file:
                shutil.copyfileobj(held, file)
            files += 1
    if not files:
        raise ArtifactError(f"{archive} holds nothing of {folder.name.partition('.')[0]}: it is another archive")
    return files


def _target(archive: Path, member: tarfile.TarInfo, *, place: Place) -> PurePosixPath | None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        raise ArtifactError(f"{archive} reaches out of its folder with {member.name!r}: nothing of it was kept")
    target = place(path)
    if member.isdir() or target is None or target.name.startswith("."):  # hidden: what macOS adds to archives
        return None
    name = os.fsencode(member.name)  # bytes that are not UTF-8 are allowed, control characters are not
    if not name.decode("utf-8", "ignore").isprintable() or any(len(os.fsencode(part)) > 255 for part in target.parts):
        raise ArtifactError(f"{archive} holds {member.name[:80]!r}, which is no file name: nothing of it was kept")
    return target
