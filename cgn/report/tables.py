"""Numbers and tables of a page: one row format for HTML and for Markdown, so summary.md says what the page says.

Shares are shown in percent with one decimal, a missing number as a dash. In Markdown a cell's detail (an interval)
stands in parentheses and its note after a semicolon. A column "paper: Top-1" is shown on the page as "Top-1" below the
group "paper".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from cgn.evaluation.intervals import Estimate, Interval, Proportion
from cgn.evaluation.metrics import estimate
from cgn.evaluation.suite_tables import markdown_table

MINUS, DASH, SPACE = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{NO-BREAK SPACE}"


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


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A share or a difference of shares with its 95 % interval, and the notes that a page prints with it."""

    of: Estimate | None
    """None where there is nothing to count."""
    unit: Literal["%", "pt"] = "%"
    chance: float | None = None
    cue: str = ""
    bar: bool = True
    """Whether a cell shows it as a bar; one that may exceed 1 has none."""
    note: str = ""
    """What it is quoted with: counts, and what else tells how far it can be trusted."""
    counted: int | None = None
    """How many decisions it is a share of, where that is few."""
    undecided: str = ""
    """Why the number must not be quoted; its interval may be."""

    @property
    def quoted(self) -> Estimate | None:
        """The number, where it may be quoted."""
        return None if self.undecided else self.of

    @property
    def unit_in_words(self) -> Literal["%", "points"]:
        """As in "4.9 points"."""
        return "points" if self.unit == "pt" else "%"

    @property
    def number(self) -> str:
        """The number alone, or the word that it is undecided."""
        if self.quoted is None:
            return "undecided"
        return points(self.quoted.value) if self.unit == "pt" else percent(self.quoted.value)

    @property
    def cell(self) -> Cell:
        """As a cell of a table."""
        ends, note = interval(self.of) if self.of else "", "; ".join(filter(None, [self.note, self.undecided]))
        if self.quoted is None:
            return Cell(value=self.number, detail=ends, note=note, style="muted")
        share = min(max(self.quoted.value, 0.0), 1.0) if self.bar and self.unit == "%" else None
        return Cell(
            value=self.number, detail=ends, note=note, style="bold", share=share, chance=self.chance, cue=self.cue
        )

    def __str__(self) -> str:
        """On one line: "95.1 % (94.7 to 95.5; what it is quoted with)"."""
        cell = self.cell
        return f"{cell.value} ({'; '.join(filter(None, [cell.detail, cell.note]))})"


NOTHING = Cell(value=DASH, style="muted")
Row = Mapping[str, Cell | Measure | str | None]
"""Column -> cell; None, and a column that a row lacks, is a dash. The first column holds the row's header."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows with the columns of the first one. `heads`: column -> small text (str) or image above its title."""

    caption: str
    lines: Sequence[Row]
    style: str = ""
    heads: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> list[list[Cell]]:
        """The cells, row by row."""
        names = list(self.lines[0])
        assert all(set(line) <= set(names) for line in self.lines), self.caption
        return [[_cell(line.get(name)) for name in names] for line in self.lines]

    @property
    def columns(self) -> list[tuple[str, str]]:
        """(name, title without its group) of every column."""
        return [(name, name.rpartition(": ")[2]) for name in self.lines[0]]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """(title, number of columns) of every group, "" for none; empty where no column has one."""
        names = [name.rpartition(": ")[0] for name in self.lines[0]]
        return [(title, len(list(same))) for title, same in groupby(names)] if any(names) else []

    @property
    def markdown(self) -> str:
        """The rows as a Markdown table."""
        return markdown_table(list(self.lines[0]), [[cell.markdown for cell in row] for row in self.rows])


def measure(found: Proportion | None, **options: Any) -> Measure | None:
    """A measured share, with the `options` of Measure; None stays None."""
    return None if found is None else Measure(of=estimate(found), **options)


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


def printed(value: str | None, *, unit: str = "%", note: str = "") -> Cell:
    """A number as a source prints it."""
    return NOTHING if value is None else Cell(value=f"{value}{SPACE}{unit}".rstrip(), note=note, style="muted")


def _cell(value: Cell | Measure | str | None) -> Cell:
    if isinstance(value, Measure):
        return value.cell
    return NOTHING if value is None else Cell(value=value) if isinstance(value, str) else value
