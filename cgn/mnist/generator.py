"""The MNIST track's generator: three conv nets that share one label embedding, texture and background as tiles.

The small up-sampling nets (Sauer & Geiger, ICLR 2021, appendix) have the published widths. The label embedding is
passed in, because the three published mechanisms share one.

Shapes: B batch, Z noise size, E label embedding size, S image size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from cgn.config.mnist import CLASSES
from cgn.core.checkpoints import load_model, rebuilt
from cgn.mechanisms import Generator, Prior, Shape, Tiled


class UpsampledConv(nn.Conv2d):
    """A 3x3 convolution of an image that is doubled by repeating its pixels; in training without the doubled image.

    Weights on copies of the same pixel are summed: this gives a transposed 4x4 kernel of stride 2, with 16 products
    instead of 36. The result differs by rounding, so eval mode keeps the published order of operations.
    """

    spread: torch.Tensor

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(channels, out_channels, 3, padding=1, bias=False)
        spread = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
        self.register_buffer("spread", spread, persistent=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # torch's name for it
        """(B,C,H,W) -> (B,out,2H,2W)."""
        if not self.training:
            return super().forward(functional.interpolate(input, scale_factor=2))
        kernel = (self.spread @ self.weight @ self.spread.T).transpose(0, 1)
        return functional.conv_transpose2d(input, kernel, stride=2, padding=1)


def _upsampling(channels: int, out_channels: int) -> list[nn.Module]:
    return [
        UpsampledConv(channels, out_channels),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(0.2, inplace=True),
    ]


class _Conditioned(nn.Module):
    """Noise and embedded label -> a linear map to (B, 2*width, S/4, S/4) -> the layers of a subclass."""

    def __init__(self, embedding: nn.Embedding, *, noise_size: int, width: int, image_size: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.start = nn.Linear(noise_size + embedding.embedding_dim, 2 * width * (image_size // 4) ** 2)
        self.start_shape = (2 * width, image_size // 4, image_size // 4)
        self.layers = nn.Sequential()

    def forward(self, noise: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """(B,Z) standard normal noise and (B,) labels -> (B,C,S,S)."""
        start = self.start(torch.cat([noise, self.embedding(label)], 1)).unflatten(1, self.start_shape)
        image: torch.Tensor = self.layers(start)
        return image


class MaskNet(_Conditioned):
    """(B,1,S,S), one channel of no fixed range: f_shape clamps it to a mask."""

    def __init__(self, embedding: nn.Embedding, *, noise_size: int, width: int, image_size: int) -> None:
        super().__init__(embedding, noise_size=noise_size, width=width, image_size=image_size)
        # The published net. Its last layer gives every mask mean 0 and deviation 1 before f_shape clamps it. So no mask
        # is empty or full, and its part above 0 is about as large as a digit.
        self.layers = nn.Sequential(
            nn.InstanceNorm2d(2 * width),
            *_upsampling(2 * width, width),
            nn.InstanceNorm2d(width),
            *_upsampling(width, 1),
            nn.InstanceNorm2d(1),
        )


class TileNet(_Conditioned):
    """(B,3,S,S) in [-1,1]: a tile of texture or background."""

    def __init__(self, embedding: nn.Embedding, *, noise_size: int, width: int, image_size: int) -> None:
        super().__init__(embedding, noise_size=noise_size, width=width, image_size=image_size)
        self.layers = nn.Sequential(
            *_upsampling(2 * width, 2 * width),
            *_upsampling(2 * width, width),
            nn.Conv2d(width, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            nn.Tanh(),
        )


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
