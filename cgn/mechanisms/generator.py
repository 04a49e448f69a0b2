"""The counterfactual generator: independent mechanisms under one roof, each with its own noise and label.

Legend: B batch, H and W image size.
"""

from torch import nn

from cgn.mechanisms.causes import Causes
from cgn.mechanisms.composer import Picture


class Generator(nn.Module):
    """f_shape, f_texture, f_background and the composer; each mechanism is called with its cause."""

    def __init__(self, *, shape: nn.Module, texture: nn.Module, background: nn.Module) -> None:
        super().__init__()
        self.shape = shape
        self.texture = texture
        self.background = background

    def forward(self, causes: Causes) -> Picture:
        """Causes of B images -> mask (B,1,H,W), foreground and background (B,3,H,W)."""
        return Picture(
            mask=self.shape(causes.shape),
            foreground=self.texture(causes.texture),
            background=self.background(causes.background),
        )
