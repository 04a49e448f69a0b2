"""Every loss and net has the gradient that finite differences measure, in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from cgn.core.seeding import torch_stream
from cgn.losses import (
    binary_entropy,
    discriminator_loss,
    generator_loss,
    gram,
    l1,
    mismatch_loss,
    saliency,
    size_hinge,
    style,
)
from cgn.mechanisms import compose
from cgn.mnist.generator import MaskNet, TileNet
from cgn.nets.biggan import BigGan, BigGanConfig, SelfAttention
from cgn.nets.biggan_folded import fold
from cgn.nets.spectral import Spectral, SpectralConv2d, SpectralLinear
from cgn.nets.u2net import U2Net, Widths

SMALL = BigGanConfig(
    noise_size=3,
    embedding_size=3,
    classes=4,
    width=8,
    blocks=((True, 4, 2), (False, 2, 2), (True, 2, 1)),
    attention_at=2,
)
"""16 px, with every kind of layer."""


def uniform(name: str, *shape: int) -> torch.Tensor:
    """In (0.02, 0.98), float64, wanting a gradient: away from where a logarithm or a clamp bends."""
    values = torch.rand(shape, generator=torch_stream(0, name), dtype=torch.float64) * 0.96 + 0.02
    return values.requires_grad_()


Loss = Callable[..., torch.Tensor]

LOSSES: dict[str, tuple[Loss, tuple[torch.Tensor, ...]]] = {
    "l1": (l1, (uniform("image", 2, 3, 4, 4), uniform("target", 2, 3, 4, 4))),
    "binary_entropy": (binary_entropy, (uniform("mask", 2, 1, 4, 4),)),
    "size_hinge, inside": (size_hinge, (uniform("mask", 2, 1, 4, 4),)),
    "size_hinge, too small": (lambda mask: size_hinge(mask / 100), (uniform("mask", 2, 1, 4, 4),)),
    "size_hinge, too large": (lambda mask: size_hinge(1 - mask / 100), (uniform("mask", 2, 1, 4, 4),)),
    "saliency": (saliency, (uniform("mask", 2, 1, 4, 4),)),
    "gram": (gram, (uniform("features", 2, 3, 4, 4),)),
    "style": (
        lambda a, b, c, d: style([a, b], [c, d], weights=(0.5, 2)),
        (
            uniform("a", 2, 3, 4, 4),
            uniform("b", 2, 5, 2, 2),
            uniform("c", 2, 3, 4, 4),
            uniform("d", 2, 5, 2, 2),
        ),
    ),
    "generator_loss": (generator_loss, (uniform("fake", 5),)),
    "discriminator_loss": (discriminator_loss, (uniform("real", 5), uniform("fake", 5))),
    "mismatch_loss": (mismatch_loss, (uniform("fake", 5),)),
    "compose": (compose, (uniform("mask", 2, 1, 4, 4), uniform("f", 2, 3, 4, 4), uniform("b", 2, 3, 4, 4))),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    loss, inputs = LOSSES[name]
    assert gradcheck(loss, inputs)


def test_the_check_can_fail() -> None:
    def half_cut(x: torch.Tensor) -> torch.Tensor:
        return x * x.detach()

    assert not gradcheck(half_cut, (uniform("x", 3),), raise_exception=False)


def checked(net: nn.Module, *inputs: torch.Tensor, constant: tuple[torch.Tensor, ...] = ()) -> bool:
    """Against the inputs and the unfrozen parameters of `net`, along random directions: not each element, for time."""
    names, tensors = zip(
        *((name, tensor.detach()) for name, tensor in net.named_parameters() if tensor.requires_grad), strict=True
    )

    def call(*given: torch.Tensor) -> torch.Tensor:
        parameters = dict(zip(names, given[len(inputs) :], strict=True))
        output: torch.Tensor = torch.func.functional_call(net, parameters, (*given[: len(inputs)], *constant))
        return output

    wanting = [tensor.clone().requires_grad_() for tensor in (*inputs, *tensors)]
    return gradcheck(call, wanting, fast_mode=True)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_spectral_norm(kind: str) -> None:
    layer: Spectral = SpectralConv2d(2, 3, 3, epsilon=1e-4) if kind == "conv" else SpectralLinear(4, 5, epsilon=1e-4)
    x = uniform("x", 2, 2, 4, 4) if kind == "conv" else uniform("x", 2, 4)
    assert checked(layer.double().eval(), x)


def test_spectral_norm_in_training_once_its_iteration_has_converged() -> None:
    # Then the step of u and v changes the norm in second order only, and taking them as constant is exact.
    layer = SpectralLinear(3, 3, epsilon=1e-4).double()
    with torch.no_grad():
        layer.weight_orig.copy_(torch.diag(torch.tensor([3.0, 1.0, 0.5])))
    for _ in range(50):
        layer(torch.zeros(1, 3, dtype=torch.float64))
    assert checked(layer, uniform("x", 2, 3))


def test_self_attention() -> None:
    layer = SelfAttention(8, epsilon=1e-4).double().eval()
    layer.gamma.data.fill_(0.7)
    assert checked(layer, uniform("x", 2, 8, 4, 4))


def big_gan() -> BigGan:
    net = BigGan(SMALL).double().eval()
    for layer in net.modules():
        if isinstance(layer, SelfAttention):
            layer.gamma.data.fill_(0.7)
    return net


def test_biggan() -> None:
    assert checked(big_gan(), uniform("noise", 2, 3), constant=(torch.tensor([1, 3]),))


def test_folded_biggan_has_the_gradient_of_the_noise() -> None:
    net, label = big_gan(), torch.tensor([1, 3])
    folded = fold(net, truncation=1.0)
    noise = uniform("noise", 2, 3)
    torch.testing.assert_close(folded(noise, label), net(noise, label))
    (gradient,) = torch.autograd.grad(folded(noise, label).square().sum(), [noise])
    (expected,) = torch.autograd.grad(net(noise, label).square().sum(), [noise])
    torch.testing.assert_close(gradient, expected)


def test_u2net() -> None:
    net = U2Net(Widths(down=((2, 3),) * 6, up=((2, 3),) * 5)).double().eval().requires_grad_(False)
    for layer in ("stage1.rebnconv7", "stage5d.rebnconv1d", "side3", "outconv"):
        net.get_submodule(layer).requires_grad_()
    assert checked(net, uniform("image", 1, 3, 32, 32))


@pytest.mark.parametrize("kind", [MaskNet, TileNet])
def test_convgen(kind: type[MaskNet | TileNet]) -> None:
    net = kind(nn.Embedding(4, 3), noise_size=3, width=4, image_size=8).double().eval()
    assert checked(net, uniform("noise", 2, 3), constant=(torch.tensor([1, 3]),))
