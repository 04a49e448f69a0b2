"""What moves weights: Adam, the learning rate's decay, averaged weights, and what holds a net still meanwhile.

torch's AveragedModel copies the weights of the first update, where the average here begins with the initial ones: other
weights. Its LambdaLR counts updates itself, one more state to resume, where the rate here is a function of the update.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import nn

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Net = TypeVar("Net", bound=nn.Module)


class EMA(Generic[Net]):
    """An exponential moving average of a module's weights (buffers are copied); with decay 0, the module itself."""

    def __init__(self, source: Net, *, decay: float) -> None:
        self.source, self.decay = source, decay
        self.module: Net = copy.deepcopy(source).requires_grad_(False) if decay else source

    @torch.no_grad()
    def follow(self, update: int) -> None:
        """Take in the weights after `update`; early on the decay is lower, so that the start is forgotten."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + update) / (10 + update))
        torch._foreach_lerp_(list(self.module.parameters()), list(self.source.parameters()), 1 - decay)
        for kept, new in zip(self.module.buffers(), self.source.buffers(), strict=True):
            kept.copy_(new)


@contextmanager
def evaluating(module: Net, *, fabric: "Fabric") -> Iterator[Net]:
    """The module in eval mode, without gradients: to look at it moves neither its statistics nor its mode."""
    mode = module.training
    with torch.no_grad(), fabric.autocast():
        yield module.eval()
    module.train(mode)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for the module's parameters: halves the cost of a step that only passes through it."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def adam(module: nn.Module, *, rate: float, betas: tuple[float, float]) -> torch.optim.Adam:
    """Adam over a module's parameters, its initial rate kept beside the current one."""
    return torch.optim.Adam(
        [{"params": list(module.parameters()), "initial_lr": rate}], lr=rate, betas=betas, fused=True
    )


def linear_decay(update: int, *, updates: int, fraction: float) -> float:
    """The learning rate's factor: 1, then linearly to 0 over the last `fraction` of the updates."""
    start = updates * (1 - fraction)
    return 1.0 if update < start or not fraction else (updates - update) / (updates - start)
