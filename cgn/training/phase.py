"""What is trained and how, as data: phases (losses and the optimizers they move) and the objective that holds them.

Decided here: the gradients of an update's batches are summed, not averaged (published for ImageNet, whose weights hang
on it), and each batch is drawn when its turn comes, so that one at a time is in memory. What was drawn is handed from
phase to phase where an update has one batch; of several, only one phase can make use.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

Drawn = TypeVar("Drawn")
"""What an update works on: the real batch and what was generated for it."""

Rows = Sequence[tuple[str, torch.Tensor]]
"""A sheet: named rows of (B,1 or 3,H,W) images in [-1,1]."""


def _nothing(update: int) -> None:
    del update


@dataclass(frozen=True, kw_only=True)
class Phase(Generic[Drawn]):
    """One step of an update. The losses come weighted; their sum is what the optimizers go down."""

    name: str
    losses: Callable[[Drawn], Mapping[str, torch.Tensor]]
    movers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Mover:
    """A module and the optimizer that moves it; `factor` gives its rate at an update as a part of the initial rate."""

    module: torch.nn.Module
    optimizer: torch.optim.Optimizer
    factor: Callable[[int], float]


@dataclass(frozen=True, kw_only=True)
class Objective(Generic[Drawn]):
    """All that makes a training this one: modules on their device, phases in order, and how to draw."""

    generator: torch.nn.Module
    movers: Mapping[str, Mover]
    phases: Sequence[Phase[Drawn]]
    draw: Callable[[int, int], Drawn]
    """Numbers of update and batch -> the batch and what is generated for it: a pure function of both and weights."""
    sheet: Callable[[torch.nn.Module], Rows]
    """A generator in eval mode -> examples of it; without effect on any model or random stream."""
    batches_per_update: int = 1
    begin: Callable[[int], None] = _nothing
    """The update's number: what is done once, before its first batch, in every process alike."""
    measure: Callable[[torch.nn.Module], Mapping[str, float]] | None = None
    """A generator in eval mode -> figures that are logged with each sheet; without effect, like `sheet`."""

    def __post_init__(self) -> None:
        if self.batches_per_update > 1 and len(self.phases) > 1:
            raise ValueError(f"{self.batches_per_update} batches an update: allowed with one phase only")


def adam(module: torch.nn.Module, *, rate: float, betas: tuple[float, float]) -> torch.optim.Adam:
    """Adam over a module's parameters, its initial rate kept beside the current one."""
    return torch.optim.Adam(
        [{"params": list(module.parameters()), "initial_lr": rate}], lr=rate, betas=betas, fused=True
    )


def linear_decay(*, updates: int, fraction: float) -> Callable[[int], float]:
    """Factor 1, then linearly to 0 over the last `fraction` of the updates."""
    start = updates * (1 - fraction)

    def factor(update: int) -> float:
        return 1.0 if update < start or not fraction else (updates - update) / (updates - start)

    return factor
