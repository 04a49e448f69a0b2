"""Where a stage comes from: the pipeline it is part of, and DVC's hashes of what it read and made.

Decided here: a stage's pipeline is the Prefect flow run that started it, else the outermost DVC process above it, else
itself. DVC writes its hashes to dvc.lock only after the stage has ended, so they are computed here, as DVC does: MD5 of
a file, and for a folder MD5 of the sorted list of its files (a test compares with dvc.lock). A process is named by its
start in clock ticks since the boot, which setting the clock does not change; its time of day does change.
"""

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psutil

PIPELINE = "CGN_PIPELINE"
PARAMS = "params.yaml"
BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """One run of a pipeline: a key of its own, a name to show, the process it lives in (`alive`), its parameters."""

    key: str
    name: str
    process: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The variable by which stages below know that they are part of it."""
        return {PIPELINE: json.dumps([self.key, self.name, self.process, dict(self.parameters)])}


def pipeline() -> Pipeline:
    """The pipeline that this process is a stage of."""
    if given := os.environ.get(PIPELINE):
        key, name, process, parameters = json.loads(given)
        return Pipeline(key=key, name=name, process=process, parameters=parameters)
    process, words = alive(os.getpid()), ["python -m flows.stage"]
    for process, words in _dvc_above():  # noqa: B007 - the last one is the outermost
        pass
    experiment = os.environ.get("DVC_EXP_NAME", "")
    key = "-".join(filter(None, [socket.gethostname(), process, experiment]))
    command = " ".join(words)
    return Pipeline(
        key=re.sub(r"[^\w.-]+", "-", key),
        name=experiment or command[:200],
        process=process,
        parameters={"command": command},
    )


def nearest_dvc() -> str | None:
    """The DVC process that runs this stage, as `alive` names it: the parent, or above a shell."""
    return next((process for process, _ in _dvc_above()), None)


def alive(pid: int) -> str:
    """A living process as `pid-start`, which no later process shares; empty for one that is gone."""
    if sys.platform == "linux":
        return _alive_linux(pid)
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return ""
        # psutil's own identity: without the clock where the system has such a time, and the same in every process
        return f"{pid}-{hash(process) & 0xFFFFFFFFFFFF}"
    except psutil.Error:
        return ""


def is_alive(process: str) -> bool:
    """Whether the process that `alive` named still lives; the name of a process that was gone then is empty."""
    return process != "" and alive(int(process.partition("-")[0])) == process


def _alive_linux(pid: int) -> str:
    """See proc_pid_stat(5): the third field is the state, the 22nd the start in ticks since the boot."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces and parentheses
    return "" if fields[0] in "ZX" else f"{pid}-{fields[19]}{_boot()}"


@cache
def _boot() -> str:
    """The boot that ticks are counted from: the same process number and ticks may come again after the next one."""
    try:
        return "-" + BOOT.read_text(encoding="utf-8")[:8]
    except OSError:
        return ""


def dvc_hash(path: Path) -> str | None:
    """DVC's hash of a file or folder; None where there is none."""
    if path.is_file():
        return _md5(path)
    if not path.is_dir():
        return None
    files = sorted(file.relative_to(path).parts for file in path.rglob("*") if file.is_file())
    listed = [{"md5": _md5(path.joinpath(*parts)), "relpath": "/".join(parts)} for parts in files]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def changed_parameters(folder: Path, *, track: str, variant: str) -> dict[str, str]:
    """What params.yaml says of a variant otherwise than the revision does that git has checked out, by dotted key.

    Empty where there is nothing to compare. An experiment of DVC sets its parameters in the file, so they are here too.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        now = (folder / PARAMS).read_text(encoding="utf-8")
        shown = subprocess.run(
            ["git", "show", f"HEAD:./{PARAMS}"], cwd=folder, capture_output=True, text=True, timeout=10, check=True
        )
        if shown.stdout == now:
            return {}
        yaml = YAML(typ="safe", pure=True)
        before, after = (_leaves(_branch(yaml.load(text), track, variant)) for text in (shown.stdout, now))
    except (OSError, ValueError, subprocess.SubprocessError, YAMLError):
        return {}
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return {f"{track}.{variant}.{key}": after.get(key, "removed") for key in keys}


def _branch(tree: Any, *names: str) -> Any:
    for name in names:
        tree = tree.get(name, {}) if isinstance(tree, Mapping) else {}
    return tree


def _leaves(tree: Any, *above: str) -> dict[str, str]:
    if not isinstance(tree, Mapping):
        return {".".join(above): str(tree)}
    return {key: value for name, branch in tree.items() for key, value in _leaves(branch, *above, str(name)).items()}


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _dvc_above() -> Iterator[tuple[str, list[str]]]:
    """The DVC processes above this one, nearest first, each with its command in words."""
    for pid in _ancestors():
        try:
            line = psutil.Process(pid).cmdline()
        except psutil.Error:
            continue
        if (start := _dvc_word(line)) is not None:
            yield alive(pid), ["dvc", *line[start + 1 :]]


def _ancestors() -> Iterator[int]:
    """The processes above this one. psutil's `parents` compares times of day, and stops where the clock was set."""
    pid = os.getppid()
    while pid > 0:
        yield pid
        try:
            pid = psutil.Process(pid).ppid()
        except psutil.Error:
            return


def _dvc_word(line: list[str]) -> int | None:
    """Where in a command line DVC is named: `dvc`, `python .../bin/dvc`, `python -m dvc`."""
    for index, word in enumerate(line[:3]):
        if Path(word).name == "dvc" and (index < 2 or line[index - 1] == "-m"):
            return index
    return None
