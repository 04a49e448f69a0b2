"""Benchmarks out of the tar archives that fetch brought: the wanted pictures, each in its place, and nothing else.

Decided here: an archive is read once from front to back, but not as tarfile's stream, which takes a compressed file
that breaks off for a whole one. A member whose path is absolute or climbs with
`..` condemns the archive; of what is wanted, only regular files are taken, no links and no devices, and no file twice.
A benchmark is unpacked beside its place and moved there when it is whole.
"""

import gzip
import lzma
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from cgn.core.errors import ArtifactError
from cgn.core.files import explained, partial_folder
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

    Raises ArtifactError, and leaves no `folder`, for what is no whole tar archive, for one that reaches out of the
    folder or holds a link among the wanted files, and when nothing wanted is in it.
    """
    if folder.is_dir():
        return sum(1 for path in folder.rglob("*") if path.is_file())
    partial = partial_folder(folder)
    with explained(folder):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        files = sum(_unpacked(archive, partial, place=place) for archive in archives)
        partial.replace(folder)
    return files


def _unpacked(archive: Path, folder: Path, *, place: Place) -> int:
    files = 0
    try:
        with tarfile.open(archive, "r:*") as members:
            for member in members:
                if (target := _target(archive, member, place=place)) is not None:
                    held = members.extractfile(member)
                    assert held is not None
                    (folder / target).parent.mkdir(parents=True, exist_ok=True)
                    with held, (folder / target).open("xb") as file:
                        shutil.copyfileobj(held, file)
                    files += 1
    except FileExistsError as error:
        raise ArtifactError(f"{archive} holds {error.filename} twice: remove it and run fetch again") from None
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ArtifactError(f"{archive} is no whole tar archive ({error}): remove it and run fetch again") from None
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
    if not member.isreg():
        raise ArtifactError(f"{archive} holds {member.name!r}, which is no regular file: nothing of it was kept")
    return target
