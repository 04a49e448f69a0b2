"""Intervals of what is no plain proportion: against published figures, and where pictures are shown more than once."""

import math

import numpy as np
import pandas as pd
import pytest
from cgn.evaluation.intervals import Estimate, Proportion, difference, mean_error, weighted, wilson
from cgn.evaluation.metrics import Gap, estimate
from cgn.evaluation.predictions import Predictions, gather

from cgn.evaluation.corruption_error import (
    ALEXNET,
    ALEXNET_CLEAN,
    SEVERITIES,
    condition,
    corruption_errors,
    corruption_estimates,
)

FIVE = {f"fog/{severity}": 0.2 for severity in SEVERITIES}


def shown(wrong: np.ndarray) -> pd.DataFrame:
    """Pictures x five severities."""
    return pd.DataFrame(wrong.astype(float), columns=list(FIVE))


def test_newcombes_own_example() -> None:
    """56 of 70 against 48 of 80: 0.0524 to 0.3339 (Statistics in Medicine 17, table II, method 10)."""
    found = difference(estimate(Proportion(hits=56, images=70)), estimate(Proportion(hits=48, images=80)))
    assert found.value == pytest.approx(0.2)
    assert (round(found.low, 4), round(found.high, 4)) == (0.0524, 0.3339)


def test_a_gap_is_the_difference_of_its_two_accuracies() -> None:
    same, random = Proportion(hits=56, images=70), Proportion(hits=48, images=80)
    assert estimate(Gap(same=same, random=random)) == difference(estimate(same), estimate(random))


def test_answers_that_repeat_count_once() -> None:
    """Wrong under one severity, wrong under all: five answers say what one does."""
    wrong = np.repeat([[1], [1], [1], [0], [0], [0], [0], [0], [0], [0]], 5, axis=1)
    found = mean_error(shown(wrong), FIVE)
    low, high = wilson(3, images=10)
    assert found.value == pytest.approx(0.3)
    assert found.low == pytest.approx(low)
    assert found.high == pytest.approx(high)


def test_answers_that_are_independent_count_each() -> None:
    wrong = np.random.default_rng(0).random((4000, 5)) < 0.3
    found = mean_error(shown(wrong), FIVE)
    low, high = wilson(int(wrong.sum()), images=wrong.size)
    assert found.value == pytest.approx(wrong.mean())
    assert found.high - found.low == pytest.approx(high - low, rel=0.05)


@pytest.mark.parametrize("everything", [0, 1])
def test_at_the_ends_the_interval_is_that_of_the_pictures(everything: int) -> None:
    found = mean_error(shown(np.full((8, 5), everything)), FIVE)
    assert (found.low, found.high) == wilson(8 * everything, images=8)
    assert found.high - found.low > 0.2


def test_pictures_that_were_not_shown_are_left_out() -> None:
    table = shown(np.array([[1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]))
    table.loc[2] = [np.nan, np.nan, 1.0, np.nan, np.nan]
    assert mean_error(table, FIVE).value == pytest.approx((4 * 0.5 + 2 / 3) / 5)


def test_a_weighted_sum_has_the_normal_interval() -> None:
    table = shown(np.array([[1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 0, 0]]))
    found = weighted(table, {"fog/1": 2.0, "fog/2": -1.0})
    each = np.array([2.0, 0.0, 1.0, 1.0])
    assert found.value == pytest.approx(each.mean())
    half = 1.959963984540054 * math.sqrt(((each - each.mean()) ** 2).sum()) / 4
    assert found.low == pytest.approx(1 - half)
    assert found.high == pytest.approx(1 + half)


def test_an_estimate_is_scaled_with_its_ends() -> None:
    assert Estimate(value=0.5, low=0.4, high=0.75).times(2) == Estimate(value=1.0, low=0.8, high=1.5)


def examination(*, clean: str) -> Predictions:
    """Ten pictures under all fifteen corruptions; more wrong the more severe. `clean`: the suite of the clean ones."""
    tables = []
    for corruption in ALEXNET:
        for severity in SEVERITIES:
            tables.append(_rows("imagenet_c", condition(corruption, severity), wrong=severity + 1))
    tables.append(_rows(clean, "clean", wrong=2))
    return gather(
        tables,
        track="imagenet",
        variant="made",
        classes=9,
        suites={"imagenet_c": 9, "clean": 9},
        superclass_of=range(9),
    )


def _rows(suite: str, condition: str, *, wrong: int) -> pd.DataFrame:
    decided = [5 if picture < wrong else 0 for picture in range(10)]
    tops = {f"top_{rank}": decided for rank in range(1, 6)}
    names = {"classifier": "baseline", "head": "label", "suite": suite, "condition": condition}
    images = [f"{picture}.png" for picture in range(10)]
    return pd.DataFrame({"image": images, **tops}).assign(**names, label=0, texture=-1, category=-1, probability=0.5)


@pytest.mark.parametrize("clean", ["imagenet_c", "clean"])
def test_values_are_those_of_the_corruption_errors(clean: str) -> None:
    made = examination(clean=clean)
    (one,) = corruption_errors(made)
    found = corruption_estimates(made, one)
    assert found.mean_error is not None
    assert found.mce is not None
    assert found.relative_mce is not None
    assert found.mean_error.value == pytest.approx(one.mean_error) == pytest.approx(0.4)
    assert found.mce.value == pytest.approx(one.mce)
    assert found.relative_mce.value == pytest.approx(one.relative_mce)
    for name in ALEXNET:
        assert found.errors[name].value == pytest.approx(one.mean(name))
        assert found.ce[name].value == pytest.approx(one.ce(name))
        assert found.relative_ce[name].value == pytest.approx(one.relative_ce(name))
        assert found.relative_ce[name].value == pytest.approx((0.4 - 0.2) / (ALEXNET[name] - ALEXNET_CLEAN))
        assert found.errors[name].low < 0.4 < found.errors[name].high
    assert found.mce.low < found.mce.value < found.mce.high


def test_what_cannot_be_had_is_none() -> None:
    made = examination(clean="clean")
    rows = made.rows[(made.rows["suite"] == "imagenet_c") & ~made.rows["condition"].str.startswith("fog")]
    made = Predictions(rows=rows, facts=made.facts)
    (one,) = corruption_errors(made)
    found = corruption_estimates(made, one)
    assert (found.mean_error, found.mce, found.relative_mce) == (None, None, None)
    assert found.relative_ce == {}
    assert set(found.errors) == set(found.ce) == set(ALEXNET) - {"fog"}
