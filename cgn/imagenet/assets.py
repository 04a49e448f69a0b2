"""The pretrained nets that a CGN is made of, read from the folder that fetch filled: BigGAN, saliency net, features.

Decided here: the published nets are the public files, loaded under their own keys, strictly; the miniature's are
safetensors whose facts say how many layers of which width there are, their numbers perhaps of half precision.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from cgn.core.checkpoints import load_model, rebuilt
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.weights import load_strictly, load_weights
from cgn.data import sources
from cgn.imagenet.generator import empty, read_table, read_widths
from cgn.nets.biggan import BIGGAN_DEEP_256, BigGan
from cgn.nets.features import VggFeatures, vgg_weights
from cgn.nets.u2net import U2NET, U2Net, Widths

MINIATURE = {"track": "imagenet", "variant": "miniature"}
KINDS = ("biggan", "segmenter", "features")


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
    loaded = {kind: load_model(assets / f"{kind}.safetensors", **MINIATURE, kind=kind) for kind in KINDS}
    told = {kind: facts for kind, (_, facts) in loaded.items()}
    try:
        table, widths = read_table(told["biggan"]["net"]), read_widths(told["segmenter"]["net"])
        blocks = told["features"]["net"]["blocks"]
    except (KeyError, TypeError, ConfigError) as error:
        raise ArtifactError(f"a file in {assets} does not say which net it holds ({error}): run fetch again") from None
    given = {
        kind: {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
        for kind, (tensors, _) in loaded.items()
    }
    again = {"source": str(assets), "remedy": "run fetch again"}
    return Nets(
        biggan=rebuilt(lambda: BigGan(table), given["biggan"], **again),
        saliency=rebuilt(lambda: U2Net(widths), given["segmenter"], **again),
        widths=widths,
        features=rebuilt(lambda: VggFeatures(tuple(map(tuple, blocks))), given["features"], **again),
    )
