"""Shape bias: what counts and what does not, categories by their members' mean, and the picture of the bars."""

import pandas as pd
import pytest
import torch

from cgn.evaluation.accuracy import Proportion
from cgn.evaluation.confusion_picture import DARK, LIGHT, Theme
from cgn.evaluation.shape_bias import ShapeBias, by_shape, categories, shape_bias
from cgn.evaluation.shape_bias_picture import BAR, FOOT, GAP, LENGTH, NAMES, ROW, TITLE, bars


def rows(*decisions: tuple[int, int, int]) -> pd.DataFrame:
    return pd.DataFrame(decisions, columns=["label", "texture", "category"])


def test_only_conflicts_and_only_the_two_cues_count() -> None:
    table = rows((0, 1, 0), (0, 1, 1), (2, 1, 1), (2, 0, 5), (0, 3, -1), (1, 1, 1), (1, 1, 1))
    found = shape_bias(table)
    assert found == ShapeBias(shape=1, texture=2, conflicts=5)
    assert found.bias == Proportion(hits=1, images=3)
    assert found.decided == Proportion(hits=3, images=5)


def test_there_is_no_bias_without_a_decision_for_a_cue() -> None:
    assert shape_bias(rows((0, 1, 2))).bias is None
    assert shape_bias(rows((1, 1, 1))) == ShapeBias(shape=0, texture=0, conflicts=0)
    assert shape_bias(rows((1, 1, 1))).decided is None


def test_counts_by_shape_add_up_to_the_whole() -> None:
    table = rows((0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 2, 1), (2, 2, 2))
    parts = by_shape(table, names=("cat", "dog", "oven"))
    assert list(parts) == ["cat", "dog", "oven"]
    assert parts["cat"] == ShapeBias(shape=1, texture=1, conflicts=2)
    assert parts["oven"] == ShapeBias(shape=0, texture=0, conflicts=0)
    assert sum(part.shape for part in parts.values()) == shape_bias(table).shape


def test_a_category_is_judged_by_its_members_mean_not_by_their_sum_or_best() -> None:
    probabilities = torch.tensor([[0.30, 0.14, 0.14, 0.14, 0.28], [0.30, 0.25, 0.25, 0.05, 0.15]])
    members = ((1, 2, 3), (0, 4), (4,))
    assert categories(probabilities, members=members).tolist() == [1, 1]
    assert categories(probabilities, members=((1, 2, 3), (0,), (4,))).tolist() == [1, 1]
    assert categories(probabilities, members=((1, 2), (3, 0))).tolist() == [1, 0]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_bars_are_split_at_the_bias(theme: Theme) -> None:
    heads = {
        "shape": {"cat": ShapeBias(shape=3, texture=1, conflicts=9), "dog": ShapeBias(shape=0, texture=0, conflicts=2)},
        "texture": {
            "cat": ShapeBias(shape=0, texture=4, conflicts=9),
            "dog": ShapeBias(shape=1, texture=0, conflicts=2),
        },
    }
    picture = bars(heads, theme=theme)
    width = picture.width // 2
    assert picture.height == TITLE + 3 * ROW + FOOT + 2 * GAP
    edge = GAP + TITLE + ROW // 2 - BAR // 2 + 2  # a line near the first bar's upper edge
    first = [picture.getpixel((GAP + NAMES + place, edge)) for place in range(LENGTH)]
    assert first.count(theme.ramp[-1]) == pytest.approx(0.75 * LENGTH, abs=4)
    assert first.count(theme.ramp[1]) == pytest.approx(0.25 * LENGTH, abs=4)
    undecided = [picture.getpixel((GAP + NAMES + place, edge + ROW)) for place in range(2, LENGTH - 2)]
    assert theme.ramp[-1] not in undecided
    other = [picture.getpixel((width + NAMES + place, edge)) for place in range(30, LENGTH - 30)]
    assert theme.ramp[-1] not in other
