"""The corruptions equal the published code's pictures and statistics.

The golden picture of severity s was drawn by NumPy's generator seeded with 1000 s, those of the 16 images (i = 0..15)
behind the statistics with 1000 s + i. Given the same numbers in the same order, all but one of the 19 are the same
picture to 2 grey levels. Impulse noise came from another, unseeded generator and is held to the statistics alone.
With numbers of its own the mean change of fog, frost and spatter differs from one draw of 16 images to the next by up
to 8 %, so it is held to the spread over several draws; that of all others to 5 %.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cgn.corruptions import CORRUPTIONS, SEVERITIES, corrupt, corrupt_with
from cgn.corruptions.weather import read_ice
from cgn.download.sources import FROST
from tests.parity.reference_corruptions import references
from tests.parity.replayed import Replayed

UNSEEDED = {"impulse_noise"}
WIDE = ("fog", "frost", "spatter")
REPLAYABLE = [name for name in CORRUPTIONS if name not in UNSEEDED]
DRAWS = 6
COLUMNS = ["mean_abs_change", "mean_change", "std_after", "rms_change"]

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def golden(test_data: Path) -> dict[str, Array]:
    with np.load(test_data / "golden" / "corruptions_one_image.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def photographs(test_data: Path) -> list[Path]:
    return [test_data / "frost" / asset.name for asset in FROST]


@pytest.fixture(scope="module")
def ice(photographs: list[Path]) -> tuple[torch.Tensor, ...]:
    return read_ice(photographs, height=224, width=224)


@pytest.fixture(scope="module")
def images(test_data: Path) -> torch.Tensor:
    names = (test_data / "golden" / "corruptions_images.txt").read_text().split()
    opened = [np.asarray(Image.open(test_data / name).convert("RGB")) for name in names]
    return batch([image[16:240, 16:240] for image in opened])


@pytest.fixture(scope="module")
def published(test_data: Path) -> pd.DataFrame:
    return pd.read_csv(test_data / "golden" / "corruptions_statistics.csv").set_index(["corruption", "severity"])


def batch(images: Sequence[Array]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def near(ours: torch.Tensor, published: torch.Tensor) -> float:
    """The share of values within 2 grey levels."""
    return float(((ours.int() - published.int()).abs() <= 2).double().mean())


def statistics(clean: torch.Tensor, corrupted: torch.Tensor) -> Array:
    """The columns of the golden table: of each image, then the mean over the images."""
    after = corrupted.double().flatten(1)
    change = after - clean.double().flatten(1)
    of_images = [change.abs().mean(1), change.mean(1), after.std(1, correction=0), change.square().mean(1).sqrt()]
    return torch.stack(of_images).mean(1).numpy()


@pytest.mark.parametrize("name", REPLAYABLE)
def test_every_corruption_is_the_published_picture(
    golden: dict[str, Array], ice: tuple[torch.Tensor, ...], name: str
) -> None:
    clean = batch([golden["clean"]])
    for severity in SEVERITIES:
        corrupted = corrupt_with(clean, name=name, severity=severity, draws=Replayed([1000 * severity]), ice=ice)
        assert near(corrupted, batch([golden[f"{name}/{severity}"]])) >= 0.999, severity


@pytest.mark.long
@pytest.mark.parametrize("name", REPLAYABLE)
def test_the_readable_reference_is_the_published_picture(
    golden: dict[str, Array], photographs: list[Path], name: str
) -> None:
    opened = [np.asarray(Image.open(path).convert("RGB")) for path in photographs]
    for severity in (2,) if name == "glass_blur" else SEVERITIES:  # seconds an image
        corrupted = references(opened)[name](golden["clean"], severity, np.random.RandomState(1000 * severity))
        assert near(batch([corrupted]), batch([golden[f"{name}/{severity}"]])) >= 0.999, severity


@pytest.mark.long
@pytest.mark.parametrize("name", REPLAYABLE)
def test_statistics_are_the_published_ones_given_the_numbers(
    images: torch.Tensor, published: pd.DataFrame, ice: tuple[torch.Tensor, ...], name: str
) -> None:
    for severity in SEVERITIES:
        draws = Replayed([1000 * severity + number for number in range(len(images))])
        ours = statistics(images, corrupt_with(images, name=name, severity=severity, draws=draws, ice=ice))
        # 0.15: where the published float64 lands just under a whole level and is cut, ours lands on it.
        expected = published.loc[(name, severity), COLUMNS].to_numpy(float)
        np.testing.assert_allclose(ours, expected, rtol=0.0005, atol=0.15, err_msg=f"{name}/{severity}")


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in WIDE])
def test_statistics_are_near_the_published_ones_with_numbers_of_its_own(
    images: torch.Tensor, published: pd.DataFrame, name: str
) -> None:
    for severity in SEVERITIES:
        ours = statistics(images, corrupt(images, name=name, severity=severity, numbers=range(len(images)), seed=0))
        expected = published.loc[(name, severity), COLUMNS].to_numpy(float)
        assert ours[0] == pytest.approx(expected[0], rel=0.05), severity
        np.testing.assert_allclose(ours[1:], expected[1:], rtol=0.05, atol=0.5, err_msg=f"{name}/{severity}")


@pytest.mark.long
@pytest.mark.parametrize("name", WIDE)
def test_wide_statistics_are_around_the_published_ones(
    images: torch.Tensor, published: pd.DataFrame, ice: tuple[torch.Tensor, ...], name: str
) -> None:
    count = len(images)
    for severity in (1, 3, 5):
        numbers = [range(draw * count, draw * count + count) for draw in range(DRAWS)]
        ours = np.stack(
            [
                statistics(images, corrupt(images, name=name, severity=severity, numbers=chosen, seed=0, ice=ice))
                for chosen in numbers
            ]
        )
        expected = published.loc[(name, severity), COLUMNS].to_numpy(float)
        assert (np.abs(ours.mean(0) - expected) <= 4 * ours.std(0, ddof=1)).all(), severity


def test_the_comparisons_can_fail(
    golden: dict[str, Array], images: torch.Tensor, published: pd.DataFrame, ice: tuple[torch.Tensor, ...]
) -> None:
    clean = batch([golden["clean"]])
    for name in REPLAYABLE:
        other = corrupt_with(clean, name=name, severity=3, draws=Replayed([3000]), ice=ice)
        assert near(other, batch([golden[f"{name}/4"]])) < 0.98, name
    drawn_otherwise = corrupt_with(clean, name="fog", severity=3, draws=Replayed([3001]), ice=ice)
    assert near(drawn_otherwise, batch([golden["fog/3"]])) < 0.5
    milder = statistics(images, corrupt(images, name="contrast", severity=1, numbers=range(16), seed=0))
    assert milder[0] < 0.95 * float(published.loc[("contrast", 2), "mean_abs_change"])  # type: ignore[arg-type]
