"""python -m cgn clean: list what stopped and changed commands left beside the outputs; with --yes remove what is stale.

    <output>.partial          begun, and continued by the same command
    <output>.partial-<hash>   begun with other parameters, inputs or code, and set aside
    <output>.log              the record of a run; without an output it records nothing

What today's parameters and code would continue is never stale, nor what a process is working on, nor anything of such a
name that this project did not make. The cache of downloaded shards is listed too, and brought below its limit.
"""

import argparse
import importlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgn.config.load import Params, load
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.files import explained, read_json
from cgn.core.outputs import DEFINITION, LOCK, locked, log_folder
from cgn.core.run_record import as_json, code_digest
from cgn.data.cache import LIMIT, cache_folder, contents, limit, make_room

PARTIAL = re.compile(r"(.+)\.partial(?:-[0-9a-f]{8})?")
LOGGED = {LOCK, "run.json", "metrics.jsonl", "metrics.json", "details.json", "curves.csv"}


def clean(argv: Sequence[str]) -> None:
    """List what is left of runs, with sizes; `--yes` removes what nothing would use again."""
    parser = argparse.ArgumentParser(prog="python -m cgn clean", description=clean.__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the outputs are; default: %(default)s")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    parser.add_argument("--yes", action="store_true", help="remove what is stale; without, it is only listed")
    given = parser.parse_args(argv)
    if not given.runs.is_dir() and given.runs != parser.get_default("runs"):  # a new checkout has none
        raise ConfigError(f"--runs {given.runs}: there is no such folder; name the one that holds the outputs")
    params, code = load(given.params), code_digest()
    found = leftovers(given.runs, is_current=lambda definition: _is_current(definition, params=params, code=code))
    for left in found:
        word = "kept" if not left.stale else "removed" if given.yes else "stale"
        if left.stale and given.yes:
            remove(left)
        _say(word, left.bytes, f"{left.path}: {left.what}")
    stale = [left for left in found if left.stale]
    _clean_cache(remove=given.yes)
    total = f"{len(stale)} stale, {sum(left.bytes for left in stale) / 1e6:,.1f} MB"
    print(total + ("" if given.yes or not stale else "; the same command with --yes removes them"), flush=True)


def _clean_cache(*, remove: bool) -> None:
    """Say what the cache of shards holds, where there is one."""
    cache, most = cache_folder(), limit()
    removed = make_room(cache, 0) if remove else 0
    if removed:
        _say("removed", removed, f"{cache}: shards from object stores, over the limit of {LIMIT}")
    if found := contents(cache):
        note = f"limit {most / 1e6:,.1f} MB" if most is not None else f"no limit: {LIMIT}=200e9 sets one"
        reading = f", {held:,} of them read now" if (held := sum(one.held for one in found)) else ""
        what = f"{cache}: {len(found):,} shards from object stores{reading}; {note}"
        _say("kept", sum(one.bytes for one in found), what)


def _say(word: str, size: int, what: str) -> None:
    print(f"{word:8}{size / 1e6:12,.1f} MB  {what}", flush=True)


def _is_current(definition: Mapping[str, Any], *, params: Params, code: str) -> bool:
    """Whether a verb would continue what was begun with a definition, if its inputs are the same."""
    try:
        track, verb = definition["track"], definition["verb"]
        record = params.variant(f"{track}/{definition['variant']}")
        section = verb if hasattr(record, verb) else importlib.import_module(f"cgn.{track}.{verb}").SECTION
        wanted = as_json({"params": getattr(record, section).model_dump() | record.shared(verb), "seed": record.seed})
        return definition["code"] == code and all(definition[key] == value for key, value in wanted.items())
    except (AttributeError, ConfigError, ImportError, KeyError, TypeError):
        return False


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A folder, its size, and what it is; `out`: the output it belongs to; `stale`: nothing would use it again."""

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
            raise ArtifactError(f"{left.path} is in use: a process writes {left.out}; wait for it, or end it")
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
    """Whether no process writes `out`; none can begin to while the context lasts."""
    path = log_folder(out) / LOCK
    if not path.is_file():
        yield True
        return
    with path.open("rb") as file:
        yield locked(file)


def _bytes(path: Path) -> int:
    return sum(Path(home, name).lstat().st_size for home, _, names in os.walk(path) for name in names)
