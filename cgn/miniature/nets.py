"""The miniature's pretrained nets, to and from their files: rebuilt from the facts in the header, loaded strictly.

Decided here: files hold half-precision numbers, which halves the package, and become float32 here, so that nothing else
knows of it. The published ImageNet nets have no such header; who loads those names their table.
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

Made = TypeVar("Made", bound=nn.Module)

TRACK = {"track": "imagenet", "variant": "miniature"}


def biggan(path: Path) -> BigGan:
    """The BigGAN-deep of `path`, in training mode like any new module. Raises ArtifactError for another's file."""
    return _loaded(
        path, kind="biggan", make=lambda net: BigGan(BigGanConfig(**{**net, "blocks": _rows(net["blocks"])}))
    )


def saliency_net(path: Path) -> U2Net:
    """The salient-object net of `path`. Raises ArtifactError for another's file."""
    return _loaded(path, kind="segmenter", make=lambda net: U2Net(Widths(down=_rows(net["down"]), up=_rows(net["up"]))))


def features(path: Path) -> VggFeatures:
    """The perceptual features of `path`: (B,3,S,S) -> maps at S, S/2, S/4, S/8. Raises ArtifactError for another's."""
    return _loaded(path, kind="features", make=lambda net: VggFeatures(_rows(net["blocks"])))


def save_biggan(path: Path, net: BigGan, *, made_by: str) -> None:
    """Write it with its table."""
    _save(path, net, kind="biggan", facts=asdict(net.config), made_by=made_by)


def save_saliency_net(path: Path, net: U2Net, widths: Widths, *, made_by: str) -> None:
    """Write it with its widths."""
    _save(path, net, kind="segmenter", facts=asdict(widths), made_by=made_by)


def save_features(path: Path, net: VggFeatures, blocks: Blocks, *, made_by: str) -> None:
    """Write them with their blocks."""
    _save(path, net, kind="features", facts={"blocks": blocks}, made_by=made_by)


def _save(path: Path, net: nn.Module, *, kind: str, facts: Mapping[str, Any], made_by: str) -> None:
    halved = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in net.state_dict().items()
    }
    save_model(path, halved, facts={**TRACK, "kind": kind, "net": facts, "made_by": made_by})


def _loaded(path: Path, *, kind: str, make: Callable[[Mapping[str, Any]], Made]) -> Made:
    tensors, facts = load_model(path, **TRACK, kind=kind)
    whole = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    return rebuilt(lambda: make(facts["net"]), whole, source=str(path), remedy="fetch it again")


def _rows(listed: Any) -> tuple[Any, ...]:
    """JSON's lists of lists as tuples of tuples."""
    return tuple(tuple(row) for row in listed)
