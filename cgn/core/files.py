"""Files that are whole or absent: write under a temporary name, then move.

Decided here: an output folder is built as `<name>.partial` and moved into place when it is finished, so a reader
never meets half of one; what a killed run left in `.partial` is offered to the next run with the same definition and
code, and set aside, never deleted, for any other. One process builds a folder at a time. What a run says of itself
(times, revisions, metrics) lives beside the folder in `<name>.log`, never inside: the folder's bytes depend on its
parameters and inputs alone.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cgn.core.errors import ArtifactError

DEFINITION = "definition.json"
MANIFEST = "manifest.json"
CHUNK_BYTES = 1 << 20
SAFE = "nothing is lost, what was finished before is kept"
ROOT = "CGN_ROOT"


def partial_folder(out: Path) -> Path:
    """Where `out` is built before it is moved into place."""
    return out.with_name(out.name + ".partial")


def log_folder(out: Path) -> Path:
    """Where the run that makes `out` writes metrics.jsonl, metrics.json, details.json, curves.csv and run.json."""
    return out.with_name(out.name + ".log")


def user_path(text: str) -> Path:
    """A path that the user gave, absolute; a relative one starts at the folder that CGN_ROOT names, or here.

    CGN_ROOT is the user's checkout where a stage runs in a temporary copy of it, which lacks the user's data.
    """
    return Path(os.environ.get(ROOT, ""), text).resolve()


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
    """Yield a temporary path beside `path`; on success it becomes `path` (durable), on failure it is removed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
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
    """JSON as a value. Raises ValueError for whatever is wrong with it: also bytes, digits or depth beyond reading."""
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
    """What a finished folder is: the hash of its manifest where it has one, else of every file's name and bytes.

    Folders that it links to count as its own.
    """
    if (manifest := folder / MANIFEST).is_file():
        return sha256(manifest)
    digest = hashlib.sha256()
    walk = ((Path(home), names) for home, _, names in os.walk(folder, followlinks=True))
    for path in sorted(home / name for home, names in walk for name in names if (home / name).is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


@contextmanager
def building(out: Path, *, definition: Mapping[str, Any], code: str = "") -> Iterator[Path]:
    """Yield the folder `<out>.partial` to build in; on success it replaces `out`.

    `definition` (JSON) is what the content depends on: resolved parameters, seed, digests of the inputs; `code` is the
    digest of what makes it. A `.partial` of both is continued, any other is set aside under a name of its own, and
    taken back when its turn comes again; a failure keeps it. A finished `out` with an equal definition is taken up
    again as well, so that the verb can check and mend it. Raises ArtifactError when another process builds `out`.
    """
    folder = partial_folder(out)
    with explained(out), _alone(out):
        if out.exists() and not out.is_dir():
            raise ArtifactError(f"cannot write {out}: a file of this name is in the way; move it or choose another")
        _make_room(folder, {**definition, "code": code})
        if not folder.exists() and _read_definition(out) == definition:
            out.replace(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.rglob(".*.tmp"):  # what a kill left of `replacing`
            left.unlink()
        write_json(folder / DEFINITION, {**definition, "code": code})
        yield folder
        write_json(folder / DEFINITION, definition)  # the bytes of an output do not hang on the code that made them
        if out.exists():
            shutil.rmtree(out)
        folder.replace(out)


def _make_room(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Leave in `folder` what was begun with the wanted definition and code, or nothing."""
    present = _read_definition(folder)
    if folder.exists() and present != wanted:
        aside = _aside(folder, present)
        if aside.exists():
            shutil.rmtree(aside)
        folder.replace(aside)
        print(f"{folder} was begun with other parameters, inputs or code: set aside as {aside}", flush=True)
    if not folder.exists() and _read_definition(aside := _aside(folder, wanted)) == wanted:
        aside.replace(folder)


def _aside(folder: Path, definition: Any) -> Path:
    told = json.dumps(definition, sort_keys=True).encode()
    return folder.with_name(f"{folder.name}-{hashlib.sha256(told).hexdigest()[:8]}")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the lock on building `out`; the kernel frees it with the process."""
    path = log_folder(out) / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtifactError(f"{out} is being made by another process: wait for it, or end it") from None
        yield


def _read_definition(folder: Path) -> Any:
    try:
        return read_json(folder / DEFINITION)
    except ArtifactError:
        return None
