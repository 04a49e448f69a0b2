"""What a run ran on, in words: processor, instructions, cores, GPUs. For the record of a run, never for a decision.

The instruction set decides how sums are rounded, so it belongs to the machine that figures were measured on.
Decided here: GPUs are asked of torch where the run has loaded it already; a record is not worth the loading.
"""

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")
INSTRUCTIONS = {"amx_tile": "AMX", "avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"}
"""Flag of a processor -> the instruction set's name, widest first."""
LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
"""Environment variables by which torch and oneDNN use less than the processor has."""


def machine() -> dict[str, Any]:
    """{"cpu": name, "instructions": widest set, "cores": that this process may use, "gpus": names}."""
    return {"cpu": _cpu(), "instructions": _instructions(), "cores": _cores(), "gpus": _gpus()}


def described(machine: Mapping[str, Any]) -> str:
    """What `machine` returned, in words; empty where it does not name the instruction set."""
    if not machine.get("cpu") or not machine.get("instructions"):
        return ""
    gpus = [str(name) for name in machine.get("gpus") or ()]
    words = f"{machine['cpu']} with {machine['instructions']}, {machine.get('cores', '?')} cores"
    return f"{words}, {len(gpus)} \N{MULTIPLICATION SIGN} {gpus[0]}" if gpus else words


def _instructions() -> str:
    flags = next((set(line.split()) for line in _cpuinfo() if line.startswith(("flags", "Features"))), set())
    widest = next((name for flag, name in INSTRUCTIONS.items() if flag in flags), platform.machine())
    limits = [f"{name}={os.environ[name]}" for name in LIMITS if os.environ.get(name)]
    return f"{widest} ({', '.join(limits)})" if limits else widest


def _cpuinfo() -> list[str]:
    try:
        return CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _cpu() -> str:
    named = (line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name"))
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
