"""The classifiers: torchvision's networks, the ensemble of invariant heads, and the small CNN of the MNIST variants.

torchvision's networks are built by name, without weights, and loaded strictly from a published file. Their last
learnable layer, a linear map or (SqueezeNet) a 1x1 convolution, is replaced by the identity: then each network returns
a vector of features for each image. The auxiliary classifiers of GoogLeNet and Inception are loaded, because they are
in the file, and removed with the last layer.

Shapes: B batch, H height, W width, F features, K classes.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from torch import nn
from torch.nn import functional

from cgn.core.checkpoints import Tensors, load_strictly, load_weights
from cgn.core.errors import ArtifactError, ConfigError

AUXILIARY = ("aux1", "aux2", "AuxLogits")
DENSENET_OLD = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")
"""DenseNet's published files have a dot in these keys that torchvision's module does not have."""

COUNTER = ".num_batches_tracked"
"""A buffer of BatchNorm. Files from before PyTorch 0.4.1 do not have it, and the outputs do not depend on it."""


def network(name: str, *, classes: int = 1000, image_size: int | None = None) -> nn.Module:
    """A classification network of torchvision, initialised at random: (B,3,H,W) -> (B,classes) in eval mode.

    `image_size`: if it is not the network's own; only vision transformers are built for one size. Raises ConfigError
    for a name that torchvision does not have, with the most similar names, and for a size that does not fit.
    """
    from torchvision import models  # slow to import

    refuse_unknown(name)
    special: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if image_size is not None and name.startswith("vit_"):
        special["image_size"] = image_size
    if name.startswith("shufflenet"):
        from cgn.nets.shufflenet import ChannelsLastResidual

        special["inverted_residual"] = ChannelsLastResidual
    try:
        net: nn.Module = models.get_model(name, weights=None, num_classes=classes, **special)
    except AssertionError as error:
        raise ConfigError(f"{name} cannot be built for images of {image_size} pixels: {error}") from None
    return net


def refuse_unknown(name: str) -> None:
    """Raise ConfigError for a name that torchvision does not have, with the most similar names."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3) or ["resnet50", "vgg16", "squeezenet1_0"]
        raise ConfigError(f"torchvision has no classification network {name!r}; it has for example {', '.join(near)}")


def load_network(name: str, path: Path, *, classes: int = 1000, image_size: int | None = None) -> nn.Module:
    """`network` with the weights of a state-dict file, in eval mode; nothing is unpickled.

    Raises ArtifactError when the file is missing or broken, is of another network, or has another number of classes.
    """
    net = network(name, classes=classes, image_size=image_size)
    tensors = {DENSENET_OLD.sub(r"\1\2.", key): tensor for key, tensor in load_weights(path).items()}
    counters = {key: tensor for key, tensor in net.state_dict().items() if key.endswith(COUNTER)}
    tensors = {**counters, **tensors}
    _check_classes(net, tensors, classes=classes, source=f"{path} ({name})")
    load_strictly(net, tensors, source=str(path))
    return net.eval()


def output_layer(net: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The dotted name of the output layer, and the layer: the last linear map or convolution."""
    layers = [(name, layer) for name, layer in net.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    assert layers, f"{type(net).__name__} has no linear map and no convolution"
    return layers[-1]


def without_output(net: nn.Module) -> tuple[nn.Module, int]:
    """The network, changed in place, so that it returns features (B,F) instead of logits; and F."""
    name, layer = output_layer(net)
    net.set_submodule(name, nn.Identity())
    for auxiliary in AUXILIARY:
        if hasattr(net, auxiliary):
            setattr(net, auxiliary, None)
    if hasattr(net, "aux_logits"):
        net.aux_logits = False  # type: ignore[assignment]
    return net, layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


class SingleHead(nn.Module):
    """A plain network in the form of an ensemble: images (B,3,H,W) -> {head: logits (B,K)}."""

    def __init__(self, net: nn.Module, *, head: str) -> None:
        super().__init__()
        self.net, self.head = net, head

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B,3,H,W), preprocessed for the network -> its logits (B,K) under the head's name."""
        return {self.head: self.net(images)}


def _check_classes(net: nn.Module, tensors: Tensors, *, classes: int, source: str) -> None:
    name, _ = output_layer(net)
    weight = tensors.get(f"{name}.weight")
    if weight is not None and weight.shape[0] != classes:
        raise ArtifactError(
            f"{source} answers with {weight.shape[0]} classes, expected {classes}: give the file of a network that was "
            f"trained on these {classes} classes"
        )


MECHANISMS = ("shape", "texture", "background")
BASELINE = ("label",)
AVERAGE, SHAPE_TEXTURE = "avg", "shape_texture"
Start = Literal["copied", "drawn"]
BatchNorm = Literal["frozen", "trained"]


class Ensemble(nn.Module):
    """One backbone and a linear head for each mechanism (Sauer & Geiger, ICLR 2021): (B,3,H,W) -> logits (B,K) of each.

    The baseline is the same module with one head, so nothing but the heads and their training data differs. Heads start
    as `copied` from a pretrained network's last layer, all alike, so that a short training suffices, or `drawn` at
    random. SqueezeNet has a ReLU and a pooling after its last layer, a linear head has none: a copy returns nearly what
    SqueezeNet returned. BatchNorm is `frozen` (its statistics stay the pretrained ones, as published; its scale and
    shift are still learned) or `trained`.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        classes: int,
        heads: Sequence[str] = MECHANISMS,
        start: Start = "drawn",
        batch_norm: BatchNorm = "frozen",
    ) -> None:
        """`net`: a whole network, such as one of `network`; it becomes the backbone and loses its last layer.

        Raises ValueError when heads are to be copied from a last layer of another number of classes.
        """
        super().__init__()
        _, last = output_layer(net)
        self.backbone, features = without_output(net)
        self.heads = nn.ModuleDict({head: nn.Linear(features, classes) for head in heads})
        self.batch_norm: BatchNorm = batch_norm
        if start == "copied":
            for head in self.heads.values():
                _copy(last, into=head)
        self.train(self.training)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B,3,H,W), preprocessed for the backbone -> for each head its logits (B,K)."""
        features = self.backbone(images)
        return {name: head(features) for name, head in self.heads.items()}

    def train(self, mode: bool = True) -> Self:
        """As torch's; frozen BatchNorm stays in eval mode."""
        super().train(mode)
        if self.batch_norm == "frozen":
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


def with_mean_heads(logits: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The heads' logits (B,K), and two means of logits where the heads are the three mechanisms'.

    `avg` is the mean of all three; `shape_texture`, that of shape and texture, is used for the background gap.
    """
    found = dict(logits)
    if set(MECHANISMS) <= logits.keys():
        found[AVERAGE] = torch.stack([logits[head] for head in MECHANISMS]).mean(0)
        found[SHAPE_TEXTURE] = (logits["shape"] + logits["texture"]) / 2
    return found


def _copy(last: nn.Linear | nn.Conv2d, *, into: nn.Module) -> None:
    assert isinstance(into, nn.Linear)
    weight = last.weight.detach().flatten(1)
    if weight.shape != into.weight.shape:
        raise ValueError(
            f"heads of {into.out_features} classes cannot start from a last layer of {len(weight)}: start them drawn"
        )
    with torch.no_grad():
        into.weight.copy_(weight)
        into.bias.copy_(torch.zeros(len(weight)) if last.bias is None else last.bias)


PUBLISHED_SIDE, PUBLISHED_POOL = 8, 7
"""Height and width of the last maps at 32x32, and of the part of them that is averaged."""


class Cnn(nn.Module):
    """The small CNN of the MNIST variants, as in the authors' code: (B,3,H,W) in [-1,1] -> log-probabilities (B,K).

    State-dict keys and shapes are the published ones, so a published file loads strictly; the function is the published
    one, computed at a lower cost. Batch norm's scale and shift are moved into the first convolution, so the gradient
    stops at the images instead of being computed for each of their pixels, and pooling comes before the ReLU, which
    commutes with it. At the published 32x32 the last maps are 8x8 and the published 7x7 average pool covers all but
    their last row and column: kept, as the published accuracies come from it. At other image sizes the whole map is
    averaged.
    """

    def __init__(self, *, classes: int = 10) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.BatchNorm2d(3),
            nn.Conv2d(3, 32, 5, padding=2),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.cls = nn.Sequential(nn.Linear(64, classes), nn.LogSoftmax(dim=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B,3,H,W) in [-1,1] -> log-probabilities (B,K)."""
        return self.classify(self.normalize(images))

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """(B,3,H,W) in [-1,1] -> the same of mean 0 and deviation 1, by the batch's statistics in training mode.

        It is the only step that mixes the images of a batch, and no gradient passes it.
        """
        norm = cast(nn.BatchNorm2d, self.model[0])
        if self.training and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        return functional.batch_norm(
            images, norm.running_mean, norm.running_var, training=self.training, momentum=0.1, eps=norm.eps
        )

    def classify(self, normal: torch.Tensor) -> torch.Tensor:
        """What `normalize` returned, (B,3,H,W) -> log-probabilities (B,K)."""
        maps: torch.Tensor = self.model[2:](self._first_maps(normal))
        if maps.shape[-2:] == (PUBLISHED_SIDE, PUBLISHED_SIDE):
            maps = maps[..., :PUBLISHED_POOL, :PUBLISHED_POOL]
        scores: torch.Tensor = self.cls(maps.mean(dim=(2, 3)))
        return scores

    def _first_maps(self, normal: torch.Tensor) -> torch.Tensor:
        """The output of `model[:2]`, (B,32,H,W): scaled weights on normalized images, plus the maps of the shift.

        The shift is convolved as an image, because the zero padding at the border replaces the shift, too.
        """
        norm, convolve = cast(nn.BatchNorm2d, self.model[0]), cast(nn.Conv2d, self.model[1])
        scaled = convolve.weight * norm.weight.view(1, 3, 1, 1)
        shift = norm.bias.view(1, 3, 1, 1).expand(1, 3, *normal.shape[-2:])
        offset = functional.conv2d(shift, convolve.weight, convolve.bias, padding=2)
        return functional.conv2d(normal, scaled, padding=2) + offset
