"""Laws of the corruptions: what defines an image, what is refused, and what each kind keeps or changes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.seeding import torch_stream
from cgn.corruptions import BENCHMARK, CORRUPTIONS, EXTRA, SEVERITIES, corrupt, corrupt_with
from cgn.corruptions.blur import DEFOCUS, origins, soft_disk
from cgn.corruptions.filters import gaussian, streaks
from cgn.corruptions.random_numbers import random_numbers
from cgn.corruptions.weather import distance, edges, equalized, plasma, read_ice

HEIGHT, WIDTH = 72, 88
FIXED = {
    "defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "gaussian_blur", "saturate",
}  # fmt: skip
"""Corruptions without chance."""


def smooth(count: int, *, seed: int = 0) -> torch.Tensor:
    """Images with large and small structures, of any grey level."""
    stream = torch_stream(seed, "test")
    coarse = torch.rand((count, 3, 9, 11), generator=stream)
    fine = torch.rand((count, 3, HEIGHT, WIDTH), generator=stream)
    mixed = 0.8 * torch.nn.functional.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bilinear") + 0.2 * fine
    return (255 * mixed).to(torch.uint8)


def ice(height: int = HEIGHT, width: int = WIDTH) -> list[torch.Tensor]:
    stream = torch_stream(1, "test")
    shape = (3, height + 9, width + 7)
    return [torch.randint(256, shape, generator=stream, dtype=torch.uint8) for _ in range(6)]


def corrupted(
    images: torch.Tensor, name: str, *, severity: int = 3, numbers: Sequence[int] | None = None, seed: int = 0
) -> torch.Tensor:
    chosen = range(len(images)) if numbers is None else numbers
    return corrupt(images, name=name, severity=severity, numbers=chosen, seed=seed, ice=ice())


def grey(level: int, count: int = 1) -> torch.Tensor:
    return torch.full((count, 3, HEIGHT, WIDTH), level, dtype=torch.uint8)


def change(after: torch.Tensor, before: torch.Tensor) -> float:
    return float((after.double() - before.double()).abs().mean())


def test_fifteen_make_the_benchmark_and_four_are_extra() -> None:
    assert (len(BENCHMARK), len(EXTRA), len(CORRUPTIONS)) == (15, 4, 19)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_shape_and_type_stay_and_the_input_is_left_alone(name: str) -> None:
    images = smooth(2)
    before = images.clone()
    for severity in SEVERITIES:
        changed = corrupted(images, name, severity=severity)
        assert (changed.shape, changed.dtype) == (images.shape, torch.uint8)
        assert not changed.equal(images)
    assert images.equal(before)
    assert corrupted(images[:0], name).shape == (0, 3, HEIGHT, WIDTH)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_depends_on_its_number_not_on_its_batch(name: str) -> None:
    images, numbers = smooth(5), [3, 1, 4, 15, 9]
    together = corrupted(images, name, numbers=numbers)
    assert corrupted(images, name, numbers=numbers).equal(together)
    single = [corrupted(images[i : i + 1], name, numbers=[number]) for i, number in enumerate(numbers)]
    assert torch.cat(single).equal(together)
    assert corrupted(images.flip(0), name, numbers=numbers[::-1]).flip(0).equal(together)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_random_numbers_depend_on_seed_number_and_severity(name: str) -> None:
    images = smooth(1)
    reference = corrupted(images, name)
    for other in (corrupted(images, name, seed=1), corrupted(images, name, numbers=[1])):
        assert other.equal(reference) is (name in FIXED)
    first = random_numbers([0], name=name, severity=1, seed=0, device=images.device).uniform(4)
    assert not random_numbers([0], name=name, severity=2, seed=0, device=images.device).uniform(4).equal(first)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_extremes_stay_pictures(name: str) -> None:
    """Black, white and one level: nothing is divided by zero, no level leaves its range."""
    for level in (0, 1, 255):
        changed = corrupted(grey(level), name, severity=5)
        assert changed.shape == (1, 3, HEIGHT, WIDTH)
        if name in {"defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur", "contrast", "pixelate",
                    "elastic_transform"}:  # fmt: skip
            assert changed.equal(grey(level))


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - {"saturate"}))
def test_the_worst_severity_changes_more_than_the_mildest(name: str) -> None:
    images = smooth(4)
    assert change(corrupted(images, name, severity=5), images) > change(corrupted(images, name, severity=1), images)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "rain"}, r"unknown corruption 'rain'; known: gaussian_noise, .*saturate"),
        ({"severity": 0}, r"severity 0 of fog: allowed are 1, 2, 3, 4 and 5"),
        ({"severity": 6}, r"severity 6 of fog"),
        ({"numbers": [0]}, r"2 images have 1 numbers"),
        ({"images": torch.zeros(2, 3, 80, 80)}, r"torch.float32: expected \(B,3,H,W\) and torch.uint8"),
        ({"images": torch.zeros(2, 1, 80, 80, dtype=torch.uint8)}, r"shape \(2, 1, 80, 80\)"),
        ({"images": torch.zeros(2, 3, 80, 63, dtype=torch.uint8)}, r"H and W at least 64"),
        ({"name": "frost"}, r"frost was given 0 photographs"),
        ({"name": "frost", "ice": ice(height=20)}, r"photograph 1 of frost is 29x95, images are 72x88"),
    ],
)
def test_what_cannot_be_is_refused(changed: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"images": smooth(2), "name": "fog", "severity": 1, "numbers": [0, 1], "seed": 0}
    with pytest.raises(ConfigError, match=message):
        corrupt(**given | changed)  # type: ignore[arg-type]


def test_noise_has_the_moments_of_its_law() -> None:
    images = grey(128, count=4)
    for severity, deviation in enumerate((0.08, 0.12, 0.18), start=1):
        changed = corrupted(images, "gaussian_noise", severity=severity).double()
        assert changed.mean() == pytest.approx(127.5, abs=0.8)  # cut, not rounded
        assert changed.std() == pytest.approx(255 * deviation, rel=0.02)
    shot = corrupted(images, "shot_noise", severity=1).double()
    assert shot.std() == pytest.approx((128 * 255 / 60) ** 0.5, rel=0.02)
    speckle = corrupted(images, "speckle_noise", severity=1).double()
    assert speckle.std() == pytest.approx(128 * 0.15, rel=0.02)
    assert corrupted(grey(0), "speckle_noise").equal(grey(0))
    impulse = corrupted(images, "impulse_noise", severity=5)
    for struck in (0, 255):
        assert float((impulse == struck).double().mean()) == pytest.approx(0.27 / 2, abs=0.006)


def test_brightness_and_saturation_keep_the_order_of_channels() -> None:
    images = smooth(2)
    order = images.argmax(1, keepdim=True)
    for name in ("brightness", "saturate"):
        for severity in SEVERITIES:
            changed = corrupted(images, name, severity=severity)
            assert changed.gather(1, order).equal(changed.amax(1, keepdim=True))
    assert corrupted(images, "saturate", severity=4).amax(1).equal(images.amax(1))
    assert corrupted(grey(100), "brightness", severity=2).equal(grey(151))
    assert corrupted(grey(100), "saturate", severity=3).equal(grey(100))


def test_glass_takes_pixels_from_the_places_of_the_published_loop() -> None:
    height, width = 17, 23
    for reach in (1, 2, 4):
        shape = (2, height - 2 * reach, width - 2 * reach, 2)
        steps = torch.randint(-reach, reach, shape, generator=torch_stream(reach, "test"))
        expected = np.tile(np.arange(height * width).reshape(height, width), (2, 1, 1))
        for image, drawn in zip(expected, steps.numpy(), strict=True):
            for i, row in enumerate(range(height - reach, reach, -1)):
                for j, column in enumerate(range(width - reach, reach, -1)):
                    right, down = drawn[i, j]
                    image[row, column] = image[row + down, column + right]
        found = origins(steps, height=height, width=width, reach=reach)
        assert found.view(2, height, width).equal(torch.from_numpy(expected))


def test_filters_keep_the_sum() -> None:
    sums = [float(soft_disk(radius, sigma=sigma).sum()) for radius, sigma in DEFOCUS]
    assert sums == pytest.approx([1, 1, 1, 1.013, 1.011], abs=5e-4)  # the published two last brighten
    kernels = streaks(torch.tensor([-135.0, -45.0, 0.0, 30.0]), radius=10, sigma=3)
    torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(4))
    assert kernels[2, 20].sum() == pytest.approx(1)  # along the row
    for border in ("repeated", "mirrored"):
        matrix = gaussian(30, sigma=2.5, border=border, device=torch.device("cpu"))
        torch.testing.assert_close(matrix.sum(1), torch.ones(30))


def test_a_plasma_spans_its_range_and_is_its_own_neighbour() -> None:
    clouds = plasma(
        128, decay=2, draws=random_numbers([0, 1], name="fog", severity=1, seed=0, device=torch.device("cpu"))
    )
    assert clouds.amin((1, 2)).eq(0).all()
    assert clouds.amax((1, 2)).eq(1).all()
    inner = (clouds[:, 1:] - clouds[:, :-1]).abs().mean()
    across = (clouds[:, 0] - clouds[:, -1]).abs().mean()
    assert across < 1.5 * inner  # a torus: the last row is next to the first


def test_distances_edges_and_histograms_of_known_maps() -> None:
    point = torch.zeros(1, 1, 41, 41, dtype=torch.bool)
    point[0, 0, 20, 20] = True
    away = distance(point)[0, 0]
    for (rows, columns), expected in {
        (0, 7): 7,
        (5, 5): 7.0,
        (2, 1): 2.1969,
        (-6, 3): 3 * 2.1969,
        (3, 1): 3.1969,
    }.items():
        assert float(away[20 + rows, 20 + columns]) == pytest.approx(expected, abs=1e-4)
    assert float(away.max()) == 20
    assert distance(torch.zeros_like(point)).eq(20).all()
    square = torch.zeros(1, 1, 40, 40)
    square[..., 10:30, 10:30] = 200
    found = edges(square)[0, 0]
    assert found[10:30, 10:30].any()
    assert not found[12:28, 12:28].any()
    assert not found[:9].any()
    assert not edges(square.div(10).floor()).any()
    assert equalized(torch.full((1, 1, 4, 4), 3.0)).eq(3).all()
    halves = torch.tensor([0.0, 20.0]).repeat_interleave(8).view(1, 1, 4, 4)
    assert set(equalized(halves).flatten().tolist()) == {0, 255}


def test_broken_or_missing_photographs_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"frost1\.png is missing: run fetch again"):
        read_ice([tmp_path / "frost1.png"], height=72, width=88)
    (tmp_path / "frost1.png").write_bytes(b"no picture")
    with pytest.raises(ArtifactError, match=r"frost1\.png is not a complete image"):
        read_ice([tmp_path / "frost1.png"], height=72, width=88)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_gpu_returns_the_same_picture(name: str) -> None:
    images = smooth(3)
    draws = random_numbers(range(3), name=name, severity=3, seed=0, device=torch.device("cuda"))
    on_gpu = corrupt_with(images.cuda(), name=name, severity=3, draws=draws, ice=ice()).cpu()
    off = (on_gpu.int() - corrupted(images, name).int()).abs()
    assert float((off <= 1).double().mean()) > 0.999
