"""Output folders: built as `<out>.partial`, moved into place when they are finished, one process at a time.

A reader never sees half of a folder. What a killed run left in `.partial` is continued by the next run with the same
definition and code, and set aside, never deleted, for any other. A command that is refused before it has written
anything leaves all of this as it was. What a run records about itself (times, revisions, metrics) is beside the folder
in `<out>.log`, never inside: the folder's bytes depend on its parameters and inputs alone.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.files import explained, read_json, replacing, write_json

DEFINITION = "definition.json"
LOCK = "lock"


def partial_folder(out: Path) -> Path:
    """The folder in which `out` is built before it is moved into place."""
    return _beside(out, ".partial")


def log_folder(out: Path) -> Path:
    """The folder for the record of the run that makes `out`: run.json and what `cgn.core.metrics` writes."""
    return _beside(out, ".log")


def _beside(out: Path, ending: str) -> Path:
    if out.name in ("", ".."):
        raise ArtifactError(f"cannot write {out}: an output is a folder with a name of its own, for example {out}/new")
    return out.with_name(out.name + ending)


@contextmanager
def building(out: Path, *, definition: Mapping[str, Any], code: str = "") -> Iterator[Path]:
    """Yield the folder `<out>.partial` to build in; on success it replaces `out`.

    `definition` (JSON) is what the content depends on: resolved parameters, seed, digests of the inputs; `code` is the
    digest of the code that writes it. A `.partial` with the same two is continued; any other is set aside under a name
    of its own, and continued when a run with its definition and code comes. A failure keeps the `.partial`; a refusal
    (ArtifactError, ConfigError) before anything was written restores everything. A finished `out` with an equal
    definition is reopened, so that the verb can check and repair it. Raises ArtifactError when another process builds
    `out`, and for an `out` that this verb did not make: what is there would be lost.
    """
    folder, log = partial_folder(out), _contents(log_folder(out))
    _refuse_foreign(out, definition)
    with explained(out), _alone(out):
        aside = _make_room(folder, {**definition, "code": code})
        begun = folder.exists()
        taken = not begun and _read_definition(out) == definition
        if taken:
            out.replace(folder)
        folder.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(folder)
        write_json(folder / DEFINITION, {**definition, "code": code})
        untouched = _times(folder)
        try:
            yield folder
        except (ArtifactError, ConfigError):
            if not begun and _times(folder) == untouched:
                with suppress(ArtifactError, OSError):  # the refusal is the error to report
                    if taken:
                        write_json(folder / DEFINITION, definition)
                        folder.replace(out)
                    else:
                        shutil.rmtree(folder)
                        if aside is not None:
                            aside.replace(folder)
                            print(f"{folder} is back as it was: nothing was made", flush=True)
                    _put_back(log_folder(out), log)
            raise
        _remove_unfinished(folder)  # of a worker that was killed, and whose task another one repeated
        write_json(folder / DEFINITION, definition)  # the bytes of an output do not depend on the code that wrote them
        _refuse_foreign(out, definition)  # again: it may have come while the verb worked
        if out.exists():
            shutil.rmtree(out)
        folder.replace(out)


def found(out: Path, *, definition: Mapping[str, Any], code: str) -> tuple[Path | None, str]:
    """What `building` would begin with: the folder it would continue, if any, and what that means. Writes nothing.

    Raises ArtifactError where `building` would.
    """
    folder, wanted = partial_folder(out), {**definition, "code": code}
    _refuse_foreign(out, definition)
    lock = log_folder(out) / LOCK
    if lock.is_file():
        with lock.open("rb") as file:
            if not locked(file):
                raise ArtifactError(f"{out} is being made by another process: wait for it, or end it")
    for begun in (folder, _aside(folder, wanted)):
        if _read_definition(begun) == wanted:
            return begun, f"would continue {begun}"
    aside = f"; {folder}, begun otherwise, would be set aside" if folder.exists() else ""
    if not out.exists():
        return None, f"would begin anew{aside}"
    if not folder.exists() and _read_definition(out) == definition:
        return out, "is finished with these parameters and inputs: would be checked, and repaired where it is damaged"
    return None, f"would begin anew, and replace the output of other parameters or inputs at its end{aside}"


def _remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left in `replacing`."""
    for left in folder.rglob(".*.tmp"):
        left.unlink(missing_ok=True)


def _refuse_foreign(out: Path, definition: Mapping[str, Any]) -> None:
    """Raise ArtifactError for what is no folder or no earlier output of the same verb: it would be replaced."""
    if out.exists() and not out.is_dir():
        raise ArtifactError(f"cannot write {out}: a file of this name is in the way; move it or choose another")
    kept = "nothing of it was touched; move it or choose another folder"
    if out.is_symlink():
        raise ArtifactError(f"cannot write {out}: it is a link, and an output is a folder; name {out.resolve()} itself")
    if not out.is_dir() or not any(out.iterdir()):
        return
    earlier = _read_definition(out)
    if not isinstance(earlier, dict):
        raise ArtifactError(f"cannot write {out}: it holds files that no verb of this project made; {kept}")
    if earlier.get("verb") != definition.get("verb"):
        raise ArtifactError(f"cannot write {out}: it is what {earlier.get('verb')} made; {kept}")


def _make_room(folder: Path, wanted: Mapping[str, Any]) -> Path | None:
    """Leave in `folder` what was begun with this definition and code, or nothing; return where the rest was moved."""
    present, moved = _read_definition(folder), None
    if folder.exists() and present != wanted:
        moved = _aside(folder, present)
        if moved.exists():
            shutil.rmtree(moved)
        folder.replace(moved)
        print(f"{folder} was begun with other parameters, inputs or code: set aside as {moved}", flush=True)
    if not folder.exists() and _read_definition(aside := _aside(folder, wanted)) == wanted:
        aside.replace(folder)
    return moved


def _times(folder: Path) -> dict[str, tuple[int, int]]:
    """Name -> size and time of the last change, of everything below a folder."""
    found = {}
    for home, folders, files in os.walk(folder):
        for name in (*folders, *files):
            status = (path := Path(home, name)).lstat()
            found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found


def _contents(log: Path) -> dict[str, bytes] | None:
    """The (small) files of a log folder except the lock; None without a log folder."""
    if not log.is_dir():
        return None
    return {path.name: path.read_bytes() for path in log.iterdir() if path.is_file() and path.name != LOCK}


def _put_back(log: Path, contents: Mapping[str, bytes] | None) -> None:
    """Restore a log folder."""
    if contents is None:
        shutil.rmtree(log)
        return
    for path in log.iterdir():
        if path.name not in {*contents, LOCK}:
            path.unlink()
    for name, content in contents.items():
        with replacing(log / name) as temporary:
            temporary.write_bytes(content)


def _aside(folder: Path, definition: Any) -> Path:
    text = json.dumps(definition, sort_keys=True).encode()
    return folder.with_name(f"{folder.name}-{hashlib.sha256(text).hexdigest()[:8]}")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the lock on building `out`; the kernel frees it with the process."""
    path = log_folder(out) / LOCK
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            if not locked(file):
                raise ArtifactError(f"{out} is being made by another process: wait for it, or end it")
            if _is_at(path, file):  # else a refused command removed the log while this one opened it
                yield
                return


def _is_at(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def locked(file: IO[bytes]) -> bool:
    """Take the lock on an opened file; False when another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_definition(folder: Path) -> Any:
    try:
        return read_json(folder / DEFINITION)
    except ArtifactError:
        return None
