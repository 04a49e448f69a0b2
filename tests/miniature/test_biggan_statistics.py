"""Standing statistics: a net on the rows that were computed for it does what it did on its batches."""

import pytest
import torch

from cgn.core.seeding import torch_stream
from cgn.miniature.pretraining.biggan_statistics import batch_statistics, settle
from cgn.nets.biggan import BigGan, BigGanConfig, StatisticsNorm
from cgn.nets.spectral import Spectral

BIGGAN_CONFIG = BigGanConfig(
    noise_size=6,
    embedding_size=4,
    classes=3,
    width=8,
    blocks=((True, 2, 2), (True, 2, 1)),
    attention_at=1,
    statistics=3,
)
BATCH = 96


def draw(truncation: float, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    noise = torch.randn(BATCH, BIGGAN_CONFIG.noise_size, generator=torch_stream(0, number)).clamp(-2, 2)
    return noise * truncation, torch.arange(BATCH) % BIGGAN_CONFIG.classes


@pytest.fixture
def net() -> BigGan:
    torch.manual_seed(0)
    net = BigGan(BIGGAN_CONFIG)
    for norm in net.modules():
        if isinstance(norm, StatisticsNorm):
            assert (norm.running_means == 0).all()
            assert (norm.running_vars == 1).all()
    return net.eval()


@torch.no_grad()
@pytest.mark.parametrize("truncation", [1.0, 0.5, 0.0])
def test_one_batch_settled_gives_the_same_images(net: BigGan, truncation: float) -> None:
    settle(net, draw, batches=1)
    settled = net(*draw(truncation, 0), truncation=truncation)
    for norm in net.modules():
        if isinstance(norm, StatisticsNorm):
            norm.running_means.zero_()
            norm.running_vars.fill_(1)
    with batch_statistics(net):
        on_batch = net(*draw(truncation, 0), truncation=truncation)
    torch.testing.assert_close(settled, on_batch, rtol=1e-2, atol=1e-3)
    assert (net(*draw(truncation, 0), truncation=truncation) - settled).abs().max() > 0.01, "the hooks are gone"


def test_more_noise_makes_more_variance(net: BigGan) -> None:
    settle(net, draw, batches=4)
    first = next(norm for norm in net.modules() if isinstance(norm, StatisticsNorm))
    assert (first.running_vars[1:] > first.running_vars[:-1]).float().mean() > 0.9
    assert all((norm.running_vars >= 0).all() for norm in net.modules() if isinstance(norm, StatisticsNorm))


def test_gradients_go_through_the_batchs_statistics(net: BigGan) -> None:
    noise, label = draw(1.0, 0)
    noise.requires_grad_(True)
    with batch_statistics(net):
        net(noise, label)[0].sum().backward()
    assert noise.grad is not None
    assert noise.grad[1:].abs().max() > 0, "one image's gradient reaches the others through mean and variance"


def test_settled_weights_have_norm_one(net: BigGan) -> None:
    for module in net.modules():
        if isinstance(module, Spectral):
            torch.nn.init.normal_(module.weight_orig)
    settle(net, draw, batches=1)
    for module in net.modules():
        if isinstance(module, Spectral):
            norm = torch.linalg.matrix_norm(module.normalized().flatten(1), 2)
            torch.testing.assert_close(norm, torch.ones(()), rtol=0.02, atol=0.02)
