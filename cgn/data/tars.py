"""Tar archives that came from outside, read once from front to back: whole and within bounds, or an ArtifactError.

Decided here: plain and gzip-compressed archives are read, not as tarfile's stream, which accepts a compressed file that
breaks off as a whole one. An archive must end in its closing block: tarfile alone takes a damaged header, or a plain
archive cut between two members, for the end. No header can make more be read, counted or unpacked than `Bounds` allow;
pictures are compressed already, so an honest archive grows little.
"""

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from cgn.core.errors import ArtifactError, CgnError

GZIP = b"\x1f\x8b"
READ_BYTES = 1 << 20
"""No read is longer, so no header (a name, a pax record) is either."""
BROKEN = (
    tarfile.TarError, zlib.error, EOFError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError,
    RecursionError, MemoryError,
)  # fmt: skip
"""What tarfile and zlib raise at bytes that are not what a header promises."""

Member = tuple[tarfile.TarInfo, Callable[[], IO[bytes]]]
"""A member and what opens it for reading; only regular files can be opened."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What an archive may hold: ImageNet-C's largest group has 1,000,000 pictures."""

    members: int = 4_000_000
    growth: int = 20
    """Bytes unpacked for each byte of the archive."""
    slack_bytes: int = 1 << 26
    """Bytes unpacked beyond that."""

    def unpacked_bytes(self, packed_bytes: int) -> int:
        """The most that an archive of this size may unpack to."""
        return self.growth * packed_bytes + self.slack_bytes


@contextmanager
def opened(archive: Path, *, bounds: Bounds | None = None) -> Iterator[Iterator[Member]]:
    """The members of an archive. Read them to the end: only then is it known to be whole.

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
    except BROKEN as error:
        raise _broken(archive, str(error) or type(error).__name__) from None
    except OSError as error:
        if error.errno is not None:  # the disk's, not the archive's
            raise
        raise _broken(archive, str(error)) from None


class _Source:
    """An archive's plain bytes; `last` is what was read last."""

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
    held: Any = members.extractfile(member)
    return cast(IO[bytes], held)


def _broken(archive: Path, reason: str) -> ArtifactError:
    return ArtifactError(
        f"{archive} is no whole tar archive ({' '.join(reason.split())}): remove it and run fetch again"
    )
