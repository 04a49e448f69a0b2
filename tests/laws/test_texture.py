"""The texture grid: the published places, real patches of the image, and nothing that a gradient could follow."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from cgn.core.seeding import torch_stream
from cgn.losses import PUBLISHED, best_places, patch_grid, style
from cgn.nets.features import VggFeatures

SIDE = PUBLISHED.grid * PUBLISHED.size


def corner_mask(*, size: int) -> torch.Tensor:
    """Two masks: the upper left quarter, the lower right quarter."""
    mask = torch.zeros(2, 1, size, size)
    mask[0, :, : size // 2, : size // 2] = 1
    mask[1, :, size // 2 :, size // 2 :] = 1
    return mask


def test_the_places_are_the_published_ones(test_data: Path) -> None:
    golden = torch.load(test_data / "golden" / "texture_patches.pt", weights_only=True)
    expected = golden["top100_patch_indices_row_major_114x114"]
    assert best_places(golden["mask"]).equal(expected)
    assert not best_places(1 - golden["mask"]).equal(expected)


def test_a_patch_mean_is_the_mean_over_unfolded_patches() -> None:
    mask = torch.rand((2, 1, PUBLISHED.resolution, PUBLISHED.resolution), generator=torch_stream(0, "mask"))
    unfolded = mask.unfold(2, PUBLISHED.size, 1).unfold(3, PUBLISHED.size, 1).mean((-2, -1)).flatten(1)
    assert best_places(mask).equal(unfolded.argsort(1)[:, -PUBLISHED.best :].sort(1).values)


def test_every_cell_of_the_grid_is_a_patch_from_one_of_the_best_places() -> None:
    # At the resolution of the grid nothing is resized after the patches are put together.
    image = torch.rand((2, 3, SIDE, SIDE), generator=torch_stream(0, "image"))
    mask = corner_mask(size=SIDE)
    grid = patch_grid(image, mask, stream=torch_stream(0, "draw"))
    small = functional.interpolate(image, (PUBLISHED.resolution, PUBLISHED.resolution), mode="bicubic")
    for picture, cells, places in zip(small, grid, best_places(mask).tolist(), strict=True):
        allowed = [picture[:, p // 114 : p // 114 + PUBLISHED.size, p % 114 : p % 114 + PUBLISHED.size] for p in places]
        used = set()
        for row in range(0, SIDE, PUBLISHED.size):
            for column in range(0, SIDE, PUBLISHED.size):
                cell = cells[:, row : row + PUBLISHED.size, column : column + PUBLISHED.size]
                found = [number for number, patch in enumerate(allowed) if patch.equal(cell)]
                assert len(found) == 1
                used.update(found)
        assert 20 < len(used) <= PUBLISHED.grid**2  # 36 of 100, drawn with replacement: 30 different ones on average


def test_the_grid_shows_the_object_and_nothing_else() -> None:
    mask = corner_mask(size=64)
    image = torch.where(mask > 0.5, torch.tensor(0.8), torch.tensor(-0.8)).expand(-1, 3, -1, -1)
    grid = patch_grid(image, mask, stream=torch_stream(0, "draw"))
    assert grid.shape == image.shape
    assert grid.min() > 0.4  # bicubic resizing blurs the border of the object, where patches may begin


def test_a_draw_depends_on_its_stream_alone() -> None:
    image = torch.rand((1, 3, 64, 64), generator=torch_stream(0, "image"))
    mask = torch.rand((1, 1, 64, 64), generator=torch_stream(0, "mask"))
    first, again, other = (patch_grid(image, mask, stream=torch_stream(seed, "draw")) for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)


@pytest.mark.parametrize("size", [32, 256])
def test_no_gradient_goes_through_the_grid_but_one_goes_to_the_foreground(size: int) -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, size, size).requires_grad_()
    mask = torch.rand(1, 1, size, size).requires_grad_()
    foreground = torch.rand(1, 3, size, size).requires_grad_()
    grid = patch_grid(image, mask, stream=torch_stream(0, "draw"))
    assert not grid.requires_grad
    net = VggFeatures().requires_grad_(False)
    loss = style(net(foreground), net(grid), weights=(0, 5, 5, 0))
    gradients = torch.autograd.grad(loss, [foreground, image, mask], allow_unused=True)
    assert [gradient is None for gradient in gradients] == [False, True, True]
    assert gradients[0].abs().sum() > 0
