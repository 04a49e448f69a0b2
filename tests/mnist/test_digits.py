"""Digits: idx files parsed strictly, fixed splits, drawings that neither touch the border nor vanish."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from cgn.core.errors import ArtifactError
from cgn.core.seeding import numpy_stream
from cgn.download.sources import MNIST_IMAGES, MNIST_LABELS
from cgn.mnist import digits as module
from cgn.mnist.digits import DigitSplits, mnist, random_motions, read_idx, render_digits, scikit_learn


def idx(path: Path, array: np.ndarray, *, magic: int | None = None) -> Path:
    head = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim if magic is None else magic, *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes(), mtime=0))
    return path


@pytest.fixture(scope="module")
def embedded() -> DigitSplits:
    return scikit_learn()


def test_an_idx_file_is_read(tmp_path: Path) -> None:
    array = np.arange(24).reshape(2, 3, 4)
    assert np.array_equal(read_idx(idx(tmp_path / "a.gz", array), dimensions=3), array)


def test_a_file_of_other_dimensions_or_magic_is_refused(tmp_path: Path) -> None:
    array = np.arange(24).reshape(2, 3, 4)
    with pytest.raises(ArtifactError, match=r"a\.gz starts with 00000803, expected 00000801"):
        read_idx(idx(tmp_path / "a.gz", array), dimensions=1)
    with pytest.raises(ArtifactError, match="starts with 00000d03"):
        read_idx(idx(tmp_path / "a.gz", array, magic=0x0D03), dimensions=3)


@pytest.mark.parametrize("kept", [0, 5, 20, 200])
def test_a_truncated_file_is_reported(tmp_path: Path, kept: int) -> None:
    random = np.random.default_rng(0).integers(0, 256, (4, 8, 8))
    path = idx(tmp_path / "images.gz", random)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ArtifactError, match=r"images\.gz .*run fetch again"):
        read_idx(path, dimensions=3)


@pytest.mark.parametrize("change", [-7, 7])
def test_a_length_that_does_not_fit_the_shape_is_reported(tmp_path: Path, change: int) -> None:
    content = struct.pack(">II", 0x0801, 100) + bytes(100 + change)
    (tmp_path / "labels.gz").write_bytes(gzip.compress(content))
    with pytest.raises(
        ArtifactError, match=rf"labels\.gz has {100 + change} bytes for the shape \(100,\), expected 100"
    ):
        read_idx(tmp_path / "labels.gz", dimensions=1)


def test_a_file_that_is_no_gzip_or_missing_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_text("<html>not found</html>")
    with pytest.raises(ArtifactError, match=r"a\.gz is broken"):
        read_idx(tmp_path / "a.gz", dimensions=1)
    with pytest.raises(ArtifactError, match=r"b\.gz is missing: run fetch"):
        read_idx(tmp_path / "b.gz", dimensions=1)


def test_images_and_labels_must_belong_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MNIST_TRAIN", 5)
    images = idx(tmp_path / "images.gz", np.zeros((8, 2, 2)))
    with pytest.raises(ArtifactError, match=r"8 images and .* 7 labels"):
        mnist(images, idx(tmp_path / "labels.gz", np.zeros(7)))
    with pytest.raises(ArtifactError, match="more than 5"):
        mnist(idx(tmp_path / "few.gz", np.zeros((5, 2, 2))), idx(tmp_path / "labels.gz", np.zeros(5)))
    with pytest.raises(ArtifactError, match="the label 12, allowed: 0 to 9"):
        mnist(images, idx(tmp_path / "labels.gz", np.full(8, 12)))
    halves = mnist(images, idx(tmp_path / "labels.gz", np.arange(8)))
    assert (halves.train.labels.tolist(), halves.test.labels.tolist()) == ([0, 1, 2, 3, 4], [5, 6, 7])


def test_real_mnist_is_split_as_published(test_data: Path) -> None:
    halves = mnist(test_data / "mnist" / MNIST_IMAGES.name, test_data / "mnist" / MNIST_LABELS.name)
    assert (len(halves.train), len(halves.test)) == (50_000, 10_000)
    assert halves.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    ink = render_digits(halves.train, np.arange(20), image_size=32)
    small = halves.train.images[:20] / np.float32(255)
    nearest = np.arange(32) * 28 // 32
    assert np.array_equal(ink, small[:, nearest][:, :, nearest])


def test_the_embedded_split_is_fixed_and_stratified(embedded: DigitSplits) -> None:
    assert (len(embedded.train), len(embedded.test)) == (1_297, 500)
    assert np.bincount(embedded.test.labels).min() >= 48
    again = scikit_learn()
    assert np.array_equal(again.test.images, embedded.test.images)
    # Written out, so that a split that another version of numpy draws otherwise is noticed.
    assert embedded.test.labels[:12].tolist() == [1, 6, 8, 3, 9, 0, 7, 4, 5, 2, 7, 1]
    assert embedded.train.labels[:12].tolist() == [6, 3, 7, 1, 8, 9, 4, 2, 8, 4, 5, 2]


def test_every_stretch_of_the_training_digits_has_its_share_of_each_class(embedded: DigitSplits) -> None:
    assert np.bincount(embedded.train.labels[:100], minlength=10).min() >= 8


def test_no_digit_is_in_both_halves(embedded: DigitSplits) -> None:
    train = {image.tobytes() for image in embedded.train.images}
    assert not [image for image in embedded.test.images if image.tobytes() in train]


@pytest.mark.parametrize("size", [16, 32])
def test_embedded_strokes_stay_off_the_border_and_none_vanishes(embedded: DigitSplits, size: int) -> None:
    for half in (embedded.train, embedded.test):
        strokes = render_digits(half, np.arange(len(half)), image_size=size) > half.threshold
        inner = strokes[:, 1:-1, 1:-1]
        assert inner.sum() == strokes.sum()
        assert inner.mean(axis=(1, 2)).min() > 0.05


def test_no_motion_changes_nothing(embedded: DigitSplits) -> None:
    chosen = np.arange(30)
    still = random_motions(numpy_stream(0, "a"), 30, rotation_degrees=0, scale=0, shift=0)
    assert torch.equal(still, torch.eye(2, 3).expand(30, 2, 3))
    moved = render_digits(embedded.train, chosen, image_size=16, motions=still)
    assert np.array_equal(moved, render_digits(embedded.train, chosen, image_size=16))


def test_motions_turn_scale_and_shift_within_their_ranges() -> None:
    motions = random_motions(numpy_stream(0, "a"), 2_000, rotation_degrees=30, scale=0.2, shift=0.1)
    zoom = 1 / motions[:, :, :2].det().sqrt()
    angle = torch.atan2(motions[:, 0, 1], motions[:, 0, 0]).rad2deg()
    # The source of the drawing's centre, mapped back, is how far the digit moved (in halves of the image).
    moved = torch.linalg.solve(motions[:, :, :2], -motions[:, :, 2])
    for values, low, high in ((zoom, 0.8, 1.2), (angle, -30, 30), (moved, -0.2, 0.2)):
        assert low - 1e-4 <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high + 1e-4


def test_a_shift_moves_the_ink_by_that_fraction_of_the_image(embedded: DigitSplits) -> None:
    moved = torch.eye(2, 3)[None].clone()
    moved[0, 0, 2] = -2 * 0.125
    plain = render_digits(embedded.train, np.arange(1), image_size=16)[0]
    right = render_digits(embedded.train, np.arange(1), image_size=16, motions=moved)[0]
    assert np.allclose(right[:, 2:], plain[:, :-2], atol=1e-5)
