"""BigGAN's norms while it is trained, and the standing statistics that they use afterwards (Brock et al., 2019).

Legend: S rows of statistics, C channels.
The norms of `biggan` never look at the batch. To train a net from scratch, each norm's input is
normalised by its own batch just before the norm, whose statistics are still mean 0 and variance 1 and so change
nothing. Afterwards the means and variances that the batches had are averaged into the net's rows, for one truncation
after the other, as section 4 of the paper's appendix does ("standing statistics").
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from cgn.nets.biggan import BigGan, StatisticsNorm
from cgn.nets.spectral import Spectral

SETTLING = 30
"""Power iterations on weights that have been averaged: their singular vectors are nobody's yet."""

Draw = Callable[[float, int], tuple[torch.Tensor, torch.Tensor]]
"""(truncation, batch number) -> (B,Z) noise, already times the truncation, and (B,) labels."""


@contextmanager
def batch_statistics(net: nn.Module) -> Iterator[None]:
    """While this lasts, the norms of `net` take each batch's own mean and variance; its rows must not be set yet."""
    handles = [norm.register_forward_pre_hook(_normalised) for norm in _norms(net)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def settle(net: BigGan, draw: Draw, *, batches: int) -> None:
    """Give a trained net its rows of statistics, and settle its spectral norms; the net is left in eval mode."""
    for module in net.modules():
        if isinstance(module, Spectral):
            module.settle(SETTLING)
    net.eval()
    norms = _norms(net)
    rows = [_row(net, norms, draw, truncation=row / (net.config.statistics - 1), batches=batches)
            for row in range(net.config.statistics)]  # fmt: skip
    for place, norm in enumerate(norms):
        norm.running_means.copy_(torch.stack([row[place][0] for row in rows]))
        norm.running_vars.copy_(torch.stack([row[place][1] for row in rows]))


def _row(
    net: BigGan, norms: list[StatisticsNorm], draw: Draw, *, truncation: float, batches: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Every norm's (C,) mean and variance over `batches` batches of one truncation."""
    seen: dict[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]] = {norm: [] for norm in norms}

    def watched(norm: nn.Module, given: tuple[Any, ...]) -> None:
        variance, mean = torch.var_mean(given[0].float(), dim=(0, 2, 3), correction=0)
        seen[norm].append((mean, variance))

    handles = [norm.register_forward_pre_hook(watched) for norm in norms]
    try:
        with batch_statistics(net):  # after the watch, so that it sees what comes in
            for number in range(batches):
                net(*draw(truncation, number), truncation=truncation)
    finally:
        for handle in handles:
            handle.remove()
    return [_pooled(seen[norm]) for norm in norms]


def _pooled(parts: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean and the variance of all batches together, from theirs."""
    means, variances = (torch.stack(values) for values in zip(*parts, strict=True))
    return means.mean(0), variances.mean(0) + means.var(0, correction=0)


def _normalised(norm: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    assert isinstance(norm, StatisticsNorm)
    return (functional.batch_norm(given[0], None, None, training=True, eps=norm.epsilon), *given[1:])


def _norms(net: nn.Module) -> list[StatisticsNorm]:
    return [module for module in net.modules() if isinstance(module, StatisticsNorm)]
