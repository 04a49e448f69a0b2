"""The nets that training starts from, as fetch left them: the public files, or the miniature's, which ship with `cgn`.

The public files are loaded strictly under their own keys. Their names are here and not only in `cgn.download.sources`,
because a new URL must not make a generator train again.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from cgn.core.weights import load_strictly, load_weights
from cgn.imagenet.generator import empty_biggan
from cgn.miniature.nets import load_biggan, load_features, load_segmenter
from cgn.nets.biggan import BIGGAN_DEEP_256, BigGan
from cgn.nets.features import VggFeatures, vgg_weights
from cgn.nets.u2net import U2NET, U2Net, Widths

BIGGAN_FILE = "biggan-deep-256-pytorch_model.bin"
SALIENCY_FILE = "u2net.pth"
FEATURES_FILE = "vgg16-397923af.pth"


@dataclass(frozen=True, kw_only=True)
class PretrainedNets:
    """On the CPU, in eval mode; no weight requires a gradient."""

    biggan: BigGan
    saliency: U2Net
    widths: Widths
    """Of the saliency net."""
    features: nn.Module
    """(B,3,H,W) in [-1,1] -> four maps."""


def load_pretrained(assets: Path, *, nets: Literal["miniature", "published"]) -> PretrainedNets:
    """The nets in `assets`. Raises ArtifactError naming the file, and the keys and shapes that differ."""
    loaded = _published_nets(assets) if nets == "published" else _miniature_nets(assets)
    for net in (loaded.biggan, loaded.saliency, loaded.features):
        net.eval().requires_grad_(False)
    return loaded


def _published_nets(assets: Path) -> PretrainedNets:
    biggan, saliency, features = empty_biggan(BIGGAN_DEEP_256), U2Net(U2NET), VggFeatures()
    for net, name in ((biggan, BIGGAN_FILE), (saliency, SALIENCY_FILE)):
        load_strictly(net, load_weights(assets / name), source=str(assets / name))
    path = assets / FEATURES_FILE
    load_strictly(features, vgg_weights(load_weights(path)), source=str(path))
    return PretrainedNets(biggan=biggan, saliency=saliency, widths=U2NET, features=features)


def _miniature_nets(assets: Path) -> PretrainedNets:
    biggan = load_biggan(assets / "biggan.safetensors")
    saliency = load_segmenter(assets / "segmenter.safetensors")
    features = load_features(assets / "features.safetensors")
    return PretrainedNets(biggan=biggan, saliency=saliency, widths=saliency.widths, features=features)
