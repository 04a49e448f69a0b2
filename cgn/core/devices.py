"""What a process computes with: device, precision, cores, threads, memory, and the machine's description.

`auto` is a CUDA GPU where one is available, else the CPU. A GPU that was requested and is absent is
refused before anything runs, never silently replaced. Fabric gives device and precision; the loops stay ours.

Every process computes with one thread. The number of threads decides how a sum is split and so its last bit: another
number would give other bytes; and beside other busy processes, threads that wait for one another made a training 10 to
30 times slower. More cores are used by more processes: shards, decoding, stages side by side.

torch and Fabric are imported on the first call: a start without tensors (`--help`, a pipeline) needs neither, and
`limit_threads` must set the environment before torch reads it. So GPUs are described only where torch is loaded.
"""

import gc
import math
import os
import platform
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cgn.core.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

ACCELERATORS = ("auto", "cpu", "cuda")
PRECISIONS = ("32-true", "bf16-mixed")
CPUINFO = Path("/proc/cpuinfo")
CGROUP = Path("/sys/fs/cgroup")
CORES = "CGN_CORES"
"""Environment variable: the most cores that this process may use, where several run side by side."""
THREADS = 1
"""Of each process, on any machine."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
INSTRUCTIONS = {"amx_tile": "AMX", "avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"}
"""Flag of a processor -> the instruction set's name, widest first."""
LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
"""Environment variables by which torch and oneDNN use less than the processor has."""
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
"""Parameters of glibc's mallopt (malloc.h)."""
NEVER = 2**31 - 1
VISIBLE_SECONDS = 60.0
"""A network file system shows a new file on other machines after at most so long."""


def open_fabric(*, accelerator: str, precision: str = "32-true", devices: int | None = None) -> "Fabric":
    """A launched Fabric: in one of the processes that `cgn.core.launch` started, `devices` on each machine, or, without
    `devices`, for this process alone.

    On a CPU the process then keeps the memory that it frees: an update needs blocks of the same sizes as the last.
    Raises ConfigError for an unknown or absent accelerator, for more devices than there are, and for torchrun's
    processes where one is needed.
    """
    several: dict[str, Any] = {}
    if started_by_torchrun():
        world, here = processes_of_torchrun()
        if devices is None and world > 1:
            raise ConfigError(
                f"torchrun started {world} processes, but this training uses one: start it without torchrun"
            )
        devices = here
        several = {"strategy": "ddp", "num_nodes": world // here}  # Fabric reads the rest from the environment
    chosen = resolve_device(accelerator, devices=devices or 1)
    limit_threads()
    if chosen == "cpu":
        keep_freed_memory()
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}, allowed: {', '.join(PRECISIONS)}")
    with importing():
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    if (devices or 1) > 1 and not several:
        assert "LOCAL_RANK" in os.environ, "cgn.core.launch starts the processes"
        several = {"strategy": "ddp", "plugins": [LightningEnvironment()]}
    fabric = Fabric(accelerator=chosen, devices=devices or 1, precision=cast(Any, precision), **several)
    fabric.launch()
    return fabric


def started_by_torchrun() -> bool:
    """Whether this is one of the processes of a `torchrun`, whose environment variables say which."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def processes_of_torchrun() -> tuple[int, int]:
    """How many processes torchrun started: on all machines together, and on this one."""
    return int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])


def refuse_unshared(folder: Path, *, fabric: "Fabric") -> None:
    """Raise ArtifactError, in every process, where one of them does not see what the first writes into `folder`."""
    from torch.distributed import all_gather_object

    token = folder / f".shared.{fabric.broadcast(os.getpid())}.tmp"  # a name that `building` removes
    if fabric.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        token.touch()
    fabric.barrier()
    deadline = time.monotonic() + VISIBLE_SECONDS
    while not token.exists() and folder.is_dir() and time.monotonic() < deadline:
        time.sleep(1)
    blind: list[str] = [""] * fabric.world_size
    all_gather_object(blind, "" if token.exists() else f"{folder.absolute()} on {socket.gethostname()}")
    if fabric.is_global_zero:
        token.unlink()
    if any(blind):
        raise ArtifactError(
            f"{next(filter(None, blind))} is not the folder that the first process writes to: put the output on a file "
            "system that all machines share, under the same path"
        )


@contextmanager
def fits(batch_size: int, *, remedy: str = "lower batch_size or set accelerator to cpu") -> Iterator[None]:
    """Turn a GPU that runs out of memory into a ConfigError that names the batch size and what to lower."""
    import torch

    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise ConfigError(
            f"the GPU's memory does not hold batch_size {batch_size} ({str(error).splitlines()[0]}): free the GPU and "
            f"run the same command again, or {remedy}, which starts anew"
        ) from error


def resolve_device(accelerator: str, *, devices: int = 1) -> str:
    """Accelerator name -> "cpu" or "cuda". Raises ConfigError where it, or the number of devices, is not available."""
    if accelerator not in ACCELERATORS:
        raise ConfigError(f"accelerator is {accelerator!r}, allowed: {', '.join(ACCELERATORS)}")
    if accelerator == "cpu":
        return "cpu"
    import torch

    present = torch.cuda.is_available()
    if accelerator == "cuda" and not present:
        raise ConfigError(
            f"accelerator is 'cuda', but torch {torch.__version__} finds no CUDA GPU here: set accelerator to auto or "
            "cpu, or fix the driver (nvidia-smi must list a GPU)"
        )
    if present and devices > torch.cuda.device_count():
        present_devices = torch.cuda.device_count()
        raise ConfigError(f"devices is {devices}, CUDA GPUs here: {present_devices}; set devices to at most that")
    return "cuda" if present else "cpu"


@contextmanager
def importing() -> Iterator[None]:
    """Import large packages in here: without the garbage collector, which finds nothing in them, a fifth faster.

    Their objects stay out of later collections too.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def keep_freed_memory() -> None:
    """Keep freed memory in this process, so that the next tensor of the size gets it; without glibc, do nothing.

    glibc returns large blocks to the system as soon as they are freed and requests new ones, which the system fills
    with zeros page by page. For maps of tens of megabytes that takes longer than the computation with them. The process
    keeps the most that it ever had; it does not take more than that.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(ctypes.c_int(M_MMAP_MAX), ctypes.c_int(0))
    mallopt(ctypes.c_int(M_TRIM_THRESHOLD), ctypes.c_int(NEVER))


def limit_threads() -> None:
    """Compute with THREADS threads in this process and, by the environment, in those that it starts.

    Call it before torch is imported; where torch is loaded already, its threads are set too.
    """
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
    """{"cpu": name, "instructions": widest set, "cores": that this process may use, "gpus": names}.

    The instruction set decides how sums are rounded, so it is recorded with the figures that a machine computed.
    """
    return {"cpu": _cpu(), "instructions": _instructions(), "cores": usable_cores(), "gpus": _gpus()}


def describe_machine(machine: Mapping[str, Any]) -> str:
    """What decides the rounding, of what `machine` returned, in words; empty where no instruction set is named."""
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
    """The cgroup's CPU quota in cores, rounded up; None without a quota. Version 2, then version 1."""
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
