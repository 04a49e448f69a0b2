"""Every loss: one function for each equation, with its source. The caller weights the losses.

Shapes: B batch, C channels, H and W image size, K classes. Images are in [-1,1], masks in [0,1].

    adversarial      generator_loss, discriminator_loss, mismatch_loss; hinge_generator_loss, hinge_discriminator_loss
    mask             binary_entropy, size_hinge, border_hinge
    reconstruction   l1, style
    texture          patch_grid, whose style is the target of the foreground's
    background       saliency
    variety          energy_distance
    classifiers      mean_logits_cross_entropy, head_cross_entropies
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

STYLE_SCALE = 5e3
"""Of the published code."""
POOL = 2
"""Height and width of the blocks, in pixels, that the energy distance averages: large enough for strokes to remain."""


def generator_loss(generated: torch.Tensor) -> torch.Tensor:
    """(B,) validities of generated images -> mean (D - 1)^2 (least squares; Mao et al., ICCV 2017)."""
    return (generated - 1).square().mean()


def discriminator_loss(real: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """(B,) validities of real and generated images -> (mean (D(real) - 1)^2 + mean D(generated)^2) / 2 (ibid.)."""
    return ((real - 1).square().mean() + generated.square().mean()) / 2


def mismatch_loss(mismatched: torch.Tensor) -> torch.Tensor:
    """(B,) validities of real images under wrong labels -> mean D^2 (matching-aware, Reed et al., ICML 2016)."""
    return mismatched.square().mean()


def hinge_generator_loss(generated: torch.Tensor) -> torch.Tensor:
    """(B,) validities of generated images -> mean -D (Lim & Ye, 2017; BigGAN, Brock et al., ICLR 2019, section 3)."""
    return -generated.mean()


def hinge_discriminator_loss(real: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """(B,) validities of real and generated images -> mean max(0, 1 - D(real)) + mean max(0, 1 + D(generated))."""
    return (1 - real).relu().mean() + (1 + generated).relu().mean()


def binary_entropy(mask: torch.Tensor) -> torch.Tensor:
    """(B,1,H,W) in (0,1) -> mean of -m log2 m - (1-m) log2(1-m): 0 at 0 and 1, 1 bit at 1/2 (Sauer & Geiger, 2021)."""
    return -(mask * mask.log2() + (1 - mask) * (1 - mask).log2()).mean()


def size_hinge(mask: torch.Tensor, *, smallest: float = 0.1, largest: float = 0.9) -> torch.Tensor:
    """(B,1,H,W) -> (B,): how far each mask's mean is outside [smallest, largest] (Sauer & Geiger, 2021)."""
    size = mask.mean((1, 2, 3))
    return (smallest - size).clamp_min(0) + (size - largest).clamp_min(0)


def border_hinge(mask: torch.Tensor, *, width: int, largest: float) -> torch.Tensor:
    """(B,1,H,W) -> (B,): how far the mean of each mask's outermost `width` pixels is above `largest`. Not published.

    Without it an inverted mask can give the same images. It assumes that objects do not touch the image's border.
    """
    height, breadth = mask.shape[-2:]
    inner = mask[..., width : height - width, width : breadth - width]
    pixels = mask[0].numel() - inner[0].numel()
    return ((mask.sum((1, 2, 3)) - inner.sum((1, 2, 3))) / pixels - largest).clamp_min(0)


def l1(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(B,3,H,W) composite and what the unconstrained cGAN draws from the same noise and label -> mean |x - x_gt|."""
    return (image - target).abs().mean()


def gram(features: torch.Tensor) -> torch.Tensor:
    """(B,C,H,W) features -> (B,C,C): F F^T / (C H W) (Gatys et al., CVPR 2016)."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


def style(
    features: Sequence[torch.Tensor], target_features: Sequence[torch.Tensor], *, weights: Sequence[float]
) -> torch.Tensor:
    """Features (B,C,H,W) of both batches by layer -> sum over layers of mean |gram - gram'| w^2 STYLE_SCALE.

    Image i of one batch is compared with image i of the other. A layer of weight 0 costs nothing. The weighting is the
    published code's.
    """
    terms = [
        (gram(layer) - gram(target)).abs().mean() * (weight**2 * STYLE_SCALE)
        for layer, target, weight in zip(features, target_features, weights, strict=True)
        if weight
    ]
    return torch.stack(terms).sum() if terms else features[0].new_zeros(())


@dataclass(frozen=True, kw_only=True)
class Patches:
    """How `patch_grid` cuts; the defaults are the published code's, for images of 256 pixels."""

    resolution: int = 128
    """Image and mask are resized to this before patches are cut, in pixels."""
    size: int = 15
    """Height and width of a patch there."""
    best: int = 100
    """Candidates: the places with the highest mean mask."""
    grid: int = 6
    """Patches along a side of the grid, drawn with replacement from the candidates."""

    @property
    def along(self) -> int:
        """Places along a side where a patch can begin."""
        return self.resolution - self.size + 1


PUBLISHED = Patches()


@torch.no_grad()
def patch_grid(
    image: torch.Tensor, mask: torch.Tensor, *, stream: torch.Generator, patches: Patches = PUBLISHED
) -> torch.Tensor:
    """Images (B,3,H,W) and masks (B,1,H,W) -> (B,3,H,W): a grid of patches of each image, where its mask is highest.

    The texture loss is the style of the foreground against this grid (Sauer & Geiger, 2021). The mean mask of a patch
    is an average pool, so only the drawn patches are cut, never all 12,996. `stream` is a CPU generator, whatever the
    images' device. Bicubic resizing may leave [-1,1] slightly, as in the published code. No gradient passes.
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

    A place is row * 114 + column at 128x128. In the image's order, so that a draw does not depend on how a device ranks
    nearly equal places.
    """
    means = functional.avg_pool2d(_resized(mask, patches.resolution), patches.size, stride=1)
    return means.flatten(1).topk(patches.best).indices.sort(1).values


def _resized(image: torch.Tensor, resolution: int) -> torch.Tensor:
    return functional.interpolate(image, (resolution, resolution), mode="bicubic")


def saliency(mask: torch.Tensor) -> torch.Tensor:
    """(B,1,H,W) saliency of backgrounds -> (B,): its mean, so that no object is left in them (Sauer & Geiger, 2021)."""
    return mask.flatten(1).mean(1)


def energy_distance(generated: torch.Tensor, real: torch.Tensor, *, images_per_class: int) -> torch.Tensor:
    """2 E|g - r| - E|g - g'| - E|r - r'| of generated and real images of one class (Székely & Rizzo, 2013).

    Both are (B,C,H,W); image i of both has the same class, and the `images_per_class` >= 2 images of a class are
    consecutive. Only images of such a group are compared, by the root mean square of the differences of their 2x2
    means. The estimate is unbiased: 0 on average if both have the same distribution, above 0 otherwise. Not published.
    An adversarial loss scores images one by one, so a generator may draw only a few variants of a class; this loss
    requires that two generated images differ as much as two real ones.
    """
    assert images_per_class >= 2, "one image has no other to differ from"
    ours, theirs = (_points(images, images_per_class=images_per_class) for images in (generated, real))
    across = _distances(ours, theirs).mean()
    pairs = images_per_class * (images_per_class - 1)
    own, real_own = (_distances(points, points).sum((1, 2)).mean() / pairs for points in (ours, theirs))
    return 2 * across - own - real_own


def _points(images: torch.Tensor, *, images_per_class: int) -> torch.Tensor:
    pooled = functional.avg_pool2d(images.float(), POOL).flatten(1)
    points: torch.Tensor = pooled.view(-1, images_per_class, pooled.shape[1]) / pooled.shape[1] ** 0.5
    return points


def _distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Not by matrix products, which are faster but inexact near 0, also in the gradient."""
    distances: torch.Tensor = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    return distances


def mean_logits_cross_entropy(logits: Mapping[str, torch.Tensor], label: torch.Tensor) -> torch.Tensor:
    """(B,K) logits of each head on real images and labels (B,) -> cross entropy of the heads' mean logits (ibid.)."""
    return functional.cross_entropy(torch.stack(list(logits.values())).mean(0), label)


def head_cross_entropies(
    logits: Mapping[str, torch.Tensor], labels: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """(B,K) logits of each head on counterfactuals -> its cross entropy with its own mechanism's labels (B,).

    Raises ValueError when a head has no labels.
    """
    if lacking := sorted(logits.keys() - labels.keys()):
        raise ValueError(f"no labels for the heads {', '.join(lacking)}; there are: {', '.join(sorted(labels))}")
    return {head: functional.cross_entropy(answer, labels[head]) for head, answer in logits.items()}
