"""The MNIST track's generator: three conv nets that share one label embedding, texture and background as tiles."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cgn.core.checkpoints import load_model, rebuilt
from cgn.mechanisms import Generator, Prior, Shape, Tiled
from cgn.mnist import CLASSES
from cgn.nets.convgen import MaskNet, TileNet


def build_generator(*, shape_width: int, tile_width: int, noise_size: int, image_size: int) -> Generator:
    """An untrained generator, torch's own initialization."""
    embedding = nn.Embedding(CLASSES, CLASSES)  # shared: published, and the weights depend on it
    sizes = {"noise_size": noise_size, "image_size": image_size}
    return Generator(
        shape=Shape(MaskNet(embedding, width=shape_width, **sizes)),
        texture=Tiled(TileNet(embedding, width=tile_width, **sizes)),
        background=Tiled(TileNet(embedding, width=tile_width, **sizes)),
    )


def model_facts(*, variant: str, net: Mapping[str, int]) -> dict[str, Any]:
    """What a model file says of itself; `build_generator(**facts["net"])` rebuilds it."""
    return {"track": "mnist", "variant": variant, "classes": CLASSES, "net": dict(net)}


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained generator in eval mode, on the CPU; `facts` are those of its file."""

    generator: Generator
    facts: Mapping[str, Any]

    @property
    def prior(self) -> Prior:
        """How noise and the offsets of tiles are drawn."""
        return Prior(noise_size=self.facts["net"]["noise_size"], tile_size=self.image_size)

    @property
    def image_size(self) -> int:
        """Height and width of the images, in pixels."""
        return int(self.facts["net"]["image_size"])


def load_generator(folder: Path, *, variant: str) -> Model:
    """The model in the folder that train_cgn wrote. Raises ArtifactError for a missing, broken or foreign file."""
    path = folder / "model.safetensors"
    tensors, facts = load_model(path, track="mnist", variant=variant)
    remedy = f"remove {folder} and run train_cgn again"
    generator = rebuilt(lambda: build_generator(**facts["net"]), tensors, source=str(path), remedy=remedy)
    return Model(generator=generator.eval().requires_grad_(False), facts=facts)


def soften(model: Generator, *, contrast: float) -> None:
    """Let tiles start `contrast` (1: as published) times as far from grey, where tanh still passes a gradient on.

    The norm before it gives a batch deviation 1 whatever is learned; where nearly all tiles must be black, the few
    classes that make up for them start as white, saturated, and stay there.
    """
    for mechanism in (model.texture, model.background):
        *_, last = (layer for layer in mechanism.modules() if isinstance(layer, nn.BatchNorm2d))
        with torch.no_grad():
            last.weight.mul_(contrast)


def initialize(module: nn.Module, *, kind: str, gain: float) -> None:
    """Weights of linear and conv layers orthogonal or normal with `gain`, of norms around 1, biases 0 (published)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            if kind == "orthogonal":
                nn.init.orthogonal_(layer.weight, gain=gain)
            else:
                nn.init.normal_(layer.weight, 0.0, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, gain)
            nn.init.zeros_(layer.bias)


PUBLISHED_MASK = {0: "start", 4: "layers.1", 5: "layers.2", 9: "layers.5", 10: "layers.6"}
PUBLISHED_TILE = {
    0: "start",
    3: "layers.0",
    4: "layers.1",
    7: "layers.3",
    8: "layers.4",
    10: "layers.6",
    11: "layers.7",
}
PUBLISHED_NETS = {
    "f_shape": ("shape", PUBLISHED_MASK),
    "f_text1": ("texture", PUBLISHED_TILE),
    "f_text2": ("background", PUBLISHED_TILE),
}
"""The authors' nets and places in them -> our mechanism and layer."""


def from_published(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The authors' state dict under our names; keys that have no place keep theirs and are refused on loading."""
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        net, _, rest = name.partition(".")
        index, _, leaf = rest.partition(".")
        mechanism, layers = PUBLISHED_NETS.get(net, ("", {}))
        if name == "label_emb.weight":
            renamed |= {f"{name}.net.embedding.weight": tensor for name in ("shape", "texture", "background")}
        elif index.isdigit() and int(index) in layers:
            renamed[f"{mechanism}.net.{layers[int(index)]}.{leaf}"] = tensor
        else:
            renamed[name] = tensor
    return renamed
