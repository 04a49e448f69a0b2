"""Files: written whole or not at all, read with errors that say what to do, digests, and the files below a folder.

A folder is listed by one function (`walk`): links are followed, never in a circle, and what cannot be
followed is listed. A file's name is text everywhere (`readable`): bytes that are not UTF-8, control characters and the
backslash are escaped as Python escapes them, `caf\\xe9.JPEG`, so a name can be stored, shown and restored (`on_disk`).
"""

import errno
import hashlib
import json
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgn.core.errors import ArtifactError

MANIFEST = "manifest.json"
CHUNK_BYTES = 1 << 20
SAFE = "nothing is lost, what was finished before is kept"
ROOT = "CGN_ROOT"
ODD = re.compile(r"[\\\x00-\x1f\x7f\udc80-\udcff]")  # the last range: how Python holds bytes that are not UTF-8
WRITTEN = re.compile(r"\\(?:\\|x([0-9a-f]{2}))")


def user_path(text: str) -> Path:
    """A path from the user as an absolute one; a relative one starts at the folder in CGN_ROOT, or here.

    CGN_ROOT is the user's checkout where a stage runs in a temporary copy of it, which lacks the user's data.
    """
    return Path(os.environ.get(ROOT, ""), text).resolve()


def readable(name: str) -> str:
    """A file's name or path as text that can be stored and shown; most stay as they are. `on_disk` is the inverse."""
    return ODD.sub(_written, name) if ODD.search(name) else name


def _written(found: re.Match[str]) -> str:
    return "\\\\" if found[0] == "\\" else f"\\x{ord(found[0]) & 0xFF:02x}"


def on_disk(name: str) -> str:
    """The inverse of `readable`: the name by which the file can be opened."""
    return WRITTEN.sub(_byte, name) if "\\" in name else name


def _byte(found: re.Match[str]) -> str:
    if found[1] is None:
        return "\\"
    byte = int(found[1], 16)
    return chr(byte if byte < 0x80 else 0xDC00 + byte)


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What is below a folder: relative paths, `readable`, sorted."""

    files: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    """(path, reason) of what is neither a file nor a folder that can be entered."""


def walk(root: Path) -> Walk:
    """All files below `root`, hidden ones too. Raises ArtifactError when `root` itself cannot be read.

    Links are followed, but not to a folder that contains the link: that would never end.
    """
    real = root.resolve()
    above = frozenset(_identity(folder.stat()) for folder in (real, *real.parents)) if real.is_dir() else frozenset()
    files: list[str] = []
    left_out: list[tuple[str, str]] = []
    waiting = [("", above)]
    while waiting:
        prefix, holders = waiting.pop()
        try:
            with os.scandir(os.path.join(root, prefix)) as entries:  # noqa: PTH118 (as fast as it gets)
                found = list(entries)
        except OSError as error:
            if not prefix:
                raise ArtifactError(f"{readable(str(root))} cannot be read: {error.strerror}") from None
            left_out.append((readable(prefix[:-1]), f"a folder that cannot be read ({error.strerror})"))
            continue
        for entry in found:
            name = prefix + entry.name
            inside = _entered(entry, holders)
            if inside is None:
                files.append(readable(name))
            elif isinstance(inside, str):
                left_out.append((readable(name), inside))
            else:
                waiting.append((f"{name}/", inside))
    return Walk(files=tuple(sorted(files)), left_out=tuple(sorted(left_out)))


def _entered(entry: "os.DirEntry[str]", holders: frozenset[tuple[int, int]]) -> frozenset[tuple[int, int]] | str | None:
    """None for a file; for a folder, the folders around its content; or the reason why it is left out."""
    try:
        if entry.is_file():
            return None
        if entry.is_dir():
            identity = _identity(entry.stat())
            return "a link to a folder that holds it" if identity in holders else holders | {identity}
        return "a link that leads nowhere" if entry.is_symlink() else "neither a file nor a folder"
    except OSError as error:
        return "a link that leads nowhere" if error.errno == errno.ELOOP else f"cannot be read ({error.strerror})"


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError on `path` into an ArtifactError that says what is wrong and what to do."""
    try:
        yield
    except OSError as error:
        remedy = {
            errno.ENOSPC: f"no space is left on this disk; {SAFE}: free some, then run the same command again",
            errno.EDQUOT: f"the disk quota is used up; {SAFE}: free some space, then run the same command again",
            errno.EFBIG: f"it is larger than the disk or a limit of this process allows; {SAFE}: raise the limit",
            errno.EIO: f"the disk reports an error; {SAFE}: see the system's log, or choose another disk",
            errno.EACCES: "permission denied: choose a folder that you may write to",
            errno.EPERM: "permission denied: choose a folder that you may write to",
            errno.EROFS: "the file system is read-only: choose another folder",
            errno.ENOTDIR: "a part of this path is a file, not a folder",
            errno.EEXIST: "a file of this name is in the way",
            errno.EISDIR: "a folder of this name is in the way",
        }.get(error.errno or 0)
        elsewhere = error.filename is not None and not Path(str(error.filename)).is_relative_to(path.parent)
        if remedy is None or elsewhere:
            raise
        raise ArtifactError(f"cannot write {error.filename or path}: {remedy}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path` (durable), on failure it is removed.

    The file has the permissions of the process's umask, whatever library wrote it.
    """
    temporary = path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}.tmp")  # many machines may share it
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            if temporary.stat().st_mode != mode:  # safetensors writes files that only their owner may read
                temporary.chmod(mode)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as sorted, indented JSON, whole or not at all. Equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def json_value(text: str | bytes) -> Any:
    """JSON as a value. Raises ValueError for whatever is wrong with it, also for values nested too deeply."""
    try:
        return json.loads(text.decode("utf-8") if isinstance(text, bytes) else text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def read_json(path: Path) -> Any:
    """Read JSON. Raises ArtifactError naming the file when it is missing or broken."""
    try:
        return json_value(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: run the stage that makes {path.parent} again") from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ArtifactError(f"{path} is broken ({error}): run the stage that makes {path.parent} again") from None


def read_object(path: Path) -> dict[str, Any]:
    """Read JSON that must be an object. Raises ArtifactError as `read_json` does, and for any other value."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ArtifactError(
            f"{path} holds a {type(value).__name__}, not an object: run the stage that makes {path.parent} again"
        )
    return value


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    return checksum(path, algorithm="sha256")


def checksum(path: Path, *, algorithm: str) -> str:
    """Hex digest of a file's bytes by `algorithm` (a name that hashlib knows)."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(CHUNK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def folder_digest(folder: Path) -> str:
    """The digest of a finished folder: of its manifest where it has one, else of every file's name and bytes.

    Linked folders are included.
    """
    if (manifest := folder / MANIFEST).is_file():
        return sha256(manifest)
    digest = hashlib.sha256()
    for name in sorted(walk(folder).files, key=lambda name: name.split("/")):
        digest.update(f"{name}\0{sha256(folder / on_disk(name))}\n".encode())
    return digest.hexdigest()
