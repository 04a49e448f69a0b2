"""The ImageNet track's generator: three BigGANs, the first one's picture made a mask by a frozen saliency net.

Decided here: a model file holds all that it takes to draw, the three BigGANs under their roles (`shape.net.*`, ...) and
the saliency net (`saliency.*`), and in its facts the layers of both, so that no other file has to be at hand.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cgn.config.record import build
from cgn.core.checkpoints import load_model, sketch
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.weights import Tensors, load_strictly, load_weights
from cgn.mechanisms import Generator, Shape, Whole
from cgn.nets import u2net
from cgn.nets.biggan import BIGGAN_DEEP_256, BigGan, Recompute, Table
from cgn.nets.u2net import U2Net, Widths, segmenter

MODEL = "model.safetensors"
SALIENCY = "saliency."
PUBLISHED = {"f_shape.": "shape.net.", "f_text.": "texture.net.", "f_bg.": "background.net.", "u2net.": SALIENCY}
"""How the published CGN (Sauer & Geiger, imagenet/models/cgn.py) calls its nets, and how they are called here."""
PUBLISHED_CGAN = "biggan_GT."
"""The BigGAN that the published CGN learned from is in its file, too; nothing is drawn with it."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained generator in eval mode, whose shape mechanism segments with `saliency`; `facts` say what it is."""

    generator: Generator
    saliency: U2Net
    facts: Mapping[str, Any]

    @property
    def table(self) -> Table:
        """The layers of each BigGAN; its noise size, classes and image size with them."""
        return read_table(self.facts["net"])


def copies(biggan: BigGan, *, saliency: U2Net, truncation: float = 1.0, recompute: Recompute = "none") -> Generator:
    """Three mechanisms that start as `biggan` (published) and draw at `truncation`; `saliency` is frozen, not copied.

    Raises ConfigError for a truncation off the grid.
    """
    shape, texture, background = (empty(biggan.table, truncation=truncation, recompute=recompute) for _ in range(3))
    for made in (shape, texture, background):
        made.load_state_dict(biggan.state_dict())
    return Generator(
        shape=Shape(shape, segment=segmenter(saliency)), texture=Whole(texture), background=Whole(background)
    )


def facts(*, variant: str, table: Table, widths: Widths) -> dict[str, Any]:
    """What a model file says of itself; `open_model` rebuilds the nets from it."""
    told = {"track": "imagenet", "variant": variant, "classes": table.classes}
    return told | {"net": asdict(table), "saliency": asdict(widths)}


def saliency_tensors(net: U2Net) -> dict[str, torch.Tensor]:
    """The saliency net's weights under the names that they have in a model file."""
    return {f"{SALIENCY}{name}": tensor for name, tensor in net.state_dict().items()}


def open_model(folder: Path, *, variant: str, device: torch.device | None = None) -> Model:
    """The model in the folder that train_cgn made, on a device (default: CPU), nothing in it wanting a gradient.

    `shape.segment` is on that device, too; `shape.net`, `texture.net` and `background.net` are BigGANs that can be
    folded. Raises ArtifactError for a missing, broken or foreign file.
    """
    path = folder / MODEL
    tensors, told = load_model(path, track="imagenet", variant=variant)
    try:
        table, widths = read_table(told["net"]), read_widths(told["saliency"])
    except (KeyError, ConfigError) as error:
        raise ArtifactError(f"{path} does not say which nets it holds ({error}): run train_cgn again") from None
    again = {"source": str(path), "remedy": "run train_cgn again"}
    sketch(lambda: U2Net(widths), _under(SALIENCY, tensors), **again)
    sketch(lambda: BigGan(table), _under("shape.net.", tensors), **again)
    model = _filled(tensors, empty(table), saliency=U2Net(widths), facts=told, source=path)
    place = device or torch.device("cpu")
    model.saliency.to(place)
    model.generator.to(place)
    return model


def open_published(path: Path, *, variant: str, table: Table = BIGGAN_DEEP_256, widths: Widths = u2net.U2NET) -> Model:
    """The authors' trained CGN from its published file, on the CPU, as `open_model` gives one of ours.

    Its saliency net resizes maps as the published code does. Raises ArtifactError for anything but exactly its tensors.
    """
    saliency = U2Net(widths, resize=u2net.sized_to_corners)
    made = facts(variant=variant, table=table, widths=widths)
    return _filled(from_published(load_weights(path)), empty(table), saliency=saliency, facts=made, source=path)


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


def _filled(tensors: Tensors, biggan: BigGan, *, saliency: U2Net, facts: Mapping[str, Any], source: Path) -> Model:
    """The model of these tensors, strictly; `biggan` and `saliency` are empty nets of its sizes."""
    generator = copies(biggan, saliency=saliency)
    held = {name: tensor for name, tensor in tensors.items() if name.startswith(SALIENCY)}
    load_strictly(generator, {name: tensors[name] for name in tensors.keys() - held.keys()}, source=str(source))
    load_strictly(saliency, {name.removeprefix(SALIENCY): held[name] for name in held}, source=str(source))
    return Model(generator=generator.eval().requires_grad_(False), saliency=saliency, facts=facts)


def _under(prefix: str, tensors: Tensors) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def empty(table: Table, *, truncation: float = 1.0, recompute: Recompute = "none") -> BigGan:
    """A BigGAN of any content, on the CPU: drawing new weights takes longer than reading trained ones."""
    with torch.device("meta"):
        made = BigGan(table, truncation=truncation, recompute=recompute)
    filled: BigGan = made.to_empty(device="cpu")
    return filled


def read_table(told: object) -> Table:
    """The layers that `facts` told. Raises ConfigError for anything else."""
    return build(Table, told, key="net")


def read_widths(told: object) -> Widths:
    """The saliency net's widths that `facts` told. Raises ConfigError for anything else."""
    return build(Widths, told, key="saliency")


def net_of(role: nn.Module) -> BigGan:
    """The BigGAN in a mechanism."""
    assert isinstance(role, Shape | Whole)
    assert isinstance(role.net, BigGan)
    return role.net
