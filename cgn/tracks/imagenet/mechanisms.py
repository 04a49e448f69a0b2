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

from cgn.core.checkpoints import load_model, load_strictly
from cgn.core.errors import ArtifactError, ConfigError
from cgn.mechanisms import Generator, Shape, Whole
from cgn.nets.biggan import BigGan, Recompute, Table
from cgn.nets.u2net import U2Net, Widths, segmenter

MODEL = "model.safetensors"
SALIENCY = "saliency."


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
    except (KeyError, TypeError, ConfigError) as error:
        raise ArtifactError(f"{path} does not say which nets it holds ({error}): run train_cgn again") from None
    saliency = U2Net(widths)
    biggan = empty(table)
    made = copies(biggan, saliency=saliency)
    held = {name: tensor for name, tensor in tensors.items() if name.startswith(SALIENCY)}
    load_strictly(made, {name: tensors[name] for name in tensors.keys() - held.keys()}, source=str(path))
    load_strictly(saliency, {name.removeprefix(SALIENCY): held[name] for name in held}, source=str(path))
    place = device or torch.device("cpu")
    saliency.to(place)
    return Model(generator=made.to(place).eval().requires_grad_(False), saliency=saliency, facts=told)


def empty(table: Table, *, truncation: float = 1.0, recompute: Recompute = "none") -> BigGan:
    """A BigGAN of any content, on the CPU: drawing new weights takes longer than reading trained ones."""
    with torch.device("meta"):
        made = BigGan(table, truncation=truncation, recompute=recompute)
    filled: BigGan = made.to_empty(device="cpu")
    return filled


def read_table(told: Mapping[str, Any]) -> Table:
    """The layers that `facts` told. Raises KeyError, TypeError or ConfigError for anything else."""
    return Table(**{**told, "blocks": tuple(tuple(block) for block in told["blocks"])})


def read_widths(told: Mapping[str, Any]) -> Widths:
    """The saliency net's widths that `facts` told."""
    return Widths(**{way: tuple(tuple(pair) for pair in pairs) for way, pairs in told.items()})


def net_of(role: nn.Module) -> BigGan:
    """The BigGAN in a mechanism."""
    assert isinstance(role, Shape | Whole)
    assert isinstance(role.net, BigGan)
    return role.net
