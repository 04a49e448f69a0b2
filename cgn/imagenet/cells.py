"""Cells of the ImageNet page's tables: a measured number with interval and bar, a published one beside it.

Decided here: what was measured here is bold with its interval; what others print is muted and written as they print it.
"""

from collections.abc import Sequence
from dataclasses import replace

from cgn.evaluation.intervals import Estimate, Proportion
from cgn.evaluation.metrics import estimate
from cgn.imagenet.evidence import Head
from cgn.imagenet.published import SHORT, Row, published
from cgn.report.literature import PAPER, REPLICATION
from cgn.report.tabulated import NOTHING, Bar, Cell, Column
from cgn.report.wording import MINUS, interval, percent

SOURCES = (PAPER, REPLICATION)
CUES = {"shape": "shape", "texture": "texture", "background": "background"}
"""Head -> the colour of its bars."""


def name(head: Head) -> Cell:
    """A row's header."""
    return Cell(value=head.title, detail=head.owner)


def share(measured: Proportion | Estimate | None, *, chance: float | None = None, cue: str = "") -> Cell:
    """A share in percent, its interval, and a bar with a dotted line at `chance`."""
    if measured is None:
        return NOTHING
    told = estimate(measured) if isinstance(measured, Proportion) else measured
    bar = Bar(share=min(max(told.value, 0.0), 1.0), chance=chance, cue=cue)
    return Cell(value=percent(told.value), detail=interval(told), bar=bar, weight="bold")


def number(measured: Estimate | None, *, note: str = "") -> Cell:
    """A share that may exceed 1, in percent, with its interval and without a bar."""
    if measured is None:
        return NOTHING
    return Cell(value=percent(measured.value), detail=interval(measured), note=note, weight="bold")


def points(measured: Estimate | None, *, signed: str = "") -> Cell:
    """A difference of shares in percentage points, with its interval; `signed`: "+" writes the sign of a gain, too."""
    if measured is None:
        return NOTHING
    return Cell(value=in_points(measured.value, signed=signed), detail=interval(measured), weight="bold")


def in_points(value: float, *, signed: str = "") -> str:
    """0.049 -> "4.9 pt"; a loss has a minus sign, a gain what `signed` says."""
    rounded = round(100 * value, 1)
    sign = MINUS if rounded < 0 else signed if rounded > 0 else ""
    return f"{sign}{abs(rounded):.1f}\N{NO-BREAK SPACE}pt"


UNDECIDED = "undecided"
"""Stands in the place of a shape bias or a gap that must not be quoted."""


def grounds(head: Head) -> list[str]:
    """What a shape bias goes with: how many decisions it counts, and the accuracy on the conflicts beside chance."""
    if head.bias is None or head.bias.accuracy is None:
        return []
    right, chance = head.bias.accuracy, percent(head.conflict_chance)
    return [
        f"{head.bias.shape + head.bias.texture:,} of {head.bias.conflicts:,} decided",
        f"shape accuracy {percent(right.share)} ({interval(right)}), chance {chance}",
    ]


def shape_bias_cell(head: Head | None, *, cue: str = "") -> Cell:
    """A head's shape bias with its grounds; a word and the reason in its place where it must not be quoted."""
    if head is None or head.bias is None:
        return NOTHING
    shown = share(head.bias.bias, cue=cue) if not head.undecided else Cell(value=UNDECIDED, weight="muted")
    if head.undecided and head.bias.bias:
        shown = replace(shown, detail=interval(head.bias.bias))
    reason = [head.undecided] if head.undecided else []
    return replace(shown, note="; ".join([*grounds(head), *reason]))


def gap_cell(head: Head) -> Cell:
    """A head's background gap; a word and the reason in its place where it must not be quoted."""
    if head.gap and head.gap.undecided:
        return Cell(value=UNDECIDED, detail=interval(head.gap), note=head.gap.undecided, weight="muted")
    return points(estimate(head.gap) if head.gap else None)


def printed(value: str | None, *, unit: str = "%", note: str = "") -> Cell:
    """What a source prints."""
    return NOTHING if value is None else Cell(value=f"{value}\N{NO-BREAK SPACE}{unit}", note=note, weight="muted")


def beside(rows: tuple[Row, ...], key: tuple[str, str] | None, *, column: str, unit: str = "%") -> list[Cell]:
    """The sources' cells for one head and column."""
    return [printed(published(rows, key, source=source, column=column), unit=unit) for source in SOURCES]


def side_by_side(group: str) -> list[Column]:
    """The columns of one quantity: here, and each source."""
    return [Column(title=title, group=group) for title in ("here", *(SHORT[source] for source in SOURCES))]


def alone(row: Row, columns: Sequence[str], *, units: Sequence[str]) -> list[Cell]:
    """The row of a published network that has no counterpart among our heads."""
    cells = [Cell(value=row.title, weight="muted")]
    for column, unit in zip(columns, units, strict=True):
        cells.append(NOTHING)
        cells += [printed(row.values.get(column) if row.source == source else None, unit=unit) for source in SOURCES]
    return cells
