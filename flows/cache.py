"""What DVC's cache holds of a stage's inputs, looked at when the stage finds one of them broken.

Decided here: DVC takes a write-protected entry of its cache for whole and restores it as it is, so who removes a broken
folder gets the same bytes back. An entry that has other bytes than its name says is removed; without it `dvc repro`
makes the output again, over whatever lies in the workspace. The library knows nothing of DVC, so this stands here.
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
    try:
        named = [out for out in _outs() if str(out["path"]) in message and out.get("hash") == "md5"]
        if not named:
            return ""
        from dvc.repo import Repo  # type: ignore[import-untyped]

        with Repo() as repo:
            place = repo.cache.local.oid_to_path
            entries = {Path(place(oid)): oid for out in named for oid in _oids(str(out["md5"]), place)}
        broken = [path for path, oid in entries.items() if path.is_file() and _md5(path) != oid.removesuffix(".dir")]
        for path in broken:
            path.unlink()
    except Exception as error:  # this only helps with an error, which must not be lost for it
        return f" (DVC's cache could not be checked: {type(error).__name__}: {error})"
    if not broken:
        return ""
    more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
    return (
        f" -- but DVC's cache held the same broken bytes, in {broken[0]}{more}, and would have restored them: removed "
        f"there; `dvc repro` now makes {named[0]['path']} again"
    )


def _outs() -> Iterator[dict[str, Any]]:
    import yaml

    lock = yaml.safe_load(LOCK.read_text(encoding="utf-8")) if LOCK.is_file() else {}
    for stage in lock.get("stages", {}).values():
        yield from stage.get("outs", [])


def _oids(oid: str, place: Any) -> Iterator[str]:
    """An output's entry, and those that it lists where it is a folder."""
    yield oid
    if oid.endswith(".dir"):
        try:
            listed = json.loads(Path(place(oid)).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # DVC itself makes an output again whose list it cannot read
            return
        yield from (str(entry["md5"]) for entry in listed)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
