"""Confusion matrices and cues: their sums, what they say of classifiers that follow one cue, and their pictures."""

import numpy as np
import pandas as pd
import pytest

from cgn.evaluation.metrics import accuracy, by_label, confusion, followed, largest_error, separable
from cgn.evaluation.predictions import CUES

IMAGES = 4000


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    random = np.random.default_rng(0)
    names = ("label", "texture", "background", "top_1")
    return pd.DataFrame({name: random.integers(0, 10, IMAGES) for name in names})


@pytest.mark.parametrize("cue", CUES)
def test_sums_are_the_images_and_the_diagonal_is_the_share(rows: pd.DataFrame, cue: str) -> None:
    matrix = confusion(rows, classes=10, cue=cue)
    assert matrix.shape == (10, 10)
    assert matrix.sum() == IMAGES
    assert list(matrix.sum(axis=1)) == [int((rows[CUES[cue]] == label).sum()) for label in range(10)]
    assert list(matrix.sum(axis=0)) == [int((rows["top_1"] == label).sum()) for label in range(10)]
    assert matrix.trace() == followed(rows)[cue].hits
    np.testing.assert_allclose(by_label(matrix).sum(axis=1), 1)


def test_one_row_lands_where_its_labels_say() -> None:
    one = pd.DataFrame({"label": [2], "texture": [5], "background": [7], "top_1": [5]})
    assert np.argwhere(confusion(one, classes=10)).tolist() == [[2, 5]]
    assert np.argwhere(confusion(one, classes=10, cue="background")).tolist() == [[7, 5]]
    assert {cue: share.hits for cue, share in followed(one).items()} == {"shape": 0, "texture": 1, "background": 0}


@pytest.mark.parametrize("cue", CUES)
def test_a_classifier_that_follows_one_cue_is_found_out(rows: pd.DataFrame, cue: str) -> None:
    shares = followed(rows.assign(top_1=rows[CUES[cue]]))
    assert shares[cue].share == 1
    assert all(share.low < 0.1 < share.high for name, share in shares.items() if name != cue)
    assert shares["shape"] == accuracy(rows.assign(top_1=rows[CUES[cue]]))


def test_a_cue_that_always_equals_shape_is_not_listed(rows: pd.DataFrame) -> None:
    black = rows.assign(background=rows["label"])
    assert separable(rows) == ("shape", "texture", "background")
    assert separable(black) == ("shape", "texture")
    assert set(followed(black)) == {"shape", "texture"}


def test_an_unknown_cue_is_refused(rows: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="unknown cue 'colour'; known: shape, texture, background"):
        confusion(rows, classes=10, cue="colour")


def test_the_largest_error_is_a_share_of_its_label() -> None:
    matrix = np.array([[8, 2, 0], [0, 1, 1], [30, 0, 970]])
    assert largest_error(matrix) == (1, 2, 0.5)
    assert largest_error(np.diag([3, 4, 0])) is None
    assert by_label(np.zeros((2, 2), dtype=np.int64)).tolist() == [[0, 0], [0, 0]]
