"""python -m cgn doctor: what this machine offers a run, what is wrong with it, and what to do. It changes nothing.

A problem stops a run of the active variants; a warning may slow it down or cost a part of it. Servers are asked over
plain HTTP at the addresses that Prefect and MLflow read from the environment.
"""

import argparse
import importlib
import os
import re
import resource
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from cgn.config.load import load
from cgn.core.devices import CGROUP, CORES, resolve_device, usable_cores
from cgn.core.errors import CgnError
from cgn.core.files import user_path

GB = 1e9
MEMORY_GB, DISK_GB, SHARED_GB = 4, 5, 0.25
"""A warning below these: a default run keeps 0.4 GB with DVC's cache; a plain container has 0.06 GB in /dev/shm."""
OPEN_FILES = 1024
TIMEOUT_SECONDS = 4.0
OPTIONAL = {"ray": "Ray", "s3fs": "shards in S3", "dvc_s3": "DVC remotes in S3"}
CGROUPS = {"memory.max": "memory.current", "memory/memory.limit_in_bytes": "memory/memory.usage_in_bytes"}
"""The file with the limit -> with what is used, of version 2 and 1."""

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found, and what to do where that is not well."""

    level: Level
    what: str
    found: str
    remedy: str


def doctor(argv: Sequence[str]) -> None:
    """Print a line for each check. Raises SystemExit(1) where one of them found a problem."""
    parser = argparse.ArgumentParser(prog="python -m cgn doctor", description=doctor.__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the outputs are; default: %(default)s")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    given = parser.parse_args(argv)
    found = examine(given.params, runs=given.runs)
    for finding in found:
        print(f"{finding.level:8} {finding.what:20} {finding.found}")
        if finding.remedy:
            print(f"{'':8} -> {finding.remedy}")
    if any(finding.level == "problem" for finding in found):
        raise SystemExit(1)


def examine(params: Path, *, runs: Path) -> list[Finding]:
    """All checks. An error that a run would end with is a problem."""
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "cores": _cores,
        "memory": _memory,
        "disk": lambda: _disk(runs),
        "limits": _limits,
        "environment": _environment,
        "GPUs": _gpus,
        "variants": lambda: _variants(params, runs=runs),
        "servers": _servers,
    }
    found: list[Finding] = []
    for what, check in checks.items():
        try:
            found.extend(check())
        except (CgnError, OSError) as error:  # also a folder that may not be looked into
            found.append(Finding(level="problem", what=what, found=str(error), remedy=""))
    return found


def _finding(what: str, found: str, remedy: str = "", *, level: Level = "problem") -> Finding:
    """A finding of this level if it has a remedy, else ok."""
    return Finding(level=level if remedy else "ok", what=what, found=found, remedy=remedy)


def _amount(what: str, free: float, *, least: float, tail: str, remedy: str) -> Finding:
    """Bytes: a warning below `least` GB, a problem below a tenth of it."""
    level: Level = "warning" if free >= least * GB / 10 else "problem"
    enough = free >= least * GB
    found = f"{free / GB:,.1f} GB {tail}" + ("" if enough else f", less than {least} GB")
    return _finding(what, found, "" if enough else remedy, level=level)


def _cores() -> Iterator[Finding]:
    usable, present = usable_cores(), os.cpu_count() or 1
    limited = f" (limited by the affinity mask, the cgroup's quota or {CORES})" if usable < present else ""
    yield _finding("cores", f"{usable} of {present} may be used{limited}")


def _memory() -> Iterator[Finding]:
    """Of the machine or of the cgroup, whose limit kills a process without a message."""
    free, limit = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), ""
    known = Path("/proc/meminfo")
    if known.is_file() and (line := re.search(r"MemAvailable: +(\d+) kB", known.read_text(encoding="ascii"))):
        free = int(line[1]) * 1024
    for most, used in CGROUPS.items():
        try:
            left = int((CGROUP / most).read_text("ascii")) - int((CGROUP / used).read_text("ascii"))
        except (OSError, ValueError):  # no such file, or "max" for no limit
            continue
        if left < free:
            free, limit = left, " by the cgroup's limit"
    remedy = "end other programs, raise the container's limit, or run one stage at a time (at_once: 1)"
    yield _amount("memory", free, least=MEMORY_GB, tail=f"available{limit}", remedy=remedy)


def _disk(runs: Path) -> Iterator[Finding]:
    folder = next(path for path in (runs.absolute(), *runs.absolute().parents) if path.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        yield _finding("disk", f"{folder} cannot be written", "change its owner or mode, or use a folder of your own")
        return
    remedy = "remove what is stale (python -m cgn clean), or move the checkout"
    yield _amount("disk", shutil.disk_usage(folder).free, least=DISK_GB, tail=f"free at {folder}", remedy=remedy)


def _limits() -> Iterator[Finding]:
    """Processes hand each other gradients in /dev/shm, and Ray keeps its objects there."""
    if (folder := Path("/dev/shm")).is_dir():
        remedy = "give the container more: --shm-size 2g"
        yield _amount(str(folder), shutil.disk_usage(folder).free, least=SHARED_GB, tail="free", remedy=remedy)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft != resource.RLIM_INFINITY and soft < OPEN_FILES
    remedy = f"ulimit -n {OPEN_FILES} (up to {hard:,} is allowed)" if few else ""
    yield _finding("open files", f"{soft:,} a process", remedy, level="warning")


def _environment() -> Iterator[Finding]:
    present = {package: find_spec(package) is not None for package in OPTIONAL}
    found = [package if present[package] else f"no {package} (for {what})" for package, what in OPTIONAL.items()]
    add = "" if all(present.values()) else "; uv sync --group cluster adds them"
    yield _finding("optional packages", ", ".join(found) + add)
    given = os.environ.get("CGN_MIRROR")
    absent = given and not user_path(given).is_dir()
    remedy = "there is no such folder: create it, or unset CGN_MIRROR" if absent else ""
    yield _finding("CGN_MIRROR", given or "not set: files are downloaded", remedy)


def _gpus() -> Iterator[Finding]:
    import torch

    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    named = ", ".join(f"{gpu.name} with {gpu.total_memory / GB:.0f} GB" for gpu in gpus)
    unseen = not gpus and shutil.which("nvidia-smi")
    remedy = f"nvidia-smi is installed: it must list a GPU, its driver know CUDA {torch.version.cuda}" if unseen else ""
    yield _finding("GPUs", f"torch {torch.__version__} finds {named or 'none'}", remedy, level="warning")


def _variants(params: Path, *, runs: Path) -> Iterator[Finding]:
    """What the active variants need: devices, the user's folders, files to fetch."""
    loaded = load(params)
    for target in [f"{track}/{name}" for track, names in loaded.active.items() for name in names]:
        for check in (_devices, _folders, _files):
            try:
                yield from check(loaded.variant(target), target, runs)
            except CgnError as error:
                yield Finding(level="problem", what=target, found=str(error), remedy="")


def _devices(record: Any, _target: str, _runs: Path) -> Iterator[Finding]:
    for section in (getattr(record, name) for name in type(record).model_fields):
        if accelerator := getattr(section, "accelerator", None):
            resolve_device(accelerator, devices=getattr(section, "devices", 1))
    yield from ()


def _folders(record: Any, target: str, _runs: Path) -> Iterator[Finding]:
    if folders := getattr(record.prepare, "folders", None):
        importlib.import_module("cgn.imagenet.folders").user_sets(folders, variant=target.partition("/")[2])
    yield from ()


def _files(record: Any, target: str, runs: Path) -> Iterator[Finding]:
    fetch = importlib.import_module(f"cgn.{target.partition('/')[0]}.fetch")
    lines = fetch.listing(record.fetch, **record.shared("fetch"), assets=runs / target / "fetch")
    lacking = ", ".join(line.split()[0] for line in lines if "NOT AVAILABLE" in line)
    yield _finding(target, lines[-1], f"set CGN_MIRROR to a folder that holds {lacking}" if lacking else "")


def _servers() -> Iterator[Finding]:
    start = "start it (prefect server start), or unset PREFECT_API_URL: dvc repro needs no server"
    yield _server("Prefect", "PREFECT_API_URL", start, level="problem")
    start = "start it; until then metrics wait in runs/untracked, and python -m flows.tracking sync sends them"
    yield _server("MLflow", "MLFLOW_TRACKING_URI", start, level="warning")


def _server(what: str, variable: str, remedy: str, *, level: Level) -> Finding:
    """Whether the server at the address in an environment variable answers; databases and folders are not asked."""
    import requests

    url = os.environ.get(variable, "")
    shown = re.sub(r"//[^/]*@", "//", url)
    if not url.startswith(("http://", "https://")):
        return _finding(what, shown or f"{variable} is not set: no server is used")
    try:
        status = requests.get(f"{url.rstrip('/')}/health", timeout=TIMEOUT_SECONDS).status_code
    except requests.RequestException as error:
        return _finding(what, f"{shown} does not answer ({type(error).__name__})", remedy, level=level)
    if status == 404 or status >= 500:
        return _finding(what, f"{shown} answers with status {status}", f"see its log; {remedy}", level=level)
    return _finding(what, f"{shown} answers")
