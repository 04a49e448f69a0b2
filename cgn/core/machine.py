"""What a run ran on, told in words: processor, cores, GPUs. For the record of a run, never for a decision.

Decided here: GPUs are asked of torch where the run has loaded it already; a record is not worth the loading.
"""

import os
import platform
import sys
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")


def machine() -> dict[str, Any]:
    """{"cpu": name, "cores": that this process may use, "gpus": names}."""
    return {"cpu": _cpu(), "cores": _cores(), "gpus": _gpus()}


def _cpu() -> str:
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(map(_plain, named), platform.processor() or platform.machine() or "unknown")


def _plain(name: str) -> str:
    for ornament in ("(R)", "(TM)", " CPU"):
        name = name.replace(ornament, "")
    return " ".join(name.split())


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [str(torch.cuda.get_device_name(number)) for number in range(torch.cuda.device_count())]
