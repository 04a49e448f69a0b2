"""How much masks look like true silhouettes, where no mask has a true one of its own.

A CGN's mask is drawn from noise: nothing says which pose it should have had. So it is compared with a bank of true
silhouettes of its class, in many poses, sizes and places, and its agreement is the best intersection over union (IoU)
in that bank. The control is the same with the banks of the other classes: a blob fits all of them about as well.
Legend: B masks, C classes, N silhouettes a class, H height, W width.
Masks and silhouettes are cut at one half. Two empty masks agree perfectly. The best of a larger bank is never worse, so
figures compare only for one bank; what fresh true silhouettes reach against it is the upper limit.
This module is apart from `cgn.evaluation.metrics` because training measures masks too: a change in a metric of the
stored predictions must not make train_cgn run again.
"""

from dataclasses import dataclass

import torch

MASKS_PER_BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class SilhouetteIou:
    """Means over all masks, each in [0,1]."""

    own: float
    """Best IoU with the labelled class."""
    others: float
    """Best IoU with each other class, averaged over these classes."""
    nearest: float
    """The share of masks whose best IoU over all classes is with the labelled one."""


def silhouette_iou(masks: torch.Tensor, labels: torch.Tensor, *, bank: torch.Tensor) -> SilhouetteIou:
    """Masks (B,1,H,W) in [0,1], labels (B,) of 0..C-1 and bank (C,N,H,W) in [0,1], on one device; B at least 1, C 2."""
    best = best_iou(masks, bank=bank)
    if len(labels) != len(masks) or len(bank) < 2:
        raise ValueError(f"{len(masks)} masks, {len(labels)} labels, {len(bank)} classes: expected B, B, 2 or more")
    own = best.gather(1, labels[:, None].to(torch.int64))[:, 0]
    others = (best.sum(1) - own) / (len(bank) - 1)
    nearest = (best.argmax(1) == labels).to(best.dtype)
    return SilhouetteIou(own=own.mean().item(), others=others.mean().item(), nearest=nearest.mean().item())


def best_iou(masks: torch.Tensor, *, bank: torch.Tensor) -> torch.Tensor:
    """(B,C) in [0,1]: each mask's best IoU with each class of the bank. Raises ValueError for other sizes of image."""
    if masks.shape[1] != 1 or masks.shape[2:] != bank.shape[2:] or not masks.numel() or not bank.numel():
        raise ValueError(
            f"masks {tuple(masks.shape)}, bank {tuple(bank.shape)}: expected (B,1,H,W) and (C,N,H,W), none empty; "
            "draw the bank at the masks' size"
        )
    known = (bank > 0.5).flatten(2).flatten(0, 1).float()
    drawn = (masks > 0.5).flatten(1).float()
    blocks = [drawn[start : start + MASKS_PER_BLOCK] for start in range(0, len(drawn), MASKS_PER_BLOCK)]
    return torch.cat([_iou(block, known).view(len(block), *bank.shape[:2]).amax(2) for block in blocks])


def _iou(masks: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """(B,P) and (M,P) of 0 and 1 -> (B,M); sums of ones are exact in float32 up to 2^24 pixels."""
    shared = masks @ known.T
    either = masks.sum(1, keepdim=True) + known.sum(1) - shared
    return torch.where(either > 0, shared / either.clamp_min(1), torch.ones_like(shared))
