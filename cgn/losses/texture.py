"""What f_texture is to look like (Sauer & Geiger, ICLR 2021, texture loss): a grid of patches from inside the object.

The loss is the style of the foreground against this grid (`perceptual.style`, weights 0, 5, 5, 0). Decided here: the
mean mask of a patch is an average pool, and only the drawn patches are cut, never all 12,996. Places are kept in the
order of the image, so that a draw does not hang on how a device ranks nearly equal ones.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class Patches:
    """How the grid is cut; the published numbers are for images of 256 pixels."""

    resolution: int = 128
    """Image and mask are resized to this before patches are cut, in pixels."""
    size: int = 15
    """Height and width of a patch there."""
    best: int = 100
    """So many places with the highest mean mask are drawn from."""
    grid: int = 6
    """Patches along a side of the grid; they are drawn with replacement."""

    @property
    def along(self) -> int:
        """Places along a side where a patch can begin."""
        return self.resolution - self.size + 1


PUBLISHED = Patches()


@torch.no_grad()
def patch_grid(
    image: torch.Tensor, mask: torch.Tensor, *, stream: torch.Generator, patches: Patches = PUBLISHED
) -> torch.Tensor:
    """(B,3,H,W) in [-1,1] and (B,1,H,W) mask -> (B,3,H,W): a grid of patches of each image, where its mask is highest.

    `stream` is a CPU generator, whatever the images' device. Bicubic resizing may leave [-1,1] by a little, as in the
    published code. No gradient goes through it.
    """
    places = best_places(mask, patches=patches)
    draws = torch.randint(patches.best, (len(image), patches.grid**2), generator=stream).to(image.device)
    chosen = places.gather(1, draws)
    offsets = torch.arange(patches.size, device=image.device)
    rows = (chosen // patches.along)[..., None] + offsets  # (B,36,15)
    columns = (chosen % patches.along)[..., None] + offsets
    batch = torch.arange(len(image), device=image.device)[:, None, None, None]
    resized = _resized(image, patches.resolution).permute(0, 2, 3, 1)
    cut = resized[batch, rows[..., :, None], columns[..., None, :]]  # (B,36,15,15,3)
    grid = cut.reshape(-1, patches.grid, patches.grid, *cut.shape[2:])
    grid = grid.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
    return functional.interpolate(grid, image.shape[2:], mode="bicubic")


@torch.no_grad()
def best_places(mask: torch.Tensor, *, patches: Patches = PUBLISHED) -> torch.Tensor:
    """(B,1,H,W) mask -> (B,100), ascending: where the 15x15 patches of the highest mean mask begin.

    A place is row * 114 + column at 128x128.
    """
    means = functional.avg_pool2d(_resized(mask, patches.resolution), patches.size, stride=1)
    return means.flatten(1).topk(patches.best).indices.sort(1).values


def _resized(image: torch.Tensor, resolution: int) -> torch.Tensor:
    return functional.interpolate(image, (resolution, resolution), mode="bicubic")
