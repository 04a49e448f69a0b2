"""Drawing with a trained CGN: its nets folded for one truncation, on one device, at one precision.

Decided here: three BigGANs and one saliency net draw an image and all its parts. At `bf16-mixed` the maps inside the
nets are bfloat16, weights too; what a condition is made into, masks and composites stay single. Kernels and maps lie
channels last. On a GPU only deterministic kernels run, so that a shard has the same bytes each time it is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from cgn.core.devices import keep_freed_memory
from cgn.core.images import Bytes, to_bytes
from cgn.imagenet.generator import Model, net_of
from cgn.mechanisms import Causes, Generator, Picture, Shape, Whole
from cgn.nets import biggan_folded, u2net

DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """B images and what they are made of; `premask` is the picture that was segmented, (B,3,S,S) in [-1,1]."""

    premask: torch.Tensor
    picture: Picture

    @property
    def parts(self) -> Mapping[str, torch.Tensor]:
        """In [-1,1], the mask too: (B,1,S,S), the others (B,3,S,S)."""
        picture = self.picture
        layers = {"foreground": picture.foreground, "background": picture.background}
        return {"mask": picture.mask * 2 - 1, "premask": self.premask, **layers}


@dataclass(frozen=True, kw_only=True)
class Drawer:
    """Made by `folded`."""

    generator: Generator
    device: torch.device

    @torch.inference_mode()
    def __call__(self, causes: Causes) -> Drawn:
        """Causes of B images; labels may be (B,K) shares of each class."""
        there = causes.to(self.device)
        shape = self.generator.shape
        assert isinstance(shape, Shape)
        premask = shape.net(there.shape.noise, there.shape.label)
        picture = Picture(
            mask=shape.mask(premask),
            foreground=self.generator.texture(there.texture),
            background=self.generator.background(there.background),
        )
        return Drawn(premask=premask, picture=picture)


def folded(model: Model, *, truncation: float, precision: str, device: torch.device) -> Drawer:
    """The model's nets, folded, on a device. They take the place of those in `model`, which is used up by this.

    Raises ConfigError for a truncation off the grid.
    """
    dtype = DTYPES[precision]
    generator = model.generator
    saliency = u2net.segmenter(u2net.fold(model.saliency).to(device, dtype))
    for role in (generator.shape, generator.texture, generator.background):
        assert isinstance(role, Shape | Whole)
        role.net = biggan_folded.fold(net_of(role), truncation=truncation, dtype=dtype)
        if isinstance(role, Shape):
            role.segment = lambda image: saliency(image.to(dtype))
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
    else:
        keep_freed_memory()
    return Drawer(generator=generator.to(device), device=device)


def bytes_of(part: torch.Tensor) -> Bytes:
    """(B,3,S,S) in [-1,1] -> (B,S,S,3) uint8; (B,1,S,S) -> (B,S,S)."""
    made = to_bytes(part)
    return made[..., 0] if made.shape[-1] == 1 else made
