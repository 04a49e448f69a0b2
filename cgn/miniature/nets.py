"""The miniature's pretrained nets in their files: rebuilt from the facts in the header and loaded strictly.

The files hold half-precision numbers, which halves the package; loading makes them float32. The published nets have no
such header: `cgn.imagenet.generator` knows their configs.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from cgn.core.checkpoints import load_model, rebuilt, save_model
from cgn.nets.biggan import BigGan, BigGanConfig
from cgn.nets.features import Blocks, VggFeatures
from cgn.nets.u2net import U2Net, Widths

Net = TypeVar("Net", bound=nn.Module)

MINIATURE = {"track": "imagenet", "variant": "miniature"}
"""Facts of every file."""


def load_biggan(path: Path) -> BigGan:
    """The BigGAN-deep in `path`, on the CPU, in training mode like any new module.

    Raises ArtifactError, as the other loaders do, for a missing, damaged or foreign file.
    """
    return _load(path, kind="biggan", build=lambda config: BigGan(BigGanConfig(**config)))


def load_segmenter(path: Path) -> U2Net:
    """The salient-object net in `path`."""
    return _load(path, kind="segmenter", build=lambda config: U2Net(Widths(**config)))


def load_features(path: Path) -> VggFeatures:
    """The perceptual features in `path`: (B,3,S,S) in [-1,1] -> maps at S, S/2, S/4, S/8."""
    return _load(path, kind="features", build=lambda config: VggFeatures(tuple(map(tuple, config["blocks"]))))


def save_biggan(path: Path, net: BigGan, *, made_by: str) -> None:
    """Write a BigGAN with its config."""
    _save(path, net, kind="biggan", config=asdict(net.config), made_by=made_by)


def save_segmenter(path: Path, net: U2Net, *, made_by: str) -> None:
    """Write a salient-object net with its widths."""
    _save(path, net, kind="segmenter", config=asdict(net.widths), made_by=made_by)


def save_features(path: Path, net: VggFeatures, *, blocks: Blocks, made_by: str) -> None:
    """Write perceptual features with their blocks."""
    _save(path, net, kind="features", config={"blocks": blocks}, made_by=made_by)


def _save(path: Path, net: nn.Module, *, kind: str, config: Mapping[str, Any], made_by: str) -> None:
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in net.state_dict().items()}
    save_model(path, half, facts={**MINIATURE, "kind": kind, "net": config, "made_by": made_by})


def _load(path: Path, *, kind: str, build: Callable[[Mapping[str, Any]], Net]) -> Net:
    tensors, facts = load_model(path, **MINIATURE, kind=kind)
    full = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    return rebuilt(lambda: build(facts["net"]), full, source=str(path), remedy="run fetch again")
