"""Where tensors live: one device, chosen by name, through Lightning Fabric.

Decided here: `auto` is a CUDA GPU where one is at hand, else the CPU. A GPU that was asked for and is absent is refused
before anything runs, never silently replaced. Fabric gives device and precision; the loops stay ours. It is imported
on the first call: that alone takes seconds, and `--help` needs none of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch

from cgn.core.errors import ConfigError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

ACCELERATORS = ("auto", "cpu", "cuda")
PRECISIONS = ("32-true", "bf16-mixed")


def fabric(*, accelerator: str, precision: str = "32-true", cpu_threads: int | None = None) -> "Fabric":
    """A launched Fabric on one device. Raises ConfigError for an unknown or absent accelerator.

    `cpu_threads` is what torch computes with on a CPU; None leaves it to torch.
    """
    chosen = at_hand(accelerator)
    if cpu_threads is not None:
        torch.set_num_threads(cpu_threads)
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}, allowed: {', '.join(PRECISIONS)}")
    from lightning_fabric import Fabric

    made = Fabric(accelerator=chosen, devices=1, precision=cast(Any, precision))
    made.launch()
    return made


@contextmanager
def fits(batch_size: int) -> Iterator[None]:
    """Turn a GPU that runs out of memory into a ConfigError that names the batch size."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise ConfigError(
            f"the GPU's memory does not hold batch_size {batch_size} ({str(error).splitlines()[0]}): free the GPU and "
            "run the same command again, or lower batch_size or set accelerator to cpu, which starts anew"
        ) from error


def at_hand(accelerator: str) -> str:
    """`cpu` or `cuda`. Raises ConfigError for an unknown or absent accelerator."""
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
    return "cuda" if present else "cpu"
