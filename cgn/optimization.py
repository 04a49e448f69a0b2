"""Adam, the decay of the learning rate, an average of weights (EMA), and contexts that evaluate or freeze a module.

torch's AveragedModel begins its average with the weights of the first update, this one with the initial weights, so the
results would differ. torch's LambdaLR counts updates itself, which is one more state to resume; here the learning rate
is a function of the update.
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
        """Average in the weights after `update`; early on the decay is lower, to forget the initial weights."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + update) / (10 + update))
        torch._foreach_lerp_(list(self.module.parameters()), list(self.source.parameters()), 1 - decay)
        for average, current in zip(self.module.buffers(), self.source.buffers(), strict=True):
            average.copy_(current)


@contextmanager
def evaluating(module: Net, *, fabric: "Fabric") -> Iterator[Net]:
    """The module in eval mode, without gradients; afterwards its statistics and its mode are as before."""
    mode = module.training
    with torch.no_grad(), fabric.autocast():
        yield module.eval()
    module.train(mode)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for the module's parameters; halves the cost of a backward pass that only goes through it."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def adam(module: nn.Module, *, rate: float, betas: tuple[float, float]) -> torch.optim.Adam:
    """Adam over a module's parameters; each group also stores its initial learning rate, as `initial_lr`."""
    return torch.optim.Adam(
        [{"params": list(module.parameters()), "initial_lr": rate}], lr=rate, betas=betas, fused=True
    )


def linear_decay(update: int, *, updates: int, fraction: float) -> float:
    """The learning rate's factor: 1, then linearly to 0 over the last `fraction` of the updates."""
    start = updates * (1 - fraction)
    return 1.0 if update < start or not fraction else (updates - update) / (updates - start)
