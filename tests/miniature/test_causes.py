"""A scene's causes as noise, and scenes with objects of no class."""

import numpy as np
import pytest
import torch

from cgn.miniature.pretraining.segmenter import BLOBS, salient
from cgn.miniature.world.primitives import Rng
from cgn.miniature.world.scenes import CAUSES, NOISE_SIZE, causes, grid, silhouettes
from cgn.miniature.world.silhouettes import FIGURES, silhouette

COUNT = 200


def test_causes_are_a_truncated_normal() -> None:
    noise = causes(np.arange(2_000), seed=3)
    assert noise.shape == (2_000, NOISE_SIZE)
    assert noise.abs().max() <= 2
    assert 0.86 < float(noise.std()) < 0.9
    assert torch.corrcoef(noise.T).fill_diagonal_(0).abs().max() < 0.1, "independent"


def test_an_images_causes_are_its_own() -> None:
    index = np.arange(7)
    torch.testing.assert_close(causes(index[3:4], seed=3), causes(index, seed=3)[3:4], rtol=0, atol=0)
    assert not torch.equal(causes(index, seed=3), causes(index, seed=4))


def test_the_first_causes_are_size_and_place_of_the_shape() -> None:
    index = np.arange(COUNT)
    mask = silhouettes(np.full(COUNT, 8), seed=5, index=index, image_size=32)[:, 0]
    noise, area = causes(index, seed=5), mask.sum((1, 2))
    places = torch.arange(32.0)
    x, y = (mask * places).sum((1, 2)) / area, (mask * places[:, None]).sum((1, 2)) / area
    for place, seen in enumerate((area, x, y)):
        together = torch.stack([noise[:, place], seen])
        assert torch.corrcoef(together)[0, 1] > 0.9, place


@pytest.mark.parametrize("figure", range(len(FIGURES)))
def test_a_silhouette_draws_no_more_than_its_causes(figure: int) -> None:
    rng = Rng(np.arange(1), seed=0, stream="shape")
    silhouette(figure, grid(1, 8), rng)
    assert rng.count <= CAUSES["shape"]


def test_one_image_in_four_has_no_object() -> None:
    drawn = salient(np.arange(COUNT), seed=1, image_size=32)
    share = drawn.mask.mean((1, 2, 3))
    assert 0.15 < float((share == 0).float().mean()) < 0.35
    assert 0.03 < float(share[share > 0].mean()) < 0.4
    assert drawn.mask.min() >= 0
    assert drawn.mask.max() <= 1
    assert drawn.image.abs().max() <= 1
    assert drawn.image.isfinite().all()
    empty = share == 0
    torch.testing.assert_close(drawn.image[empty], drawn.background[empty])


def test_an_object_of_no_class_is_the_same_alone_and_in_a_batch() -> None:
    together, alone = (salient(index, seed=1, image_size=32) for index in (np.arange(40), np.arange(11, 12)))
    torch.testing.assert_close(together.image[11:12], alone.image, rtol=0, atol=0)
    torch.testing.assert_close(together.mask[11:12], alone.mask, rtol=0, atol=0)


@pytest.mark.parametrize("kind", range(len(BLOBS)))
def test_every_kind_of_object_has_an_inside_and_an_outside(kind: int) -> None:
    outline, marks = BLOBS[kind](grid(16, 32), Rng(np.arange(16), seed=2, stream="blob"))
    inside = (outline < 0).mean((1, 2))
    assert (inside > 0.01).all()
    assert (inside < 0.9).all()
    assert np.isfinite(marks).all()
