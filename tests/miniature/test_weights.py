"""The weights in the package: complete, small, and good enough for what the miniature needs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cgn.core.errors import ArtifactError
from cgn.core.seeding import torch_stream
from cgn.mechanisms import Prior
from cgn.miniature import shipped
from cgn.miniature.nets import load_biggan, load_features, load_segmenter
from cgn.miniature.pretraining.report import iou
from cgn.miniature.world.scenes import CLASSES, backgrounds, scene
from cgn.nets.biggan import BigGan, StatisticsNorm

SIZE = 32
PER_CLASS = 6
LABELS = np.arange(PER_CLASS * len(CLASSES)) % len(CLASSES)
INDEX = np.arange(len(LABELS))
SEED = 77


@pytest.fixture(scope="module")
def biggan() -> BigGan:
    return load_biggan(shipped.BIGGAN.verified()).eval()


@pytest.fixture(scope="module")
def features() -> torch.nn.Module:
    return load_features(shipped.FEATURES.verified()).eval()


def test_the_files_have_their_sizes_digests_and_licence() -> None:
    assert {file.path for file in shipped.SHIPPED} == set(shipped.FOLDER.glob("*"))
    for file in shipped.SHIPPED:
        assert file.path.stat().st_size == file.bytes, file.name
        assert file.bytes < 1_400_000, file.name
        assert file.verified() == file.path
        assert "MIT" in file.licence
    assert sum(file.bytes for file in shipped.SHIPPED) <= 6_000_000


def test_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArtifactError, match="has sha256"):
        replace(shipped.FEATURES, sha256="0" * 64).verified()
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    with pytest.raises(ArtifactError, match="is missing from the installed package"):
        shipped.FEATURES.verified()


def test_all_weights_are_numbers_and_float32(biggan: BigGan, features: torch.nn.Module) -> None:
    for net in (biggan, features, load_segmenter(shipped.SEGMENTER.verified())):
        for name, tensor in net.state_dict().items():
            assert tensor.dtype in (torch.float32, torch.int64), name
            assert tensor.isfinite().all(), name


def test_more_truncation_means_more_variance(biggan: BigGan) -> None:
    first = next(norm for norm in biggan.modules() if isinstance(norm, StatisticsNorm))
    variance = first.running_vars.mean(1)
    assert len(variance) == 51
    assert (variance[1:] >= variance[:-1]).all()
    assert variance[-1] > 1.05 * variance[0], "what is left at 0 is the labels' own"


@torch.no_grad()
def test_the_biggan_draws_its_label(biggan: BigGan) -> None:
    """Its images are nearer to the mean scene of their class than to any other's."""
    known = scene(LABELS, LABELS, LABELS, seed=SEED, index=INDEX, image_size=SIZE).image
    labels = torch.from_numpy(LABELS)
    means = torch.stack([known[labels == label].mean(0) for label in range(len(CLASSES))])
    for truncation in (1.0, 0.5):
        noise = Prior(noise_size=biggan.config.noise_size, truncation=truncation).noise(
            len(labels), torch_stream(SEED, "noise")
        )
        images = biggan(noise, labels, truncation=truncation)
        assert images.abs().max() <= 1
        nearest = (images[:, None] - means).square().mean((2, 3, 4)).argmin(1)
        assert (nearest == labels).float().mean() > 0.9, truncation
        unlike = torch.stack([images[labels == label].std(0).mean() for label in range(len(CLASSES))])
        assert (unlike > 0.04).all(), f"the images of a class are one image: {unlike}"


@torch.no_grad()
def test_the_segmenter_sees_objects_rather_than_backgrounds_though_it_knows_neither() -> None:
    segment = load_segmenter(shipped.SEGMENTER.verified()).eval()
    drawn = scene(LABELS, LABELS, LABELS, seed=SEED, index=INDEX, image_size=SIZE)
    empty = backgrounds(LABELS, seed=SEED + 1, index=INDEX, image_size=SIZE)
    assert float(segment(empty).mean()) < 0.15
    saliency = segment(drawn.image)
    assert float((saliency * drawn.mask).sum() / drawn.mask.sum()) > 0.6
    found = float(iou(saliency, drawn.mask).mean())
    assert found > 0.55
    assert float(iou(saliency.flip(0), drawn.mask).mean()) < found - 0.15, "the masks of other images do not fit"


@torch.no_grad()
def test_the_features_distinguish_textures(features: torch.nn.Module) -> None:
    """The gram matrices of one texture on two shapes are nearer than those of two textures on one shape."""
    images = {}
    for name, shape, texture in (("own", 0, 0), ("other shape", 3, 0), ("other texture", 0, 3)):
        labels = [np.full(40, label) for label in (shape, texture, 1)]
        images[name] = scene(*labels, seed=SEED, index=np.arange(40), image_size=SIZE).image
    grams = {name: _gram(features(image)[2]) for name, image in images.items()}
    assert _distance(grams["own"], grams["other shape"]) < 0.7 * _distance(grams["own"], grams["other texture"])


@torch.no_grad()
def test_the_features_are_four_maps_and_no_function_of_the_batch(features: torch.nn.Module) -> None:
    images = torch.rand(3, 3, SIZE, SIZE, generator=torch_stream(SEED, "images")) * 2 - 1
    maps = features(images)
    assert [tuple(part.shape[2:]) for part in maps] == [(32, 32), (16, 16), (8, 8), (4, 4)]
    for part, alone in zip(maps, features(images[:1]), strict=True):
        torch.testing.assert_close(part[:1], alone, rtol=1e-4, atol=1e-4)
        assert part.abs().max() > 0


def _gram(maps: torch.Tensor) -> torch.Tensor:
    flat = maps.flatten(2)
    return (flat @ flat.transpose(1, 2)).mean(0) / flat[0].numel()


def _distance(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).abs().mean())
