"""What DVC's cache holds of a stage's inputs, looked at when the stage finds one of them broken.

DVC takes a write-protected entry of its cache for whole and restores it as it is, so who removes a broken
folder gets the same bytes back. An entry that has other bytes than its name says is removed; without it `dvc repro`
makes the output again, over whatever is in the workspace. The library knows nothing of DVC, so this is in flows.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOCK = Path("dvc.lock")


def repaired(message: str) -> str:
    """What to add to an error's `message`: that a broken entry was removed from the cache, or nothing.

    Outputs that the message names are looked at, as dvc.lock lists them in the current folder. Raises nothing.
    """
    if not LOCK.is_file():
        return ""
    try:
        from dvc.repo import Repo  # type: ignore[import-untyped]

        with Repo() as repo:
            named = [out for out in repo.index.outs if out.def_path in message and out.hash_name == "md5"]
            entries = {path: oid for out in named for path, oid in _entries(out)}
        broken = [path for path, oid in entries.items() if path.is_file() and md5(path) != oid.removesuffix(".dir")]
        for path in broken:
            path.unlink()
    except Exception as error:  # this only helps with an error, which must not be lost for it
        return f" (DVC's cache could not be checked: {type(error).__name__}: {error})"
    if not broken:
        return ""
    more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
    return (
        f" -- but DVC's cache held the same broken bytes, in {broken[0]}{more}, and would have restored them: removed "
        f"there; `dvc repro` now makes {named[0].def_path} again"
    )


def _entries(out: Any) -> Iterator[tuple[Path, str]]:
    """An output's entry in the cache and its name there, and those that it lists where it is a folder."""
    oid = out.hash_info.value
    if not oid:
        return
    yield (path := Path(out.cache.oid_to_path(oid))), oid
    if oid.endswith(".dir"):
        try:
            listed = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # DVC itself makes an output again whose list it cannot read
            return
        yield from ((Path(out.cache.oid_to_path(entry["md5"])), entry["md5"]) for entry in listed)


def md5(path: Path) -> str:
    """Hex MD5 of a file, which names it in DVC's cache."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
