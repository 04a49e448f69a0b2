"""Stored predictions of both tracks: equal rows give equal bytes, and no broken or foreign table is read."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cgn.core.errors import ArtifactError
from cgn.evaluation.predictions import (
    NONE,
    Predictions,
    gather,
    image_names,
    prediction_rows,
    read_predictions,
    write_predictions,
)
from tests.conftest import ROOT

CLASSES = 7
SUITES = {"cue": 3, "plain": 3}
MNIST: dict[str, Any] = {"track": "mnist", "variant": "digits", "classes": 10, "suites": {"splits": 10}}
IMAGENET: dict[str, Any] = {"track": "imagenet", "variant": "toy", "classes": CLASSES, "suites": SUITES}


def digits(classifier: str, condition: str, *, images: int = 7, seed: int = 0) -> pd.DataFrame:
    """One arm's rows on a split."""
    random = np.random.default_rng(seed)
    return prediction_rows(
        classifier=classifier,
        head="label",
        suite="splits",
        condition=condition,
        images=image_names(images),
        labels={name: random.integers(0, 10, images) for name in ("shape", "texture", "background")},
        tops=random.integers(0, 10, (images, 5)),
        probability=random.random(images),
    )


def pictures(suite: str, *, images: int, textured: bool = False) -> list[pd.DataFrame]:
    """The rows of two heads of a network of seven classes."""
    random = np.random.default_rng(images)
    labels = {"shape": random.integers(0, 3, images)}
    if textured:
        labels["texture"] = random.integers(0, 3, images)
    return [
        prediction_rows(
            classifier="linear",
            head=head,
            suite=suite,
            condition="all",
            images=[f"a/{number:02d}.png" for number in range(images)],
            labels=labels,
            tops=random.integers(0, CLASSES, (images, 5)),
            category=random.integers(0, 3, images),
            probability=random.random(images),
        )
        for head in ("shape", "texture")
    ]


@pytest.fixture
def mnist() -> Predictions:
    return gather([digits("gan", "train", seed=1), digits("original", "test_random", seed=2)], **MNIST)


@pytest.fixture
def imagenet() -> Predictions:
    return gather([*pictures("cue", images=9, textured=True), *pictures("plain", images=5)], **IMAGENET)


@pytest.fixture(params=["mnist", "imagenet"])
def predictions(request: pytest.FixtureRequest) -> Predictions:
    """Of either track: one schema for both."""
    found: Predictions = request.getfixturevalue(request.param)
    return found


def test_what_was_written_is_read(tmp_path: Path, predictions: Predictions) -> None:
    write_predictions(predictions, tmp_path / "decisions.parquet")
    again = read_predictions(tmp_path / "decisions.parquet")
    assert again.facts == predictions.facts
    pd.testing.assert_frame_equal(again.rows, predictions.rows[again.rows.columns], check_dtype=False)
    assert list(again.rows.columns) == [
        "classifier", "head", "suite", "condition", "image", "label", "texture", "background",
        "top_1", "top_2", "top_3", "top_4", "top_5", "category", "probability",
    ]  # fmt: skip


def test_rows_are_chosen_by_suite_classifier_head_and_condition(mnist: Predictions, imagenet: Predictions) -> None:
    assert mnist.classifiers == ("gan", "original")
    assert mnist.heads("gan") == ("label",)
    assert mnist.classes == 10
    assert list(mnist.of(classifier="gan", condition="train")["image"]) == [f"{number:06d}" for number in range(7)]
    assert mnist.of(classifier="gan", condition="test_random").empty
    assert imagenet.classifiers == ("linear",)
    assert imagenet.heads("linear") == ("shape", "texture")
    assert len(imagenet.of("cue")) == 18
    assert len(imagenet.of("cue", head="texture", classifier="linear")) == 9
    assert imagenet.of("cue", classifier="another").empty
    with pytest.raises(AssertionError, match="'gan' is none of splits"):
        mnist.of("gan")  # a suite comes first, not a classifier
    assert len(imagenet.of()) == 28


def test_what_a_track_does_not_have_is_minus_one(mnist: Predictions, imagenet: Predictions) -> None:
    assert set(mnist.rows["category"]) == {NONE}
    assert set(imagenet.rows["background"]) == set(imagenet.of("plain")["texture"]) == {NONE}
    few = prediction_rows(
        classifier="x", head="label", suite="s", condition="c", images=["a"], labels={"shape": [2]},
        tops=np.array([[2, 0, 1]]), probability=np.array([0.5]),
    )  # fmt: skip
    assert few[["top_1", "top_2", "top_3", "top_4", "top_5"]].to_numpy().tolist() == [[2, 0, 1, NONE, NONE]]


def test_numbers_of_images_sort_as_numbers() -> None:
    names = image_names(1001)
    assert names == sorted(names, key=int)
    assert names == sorted(names)


@pytest.mark.parametrize("track", ["mnist", "imagenet"])
def test_the_order_of_gathering_leaves_no_trace_in_the_bytes(tmp_path: Path, track: str) -> None:
    if track == "mnist":
        facts = MNIST
        tables = [digits("gan", "train", seed=1), digits("gan", "test_iid", seed=2), digits("original", "train")]
    else:
        facts, tables = IMAGENET, [*pictures("cue", images=9, textured=True), *pictures("plain", images=5)]
    write_predictions(gather(tables, **facts), tmp_path / "one.parquet")
    write_predictions(gather(tables[::-1], **dict(reversed(facts.items()))), tmp_path / "other.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "other.parquet").read_bytes()
    tables[0]["top_1"] = (tables[0]["top_1"] + 1) % CLASSES
    write_predictions(gather(tables, **facts), tmp_path / "third.parquet")
    assert (tmp_path / "one.parquet").read_bytes() != (tmp_path / "third.parquet").read_bytes()
    assert {path.suffix for path in tmp_path.iterdir()} == {".parquet"}


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"decisions\.parquet is missing: run the stage"):
        read_predictions(tmp_path / "decisions.parquet")


@pytest.mark.parametrize("kept", [0, 3, 200, -20])
def test_a_truncated_file_is_refused(tmp_path: Path, predictions: Predictions, kept: int) -> None:
    path = tmp_path / "decisions.parquet"
    write_predictions(predictions, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ArtifactError, match=r"decisions\.parquet is broken \(.*\): run the stage"):
        read_predictions(path)


def test_lacking_columns_are_named(tmp_path: Path, predictions: Predictions) -> None:
    path = tmp_path / "decisions.parquet"
    pq.write_table(pa.Table.from_pandas(predictions.rows.drop(columns=["texture", "top_1"])), path)
    with pytest.raises(ArtifactError, match="lacks the columns texture, top_1: run the stage"):
        read_predictions(path)


def test_a_table_that_names_no_owner_is_refused(tmp_path: Path, predictions: Predictions) -> None:
    path = tmp_path / "decisions.parquet"
    pq.write_table(pa.Table.from_pandas(predictions.rows, preserve_index=False), path)
    with pytest.raises(ArtifactError, match="does not say whose decisions"):
        read_predictions(path)


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("label", 3, "has a label outside the classes of its suite"),
        ("label", -1, "has a label outside the classes of its suite"),
        ("texture", -2, "has a label outside the classes of its suite"),
        ("background", 3, "has a label outside the classes of its suite"),
        ("top_1", -1, "has a decision outside 0 to 6"),
        ("top_5", CLASSES, "has a decision outside 0 to 6"),
        ("category", -2, "has a category under -1"),
        ("probability", 1.5, r"has a probability outside \[0,1\]"),
        ("image", "a/01.png", "holds two decisions of one head on one image"),
        ("suite", "foreign", "does not say how many classes the labels of foreign have"),
    ],
)
def test_impossible_values_of_pictures_are_refused(
    tmp_path: Path, imagenet: Predictions, column: str, value: float | str, match: str
) -> None:
    imagenet.rows.loc[0, column] = value
    write_predictions(imagenet, tmp_path / "decisions.parquet")
    with pytest.raises(ArtifactError, match=rf"decisions\.parquet {match}.*: run the stage"):
        read_predictions(tmp_path / "decisions.parquet")


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("top_1", 10, "has a decision outside 0 to 9"),
        ("label", -1, "has a label outside the classes of its suite"),
        ("background", 10, "has a label outside the classes of its suite"),
        ("probability", 1.5, r"has a probability outside \[0,1\]"),
        ("image", "000001", "holds two decisions of one head on one image"),
    ],
)
def test_impossible_values_of_digits_are_refused(
    tmp_path: Path, mnist: Predictions, column: str, value: float | str, match: str
) -> None:
    mnist.rows.loc[0, column] = value
    write_predictions(mnist, tmp_path / "decisions.parquet")
    with pytest.raises(ArtifactError, match=match):
        read_predictions(tmp_path / "decisions.parquet")


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    write_predictions(gather([digits("gan", "train", images=0)], **MNIST), tmp_path / "decisions.parquet")
    with pytest.raises(ArtifactError, match="holds no decision"):
        read_predictions(tmp_path / "decisions.parquet")


def rewritten(path: Path, *, column: str, row: int = 0) -> None:
    """The table in `path` with an empty cell, as another program may write it; the facts stay."""
    held = pq.read_table(path)
    values = held.column(column).to_pylist()
    values[row] = None
    field = pa.field(column, held.schema.field(column).type)
    changed = held.set_column(held.schema.get_field_index(column), field, pa.array(values, type=field.type))
    pq.write_table(changed.replace_schema_metadata(held.schema.metadata), path)


@pytest.mark.parametrize("column", ["label", "condition", "probability"])
def test_an_empty_cell_is_refused_with_its_column(tmp_path: Path, predictions: Predictions, column: str) -> None:
    path = tmp_path / "decisions.parquet"
    write_predictions(predictions, path)
    rewritten(path, column=column)
    with pytest.raises(ArtifactError, match=rf"decisions\.parquet has rows without a value in {column}: run the stage"):
        read_predictions(path)


def test_facts_that_are_missing_are_named(tmp_path: Path, predictions: Predictions) -> None:
    path = tmp_path / "decisions.parquet"
    write_predictions(Predictions(rows=predictions.rows, facts={"track": "imagenet", "variant": "toy"}), path)
    lacking = "does not say its classes, suites, unreadable, superclass_of, categories, remarks: run the stage"
    with pytest.raises(ArtifactError, match=lacking):
        read_predictions(path)


@pytest.mark.parametrize("facts", [[], 3])
def test_facts_that_are_no_object_are_refused(tmp_path: Path, predictions: Predictions, facts: Any) -> None:
    path = tmp_path / "decisions.parquet"
    write_predictions(predictions, path)
    held = pq.read_table(path)
    pq.write_table(held.replace_schema_metadata({"facts": json.dumps(facts)}), path)
    with pytest.raises(ArtifactError, match=r"decisions\.parquet does not say whose decisions it holds: run the stage"):
        read_predictions(path)


def test_facts_nested_without_end_are_refused(tmp_path: Path, predictions: Predictions) -> None:
    path = tmp_path / "decisions.parquet"
    write_predictions(predictions, path)
    pq.write_table(pq.read_table(path).replace_schema_metadata({"facts": "[" * 100_000}), path)
    with pytest.raises(ArtifactError, match=r"decisions\.parquet is broken \(its values are nested"):
        read_predictions(path)


@pytest.mark.parametrize("value", [None, "ten", "10", [], -1, True])
def test_classes_that_are_no_number_are_refused(tmp_path: Path, predictions: Predictions, value: object) -> None:
    path = tmp_path / "decisions.parquet"
    write_predictions(Predictions(rows=predictions.rows, facts={**predictions.facts, "classes": value}), path)
    with pytest.raises(ArtifactError, match=r"says that its classes are .*, no number of classes: run the stage"):
        read_predictions(path)


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("track", 3),
        ("suites", ["cue"]),
        ("suites", {"cue": "three"}),
        ("superclass_of", [None]),
        ("remarks", 4),
        ("unreadable", 3),
        ("categories", {}),
        ("shown", []),
        ("shown", {"suites": 3}),
    ],
)
def test_facts_of_another_form_are_refused(tmp_path: Path, predictions: Predictions, fact: str, value: object) -> None:
    path = tmp_path / "decisions.parquet"
    write_predictions(Predictions(rows=predictions.rows, facts={**predictions.facts, fact: value}), path)
    with pytest.raises(ArtifactError, match=f"says its {fact} in another form than evaluate writes: run the stage"):
        read_predictions(path)


def test_predictions_are_read_and_measured_without_torch() -> None:
    """A report starts in a second without it."""
    modules = ("predictions", "metrics", "intervals", "corruption_error", "suites", "expected", "suite_tables")
    words = "; ".join(f"import cgn.evaluation.{module}" for module in modules)
    check = "import sys; assert 'pandas' in sys.modules; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", f"{words}; {check}"], cwd=ROOT, check=False)
    assert done.returncode == 0
