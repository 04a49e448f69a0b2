"""Whether a device computes what the CPU computes, in float32, within a tolerance."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from cgn.config.imagenet import Generate
from cgn.core.images import to_bytes
from cgn.core.seeding import torch_stream
from cgn.corruptions import CORRUPTIONS, corrupt_with
from cgn.corruptions.random_numbers import random_numbers
from cgn.imagenet.generate import Renderer
from cgn.imagenet.generator import biggan_of
from cgn.imagenet.train_cgn import batch_losses, draw_batch, settle_norms
from cgn.nets.classifiers import MECHANISMS, Ensemble, network
from tests.benchmarks.bench_training_step import untrained
from tests.gpu.measure import Row, smooth

GREY_LEVELS_OFF, LARGEST_SHARE_OFF = 1, 1e-3
"""Pixels may differ by one grey level; this share of them by more, where a threshold was crossed."""
RELATIVE = 1e-3
"""Of the largest value, for losses, gradients and logits in float32."""


def rows(folder: Path, *, device: torch.device, images: int, pixels: int) -> Iterator[Row]:
    """Generated images, a training step, a classifier's logits and every corruption, on the CPU and on `device`."""
    for case, check in checks(folder, images=images, pixels=pixels).items():
        yield Row.judged("equality", case, *check(device))


Check = Callable[[torch.device], tuple[float, str, float]]
"""Device -> what was measured, its unit, the largest that is allowed."""


def checks(folder: Path, *, images: int, pixels: int) -> dict[str, Check]:
    """By name."""
    found: dict[str, Check] = {
        "generated images": lambda device: _bytes_off(*(generated(folder, on, images) for on in _pair(device))),
        "the same shard twice": lambda device: _bytes_off(
            *(generated(folder, device, images) for _ in range(2)), levels=0
        ),
        "losses of a training step": lambda device: _off(*(step(folder, on)[0] for on in _pair(device))),
        "gradients of a training step": lambda device: _off(*(step(folder, on)[1] for on in _pair(device))),
        "a classifier's logits": lambda device: _off(*(logits(on, images, pixels) for on in _pair(device))),
    }
    for name in CORRUPTIONS:
        found[f"corruption {name}"] = lambda device, name=name: _bytes_off(  # type: ignore[misc]
            *(corrupted(name, on, images, pixels) for on in _pair(device))
        )
    return found


def _pair(device: torch.device) -> tuple[torch.device, torch.device]:
    return device, torch.device("cpu")


def _bytes_off(one: torch.Tensor, other: torch.Tensor, *, levels: int = GREY_LEVELS_OFF) -> tuple[float, str, float]:
    off = (one.int() - other.int()).abs() > levels
    return float(off.double().mean()), f"share of values more than {levels} grey levels off", LARGEST_SHARE_OFF * levels


def _off(one: torch.Tensor, other: torch.Tensor) -> tuple[float, str, float]:
    return float((one - other).abs().max() / other.abs().max()), "largest difference / largest value", RELATIVE


def generate_config(*, images: int, precision: str) -> Generate:
    """Counterfactuals in one batch a shard."""
    values = {"factual_images": 0, "counterfactual_images": 1 << 20, "images_per_shard": images, "batch_size": images}
    return Generate.model_validate({**values, "truncation": 0.5, "precision": precision})


def generated(folder: Path, device: torch.device, images: int) -> torch.Tensor:
    """(B,S,S,3) uint8 counterfactuals."""
    renderer = Renderer(generate_config(images=images, precision="32-true"), source=folder, seed=0, variant="bench")
    renderer.to(device)
    layers = renderer.draw(renderer.causes("counterfactual", torch_stream(0, "equality")))
    return torch.from_numpy(to_bytes(layers.picture.image))


def step(folder: Path, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses of a batch of one, and the gradients of each mechanism's first layer, flat."""
    config, nets = untrained(folder, device=device, batch=1)
    settle_norms(nets.generator)
    batch = draw_batch(config, nets, 0, 0, seed=0)
    losses = batch_losses(config, nets, batch)
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    batch.backward()
    firsts = [next(biggan_of(getattr(nets.generator, role)).parameters()) for role in MECHANISMS]
    gradients = torch.cat([first.grad.flatten() for first in firsts if first.grad is not None])
    return torch.stack(list(losses.values())).detach().cpu(), gradients.cpu()


@torch.inference_mode()
def logits(device: torch.device, images: int, pixels: int) -> torch.Tensor:
    """(B,30) of a ResNet-50 with three heads."""
    torch.manual_seed(0)
    net = Ensemble(network("resnet50", classes=10), classes=10).eval().to(device)
    found = net(smooth(images, pixels).float().div(255).to(device))
    return torch.cat([found[head] for head in MECHANISMS], 1).cpu()


def corrupted(name: str, device: torch.device, images: int, pixels: int) -> torch.Tensor:
    """(B,3,H,W) uint8, at severity 3, by the same random numbers on every device."""
    draws = random_numbers(range(images), name=name, severity=3, seed=0, device=device)
    pictures = smooth(images, pixels).to(device)
    return corrupt_with(pictures, name=name, severity=3, draws=draws, ice=tuple(smooth(6, 320))).cpu()
