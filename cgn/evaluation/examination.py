"""What networks decided on benchmarks: one row per picture and head, on disk as parquet; every figure derives from it.

Legend: `classifier` is the network, `head` which of its answers (a head of its own, or a mean of heads), `suite` the
benchmark, `condition` its part (a variation, a corruption's severity), `image` the picture's path within it. `label`
is the shape's and counts in the suite's own classes: 1000 on ImageNet, 9 superclasses, 16 categories; `texture` is -1
where the suite has none. `top_1` to `top_5` are the network's classes, best first, -1 where it has fewer than five;
`category` is its decision among the 16, from all of its answers (`cgn.evaluation.shape_bias`), -1 where it has none.
`probability` is that of `top_1`.
Decided here: whatever needs all 1000 answers is computed before they are forgotten, so the table suffices: its facts
say to which superclass a class belongs and what the categories are called. Pictures that could not be read have no
row; they are named in the facts, and `remarks` name what else a suite lacked, so that no figure passes for more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from cgn.core.errors import ArtifactError
from cgn.evaluation.decisions import read_table, write_table

NAMES = ("classifier", "head", "suite", "condition", "image")
LABELS = ("label", "texture")
TOPS = ("top_1", "top_2", "top_3", "top_4", "top_5")
DECISIONS = (*TOPS, "category")
NONE = -1
"""Stands where a suite has no texture or a network no such class."""
HEADS = ("label", "shape", "texture", "background", "avg", "shape_texture")
"""In the order of tables; a head of another name comes after them."""
KINDS = {"classes": int, "suites": dict, "unreadable": list, "superclass_of": list, "categories": list, "remarks": list}
FACTS = ("track", "variant", *KINDS)


@dataclass(frozen=True, kw_only=True)
class Examination:
    """The rows, sorted by NAMES, and whose they are."""

    rows: pd.DataFrame
    facts: Mapping[str, Any]
    """Track, variant, `classes` of the networks, `suites` (suite -> classes of its labels), `unreadable` (sentences),
    `superclass_of` (each class's, -1 for none), `categories` (names), `remarks` (sentences)."""

    @property
    def classifiers(self) -> tuple[str, ...]:
        """The networks that were examined, in alphabetical order."""
        return tuple(sorted(map(str, self.rows["classifier"].unique())))

    def heads(self, classifier: str) -> tuple[str, ...]:
        """What the classifier answers with, in the order of tables."""
        found = self.rows.loc[self.rows["classifier"] == classifier, "head"].unique()
        return tuple(sorted(map(str, found), key=lambda head: (HEADS.index(head) if head in HEADS else 99, head)))

    def of(self, suite: str, *, classifier: str | None = None, head: str | None = None) -> pd.DataFrame:
        """The rows of one suite, all or those of one classifier or head; none where it was not run."""
        chosen = self.rows["suite"] == suite
        for name, value in (("classifier", classifier), ("head", head)):
            chosen &= True if value is None else self.rows[name] == value
        return self.rows[chosen]


def gathered(
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
) -> Examination:
    """Tables of `cgn.evaluation.examine` as one; it does not matter in which order they come."""
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
    }
    return Examination(rows=rows, facts=facts)


def write(examination: Examination, path: Path) -> None:
    """Write parquet, whole or not at all. Equal examinations give equal bytes for one version of pyarrow."""
    write_table(examination.rows, path, schema=schema(), facts=examination.facts)


def read(path: Path) -> Examination:
    """Read and check what `write` wrote. Raises ArtifactError when the file is missing, broken or of another kind."""
    rows, facts = read_table(path, schema=schema())
    if problem := _problem(rows, facts):
        raise ArtifactError(f"{path} {problem}: run the stage that makes {path.parent} again")
    return Examination(rows=rows, facts=facts)


def schema() -> Any:
    """pyarrow's of the rows."""
    types = {
        **dict.fromkeys(NAMES, pa.string()),
        **dict.fromkeys((*LABELS, *DECISIONS), pa.int16()),
        "probability": pa.float32(),
    }
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])


def _problem(rows: pd.DataFrame, facts: Mapping[str, Any]) -> str | None:
    """What is wrong with the values of a table that has the right columns; None when nothing is."""
    if unknown := [name for name in FACTS if name not in facts]:
        return f"does not say its {', '.join(unknown)}"
    if wrong := [name for name, kind in KINDS.items() if type(facts.get(name, kind())) is not kind]:
        return f"says its {', '.join(wrong)} by values of a wrong kind"
    if rows.empty:
        return "holds no decision"
    if foreign := sorted(set(rows["suite"].unique()) - set(facts["suites"])):
        return f"does not say how many classes the labels of {', '.join(foreign)} have"
    classes, largest = int(facts["classes"]), rows["suite"].map(facts["suites"]) - 1
    ranks = rows[list(TOPS)]
    possible = {
        "has a label outside the classes of its suite": rows["label"].between(0, largest)
        & rows["texture"].between(NONE, largest),
        f"has a decision outside 0 to {classes - 1}": rows["top_1"].ge(0)
        & ranks.ge(NONE).all(axis=1)
        & ranks.lt(classes).all(axis=1),
        f"has a category under {NONE}": rows["category"].ge(NONE),
        "has a probability outside [0,1]": rows["probability"].between(0, 1),
        "holds two decisions of one head on one picture": ~rows.duplicated(list(NAMES)),
    }
    return next((problem for problem, kept in possible.items() if not kept.all()), None)
