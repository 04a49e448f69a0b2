"""The ensemble of invariant classifiers (Sauer & Geiger, ICLR 2021): one backbone, a linear head for each mechanism.

Legend: B batch, H height, W width, F features, K classes.
Decided here: the baseline is the same module with one head, so nothing but the heads and what they are trained on
differs. Heads start from a pretrained network's last layer, all alike (`copied`), so that a short training suffices, or
from nothing (`drawn`). SqueezeNet's last layer is followed by a ReLU before it is pooled; a linear head has none, so
there the copies answer near what the network answered, not with it. BatchNorm is `frozen` (its statistics stay the
pretrained ones, as published; its scale and shift are still learned) or `trained`.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

import torch
from torch import nn

from cgn.nets.backbones import output_layer, without_output

MECHANISMS = ("shape", "texture", "background")
BASELINE = ("label",)
AVERAGE, SHAPE_TEXTURE = "avg", "shape_texture"
Start = Literal["copied", "drawn"]
BatchNorm = Literal["frozen", "trained"]


class Ensemble(nn.Module):
    """Images (B,3,H,W) -> logits (B,K) of each head."""

    def __init__(
        self,
        net: nn.Module,
        *,
        classes: int,
        heads: Sequence[str] = MECHANISMS,
        start: Start = "drawn",
        batch_norm: BatchNorm = "frozen",
    ) -> None:
        """`net`: a whole network of `cgn.nets.backbones`; it becomes the backbone and loses its last layer.

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
        """(B,3,H,W), prepared as the backbone wants it -> for each head its logits (B,K)."""
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


def predictions(logits: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The heads' logits (B,K), and with them, where there are the three mechanisms', two means of logits.

    `avg` is the mean of all three, `shape_texture` that of shape and texture, the one the background gap is judged by.
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
