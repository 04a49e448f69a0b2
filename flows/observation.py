"""What the uploader notes of a stage while it can be seen: DVC's hashes, changed parameters, whether it was killed."""

import json
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows import untracked
from flows.processes import is_alive
from flows.untracked import END, STAGE, read, write_json

PARAMS = "params.yaml"
DAMAGE = (AssertionError, AttributeError, KeyError, RecursionError, TypeError, ValueError)  # what a damaged file raises


def observe(run: Path) -> bool:
    """Note what shows now and perhaps not later: DVC's hashes, changed parameters, that a stage was killed.

    Whether the stage has ended: then all that is to be sent is there. What is damaged is refused when it is sent.
    """
    with suppress(OSError, *DAMAGE):
        stage = read_json(run / STAGE)
        facts, here = stage["facts"], Path(stage["cwd"])
        if not (run / untracked.INPUTS).exists():
            tags = {f"dvc.input.{role}": dvc_hashes(here, paths) for role, paths in facts["inputs"].items()}
            changed = changed_parameters(here, above=f"{facts.get('track')}.{facts.get('variant')}.")
            write_json(run / untracked.INPUTS, {"tags": tags, "changed": changed})
        if not is_alive(stage["process"]) and not (run / END).exists():
            write_json(run / END, {"time": time.time(), "status": "KILLED", "message": "the stage died"})
        if not (run / untracked.OUTPUT).exists() and read_json(run / END)["status"] == "FINISHED":
            write_json(run / untracked.OUTPUT, {"dvc.output": dvc_hashes(here, [stage["out"]])})
    return (run / END).exists()


def dvc_hashes(here: Path, paths: Sequence[str]) -> str:
    """DVC's hashes of files and folders, from its own cache of hashes where they are in there.

    One that cannot be had is left out: the folder of an experiment may be gone already.
    """
    from dvc.fs import localfs  # type: ignore[import-untyped]
    from dvc.repo import Repo  # type: ignore[import-untyped]
    from dvc_data.hashfile.build import build

    found = []
    with suppress(Exception), Repo(str(here)) as repo:
        for path in [here / path for path in paths if (here / path).exists()]:
            _, _, content = build(repo.cache.local, str(path.resolve()), localfs, "md5", dry_run=True)
            found.append(str(content.hash_info.value))
    return " ".join(found)


def changed_parameters(here: Path, *, above: str) -> dict[str, str]:
    """Parameters below a dotted key that differ from those of the revision that git has checked out, by DVC.

    Empty where there is nothing to compare. An experiment of DVC sets its parameters in the file, so they are here too.
    """
    same = ["git", "diff", "--quiet", "HEAD", "--", PARAMS]  # in 1 % of the time that DVC takes to find it out
    with suppress(Exception):
        changed = subprocess.run(same, cwd=here, capture_output=True, timeout=10, check=False).returncode != 0
        if changed and (here / PARAMS).is_file():
            from dvc.repo import Repo

            with Repo(str(here)) as repo:
                found = repo.params.diff(targets=[PARAMS])["diff"][PARAMS]
            return {key: str(change.get("new", "removed")) for key, change in found.items() if key.startswith(above)}
    return {}


def read_json(file: Path) -> Any:
    """A small file's JSON; ValueError where it does not exist."""
    return json.loads(read(file))
