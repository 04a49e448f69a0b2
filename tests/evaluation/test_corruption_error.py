"""Corruption errors: known answers, what is refused, and the picture of curves."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from cgn.core.errors import ArtifactError
from cgn.corruptions import BENCHMARK, EXTRA
from cgn.corruptions import SEVERITIES as MADE
from cgn.evaluation.corruption_error import (
    ALEXNET,
    ALEXNET_CLEAN,
    SEVERITIES,
    CorruptionErrors,
    condition,
    corruption_errors,
)
from cgn.evaluation.intervals import Proportion
from cgn.evaluation.predictions import IMAGENET_C, NONE, TOPS, Predictions, gather

IMAGES = 200


def rows(
    classifier: str, wrong: Mapping[str, int], *, images: int = IMAGES, suite: str = IMAGENET_C
) -> list[pd.DataFrame]:
    """A table for each condition, `wrong` of whose `images` decisions miss the label."""
    labels = np.arange(images) % 1000
    return [
        pd.DataFrame(
            {
                "classifier": classifier,
                "head": "label",
                "suite": suite,
                "condition": name,
                "image": [f"{number:04d}.png" for number in range(images)],
                "label": labels,
                "texture": NONE,
                "background": NONE,
                **dict.fromkeys(TOPS, NONE),
                "top_1": (labels + (np.arange(images) < count)) % 1000,
                "category": NONE,
                "probability": 0.5,
            }
        )
        for name, count in wrong.items()
    ]


def gathered(tables: list[pd.DataFrame]) -> Predictions:
    return gather(tables, track="imagenet", variant="mini", classes=1000, suites={IMAGENET_C: 1000, "clean": 1000})


def corrupted(**wrong: tuple[int, ...]) -> dict[str, int]:
    return {
        condition(name, s): count for name, counts in wrong.items() for s, count in zip(SEVERITIES, counts, strict=True)
    }


def only(wrong: Mapping[str, int]) -> CorruptionErrors:
    (found,) = corruption_errors(gathered(rows("resnet", wrong)))
    return found


def test_a_corruption_has_an_error_for_each_severity_and_their_mean() -> None:
    found = only({**corrupted(fog=(10, 20, 40, 60, 120)), "clean": 8})
    assert found.errors == {"fog": tuple(Proportion(hits=hits, images=IMAGES) for hits in (10, 20, 40, 60, 120))}
    assert found.mean("fog") == pytest.approx(0.25)
    assert found.ce("fog") == pytest.approx(0.25 / 0.819324)
    assert found.relative_ce("fog") == pytest.approx((0.25 - 0.04) / (0.819324 - ALEXNET_CLEAN))
    assert (found.mean_error, found.mce, found.relative_mce) == (None, None, None)


def test_alexnet_is_the_unit_of_its_own_scale() -> None:
    """A classifier with AlexNet's errors, to the nearest of a million images."""
    million = 1_000_000
    errors = {name: (Proportion(hits=round(e * million), images=million),) * 5 for name, e in ALEXNET.items()}
    clean = Proportion(hits=round(ALEXNET_CLEAN * million), images=million)
    alexnet = CorruptionErrors(classifier="alexnet", head="label", errors=errors, clean=clean)
    assert alexnet.mce == pytest.approx(1)
    assert alexnet.relative_mce == pytest.approx(1)
    assert alexnet.mean_error == pytest.approx(np.mean(list(ALEXNET.values())))


def test_mce_is_the_mean_of_ratios_not_the_ratio_of_means() -> None:
    wrong = dict.fromkeys(ALEXNET, (50,) * 5) | {"brightness": (150,) * 5}
    found = only({**corrupted(**wrong), "clean": 20})
    expected = np.mean([(0.75 if name == "brightness" else 0.25) / error for name, error in ALEXNET.items()])
    assert found.mce == pytest.approx(expected)
    assert found.mce != pytest.approx(found.mean_error / np.mean(list(ALEXNET.values())), rel=0.01)  # type: ignore[operator]
    relative = [((0.75 if n == "brightness" else 0.25) - 0.1) / (e - ALEXNET_CLEAN) for n, e in ALEXNET.items()]
    assert found.relative_mce == pytest.approx(np.mean(relative))
    assert only(corrupted(**wrong)).relative_mce is None


def test_extra_corruptions_have_errors_but_no_part_in_mce() -> None:
    wrong = dict.fromkeys(ALEXNET, (50,) * 5)
    without = only(corrupted(**wrong))
    found = only(corrupted(**wrong, spatter=(200,) * 5))
    assert found.mean("spatter") == 1
    assert (found.ce("spatter"), found.relative_ce("spatter")) == (None, None)
    assert found.mce == without.mce
    assert list(found.errors) == [*ALEXNET, "spatter"]


def test_heads_are_kept_apart_and_other_suites_left_alone() -> None:
    tables = rows("b", corrupted(snow=(0, 0, 0, 0, 0))) + rows("a", corrupted(snow=(200,) * 5))
    tables += rows("a", {"original": 3}, suite="in9")
    tables += [table.assign(head="shape") for table in rows("b", corrupted(snow=(100,) * 5))]
    found = corruption_errors(gathered(tables))
    values = [(one.title, one.mean("snow"), one.clean) for one in found]
    assert values == [("a, label", 1, None), ("b, label", 0, None), ("b, shape", 0.5, None)]


def test_clean_pictures_are_those_that_were_corrupted_or_else_the_clean_suite() -> None:
    tables = rows("a", corrupted(snow=(200,) * 5)) + rows("a", {"clean": 30}, suite="clean", images=300)
    (found,) = corruption_errors(gathered(tables))
    assert found.clean == Proportion(hits=30, images=300)
    (found,) = corruption_errors(gathered(tables + rows("a", {"clean": 8})))
    assert found.clean == Proportion(hits=8, images=IMAGES)


def test_a_missing_or_unknown_severity_is_named() -> None:
    some = corrupted(frost=(1, 2, 3, 4, 5))
    del some["frost/3"]
    with pytest.raises(ArtifactError, match=r"decisions of resnet lack frost/3: .*all five severities"):
        only(some)
    with pytest.raises(ArtifactError, match=r"under frost/6: severities are 1 to 5"):
        only({**corrupted(frost=(1, 2, 3, 4, 5)), "frost/6": 1})


def test_names_and_severities_are_those_of_the_images() -> None:
    assert list(ALEXNET) == list(BENCHMARK)
    assert not set(ALEXNET) & set(EXTRA)
    assert SEVERITIES == MADE
