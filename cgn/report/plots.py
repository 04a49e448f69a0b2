"""The tables that `dvc plots` draws, beside the page: bars.csv and confusion.csv (the plots of dvc.yaml)."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cgn.core.files import write_text
from cgn.evaluation.intervals import Estimate
from cgn.evaluation.metrics import Matrix

BARS, CONFUSION = "bars.csv", "confusion.csv"


def write_bars(page: Path, rows: Iterable[tuple[str, str, Estimate]]) -> None:
    """Rows of a measure, a classifier and its share in [-1,1] with a 95 % interval; in the order of the figure."""
    columns = ("measure", "classifier", "share", "low", "high")
    _write(page / BARS, columns, ((measure, name, of.value, of.low, of.high) for measure, name, of in rows))


def write_confusion(page: Path, matrices: Mapping[str, Matrix], *, labels: Sequence[str]) -> None:
    """Classifier -> (labels, labels) counts; those without images are left out, so that a page stays small."""
    rows = (
        (classifier, labels[actual], labels[predicted], int(matrix[actual, predicted]))
        for classifier, matrix in matrices.items()
        for actual, predicted in zip(*matrix.nonzero(), strict=True)
    )
    _write(page / CONFUSION, ("classifier", "actual", "predicted", "images"), rows)


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([columns, *rows])
    write_text(path, buffer.getvalue())
