"""Where tensors live: devices chosen by name, through Lightning Fabric.

Decided here: `auto` is a CUDA GPU where one is at hand, else the CPU. A GPU that was asked for and is absent is refused
before anything runs, never silently replaced. Fabric gives device and precision; the loops stay ours. It is imported
on the first call: that alone takes seconds, and `--help` needs none of it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch

from cgn.core.devices import limit_threads
from cgn.core.errors import ConfigError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

ACCELERATORS = ("auto", "cpu", "cuda")
PRECISIONS = ("32-true", "bf16-mixed")


def fabric(*, accelerator: str, precision: str = "32-true", devices: int = 1) -> "Fabric":
    """A launched Fabric on one device, or as one of `devices` processes that `cgn.core.launch` started.

    Raises ConfigError for an unknown or absent accelerator, and for more devices than there are.
    """
    chosen = resolve_device(accelerator, devices=devices)
    limit_threads()
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}, allowed: {', '.join(PRECISIONS)}")
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    several: dict[str, Any] = {}
    if started_by_torchrun():
        several = {
            "strategy": "ddp",
            "num_nodes": torchrun_machines(devices),
        }  # Fabric reads the rest from the environment
    elif devices > 1:
        assert "LOCAL_RANK" in os.environ, "cgn.core.launch starts the processes"
        several = {"strategy": "ddp", "plugins": [LightningEnvironment()]}
    made = Fabric(accelerator=chosen, devices=devices, precision=cast(Any, precision), **several)
    made.launch()
    return made


def started_by_torchrun() -> bool:
    """Whether this is one of the processes of a `torchrun`, whose environment variables say which."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def torchrun_machines(devices: int) -> int:
    """Of a torchrun. Raises ConfigError where it started more or fewer than `devices` processes on each."""
    world, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if local != devices:
        raise ConfigError(
            f"torchrun started {local} processes on this machine, but devices is {devices}: set devices to {local}, or "
            f"--nproc_per_node to {devices}"
        )
    return world // local


@contextmanager
def fits(batch_size: int, *, remedy: str = "lower batch_size or set accelerator to cpu") -> Iterator[None]:
    """Turn a GPU that runs out of memory into a ConfigError that names the batch size and what to lower."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise ConfigError(
            f"the GPU's memory does not hold batch_size {batch_size} ({str(error).splitlines()[0]}): free the GPU and "
            f"run the same command again, or {remedy}, which starts anew"
        ) from error


def resolve_device(accelerator: str, *, devices: int = 1) -> str:
    """What an accelerator's name stands for here, "cpu" or "cuda". Raises ConfigError where there is too little."""
    if accelerator not in ACCELERATORS:
        raise ConfigError(f"accelerator is {accelerator!r}, allowed: {', '.join(ACCELERATORS)}")
    if accelerator == "cpu":
        return "cpu"
    present = torch.cuda.is_available()
    if accelerator == "cuda" and not present:
        raise ConfigError(
            f"accelerator is 'cuda', but torch {torch.__version__} finds no CUDA GPU here: set accelerator to auto or "
            "cpu, or mend the driver (nvidia-smi must list a GPU)"
        )
    if present and devices > torch.cuda.device_count():
        present_devices = torch.cuda.device_count()
        raise ConfigError(f"devices is {devices}, CUDA GPUs here: {present_devices}; set devices to at most that")
    return "cuda" if present else "cpu"
