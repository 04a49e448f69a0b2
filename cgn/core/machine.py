"""The processor and GPUs of this machine, how many cores a process may use, and how many threads it computes with.

Decided here: every process computes with one thread. How a sum is shared out among threads decides its last bit, so
another thread count would give other bytes; and beside other busy processes, threads that wait for one another made a
training 10 to 30 times slower. More cores are used by more processes: shards, decoding, stages side by side. GPUs are
listed where the run has loaded torch already; a record is not worth the loading.
The instruction set decides how sums are rounded, so it belongs to the machine that figures were measured on.
"""

import math
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cgn.core.errors import ConfigError

CPUINFO = Path("/proc/cpuinfo")
CGROUP = Path("/sys/fs/cgroup")
CORES = "CGN_CORES"
"""Environment variable: the most cores that this process may use, for who runs several side by side."""
THREADS = 1
"""That a process computes with, on any machine."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
INSTRUCTIONS = {"amx_tile": "AMX", "avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"}
"""Flag of a processor -> the instruction set's name, widest first."""
LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
"""Environment variables by which torch and oneDNN use less than the processor has."""


def limit_threads() -> None:
    """Compute with THREADS threads in this process and, by the environment, in those that it starts."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(THREADS)))
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(THREADS)


def usable_cores() -> int:
    """Cores that this process may use, at least 1: by its affinity mask, its cgroup's quota and CGN_CORES."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [affinity, _quota()]
    if (asked := os.environ.get(CORES)) is not None:
        if not asked.isdecimal() or int(asked) < 1:
            raise ConfigError(f"the environment variable {CORES} is {asked!r}; allowed: a whole number from 1")
        limits.append(int(asked))
    return min(limit for limit in limits if limit is not None)


def machine() -> dict[str, Any]:
    """{"cpu": name, "instructions": widest set, "cores": that this process may use, "gpus": names}."""
    return {"cpu": _cpu(), "instructions": _instructions(), "cores": usable_cores(), "gpus": _gpus()}


def described(machine: Mapping[str, Any]) -> str:
    """Of what `machine` returned, what decides the rounding, in words; empty where no instruction set is named."""
    if not machine.get("cpu") or not machine.get("instructions"):
        return ""
    gpus = [str(name) for name in machine.get("gpus") or ()]
    words = f"{machine['cpu']} with {machine['instructions']}"
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


def _quota() -> int | None:
    """Cores that the cgroup's CPU time suffices for, rounded up; None without a quota. Version 2, then version 1."""
    for files in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            quota, period = (int(word) for name in files for word in (CGROUP / name).read_text("ascii").split())
        except (OSError, ValueError):  # no such file, or "max" for no quota
            continue
        if quota > 0 and period > 0:
            return math.ceil(quota / period)
    return None


def _gpus() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [str(torch.cuda.get_device_name(number)) for number in range(torch.cuda.device_count())]
