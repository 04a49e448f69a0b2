"""Decisions: one row per image, classifier and condition, on disk as parquet; every metric is derived from them.

Legend: `classifier` is the arm, `condition` the split, `index` the image's number within the split; `label` (the
shape's), `texture`, `background` and `decision` are classes from 0; `probability` is that of the decision.
Decided here: rows are kept sorted and without pandas' own metadata, so equal decisions give equal bytes in whatever
order they were gathered; a table that is read has been checked, so what computes from it need not doubt it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cgn.core.errors import ArtifactError
from cgn.core.files import json_value, replacing

NAMES = ("classifier", "condition")
CLASSES = ("label", "texture", "background", "decision")
KEY = (*NAMES, "index")
ROWS_PER_GROUP = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """The rows (columns as in the legend, sorted by classifier, condition and index) and whose they are."""

    rows: pd.DataFrame
    facts: Mapping[str, Any]
    """At least {"track", "variant", "classes"}."""

    @property
    def classes(self) -> int:
        """How many classes labels and decisions are drawn from."""
        return int(self.facts["classes"])

    @property
    def classifiers(self) -> tuple[str, ...]:
        """The arms that decided, in alphabetical order."""
        return tuple(str(name) for name in sorted(self.rows["classifier"].unique()))

    def of(self, classifier: str, *, condition: str) -> pd.DataFrame:
        """The rows of one classifier under one condition; none where it was not run."""
        return self.rows[(self.rows["classifier"] == classifier) & (self.rows["condition"] == condition)]


def decided(
    classifier: str,
    *,
    condition: str,
    labels: Mapping[str, "np.ndarray[Any, Any]"],
    decision: "np.ndarray[Any, Any]",
    probability: "np.ndarray[Any, Any]",
) -> pd.DataFrame:
    """The rows of one classifier on the N images of one condition; every array is (N,), in the split's order.

    `labels` holds shape, texture and background.
    """
    columns = {
        "classifier": [classifier] * len(decision),
        "condition": [condition] * len(decision),
        "index": np.arange(len(decision), dtype=np.int64),
        "label": labels["shape"],
        "texture": labels["texture"],
        "background": labels["background"],
        "decision": decision,
        "probability": probability.astype(np.float32),
    }
    return pd.DataFrame(columns)


def gathered(tables: Sequence[pd.DataFrame], *, facts: Mapping[str, Any]) -> Decisions:
    """Tables of `decided` as one, sorted; it does not matter in which order they come."""
    rows = pd.concat(tables, ignore_index=True)
    return Decisions(rows=rows.sort_values(list(KEY), ignore_index=True), facts=dict(facts))


def write(decisions: Decisions, path: Path) -> None:
    """Write parquet, whole or not at all. Equal decisions give equal bytes for one version of pyarrow."""
    write_table(decisions.rows, path, schema=_schema(), facts=decisions.facts)


def read(path: Path) -> Decisions:
    """Read and check what `write` wrote. Raises ArtifactError when the file is missing, broken or of another kind."""
    rows, facts = read_table(path, schema=_schema())
    decisions = Decisions(rows=rows, facts=facts)
    if problem := _problem(decisions):
        raise ArtifactError(f"{path} {problem}: {_again(path)}")
    return decisions


def write_table(rows: pd.DataFrame, path: Path, *, schema: Any, facts: Mapping[str, Any]) -> None:
    """Write the columns of `schema` (pyarrow's) as parquet, `facts` (JSON) beside them, whole or not at all."""
    schema = schema.with_metadata({"facts": json.dumps(dict(facts), sort_keys=True)})
    table = pa.Table.from_pandas(rows, schema=schema, preserve_index=False).replace_schema_metadata(schema.metadata)
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=ROWS_PER_GROUP)


def read_table(path: Path, *, schema: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Rows and facts of what `write_table` wrote.

    Raises ArtifactError when the file is missing or broken, or lacks a column of `schema` or the facts.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: {_again(path)}")
    try:
        with pq.ParquetFile(path) as file:
            lacking = [name for name in schema.names if name not in file.schema_arrow.names]
            if lacking:
                raise ArtifactError(f"{path} lacks the columns {', '.join(lacking)}: {_again(path)}")
            facts = json_value((file.schema_arrow.metadata or {})[b"facts"])
            table = file.read(columns=schema.names)
            if empty := [name for name in schema.names if table.column(name).null_count]:
                raise ArtifactError(f"{path} has rows without a value in {', '.join(empty)}: {_again(path)}")
            rows = table.cast(schema).to_pandas()
    except KeyError:
        raise ArtifactError(f"{path} does not say whose decisions it holds: {_again(path)}") from None
    except ArtifactError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtifactError(f"{path} is broken ({reason}): {_again(path)}") from None
    if not isinstance(facts, dict):
        raise ArtifactError(f"{path} does not say whose decisions it holds: {_again(path)}")
    return rows, facts


def _again(path: Path) -> str:
    return f"run the stage that makes {path.parent} again"


def _schema() -> Any:
    types = {
        **dict.fromkeys(NAMES, pa.string()),
        "index": pa.int64(),
        **dict.fromkeys(CLASSES, pa.int16()),
        "probability": pa.float32(),
    }
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])


def _facts_problem(facts: Mapping[str, Any]) -> str | None:
    if unknown := [name for name in ("track", "variant", "classes") if name not in facts]:
        return f"does not say its {', '.join(unknown)}"
    if type(classes := facts["classes"]) is not int or not 0 < classes < 1 << 15:
        return f"says that its classes are {classes!r}, no number of classes"
    return None


def _problem(decisions: Decisions) -> str | None:
    """What is wrong with the values of a table that has the right columns; None when nothing is."""
    rows = decisions.rows
    if problem := _facts_problem(decisions.facts):
        return problem
    if rows.empty:
        return "holds no decision"
    last = decisions.classes - 1
    possible = {
        **{f"has a {name} outside 0 to {last}": rows[name].between(0, last) for name in CLASSES},
        "has a probability outside [0,1]": rows["probability"].between(0, 1),
        "holds two decisions of one classifier on one image": ~rows.duplicated(list(KEY)),
    }
    return next((problem for problem, kept in possible.items() if not kept.all()), None)
