"""The ImageNet track's generator: three BigGANs, the first one's image segmented to a mask by a frozen saliency net.

    build_generator     three mechanisms that start as one BigGAN
    load_generator      a trained generator, from the folder that train_cgn wrote
    load_published      the authors' trained generator, from their file

A model file holds all that it takes to draw: the three BigGANs under their mechanisms (`shape.net.*`, ...), the
saliency net (`saliency.*`), and the sizes of both in its facts. The pretrained nets are loaded by
`cgn.imagenet.pretrained`. All weights are loaded strictly.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cgn.core.checkpoints import Tensors, load_model, load_strictly, load_weights, sketch
from cgn.mechanisms import Generator, Prior, Shape, WholeImage
from cgn.nets import u2net
from cgn.nets.biggan import BIGGAN_DEEP_256, BigGan, BigGanConfig, Recompute
from cgn.nets.u2net import U2NET, U2Net, Widths, segmenter

MODEL = "model.safetensors"
SALIENCY = "saliency."
PUBLISHED = {"f_shape.": "shape.net.", "f_text.": "texture.net.", "f_bg.": "background.net.", "u2net.": SALIENCY}
"""Names of the nets in the published CGN (Sauer & Geiger, imagenet/models/cgn.py), and ours."""
PUBLISHED_CGAN = "biggan_GT."
"""The BigGAN that the published CGN learned from is in its file, too; nothing is drawn with it."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained generator in eval mode, whose shape mechanism segments with `saliency`; `facts` say what it is."""

    generator: Generator
    saliency: U2Net
    facts: Mapping[str, Any]

    @property
    def table(self) -> BigGanConfig:
        """The layers of each BigGAN; its noise size, classes and image size with them."""
        return biggan_of(self.generator.shape).config

    @property
    def prior(self) -> Prior:
        """How noise is drawn without truncation."""
        return Prior(noise_size=self.table.noise_size, truncation=1.0)

    @property
    def image_size(self) -> int:
        """Height and width of the images, in pixels."""
        return self.table.image_size


def build_generator(
    biggan: BigGan, *, saliency: U2Net, truncation: float = 1.0, recompute: Recompute = "none"
) -> Generator:
    """Three mechanisms that start as `biggan` (published) and draw at `truncation`; `saliency` is frozen, not copied.

    Raises ConfigError for a truncation off the grid.
    """
    shape, texture, background = (
        empty_biggan(biggan.config, truncation=truncation, recompute=recompute) for _ in range(3)
    )
    for net in (shape, texture, background):
        net.load_state_dict(biggan.state_dict())
    return Generator(
        shape=Shape(shape, segment=segmenter(saliency)), texture=WholeImage(texture), background=WholeImage(background)
    )


def load_generator(folder: Path, *, variant: str, device: torch.device | None = None) -> Model:
    """The model in the folder that train_cgn wrote, on a device (default: CPU); no weight requires a gradient.

    `shape.segment` is on that device, too; `shape.net`, `texture.net` and `background.net` are BigGANs that can be
    folded. Raises ArtifactError for a missing, broken or foreign file.
    """
    path = folder / MODEL
    tensors, facts = load_model(path, track="imagenet", variant=variant)
    again = {"source": str(path), "remedy": "run train_cgn again"}
    sketch(lambda: U2Net(Widths(**facts["saliency"])), _under(SALIENCY, tensors), **again)
    sketch(lambda: BigGan(BigGanConfig(**facts["net"])), _under("shape.net.", tensors), **again)
    saliency = U2Net(Widths(**facts["saliency"]))
    model = _filled(tensors, empty_biggan(BigGanConfig(**facts["net"])), saliency=saliency, facts=facts, source=path)
    place = device or torch.device("cpu")
    model.saliency.to(place)
    model.generator.to(place)
    return model


def load_published(path: Path, *, variant: str, table: BigGanConfig = BIGGAN_DEEP_256, widths: Widths = U2NET) -> Model:
    """The authors' trained CGN from its published file, on the CPU, as `load_generator` gives one of ours.

    Its saliency net resizes maps as the published code does. Raises ArtifactError for anything but exactly its tensors.
    """
    saliency = U2Net(widths, resize=u2net.sized_to_corners)
    facts = model_facts(variant=variant, table=table, widths=widths)
    return _filled(from_published(load_weights(path)), empty_biggan(table), saliency=saliency, facts=facts, source=path)


def model_facts(*, variant: str, table: BigGanConfig, widths: Widths) -> dict[str, Any]:
    """What a model file says of itself; `load_generator` rebuilds the nets from it."""
    facts = {"track": "imagenet", "variant": variant, "classes": table.classes}
    return facts | {"net": asdict(table), "saliency": asdict(widths)}


def saliency_tensors(net: U2Net) -> dict[str, torch.Tensor]:
    """The saliency net's weights under the names that they have in a model file."""
    return {f"{SALIENCY}{name}": tensor for name, tensor in net.state_dict().items()}


def biggan_of(mechanism: nn.Module) -> BigGan:
    """The BigGAN in a mechanism."""
    assert isinstance(mechanism, Shape | WholeImage)
    assert isinstance(mechanism.net, BigGan)
    return mechanism.net


def from_published(state: Tensors) -> dict[str, torch.Tensor]:
    """The authors' state dict under our names, without the cGAN that it learned from.

    The published code removes `module.`, which training on several devices leaves, wherever it stands in a name; here
    it is removed from the start. Keys that have no place keep theirs and are refused on loading.
    """
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        plain = name.removeprefix("module.")
        net = plain.partition(".")[0] + "."
        if net != PUBLISHED_CGAN:
            ours = PUBLISHED.get(net, net) + plain.removeprefix(net)
            renamed[name if ours in renamed else ours] = tensor
    return renamed


def empty_biggan(table: BigGanConfig, *, truncation: float = 1.0, recompute: Recompute = "none") -> BigGan:
    """A BigGAN of any content, on the CPU: drawing new weights takes longer than reading trained ones."""
    with torch.device("meta"):
        net = BigGan(table, truncation=truncation, recompute=recompute)
    filled: BigGan = net.to_empty(device="cpu")
    return filled


def _filled(tensors: Tensors, biggan: BigGan, *, saliency: U2Net, facts: Mapping[str, Any], source: Path) -> Model:
    """The model of these tensors, strictly; `biggan` and `saliency` are empty nets of its sizes."""
    generator = build_generator(biggan, saliency=saliency)
    held = {name: tensor for name, tensor in tensors.items() if name.startswith(SALIENCY)}
    load_strictly(generator, {name: tensors[name] for name in tensors.keys() - held.keys()}, source=str(source))
    load_strictly(saliency, {name.removeprefix(SALIENCY): held[name] for name in held}, source=str(source))
    return Model(generator=generator.eval().requires_grad_(False), saliency=saliency, facts=facts)


def _under(prefix: str, tensors: Tensors) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
