"""Shape bias: what counts and what does not, categories by their members' mean, and the picture of the bars."""

import pandas as pd
import torch

from cgn.evaluation.intervals import Proportion
from cgn.evaluation.metrics import ShapeBias, by_shape, shape_bias, undecided
from cgn.evaluation.predict import categories


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


def stimuli(*, shape: int, texture: int, neither: int) -> pd.DataFrame:
    return rows(*[(0, 1, 0)] * shape, *[(0, 1, 1)] * texture, *[(0, 1, 2)] * neither)


def clean(*, right: int, images: int) -> pd.DataFrame:
    """Nine classes in turn; the first `right` pictures are right, the others wrong."""
    label = [number % 9 for number in range(images)]
    decided = [best if number < right else (best + 1) % 9 for number, best in enumerate(label)]
    return pd.DataFrame({"label": label, "top_1": decided})


def test_a_head_at_chance_on_clean_pictures_is_undecided_whatever_its_bias() -> None:
    sure = stimuli(shape=40, texture=2, neither=102)
    assert undecided(sure, clean(right=450, images=450), categories=9) is None
    reason = undecided(sure, clean(right=50, images=450), categories=9)
    assert reason == "no better than chance on clean pictures: top-1 11.1 % (8.5 to 14.4), chance 11.1 %"
    assert undecided(sure, clean(right=60, images=450), categories=9) is not None, "10.5 to 16.8"
    assert undecided(sure, clean(right=70, images=450), categories=9) is None


def test_one_answer_for_every_picture_is_chance_however_the_classes_are_shared_out() -> None:
    """A thousand answers, but pictures of two classes: whoever always names the first is right in 90 %."""
    pictures = pd.DataFrame({"label": [0] * 90 + [1] * 10, "top_1": [0] * 100})
    assert "chance 90.0 %" in str(undecided(stimuli(shape=40, texture=2, neither=0), pictures, categories=9))


def test_an_interval_that_holds_half_is_undecided() -> None:
    """19 for shape and 18 for texture of 144 are "51.4 %", 20 and 29 are "40.8 %": both what tossing a coin gives."""
    good = clean(right=450, images=450)
    for shape, texture in ((19, 18), (20, 29), (3, 1)):
        assert undecided(stimuli(shape=shape, texture=texture, neither=50), good, categories=9) == (
            "its interval holds the 50 % that guessing gives"
        )
    assert undecided(stimuli(shape=33, texture=11, neither=100), good, categories=9) is None
    assert undecided(stimuli(shape=5, texture=57, neither=82), good, categories=9) is None


def test_without_a_decision_for_a_cue_it_is_undecided() -> None:
    assert undecided(stimuli(shape=0, texture=0, neither=9), clean(right=9, images=9), categories=9) is not None


def test_without_clean_pictures_guessing_at_the_stimuli_is_undecided() -> None:
    """Random weights: 150 of 1,200 decided, as two categories in sixteen are, most of them for shape."""
    nothing = pd.DataFrame()
    reason = undecided(stimuli(shape=93, texture=57, neither=1050), nothing, categories=16)
    assert reason == "no more decisions for either cue than guessing gives: 12.5 % (10.7 to 14.5), 12.5 %"
    assert undecided(stimuli(shape=193, texture=57, neither=950), nothing, categories=16) is None


def test_the_shape_accuracy_counts_all_conflicts() -> None:
    assert shape_bias(stimuli(shape=19, texture=18, neither=107)).accuracy == Proportion(hits=19, images=144)
    assert shape_bias(rows((1, 1, 1))).accuracy is None
