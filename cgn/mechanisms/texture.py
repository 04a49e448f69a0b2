"""f_texture and f_background: a net that draws the whole picture (ImageNet), or tiles (MNIST).

A tile repeated 2x2 and cropped at random cannot draw a digit.

Decided here: repeating a tile 2x2 and cropping one tile's size is the same as rolling it around its borders; each image
gets its own offset, drawn from a stream that is passed in.
"""

import torch
from torch import nn

from cgn.mechanisms.causes import Cause


class Whole(nn.Module):
    """The role on the ImageNet track; the net is injected."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, cause: Cause) -> torch.Tensor:
        """A cause of B images -> (B,3,H,W) in [-1,1]."""
        picture: torch.Tensor = self.net(cause.noise, cause.label)
        return picture


class Tiled(nn.Module):
    """The role of a texture or a background on the MNIST track; the net that makes the tile is injected."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, cause: Cause) -> torch.Tensor:
        """A cause of B images, with offsets in pixels -> (B,3,H,W) in [-1,1]."""
        assert cause.offsets is not None, "a prior without tile_size drew the cause of a mechanism that draws tiles"
        return rolled(self.net(cause.noise, cause.label), cause.offsets)


def rolled(tiles: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """(B,C,S,S) tiles -> the crop at (B,2) offsets (down, right; 0..S) of each tile repeated 2x2."""
    size = tiles.shape[-1]
    places = torch.arange(size, device=tiles.device)
    rows = (places + offsets[:, :1]) % size
    columns = (places + offsets[:, 1:]) % size
    batch = torch.arange(len(tiles), device=tiles.device)
    return tiles.permute(0, 2, 3, 1)[batch[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
