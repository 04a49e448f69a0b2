"""python -m flows.remote: whether a DVC remote holds every object that dvc.lock names, object by object.

DVC considers a folder complete if the remote has its list, so `dvc push` does not send again what a remote has lost;
`dvc pull` names missing objects by hashes; and it accepts an object that was cut short from a store like S3, unless the
remote has `verify = true`. Here every object is checked; `--push` sends those that this cache has.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.cache import md5

EMPTY = "d41d8cd98f00b204e9800998ecf8427e"
"""The MD5 of no bytes."""
MISSING = "missing"


@dataclass(frozen=True, kw_only=True)
class Lacking:
    """An object that a remote does not hold whole: a path that needs it, its MD5, and what is wrong."""

    path: str
    oid: str
    why: str
    here: Path | None
    """Its file in this checkout's cache; None where that lacks it, too."""


def main(argv: Sequence[str]) -> int:
    """Exit status: 0 where the remote is complete, 1 where it lacks objects, 2 for a remote that cannot be asked."""
    parser = argparse.ArgumentParser(prog="python -m flows.remote", description="compare a DVC remote with dvc.lock")
    parser.add_argument("--remote", metavar="NAME", help="default: the default remote of DVC's configuration")
    parser.add_argument("--push", action="store_true", help="send what the remote lacks and this cache has")
    given = parser.parse_args(argv)
    from dvc.repo import Repo  # type: ignore[import-untyped]

    try:
        with Repo() as repo:
            return _compare(repo, repo.cloud.get_remote(given.remote), push=given.push)
    except Exception as error:  # each store's library has errors of its own
        print(f"error: the remote cannot be asked: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _compare(repo: Any, remote: Any, *, push: bool) -> int:
    store, cache = remote.odb, repo.cache.local
    if not store.verify and store.fs.protocol != "local":
        unchecked = f"warning: an object of {remote.name} that was cut short would be taken for whole; forbid it"
        print(f"{unchecked}: dvc remote modify {remote.name} verify true", file=sys.stderr)
    needed = objects(repo, store)
    left = []
    for one in lacking(needed, store, cache):
        if push and one.here is not None:
            if one.why != MISSING:
                store.delete(one.oid)
            store.add(str(one.here), cache.fs, one.oid, check_exists=False)
            place = "sent"
        else:
            left.append(one)
            place = "this cache has it" if one.here else "this cache lacks it, too"
        print(f"{one.path}: {one.why}; {place} ({one.oid})", flush=True)
    print(f"{remote.name}: {len(needed)} objects, {len(left)} of them not there or not whole")
    if any(one.here for one in left):
        print("python -m flows.remote --push sends what this cache has")
    return 1 if left else 0


def objects(repo: Any, store: Any) -> dict[str, str]:
    """MD5 -> a path that needs it, of all outputs in dvc.lock; of a folder whose list is nowhere, the list alone."""
    found: dict[str, str] = {}
    for out in repo.index.outs:
        oid = out.hash_info.value
        if not oid or not out.use_cache or out.hash_name != store.hash_name or out.remote:
            continue
        found.setdefault(oid, out.def_path)
        if oid.endswith(".dir"):
            for name, below in _listed(oid, repo.cache.local, store):
                found.setdefault(below, f"{out.def_path}/{name}")
    return found


def _listed(oid: str, *stores: Any) -> Iterator[tuple[str, str]]:
    """Name and MD5 of each file of a folder, by the first of the stores that has its list."""
    for store in stores:
        try:
            entries = json.loads(store.fs.cat_file(store.oid_to_path(oid)))
        except (FileNotFoundError, ValueError):
            continue
        yield from ((entry["relpath"], entry["md5"]) for entry in entries)
        return


def lacking(needed: Mapping[str, str], store: Any, cache: Any) -> Iterator[Lacking]:
    """The objects that a store does not hold, or in another size than the cache."""
    infos = store.fs.info([store.oid_to_path(oid) for oid in needed], return_exceptions=True)
    for (oid, path), info in zip(needed.items(), infos, strict=True):
        if isinstance(info, Exception) and not isinstance(info, FileNotFoundError):
            raise OSError(f"{path}: {type(info).__name__}: {info}") from info
        here = Path(cache.oid_to_path(oid))
        if isinstance(info, FileNotFoundError):
            yield Lacking(path=path, oid=oid, why=MISSING, here=here if _is_whole(here, oid) else None)
        elif here.is_file() and here.stat().st_size != info["size"] and _is_whole(here, oid):
            why = f"{info['size']:,} of {here.stat().st_size:,} bytes"
            yield Lacking(path=path, oid=oid, why=why, here=here)
        elif not info["size"] and oid != EMPTY:
            yield Lacking(path=path, oid=oid, why="empty", here=None)


def _is_whole(file: Path, oid: str) -> bool:
    return file.is_file() and md5(file) == oid.removesuffix(".dir")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
