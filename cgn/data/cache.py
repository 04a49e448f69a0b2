"""The cache of downloaded shards: a folder that all processes of a machine share, kept below a number of bytes.

    CGN_CACHE          the folder, by default ~/.cache/cgn; it may be removed at any time
    CGN_CACHE_BYTES    its limit, such as 200e9; without it, it grows to the size of the shards that are read here

Before a download, the shards that were not used for the longest time are removed until the new one fits. A shard that
a living process has read is never removed, because a training returns to it at random: where these alone exceed the
limit, so does the cache. Each process lists what it reads in a file of its own, which it keeps locked. The kernel frees
the lock with the process, also when it is killed.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cgn.core.errors import ConfigError
from cgn.core.files import user_path

FOLDER, LIMIT = "CGN_CACHE", "CGN_CACHE_BYTES"
READERS = "readers"

_mine: dict[tuple[int, Path], tuple[int, set[str]]] = {}
"""By process and cache: its list, open, and what is in it. A forked process keeps its parent's locked."""
_alone = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Cached:
    """A shard in the cache; `used`: when a process last began to read it; `held`: whether a living one reads it."""

    path: Path
    bytes: int
    used: float
    held: bool


def cache_folder() -> Path:
    """Where downloaded shards are."""
    return user_path(os.environ.get(FOLDER) or str(Path.home() / ".cache" / "cgn"))


def limit() -> int | None:
    """The most bytes that the cache may hold. Raises ConfigError for a limit that is no number."""
    if not (text := os.environ.get(LIMIT, "")):
        return None
    try:
        if (number := float(text)) >= 0:
            return int(number)
    except (ValueError, OverflowError):  # "nan" is none either: no comparison with it is true
        pass
    raise ConfigError(f"the environment variable {LIMIT} is {text!r}; allowed: a number of bytes, such as 200e9")


def hold(path: Path) -> None:
    """Keep a shard, there or not yet, from being removed as long as this process lives."""
    cache = path.parent
    with _alone:
        reader, held = _mine.get((os.getpid(), cache), (-1, set()))
        if path.name in held:
            return
        (cache / READERS).mkdir(parents=True, exist_ok=True)
        with _locked(cache, fcntl.LOCK_SH):
            if reader < 0:
                name = cache / READERS / f"{os.getpid()}-{os.urandom(4).hex()}"
                reader = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o666)
                fcntl.flock(reader, fcntl.LOCK_SH)
                _mine[os.getpid(), cache] = reader, held
            os.write(reader, f"{path.name}\n".encode())
            held.add(path.name)
            if path.exists():
                os.utime(path)


def make_room(cache: Path, needed: int) -> int:
    """Remove what was not used for the longest time until `needed` more bytes fit; the bytes that were removed."""
    most = limit()
    if most is None or not cache.is_dir():
        return 0
    with _locked(cache, fcntl.LOCK_EX):
        found = _contents(cache)
        excess, removed = sum(one.bytes for one in found) + needed - most, 0
        for one in sorted(found, key=lambda one: one.used):
            if removed >= excess:
                break
            if not one.held:
                one.path.unlink()
                removed += one.bytes
    return removed


def contents(cache: Path) -> list[Cached]:
    """The shards in the cache."""
    if not cache.is_dir():
        return []
    with _locked(cache, fcntl.LOCK_EX):
        return _contents(cache)


def _contents(cache: Path) -> list[Cached]:
    """The shards in the locked cache. Lists of processes that have ended are removed."""
    held: set[str] = set()
    for reader in (cache / READERS).glob("*-*"):
        with reader.open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held |= {*file.read().splitlines()}
            else:
                reader.unlink(missing_ok=True)
    stats = [(path, path.stat()) for path in cache.glob("*.tar")]
    return [Cached(path=path, bytes=stat.st_size, used=stat.st_mtime, held=path.name in held) for path, stat in stats]


@contextmanager
def _locked(cache: Path, kind: int) -> Iterator[None]:
    """While a process looks or removes, none begins to hold."""
    with (cache / ".lock").open("ab") as file:
        fcntl.flock(file, kind)
        yield
