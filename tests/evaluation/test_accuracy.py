"""Accuracy: Wilson's interval against published values and its own definition."""

import math
from itertools import product

import pandas as pd
import pytest
from cgn.evaluation.intervals import EQUAL, Z_95, Proportion, compared, wilson
from cgn.evaluation.metrics import accuracies, accuracy
from cgn.evaluation.predictions import Predictions


@pytest.mark.parametrize(
    ("hits", "images", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_equals_the_published_examples(hits: int, images: int, low: float, high: float) -> None:
    assert wilson(hits, images=images) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("hits", "images"), [(0, 1), (1, 1), (3, 10), (951, 1000), (10_000, 10_000), (89, 97)])
def test_the_ends_are_the_rates_that_lie_z_standard_errors_away(hits: int, images: int) -> None:
    for end in wilson(hits, images=images):
        error = math.sqrt(end * (1 - end) / images)
        assert abs(hits / images - end) == pytest.approx(Z_95 * error, abs=1e-12)


def test_the_interval_is_symmetric_nested_and_shrinks() -> None:
    for hits, images in product(range(8), (7, 14, 700)):
        low, high = wilson(hits, images=images)
        mirrored = wilson(images - hits, images=images)
        assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]))
        assert 0 <= low <= hits / images <= high <= 1
        wide = wilson(hits, images=images, z=3.0)
        assert wide[0] <= low
        assert high <= wide[1]
    assert wilson(50, images=100)[1] > wilson(500, images=1000)[1] > 0.5


def test_impossible_counts_are_refused() -> None:
    for hits, images in ((0, 0), (3, 2), (-1, 5)):
        with pytest.raises(ValueError, match=f"{hits} hits of {images} images"):
            Proportion(hits=hits, images=images)


def test_accuracy_counts_decisions_that_equal_the_shape() -> None:
    rows = pd.DataFrame(
        {
            "classifier": ["a", "a", "a", "b"],
            "condition": ["train", "train", "test", "test"],
            "label": [0, 1, 2, 3],
            "texture": [9, 9, 9, 9],
            "decision": [0, 9, 2, 9],
        }
    )
    assert accuracy(rows) == Proportion(hits=2, images=4)
    found = accuracies(Predictions(rows=rows, facts={"classes": 10}))
    assert found == {
        "a": {"test": Proportion(hits=1, images=1), "train": Proportion(hits=1, images=2)},
        "b": {"test": Proportion(hits=0, images=1)},
    }
    assert found["a"]["train"].share == 0.5


WILDLIFE = Proportion(hits=8587, images=10_000)


@pytest.mark.parametrize(
    ("measured", "published", "told"),
    [
        (WILDLIFE, 85.7, "equal within the interval"),  # 85.9 (85.2 to 86.5): "above the paper" it is not
        (Proportion(hits=9458, images=10_000), 95.1, "worse"),  # 94.6 (94.1 to 95.0)
        (Proportion(hits=8750, images=10_000), 86.5, "better"),  # 87.5 (86.8 to 88.1)
        (Proportion(hits=86, images=100), 79.0, "equal within the interval"),  # 77.9 to 91.5: few pictures decide less
        (Proportion(hits=0, images=100), 0.0, "equal within the interval"),
    ],
)
def test_a_published_number_inside_the_interval_is_neither_beaten_nor_missed(
    measured: Proportion, published: float, told: str
) -> None:
    assert compared(measured, published / 100) == told


def test_where_less_is_better_the_verdict_turns_round() -> None:
    few_errors = Proportion(hits=10, images=1000)
    assert compared(few_errors, 0.05, better="lower") == "better"
    assert compared(few_errors, 0.05) == "worse"
    assert compared(few_errors, 0.01, better="lower") == EQUAL


def test_a_source_that_rounds_is_not_beaten_by_its_rounding() -> None:
    measured = Proportion(hits=500, images=1000)
    edge = measured.low - 0.0003  # printed with one decimal of a percent, this may stand for more than `low`
    assert compared(measured, edge) == EQUAL
    assert compared(measured, edge, rounding=0.0) == "better"
