"""What commands that were killed, refused or changed have left beside the outputs: which of it is of no use any more.

    <output>.partial          begun, and continued by the same command
    <output>.partial-<hash>   begun with other parameters, inputs or code, and set aside
    <output>.log              the record of a run; without an output it records nothing

Decided here: what the parameters and the code of today would continue is never stale, nor what a process is working on,
nor anything of such a name that `building` did not make.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgn.core.errors import ArtifactError
from cgn.core.files import explained, read_json
from cgn.core.outputs import DEFINITION, LOCK, locked, log_folder

PARTIAL = re.compile(r"(.+)\.partial(?:-[0-9a-f]{8})?")
LOGGED = {LOCK, "run.json", "metrics.jsonl", "metrics.json", "curves.csv"}


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A folder, its size, and what it is; `stale`: nothing would use it again."""

    path: Path
    out: Path
    bytes: int
    what: str
    stale: bool


def leftovers(root: Path, *, is_current: Callable[[Mapping[str, Any]], bool]) -> list[Leftover]:
    """All below `root`, sorted. `is_current`: whether parameters and code are still those of a definition."""
    partials, logs = [], []
    for home, folders, _ in os.walk(root):
        for name in list(folders):
            path = Path(home, name)
            if found := PARTIAL.fullmatch(name):
                partials.append(_partial(path, path.with_name(found[1]), is_current=is_current))
            elif name.endswith(".log"):
                logs.append(path)
            elif not (path / DEFINITION).is_file():
                continue
            folders.remove(name)  # what is inside belongs to it
    kept = {left.out for left in partials if not left.stale}
    records = [_record(path) for path in logs if path.with_suffix("") not in kept]
    return sorted([*partials, *(left for left in records if left is not None)], key=lambda left: left.path)


def remove(left: Leftover) -> None:
    """Remove what is stale. Raises ArtifactError when a process has begun to work on it, or it cannot be removed."""
    assert left.stale
    with _idle(left.out) as idle, explained(left.path):
        if not idle:
            raise ArtifactError(f"{left.path} is in use: a process makes {left.out}; wait for it, or end it")
        shutil.rmtree(left.path)


def _partial(path: Path, out: Path, *, is_current: Callable[[Mapping[str, Any]], bool]) -> Leftover:
    stale, what = False, "not made by this project"
    with _idle(out) as idle:
        if not idle:
            what = "a process is working on it"
        elif (definition := _definition(path)) is not None:
            stale = not is_current(definition)
            what = "begun with other parameters or code" if stale else "unfinished: the same command continues it"
        elif not any(path.iterdir()):
            stale, what = True, "empty"
    return Leftover(path=path, out=out, bytes=_bytes(path), what=what, stale=stale)


def _record(path: Path) -> Leftover | None:
    """A log without an output; None for any other folder."""
    out = path.with_suffix("")
    if out.exists() or not {file.name for file in path.iterdir()} <= LOGGED:
        return None
    with _idle(out) as idle:
        what = "the record of a run that made nothing" if idle else "a process is working on it"
    return Leftover(path=path, out=out, bytes=_bytes(path), what=what, stale=idle)


def _definition(path: Path) -> Mapping[str, Any] | None:
    try:
        definition = read_json(path / DEFINITION)
    except ArtifactError:
        return None
    return definition if isinstance(definition, dict) else None


@contextmanager
def _idle(out: Path) -> Iterator[bool]:
    """Whether no process makes `out`; none can begin inside."""
    path = log_folder(out) / LOCK
    if not path.is_file():
        yield True
        return
    with path.open("rb") as file:
        yield locked(file)


def _bytes(path: Path) -> int:
    return sum(Path(home, name).lstat().st_size for home, _, names in os.walk(path) for name in names)
