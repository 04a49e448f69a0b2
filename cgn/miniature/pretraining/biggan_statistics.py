"""Batch statistics for BigGAN's norms in training, and the standing statistics that replace them (Brock et al., 2019).

The norms of `biggan` do not use batch statistics. To train a net from scratch, each norm's input is normalized by its
batch just before the norm, whose statistics are still mean 0 and variance 1 and so change nothing. After the training
the means and variances of new batches are averaged into the net's rows, one truncation after the other, as in section
4 of the paper's appendix ("standing statistics"). Shapes: S rows of statistics, C channels.
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
"""Power iterations on averaged weights, whose singular vectors were never computed."""

Draw = Callable[[float, int], tuple[torch.Tensor, torch.Tensor]]
"""(truncation, batch number) -> (B,Z) noise, already times the truncation, and (B,) labels."""


@contextmanager
def batch_statistics(net: nn.Module) -> Iterator[None]:
    """In this context the norms of `net` use each batch's mean and variance; its rows must not be set yet."""
    handles = [norm.register_forward_pre_hook(_normalized) for norm in _statistics_norms(net)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def settle(net: BigGan, draw: Draw, *, batches: int) -> None:
    """Compute a trained net's spectral norms, then its rows of statistics; leaves the net in eval mode."""
    for module in net.modules():
        if isinstance(module, Spectral):
            module.settle(SETTLING)
    net.eval()
    norms = _statistics_norms(net)
    rows = [_statistics_row(net, norms, draw, truncation=row / (net.config.statistics - 1), batches=batches)
            for row in range(net.config.statistics)]  # fmt: skip
    for place, norm in enumerate(norms):
        norm.running_means.copy_(torch.stack([row[place][0] for row in rows]))
        norm.running_vars.copy_(torch.stack([row[place][1] for row in rows]))


def _statistics_row(
    net: BigGan, norms: list[StatisticsNorm], draw: Draw, *, truncation: float, batches: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Every norm's (C,) mean and variance over `batches` batches of one truncation."""
    moments: dict[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]] = {norm: [] for norm in norms}

    def observe(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        variance, mean = torch.var_mean(inputs[0].float(), dim=(0, 2, 3), correction=0)
        moments[norm].append((mean, variance))

    handles = [norm.register_forward_pre_hook(observe) for norm in norms]
    try:
        with batch_statistics(net):  # its hooks run after `observe`, which therefore sees the unchanged input
            for number in range(batches):
                net(*draw(truncation, number), truncation=truncation)
    finally:
        for handle in handles:
            handle.remove()
    return [_pooled(moments[norm]) for norm in norms]


def _pooled(parts: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean and the variance of all batches together, from theirs."""
    means, variances = (torch.stack(values) for values in zip(*parts, strict=True))
    return means.mean(0), variances.mean(0) + means.var(0, correction=0)


def _normalized(norm: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    assert isinstance(norm, StatisticsNorm)
    return (functional.batch_norm(inputs[0], None, None, training=True, eps=norm.epsilon), *inputs[1:])


def _statistics_norms(net: nn.Module) -> list[StatisticsNorm]:
    return [module for module in net.modules() if isinstance(module, StatisticsNorm)]
