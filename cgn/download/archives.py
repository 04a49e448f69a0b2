"""Tar archives from outside: read within bounds, and unpacked file by file; or an ArtifactError and nothing is left.

Plain and gzip-compressed archives are read, but not as tarfile's stream, which accepts a truncated
compressed file as a complete one. An archive must end in its closing block: tarfile alone takes a damaged header, or a
plain archive cut between two members, for the end. No header can make more be read, counted or unpacked than `Bounds`
allow; images are compressed already, so an honest archive grows little.

A member whose path is absolute or contains `..` makes the archive refused; of the wanted members, only regular files
are taken, no links, no devices and no sparse files, and no file twice. A folder is unpacked under another name and
moved into place when it is complete.
"""

import gzip
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from cgn.core.errors import ArtifactError, CgnError
from cgn.core.files import explained
from cgn.core.outputs import partial_folder

GZIP = b"\x1f\x8b"
READ_BYTES = 1 << 20
"""No read is longer, so no header (a name, a pax record) is either."""
TAR_ERRORS = (
    tarfile.TarError, zlib.error, EOFError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError,
    RecursionError, MemoryError,
)  # fmt: skip
"""What tarfile and zlib raise for bytes that contradict a header."""

Member = tuple[tarfile.TarInfo, Callable[[], IO[bytes]]]
"""A member and a function that opens it for reading; only regular files can be opened."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Limits of an archive: ImageNet-C's largest group has 1,000,000 images."""

    members: int = 4_000_000
    growth: int = 20
    """Bytes unpacked for each byte of the archive."""
    slack_bytes: int = 1 << 26
    """Bytes unpacked beyond that."""

    def unpacked_bytes(self, packed_bytes: int) -> int:
        """The most that an archive of this size may unpack to."""
        return self.growth * packed_bytes + self.slack_bytes


@contextmanager
def open_tar(archive: Path, *, bounds: Bounds | None = None) -> Iterator[Iterator[Member]]:
    """The members of an archive. Read them to the end: only then is it known to be complete.

    Raises ArtifactError, also from within the `with` block, when the archive is damaged, cut short or out of bounds.
    """
    bounds = bounds or Bounds()
    try:
        with archive.open("rb") as packed:
            start = packed.read(len(GZIP))
            packed.seek(0)
            plain = gzip.GzipFile(fileobj=packed, mode="rb") if start == GZIP else packed
            source = _Source(cast(IO[bytes], plain))
            with tarfile.open(fileobj=cast(IO[bytes], source), mode="r:") as members:
                yield _members(archive, members, source=source, bounds=bounds)
    except CgnError:
        raise
    except TAR_ERRORS as error:
        raise _broken(archive, str(error) or type(error).__name__) from None
    except OSError as error:
        if error.errno is not None:  # an error of the disk, not of the archive
            raise
        raise _broken(archive, str(error)) from None


class _Source:
    """An archive's uncompressed bytes; `last` is the latest block read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= READ_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        self.last = self.file.read(size)
        return self.last

    def seek(self, place: int, whence: int = 0) -> int:
        return self.file.seek(place, whence)

    def tell(self) -> int:
        return self.file.tell()


def _members(archive: Path, members: tarfile.TarFile, *, source: _Source, bounds: Bounds) -> Iterator[Member]:
    most, count, unpacked = bounds.unpacked_bytes(archive.stat().st_size), 0, 0
    while (member := members.next()) is not None:
        members.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header in memory
        count += 1
        unpacked += max(member.size, 0)
        if count > bounds.members:
            raise _broken(archive, f"it holds more than {bounds.members:,} members")
        if member.size < 0 or unpacked > most:
            reason = f"{member.name!r} of {member.size:,} bytes makes it more than the {most:,} that it may unpack to"
            raise _broken(archive, reason)
        yield member, lambda member=member: _file(archive, members, member)  # type: ignore[misc]
    if len(source.last) != tarfile.BLOCKSIZE or source.last.strip(b"\0"):
        raise _broken(archive, "it is damaged or cut short before its closing block")
    rest = 0
    while block := source.read(READ_BYTES):  # to the end of a compressed file, where its checksum is
        rest += len(block)
        if rest > most:
            raise _broken(archive, f"more than {most:,} bytes follow its closing block")


def _file(archive: Path, members: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    if not member.isreg() or member.issparse():
        what = "a sparse file" if member.isreg() else "no regular file"
        raise ArtifactError(f"{archive} holds {member.name!r}, which is {what}: nothing of it was kept")
    file: Any = members.extractfile(member)
    return cast(IO[bytes], file)


def _broken(archive: Path, reason: str) -> ArtifactError:
    return ArtifactError(
        f"{archive} is no whole tar archive ({' '.join(reason.split())}): remove it and run fetch again"
    )


Place = Callable[[PurePosixPath], PurePosixPath | None]
"""A member's path -> its path below the target folder, or None where it is not wanted."""


def unpack(archives: Iterable[Path], folder: Path, *, place: Place) -> int:
    """Unpack the wanted members of the archives into `folder`; return how many. An existing folder is kept as it is.

    Raises ArtifactError, and leaves no `folder`, for what is not a complete tar archive, for one that is out of bounds,
    has a path out of the folder, a link among the wanted files or one of them twice, and for one without any of them.
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
    with open_tar(archive) as members:
        for member, open_member in members:
            if (target := _target(archive, member, place=place)) is None:
                continue
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            if (folder / target).exists():
                raise ArtifactError(f"{archive} holds {str(target)!r} twice: remove it and run fetch again")
            with open_member() as source, (folder / target).open("xb") as file:
                shutil.copyfileobj(source, file)
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
