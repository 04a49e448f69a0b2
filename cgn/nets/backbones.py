"""torchvision's classification networks by name: built without weights, loaded strictly from a published file.

Decided here: a network is taken apart at its last learnable layer, a linear map or (SqueezeNet) a 1x1 convolution;
with the identity in its place every one of them answers with a vector of features for each picture. The auxiliary
classifiers of GoogLeNet and Inception are loaded, as the file has them, and taken off with the last layer: heads that
look at the same features have no use for them.
"""

import difflib
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cgn.core.checkpoints import Tensors, load_strictly, load_weights
from cgn.core.errors import ArtifactError, ConfigError

AUXILIARY = ("aux1", "aux2", "AuxLogits")
DENSENET_OLD = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")
"""How DenseNet's published files write what torchvision's module writes without the dot."""

COUNTER = ".num_batches_tracked"
"""Of BatchNorm; files from before PyTorch 0.4.1 have none, and no answer hangs on it."""


def network(name: str, *, classes: int = 1000, image_size: int | None = None) -> nn.Module:
    """A classification network of torchvision, weights drawn at random: (B,3,H,W) -> (B,classes) in eval mode.

    `image_size`: of the pictures, where it is not the network's own; only vision transformers are built for one size.
    Raises ConfigError for a name that torchvision does not have, with the nearest that it has, and for a size that the
    network cannot be built for.
    """
    from torchvision import models  # slow to import

    refuse_unknown(name)
    special: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if image_size is not None and name.startswith("vit_"):
        special["image_size"] = image_size
    try:
        made: nn.Module = models.get_model(name, weights=None, num_classes=classes, **special)
    except AssertionError as error:
        raise ConfigError(f"{name} cannot be built for pictures of {image_size} pixels: {error}") from None
    return made


def refuse_unknown(name: str) -> None:
    """Raises ConfigError for a name that torchvision does not have, with the nearest that it has."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3) or ["resnet50", "vgg16", "squeezenet1_0"]
        raise ConfigError(f"torchvision has no classification network {name!r}; it has for example {', '.join(near)}")


def load_network(name: str, path: Path, *, classes: int = 1000, image_size: int | None = None) -> nn.Module:
    """`network` with the weights of a state-dict file, in eval mode; nothing is unpickled.

    Raises ArtifactError when the file is missing or broken, is of another network, or has another number of classes.
    """
    made = network(name, classes=classes, image_size=image_size)
    tensors = {DENSENET_OLD.sub(r"\1\2.", key): tensor for key, tensor in load_weights(path).items()}
    counters = {key: tensor for key, tensor in made.state_dict().items() if key.endswith(COUNTER)}
    tensors = {**counters, **tensors}
    _check_classes(made, tensors, classes=classes, source=f"{path} ({name})")
    load_strictly(made, tensors, source=str(path))
    return made.eval()


def output_layer(net: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The dotted name of the layer that answers, and the layer: the last linear map or convolution."""
    layers = [(name, layer) for name, layer in net.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    assert layers, f"{type(net).__name__} has no linear map and no convolution"
    return layers[-1]


def without_output(net: nn.Module) -> tuple[nn.Module, int]:
    """The network, changed in place, that answers with features (B,F) instead of logits; and F."""
    name, layer = output_layer(net)
    net.set_submodule(name, nn.Identity())
    for auxiliary in AUXILIARY:
        if hasattr(net, auxiliary):
            setattr(net, auxiliary, None)
    if hasattr(net, "aux_logits"):
        net.aux_logits = False  # type: ignore[assignment]
    return net, layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


class Plain(nn.Module):
    """A network of one answer in the form of an ensemble: images (B,3,H,W) -> {head: logits (B,K)}."""

    def __init__(self, net: nn.Module, *, head: str) -> None:
        super().__init__()
        self.net, self.head = net, head

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B,3,H,W), prepared as the network wants it -> its logits (B,K) under the head's name."""
        return {self.head: self.net(images)}


def _check_classes(net: nn.Module, tensors: Tensors, *, classes: int, source: str) -> None:
    name, _ = output_layer(net)
    weight = tensors.get(f"{name}.weight")
    if weight is not None and weight.shape[0] != classes:
        raise ArtifactError(
            f"{source} answers with {weight.shape[0]} classes, expected {classes}: give the file of a network that was "
            f"trained on these {classes} classes"
        )
