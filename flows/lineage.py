"""Where a stage comes from: the pipeline it is part of, and DVC's hashes of what it read and made.

Decided here: a stage's pipeline is the Prefect flow run that started it, else the outermost DVC process above it, else
itself. DVC writes its hashes to dvc.lock only after the stage has ended, so they are computed here, as DVC does: MD5 of
a file, and for a folder MD5 of the sorted list of its files (a test compares with dvc.lock).
"""

import hashlib
import json
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

PIPELINE = "CGN_PIPELINE"


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """One run of a pipeline: a key of its own, a name to show, and the process it lives in (see `alive`)."""

    key: str
    name: str
    process: str

    @property
    def environment(self) -> dict[str, str]:
        """What tells stages below that they are part of it."""
        return {PIPELINE: json.dumps([self.key, self.name, self.process])}


def pipeline() -> Pipeline:
    """The pipeline that this process is a stage of."""
    if given := os.environ.get(PIPELINE):
        key, name, process = json.loads(given)
        return Pipeline(key=key, name=name, process=process)
    process, words = alive(os.getpid()), ["python -m flows.stage"]
    for process, words in _dvc_above():  # noqa: B007 - the last one is the outermost
        pass
    experiment = os.environ.get("DVC_EXP_NAME", "")
    key = "-".join(filter(None, [socket.gethostname(), process, experiment]))
    return Pipeline(key=re.sub(r"[^\w.-]+", "-", key), name=experiment or " ".join(words)[:200], process=process)


def nearest_dvc() -> str | None:
    """The DVC process that runs this stage, as `alive` names it: the parent, or above a shell."""
    return next((process for process, _ in _dvc_above()), None)


def alive(pid: int) -> str:
    """A living process as `pid-start`, which no later process shares; empty for one that is gone."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return ""
        return f"{pid}-{round(process.create_time() * 1000)}"
    except psutil.Error:
        return ""


def is_alive(process: str) -> bool:
    """Whether the process that `alive` named still lives."""
    return alive(int(process.partition("-")[0])) == process


def dvc_hash(path: Path) -> str | None:
    """DVC's hash of a file or folder; None where there is none."""
    if path.is_file():
        return _md5(path)
    if not path.is_dir():
        return None
    files = sorted(file.relative_to(path).parts for file in path.rglob("*") if file.is_file())
    listed = [{"md5": _md5(path.joinpath(*parts)), "relpath": "/".join(parts)} for parts in files]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _dvc_above() -> Iterator[tuple[str, list[str]]]:
    """The DVC processes above this one, nearest first, each with its command in words."""
    for ancestor in psutil.Process().parents():
        try:
            line = ancestor.cmdline()
        except psutil.Error:
            continue
        if (start := _dvc_word(line)) is not None:
            yield alive(ancestor.pid), ["dvc", *line[start + 1 :]]


def _dvc_word(line: list[str]) -> int | None:
    """Where in a command line DVC is named: `dvc`, `python .../bin/dvc`, `python -m dvc`."""
    for index, word in enumerate(line[:3]):
        if Path(word).name == "dvc" and (index < 2 or line[index - 1] == "-m"):
            return index
    return None
