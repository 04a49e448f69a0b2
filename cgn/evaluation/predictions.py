"""Stored predictions: one row per image and head of a classifier, on disk as parquet; every metric derives from them.

Both tracks have this one schema:

    classifier, head    who predicts: MNIST's arm, ImageNet's classifier or network; and which of its heads, or means of
                        heads. A network of one head calls it `label`, as every MNIST classifier does.
    suite, condition    the benchmark and its part: a variation, a corruption with its severity. MNIST has one suite,
                        `splits`, whose conditions are the splits of its data.
    image               the picture's path within its condition; on MNIST its number in the split, six digits
    label, texture, background
                        the label of each cue, in the suite's own classes (1000 on ImageNet, 9 superclasses, 16
                        categories, 10 digits); -1 where the suite has none. `label` is the shape's.
    top_1 ... top_5     the classes, best first, -1 where there are fewer; `top_1` is the decision
    category            the decision among the 16 categories, from all probabilities (`cgn.evaluation.predict`); -1
                        where there are none, as on MNIST
    probability         of top_1, in [0,1]

What needs all probabilities is computed before they are forgotten, so the table suffices. `facts` say whose predictions
these are, to which superclass a class belongs and what the categories are called. A picture that could not be read has
no row; it is named in the facts, and `remarks` name what else a suite lacked. Rows are sorted and stored without
pandas' own metadata, so equal predictions give equal bytes in whatever order they were computed. What is read has
been checked. Nothing here needs torch.
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

FILE = "decisions.parquet"
"""What evaluate calls the table."""
NAMES = ("classifier", "head", "suite", "condition", "image")
CUES = {"shape": "label", "texture": "texture", "background": "background"}
"""Cue -> the column that holds its label."""
TOPS = ("top_1", "top_2", "top_3", "top_4", "top_5")
NONE = -1
"""Stands where a suite has no label for a cue, or a network no such class."""
HEADS = ("label", "shape", "texture", "background", "avg", "shape_texture")
"""In the order of tables; a head of another name comes after them."""
SPLITS = "splits"
"""MNIST's suite."""
CLEAN, IN9, CUE_CONFLICT, STYLIZED, IMAGENET_C = SUITES = ("clean", "in9", "cue_conflict", "stylized", "imagenet_c")
"""ImageNet's suites."""
FACTS: Mapping[str, type] = {
    "track": str,
    "variant": str,
    "classes": int,
    "suites": dict,
    "unreadable": list,
    "superclass_of": list,
    "categories": list,
    "remarks": list,
}
"""Fact -> its type as JSON."""
ROWS_PER_GROUP = 1 << 20
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The rows, sorted by NAMES, and whose they are."""

    rows: pd.DataFrame
    facts: Mapping[str, Any]
    """Track, variant, `classes` of the networks, `suites` (suite -> classes of its labels), `unreadable` (sentences),
    `superclass_of` (each class's, -1 for none), `categories` (names), `remarks` (sentences), and where it is known
    `shown`: `classifiers` (network, recipe, preparation, file and its SHA-256 of each), `suites` (what is done to the
    pictures of each, in words) and `corrupted_by` (here, fetch or user: who made the corrupted pictures)."""

    @property
    def classes(self) -> int:
        """How many classes the networks choose from."""
        return int(self.facts["classes"])

    @property
    def classifiers(self) -> tuple[str, ...]:
        """The evaluated networks, in alphabetical order."""
        return tuple(sorted(map(str, self.rows["classifier"].unique())))

    def heads(self, classifier: str) -> tuple[str, ...]:
        """The classifier's heads, in the order of tables."""
        found = self.rows.loc[self.rows["classifier"] == classifier, "head"].unique()
        return tuple(sorted(map(str, found), key=lambda head: (HEADS.index(head) if head in HEADS else 99, head)))

    def of(
        self,
        suite: str | None = None,
        *,
        classifier: str | None = None,
        head: str | None = None,
        condition: str | None = None,
    ) -> pd.DataFrame:
        """The rows of one suite, classifier, head or condition, or of any of them; empty where it was not run."""
        assert suite is None or suite in self.facts["suites"], f"{suite!r} is none of {', '.join(self.facts['suites'])}"
        wanted = {"suite": suite, "classifier": classifier, "head": head, "condition": condition}
        chosen = pd.Series(True, index=self.rows.index)
        for name, value in wanted.items():
            if value is not None:
                chosen &= self.rows[name] == value
        return self.rows[chosen]


def image_names(count: int) -> list[str]:
    """Names for images that have none: their numbers, so that they sort by number."""
    return [f"{number:06d}" for number in range(count)]


def prediction_rows(
    *,
    classifier: str,
    head: str,
    suite: str,
    condition: str,
    images: Sequence[str],
    labels: Mapping[str, Sequence[int] | Array],
    tops: Array,
    probability: Array,
    category: Array | int = NONE,
) -> pd.DataFrame:
    """The rows of one head on N images of one condition.

    `labels`: cue -> (N,), "shape" always; `tops` (N, 1 to 5) classes, best first; `probability` (N,); `category` (N,).
    """
    assert 1 <= tops.shape[1] <= len(TOPS), tops.shape
    columns: dict[str, Any] = {
        "classifier": classifier,
        "head": head,
        "suite": suite,
        "condition": condition,
        "image": list(images),
    }
    for cue, column in CUES.items():
        columns[column] = np.asarray(labels[cue], dtype=np.int16) if cue in labels else np.int16(NONE)
    for rank, name in enumerate(TOPS):
        columns[name] = tops[:, rank].astype(np.int16) if rank < tops.shape[1] else np.int16(NONE)
    columns["category"] = np.asarray(category, dtype=np.int16)[()]
    columns["probability"] = probability.astype(np.float32)
    return pd.DataFrame(columns, index=range(len(images)))


def gather(
    tables: Sequence[pd.DataFrame],
    *,
    track: str,
    variant: str,
    classes: int,
    suites: Mapping[str, int],
    unreadable: Sequence[str] = (),
    superclass_of: Sequence[int] = (),
    categories: Sequence[str] = (),
    remarks: Sequence[str] = (),
    shown: Mapping[str, Any] | None = None,
) -> Predictions:
    """Tables of `prediction_rows` as one, sorted; it does not matter in which order they come."""
    rows = pd.concat(tables, ignore_index=True).sort_values(list(NAMES), ignore_index=True)
    facts = {
        "track": track,
        "variant": variant,
        "classes": classes,
        "suites": dict(suites),
        "unreadable": sorted(set(unreadable)),
        "superclass_of": list(map(int, superclass_of)),
        "categories": list(categories),
        "remarks": list(remarks),
        **({} if shown is None else {"shown": dict(shown)}),
    }
    return Predictions(rows=rows, facts=facts)


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write parquet, whole or not at all. Equal predictions give equal bytes for one version of pyarrow."""
    write_rows(predictions.rows, path, facts=predictions.facts)


def read_predictions(path: Path) -> Predictions:
    """Read and check predictions. Raises ArtifactError when the file is missing, broken or of another kind."""
    rows, facts = read_rows(path)
    if problem := _facts_problem(facts) or _rows_problem(rows, facts):
        raise ArtifactError(f"{path} {problem}: {_again(path)}")
    return Predictions(rows=rows, facts=facts)


def write_rows(rows: pd.DataFrame, path: Path, *, facts: Mapping[str, Any]) -> None:
    """Write rows of the schema as parquet, `facts` (JSON) beside them, whole or not at all."""
    schema = _schema().with_metadata({"facts": json.dumps(dict(facts), sort_keys=True)})
    stored = pa.Table.from_pandas(rows, schema=schema, preserve_index=False).replace_schema_metadata(schema.metadata)
    with replacing(path) as temporary:
        pq.write_table(stored, temporary, compression="zstd", row_group_size=ROWS_PER_GROUP)


def read_rows(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Rows and facts of what `write_rows` wrote, their values unchecked.

    Raises ArtifactError when the file is missing or broken, or lacks a column, a value or the facts.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: {_again(path)}")
    schema = _schema()
    try:
        with pq.ParquetFile(path) as file:
            lacking = [name for name in schema.names if name not in file.schema_arrow.names]
            if lacking:
                raise ArtifactError(f"{path} lacks the columns {', '.join(lacking)}: {_again(path)}")
            facts = json_value((file.schema_arrow.metadata or {})[b"facts"])
            stored = file.read(columns=schema.names)
            if empty := [name for name in schema.names if stored.column(name).null_count]:
                raise ArtifactError(f"{path} has rows without a value in {', '.join(empty)}: {_again(path)}")
            rows = stored.cast(schema).to_pandas()
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
        **dict.fromkeys((*CUES.values(), *TOPS, "category"), pa.int16()),
        "probability": pa.float32(),
    }
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])


def _facts_problem(facts: Mapping[str, Any]) -> str | None:
    """What is wrong with the facts; None when nothing is."""
    if unknown := [name for name in FACTS if name not in facts]:
        return f"does not say its {', '.join(unknown)}"
    if type(classes := facts["classes"]) is not int or not 0 < classes < 1 << 15:
        return f"says that its classes are {classes!r}, no number of classes"
    mistyped = [name for name, kind in FACTS.items() if type(facts[name]) is not kind]
    for name in ("suites", "superclass_of"):
        if name not in mistyped:
            numbers = facts[name].values() if name == "suites" else facts[name]
            mistyped += [] if all(type(number) is int for number in numbers) else [name]
    shown = facts.get("shown", {})
    if not isinstance(shown, dict) or not all(
        isinstance(shown.get(name, {}), dict) for name in ("classifiers", "suites")
    ):
        mistyped.append("shown")
    return f"says its {', '.join(mistyped)} in another form than evaluate writes" if mistyped else None


def _rows_problem(rows: pd.DataFrame, facts: Mapping[str, Any]) -> str | None:
    """What is wrong with the values of a table that has the right columns and facts; None when nothing is."""
    if rows.empty:
        return "holds no decision"
    if foreign := sorted(set(rows["suite"].unique()) - set(facts["suites"])):
        return f"does not say how many classes the labels of {', '.join(foreign)} have"
    classes, largest = int(facts["classes"]), rows["suite"].map(facts["suites"]) - 1
    ranks = rows[list(TOPS)]
    possible = {
        "has a label outside the classes of its suite": rows["label"].between(0, largest)
        & rows["texture"].between(NONE, largest)
        & rows["background"].between(NONE, largest),
        f"has a decision outside 0 to {classes - 1}": rows["top_1"].ge(0)
        & ranks.ge(NONE).all(axis=1)
        & ranks.lt(classes).all(axis=1),
        f"has a category under {NONE}": rows["category"].ge(NONE),
        "has a probability outside [0,1]": rows["probability"].between(0, 1),
        "holds two decisions of one head on one image": ~rows.duplicated(list(NAMES)),
    }
    return next((problem for problem, kept in possible.items() if not kept.all()), None)
