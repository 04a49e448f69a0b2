"""Is this file the asset? By its documented size and digests; else by its content, from the first byte to the last.

Where no digest is documented, a server's answer that is not the file (empty, a page, an error message,
half of a file) must not pass for the asset, because the digest of the first file that passes is recorded and is
required from then on. So the file is read to its end, and the names that its users look for must be in it. Nothing is
unpacked and nothing is unpickled.
"""

import gzip
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cgn.core.errors import ArtifactError
from cgn.core.files import checksum
from cgn.download.archives import GZIP, READ_BYTES, TAR_ERRORS, Bounds, open_tar
from cgn.download.sources import Asset, AssetKind

BOUNDS = Bounds()
SHOWN_BYTES = 60


def mismatch(asset: Asset, path: Path) -> str | None:
    """Why `path` is not `asset`; None when it is, or may be where no digest is known."""
    reason = digest_mismatch(asset, path)
    if reason is None and not asset.documented:
        return content_mismatch(asset, path)
    return reason


def digest_mismatch(asset: Asset, path: Path) -> str | None:
    """Why `path` has not the documented size and digests of `asset`, or is an HTML page; None when it has them."""
    if not path.is_file():
        return "missing"
    with path.open("rb") as file:  # what a server sends in place of a file that it will not give
        page = "it looks like an HTML page" if file.read(512).lstrip().startswith(b"<") else None
    reason = _difference(asset, path)
    if reason is None:
        return None if asset.documented else page
    return f"{reason}; {page}" if page else reason


def _difference(asset: Asset, path: Path) -> str | None:
    if asset.bytes is not None and path.stat().st_size != asset.bytes:
        return f"{path.stat().st_size:,} bytes, expected {asset.bytes:,}"
    if asset.sha256 is not None and not (found := checksum(path, algorithm="sha256")).startswith(asset.sha256):
        return f"sha256 {found}, expected {asset.sha256}{'...' if len(asset.sha256) < 64 else ''}"
    if asset.md5 is not None and (found := checksum(path, algorithm="md5")) != asset.md5:
        return f"md5 {found}, expected {asset.md5}"
    return None


def content_mismatch(asset: Asset, path: Path) -> str | None:
    """Why `path` cannot be `asset`, by its kind and the names in it; None when it may be."""
    assert asset.kind is not None
    size = path.stat().st_size
    if not size:
        return "the file is empty"
    with path.open("rb") as file:
        start = file.read(512)
    kind = KINDS[asset.kind]
    if not start.startswith(kind.starts):
        return f"it does not begin as {kind.called} does, but with {start[:SHOWN_BYTES]!r}"
    wanted = set(asset.holds)
    try:
        for name in kind.names(path):
            wanted -= {part for part in wanted if part in name}
    except ArtifactError as error:
        return " ".join(str(error).split())
    if wanted:
        return f"it is {kind.called}, but nothing in it is called {', '.join(sorted(wanted))}"
    return None


def _gzip(path: Path) -> Iterator[str]:
    most, unpacked = BOUNDS.unpacked_bytes(path.stat().st_size), 0
    with _readable(path), gzip.open(path, "rb") as file:
        while block := file.read(READ_BYTES):
            unpacked += len(block)
            if unpacked > most:
                raise ArtifactError(f"{path} unpacks to more than {most:,} bytes")
    yield path.name


def _tar(path: Path) -> Iterator[str]:
    with open_tar(path) as members:
        for member, _ in members:
            yield member.name


def _zip(path: Path) -> Iterator[str]:
    with _readable(path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        most, unpacked = BOUNDS.unpacked_bytes(path.stat().st_size), sum(member.file_size for member in members)
        if len(members) > BOUNDS.members or unpacked > most:
            raise ArtifactError(f"{path} unpacks to {unpacked:,} bytes in {len(members):,} files: at most {most:,}")
        for member in members:
            with archive.open(member) as file:  # its checksum is compared at its end
                while file.read(READ_BYTES):
                    pass
            yield member.filename


def _weights(path: Path) -> Iterator[str]:
    from cgn.core.checkpoints import load_weights  # loads torch, which most downloads do without

    if zipfile.is_zipfile(path):
        list(_zip(path))
    with _readable(path):
        names = list(load_weights(path))
    yield from names


def _safetensors(path: Path) -> Iterator[str]:
    from safetensors import safe_open

    with _readable(path), safe_open(path, framework="pt") as file:
        names = list(file.keys())
    yield from names


def _image(path: Path) -> Iterator[str]:
    from PIL import Image

    with _readable(path), Image.open(path, formats=("JPEG", "PNG")) as image:
        image.load()
    yield path.name


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what a reader raises for a damaged or hostile file into an ArtifactError."""
    from PIL import Image
    from safetensors import SafetensorError

    known = (Image.DecompressionBombError, Image.DecompressionBombWarning, SafetensorError, zipfile.BadZipFile)
    others = (zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, SyntaxError, *TAR_ERRORS)
    try:
        yield
    except ArtifactError:
        raise
    except (*known, *others) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ArtifactError(f"{path} is damaged or cut short ({error or type(error).__name__})") from None


@dataclass(frozen=True, kw_only=True)
class _Reader:
    called: str
    starts: tuple[bytes, ...]
    """Its first bytes are one of these."""
    names: Callable[[Path], Iterator[str]]
    """Reads the file to its end, or raises ArtifactError."""


PICKLE = tuple(bytes((0x80, version)) for version in range(2, 6))
KINDS: Mapping[AssetKind, _Reader] = {
    "gzip": _Reader(called="a gzip file", starts=(GZIP,), names=_gzip),
    "tar": _Reader(called="a tar archive", starts=(b"",), names=_tar),
    "tar.gz": _Reader(called="a gzip-compressed tar archive", starts=(GZIP,), names=_tar),
    "zip": _Reader(called="a zip archive", starts=(b"PK\x03\x04", b"PK\x05\x06"), names=_zip),
    "weights": _Reader(called="a file of torch weights", starts=(b"PK\x03\x04", *PICKLE), names=_weights),
    "safetensors": _Reader(called="a file of safetensors", starts=(b"",), names=_safetensors),
    "image": _Reader(called="a JPEG or PNG image", starts=(b"\xff\xd8\xff", b"\x89PNG"), names=_image),
}
