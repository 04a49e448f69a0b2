"""The pretrained nets that a CGN is made of, read from the folder that fetch filled: BigGAN, saliency net, features.

Decided here: the published nets are the public files, loaded under their own keys, strictly; the miniature's are
safetensors whose facts say how many layers of which width there are, their numbers perhaps of half precision.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from cgn.core.checkpoints import load_strictly, load_weights
from cgn.data import sources
from cgn.imagenet.generator import empty
from cgn.miniature.nets import load_biggan, load_features, load_segmenter
from cgn.nets.biggan import BIGGAN_DEEP_256, BigGan
from cgn.nets.features import VggFeatures, vgg_weights
from cgn.nets.u2net import U2NET, U2Net, Widths


@dataclass(frozen=True, kw_only=True)
class Nets:
    """Pretrained, on the CPU, in eval mode, no weight of them wanting a gradient."""

    biggan: BigGan
    saliency: U2Net
    widths: Widths
    """Of the saliency net."""
    features: nn.Module
    """(B,3,H,W) in [-1,1] -> four maps."""


def open_nets(assets: Path, *, nets: Literal["miniature", "published"]) -> Nets:
    """Read them. Raises ArtifactError naming the file, and the keys and shapes that differ."""
    opened = _published(assets) if nets == "published" else _miniature(assets)
    for net in (opened.biggan, opened.saliency, opened.features):
        net.eval().requires_grad_(False)
    return opened


def _published(assets: Path) -> Nets:
    nets = Nets(biggan=empty(BIGGAN_DEEP_256), saliency=U2Net(U2NET), widths=U2NET, features=VggFeatures())
    _fill(nets.biggan, assets / sources.BIGGAN_DEEP_256.name)
    _fill(nets.saliency, assets / sources.U2NET.name)
    path = assets / sources.VGG16.name
    load_strictly(nets.features, vgg_weights(load_weights(path)), source=str(path))
    return nets


def _fill(net: nn.Module, path: Path) -> None:
    load_strictly(net, load_weights(path), source=str(path))


def _miniature(assets: Path) -> Nets:
    biggan, saliency = load_biggan(assets / "biggan.safetensors"), load_segmenter(assets / "segmenter.safetensors")
    features = load_features(assets / "features.safetensors")
    return Nets(biggan=biggan, saliency=saliency, widths=saliency.widths, features=features)
