"""Agreement of masks with a bank of silhouettes: answers known by counting pixels."""

import pytest
import torch

from cgn.miniature.world.mask_agreement import MASKS_PER_BLOCK, best_iou, silhouette_iou


def square(top: int, left: int, side: int) -> torch.Tensor:
    mask = torch.zeros(8, 8)
    mask[top : top + side, left : left + side] = 1
    return mask


BANK = torch.stack([torch.stack([square(0, 0, 4), square(4, 4, 4)]), torch.stack([square(0, 4, 4), square(0, 0, 8)])])


def test_known_overlaps() -> None:
    masks = torch.stack([square(0, 0, 4), square(0, 2, 4), square(4, 4, 2), torch.zeros(8, 8)])[:, None]
    # The second shares 8 of 24 pixels with each upper square; the third 4 of 16 with the lower; 4 of 64 with all.
    expected = torch.tensor([[1, 16 / 64], [8 / 24, 8 / 24], [4 / 16, 4 / 64], [0, 0]])
    torch.testing.assert_close(best_iou(masks, bank=BANK), expected)


def test_the_mean_is_over_masks_and_the_control_over_the_other_classes() -> None:
    masks = torch.stack([square(0, 0, 4), square(4, 4, 2)])[:, None]
    right = silhouette_iou(masks, torch.tensor([0, 0]), bank=BANK)
    assert right.own == pytest.approx((1 + 0.25) / 2)
    assert right.others == pytest.approx((0.25 + 0.0625) / 2)
    assert right.nearest == 1
    wrong = silhouette_iou(masks, torch.tensor([1, 1]), bank=BANK)
    assert (wrong.own, wrong.others, wrong.nearest) == pytest.approx((right.others, right.own, 0))
    third = silhouette_iou(masks, torch.tensor([0, 0]), bank=torch.cat([BANK, BANK[1:]]))
    assert third.others == pytest.approx(right.others)


def test_masks_are_cut_at_one_half() -> None:
    soft = (square(0, 0, 4) * 0.6 + square(4, 4, 4) * 0.4)[None, None]
    assert best_iou(soft, bank=BANK)[0, 0] == 1


def test_two_empty_masks_agree() -> None:
    assert (best_iou(torch.zeros(1, 1, 8, 8), bank=torch.zeros(2, 1, 8, 8)) == 1).all()


def test_more_masks_than_a_block_are_all_compared() -> None:
    masks = square(0, 0, 4).expand(MASKS_PER_BLOCK + 3, 1, 8, 8)
    assert best_iou(masks, bank=BANK)[:, 0].equal(torch.ones(len(masks)))


def test_wrong_sizes_are_told() -> None:
    with pytest.raises(
        ValueError, match=r"masks \(1, 1, 4, 4\), bank \(2, 2, 8, 8\).*draw the bank at the masks' size"
    ):
        best_iou(torch.zeros(1, 1, 4, 4), bank=BANK)
    with pytest.raises(ValueError, match="1 masks, 2 labels"):
        silhouette_iou(torch.zeros(1, 1, 8, 8), torch.zeros(2), bank=BANK)
