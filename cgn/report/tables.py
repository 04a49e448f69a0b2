"""Tables of measured and published numbers: a pandas data frame of cells, shown as HTML and as Markdown.

Both come from the same cells, so summary.md cannot say anything else than the page. In Markdown a cell's detail (an
interval) stands in parentheses and its note after a semicolon. Shares are shown in percent with one decimal, a missing
number as a dash. A column "paper: Top-1" is shown on the page as "Top-1" below the group "paper".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, ClassVar, Literal

import pandas as pd

from cgn.evaluation.intervals import Estimate, Interval, Proportion
from cgn.evaluation.suite_tables import markdown_table

MINUS, DASH, SPACE = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{NO-BREAK SPACE}"
LONG = 40
"""Characters of a note that stay on one line."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """`value` with an interval (`detail`) and a `note` below it in small letters."""

    value: str
    detail: str = ""
    note: str = ""
    style: Literal["", "bold", "muted", "shape", "other"] = ""
    share: float | None = None
    """Length of the bar below the value, in [0,1]; None draws no bar."""
    chance: float | None = None
    """Place of the dotted line on the bar, in [0,1]."""
    cue: str = ""
    """Colour of the bar: "shape", "texture" or "background"."""

    @property
    def markdown(self) -> str:
        """The same as text on one line."""
        text = f"{self.value} ({self.detail})" if self.detail else self.value
        return f"{text}; {self.note}" if self.note else text


NOTHING = Cell(value=DASH, style="muted")
Row = Mapping[str, Cell | str | None]
"""Column -> cell; None, and a column that a row lacks, is a dash. The first column holds the row's header."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A captioned data frame whose values are cells. `heads`: column -> small text (str) or image above its title."""

    kind: ClassVar[str] = "table"
    caption: str
    frame: pd.DataFrame
    style: str = ""
    heads: Mapping[str, Any] = field(default_factory=dict)
    summary: bool = True
    """Whether summary.md has it as well."""

    @property
    def rows(self) -> list[list[Cell]]:
        """The cells, row by row."""
        rows: list[list[Cell]] = self.frame.to_numpy().tolist()
        return rows

    @property
    def columns(self) -> list[tuple[str, str]]:
        """(name, title without its group) of every column."""
        return [(name, name.rpartition(": ")[2]) for name in self.frame.columns]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """(title, number of columns) of every group, "" for none; empty where no column has one."""
        names = [name.rpartition(": ")[0] for name in self.frame.columns]
        return [(title, len(list(same))) for title, same in groupby(names)] if any(names) else []

    @property
    def markdown(self) -> str:
        """The rows as a Markdown table."""
        return markdown_table(list(self.frame.columns), [[cell.markdown for cell in row] for row in self.rows])


def table(
    caption: str, rows: Sequence[Row], *, style: str = "", heads: Mapping[str, Any] | None = None, summary: bool = True
) -> Table:
    """A table with the columns of its first row; other rows may lack some."""
    columns = list(rows[0])
    assert all(set(row) <= set(columns) for row in rows), caption
    values = [[_cell(row.get(column)) for column in columns] for row in rows]
    frame = pd.DataFrame(values, columns=columns, dtype=object)
    return Table(caption=caption, frame=frame, style=style, heads=heads or {}, summary=summary)


def percent(share: float | None) -> str:
    """0.9514 -> "95.1 %" (with a space that does not break); None is a dash."""
    return DASH if share is None else f"{100 * share:.1f}{SPACE}%"


def points(value: float, *, plus: str = "") -> str:
    """A difference of shares in percentage points: 0.049 -> "4.9 pt"; `plus` stands before one above zero."""
    rounded = round(100 * value, 1)
    sign = MINUS if rounded < 0 else plus if rounded > 0 else ""
    return f"{sign}{abs(rounded):.1f}{SPACE}pt"


def interval(measured: Interval) -> str:
    """The 95 % interval in percent, "94.7 to 95.5"."""
    return " to ".join(f"{100 * end:.1f}".replace("-", MINUS) for end in (measured.low, measured.high))


def with_interval(measured: Proportion | Estimate) -> str:
    """A share as "95.1 % (94.7 to 95.5)"."""
    value = measured.share if isinstance(measured, Proportion) else measured.value
    return f"{percent(value)} ({interval(measured)})"


def share_cell(
    measured: Proportion | Estimate | None, *, chance: float | None = None, cue: str = "", bar: bool = True
) -> Cell:
    """A share in percent with its interval and a bar; without the bar for one that may exceed 1."""
    if measured is None:
        return NOTHING
    value = measured.share if isinstance(measured, Proportion) else measured.value
    share = min(max(value, 0.0), 1.0) if bar else None
    return Cell(value=percent(value), detail=interval(measured), share=share, chance=chance, cue=cue, style="bold")


def points_cell(measured: Estimate | None, *, plus: str = "") -> Cell:
    """A difference of shares with its interval."""
    if measured is None:
        return NOTHING
    return Cell(value=points(measured.value, plus=plus), detail=interval(measured), style="bold")


def printed(value: str | None, *, unit: str = "%", note: str = "") -> Cell:
    """A number as a source prints it."""
    return NOTHING if value is None else Cell(value=f"{value}{SPACE}{unit}".rstrip(), note=note, style="muted")


def _cell(value: Cell | str | None) -> Cell:
    return NOTHING if value is None else Cell(value=value) if isinstance(value, str) else value
