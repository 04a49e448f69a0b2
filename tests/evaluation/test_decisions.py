"""Predictions: equal rows give equal bytes, and no broken or foreign table is read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cgn.evaluation.predictions import Predictions, gather, read, table, write

from cgn.core.errors import ArtifactError

FACTS = {"track": "mnist", "variant": "digits", "classes": 10}


def table(classifier: str, condition: str, *, images: int = 7, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    labels = {name: random.integers(0, 10, images) for name in ("shape", "texture", "background")}
    return decided(
        classifier,
        condition=condition,
        labels=labels,
        decision=random.integers(0, 10, images),
        probability=random.random(images),
    )


@pytest.fixture
def decisions() -> Predictions:
    return gather([table("gan", "train", seed=1), table("original", "test_random", seed=2)], facts=FACTS)


def test_what_was_written_is_read(tmp_path: Path, decisions: Predictions) -> None:
    write(decisions, tmp_path / "decisions.parquet")
    again = read(tmp_path / "decisions.parquet")
    assert again.facts == FACTS
    assert again.classifiers == ("gan", "original")
    pd.testing.assert_frame_equal(again.rows, decisions.rows, check_dtype=False)
    assert list(again.of("gan", condition="train")["index"]) == list(range(7))
    assert again.of("gan", condition="test_random").empty


def test_the_order_of_gathering_leaves_no_trace_in_the_bytes(tmp_path: Path) -> None:
    tables = [table("gan", "train", seed=1), table("gan", "test_iid", seed=2), table("original", "train", seed=3)]
    write(gather(tables, facts=FACTS), tmp_path / "one.parquet")
    write(gather(tables[::-1], facts=dict(reversed(FACTS.items()))), tmp_path / "other.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "other.parquet").read_bytes()
    tables[0]["decision"] = (tables[0]["decision"] + 1) % 10
    write(gather(tables, facts=FACTS), tmp_path / "third.parquet")
    assert (tmp_path / "one.parquet").read_bytes() != (tmp_path / "third.parquet").read_bytes()
    assert {path.suffix for path in tmp_path.iterdir()} == {".parquet"}


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"decisions\.parquet is missing: run the stage"):
        read(tmp_path / "decisions.parquet")


@pytest.mark.parametrize("kept", [0, 3, 200, -20])
def test_a_truncated_file_is_refused(tmp_path: Path, decisions: Predictions, kept: int) -> None:
    path = tmp_path / "decisions.parquet"
    write(decisions, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ArtifactError, match=r"decisions\.parquet is broken \(.*\): run the stage"):
        read(path)


def test_lacking_columns_are_named(tmp_path: Path, decisions: Predictions) -> None:
    path = tmp_path / "decisions.parquet"
    pq.write_table(pa.Table.from_pandas(decisions.rows.drop(columns=["texture", "decision"])), path)
    with pytest.raises(ArtifactError, match="lacks the columns texture, decision"):
        read(path)


def test_a_table_that_names_no_owner_is_refused(tmp_path: Path, decisions: Predictions) -> None:
    path = tmp_path / "decisions.parquet"
    pq.write_table(pa.Table.from_pandas(decisions.rows, preserve_index=False), path)
    with pytest.raises(ArtifactError, match="does not say whose decisions"):
        read(path)


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("decision", 10, "has a decision outside 0 to 9"),
        ("label", -1, "has a label outside 0 to 9"),
        ("probability", 1.5, r"has a probability outside \[0,1\]"),
        ("index", 1, "holds two decisions of one classifier on one image"),
    ],
)
def test_impossible_values_are_refused(
    tmp_path: Path, decisions: Predictions, column: str, value: float, match: str
) -> None:
    decisions.rows.loc[0, column] = value
    write(decisions, tmp_path / "decisions.parquet")
    with pytest.raises(ArtifactError, match=match):
        read(tmp_path / "decisions.parquet")


@pytest.mark.parametrize(
    "facts", [[], 3, {**FACTS, "classes": []}, {**FACTS, "classes": "ten"}, {**FACTS, "classes": -1}]
)
def test_facts_of_a_wrong_kind_are_refused(tmp_path: Path, decisions: Predictions, facts: Any) -> None:
    path = tmp_path / "decisions.parquet"
    write(decisions, path)
    found = pq.read_table(path)
    pq.write_table(found.replace_schema_metadata({"facts": json.dumps(facts)}), path)
    with pytest.raises(ArtifactError, match=r"decisions\.parquet (does not say whose|says that its classes are)"):
        read(path)


def test_facts_nested_without_end_are_refused(tmp_path: Path, decisions: Predictions) -> None:
    path = tmp_path / "decisions.parquet"
    write(decisions, path)
    pq.write_table(pq.read_table(path).replace_schema_metadata({"facts": "[" * 100_000}), path)
    with pytest.raises(ArtifactError, match=r"decisions\.parquet is broken \(its values are nested"):
        read(path)


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    write(gather([table("gan", "train", images=0)], facts=FACTS), tmp_path / "decisions.parquet")
    with pytest.raises(ArtifactError, match="holds no decision"):
        read(tmp_path / "decisions.parquet")


def rewritten(path: Path, *, column: str, row: int = 0) -> None:
    """The table in `path` with an empty cell, as another program may write it; the facts stay."""
    held = pq.read_table(path)
    values = held.column(column).to_pylist()
    values[row] = None
    field = pa.field(column, held.schema.field(column).type)
    changed = held.set_column(held.schema.get_field_index(column), field, pa.array(values, type=field.type))
    pq.write_table(changed.replace_schema_metadata(held.schema.metadata), path)


@pytest.mark.parametrize("column", ["label", "condition", "probability"])
def test_an_empty_cell_is_refused_with_its_column(tmp_path: Path, decisions: Predictions, column: str) -> None:
    path = tmp_path / "decisions.parquet"
    write(decisions, path)
    rewritten(path, column=column)
    with pytest.raises(ArtifactError, match=rf"decisions\.parquet has rows without a value in {column}: run the stage"):
        read(path)


@pytest.mark.parametrize(
    ("facts", "match"),
    [
        ([], "does not say whose decisions it holds"),
        ({**FACTS, "classes": None}, "says that its classes are None, no number of classes"),
        ({**FACTS, "classes": "10"}, "says that its classes are '10'"),
    ],
)
def test_facts_of_another_form_are_refused(tmp_path: Path, decisions: Predictions, facts: Any, match: str) -> None:
    path = tmp_path / "decisions.parquet"
    write(decisions, path)
    held = pq.read_table(path)
    pq.write_table(held.replace_schema_metadata({"facts": json.dumps(facts)}), path)
    with pytest.raises(ArtifactError, match=match):
        read(path)
