"""A table of measured and published numbers, written once and shown twice: on a page, and in Markdown.

Decided here: both come from the same cells, so the summary cannot say anything else than the page. In Markdown a
cell's detail (an interval) stands in parentheses, its note after a semicolon, and a column's group before its title.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from cgn.report.page import Html, element, join, table, text
from cgn.report.wording import DASH, bar, markdown


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar under a number: `share` in [0,1], `chance` a dotted line on it, `cue` its colour."""

    share: float
    chance: float | None = None
    cue: str = ""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """`value` with what is told below it in small letters."""

    value: str
    detail: str = ""
    note: str = ""
    bar: Bar | None = None
    weight: Literal["bold", "plain", "muted"] = "plain"
    picture: Html | None = None
    """Above the value, on the page only."""

    def html(self) -> Html:
        """The inside of a table's cell."""
        tags = {"bold": element("b", text(self.value)), "muted": element("span", text(self.value), class_="muted")}
        parts = [self.picture] if self.picture else []
        parts.append(tags.get(self.weight, text(self.value)))
        if self.bar:
            parts.append(_bar(self.bar))
        parts += [_small(words) for words in (self.detail, self.note) if words]
        return join(parts)

    def plain(self) -> str:
        """The same as text on one line."""
        told = f"{self.value} ({self.detail})" if self.detail else self.value
        return f"{told}; {self.note}" if self.note else told


LINE = 40
"""Characters of a note that stay on one line."""
NOTHING = Cell(value=DASH, weight="muted")


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column's head; neighbours of one `group` share its title."""

    title: str
    small: str = ""
    group: str = ""
    picture: Html | None = None

    def html(self) -> Html:
        """The inside of the head's cell."""
        return Cell(value=self.title, detail=self.small, picture=self.picture).html()

    def plain(self) -> str:
        """As text on one line."""
        return f"{self.group}: {self.title}" if self.group else self.title


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells, each as long as `columns`; the first column holds the rows' headers."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    class_: str = "results"

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), self.caption

    def html(self) -> Html:
        """The table on a page."""
        groups = [(title, len(list(columns))) for title, columns in groupby(column.group for column in self.columns)]
        return table(
            caption=self.caption,
            columns=[column.html() for column in self.columns],
            rows=[[cell.html() for cell in row] for row in self.rows],
            class_=self.class_,
            groups=groups if any(title for title, _ in groups) else (),
        )

    def markdown(self) -> str:
        """The same below its caption."""
        rows = [[cell.plain() for cell in row] for row in self.rows]
        return f"**{self.caption}**\n\n{markdown([column.plain() for column in self.columns], rows)}"


def _small(words: str) -> Html:
    """Lines that are no mere number may break."""
    return element("small", text(words), class_="long" if len(words) > LINE else None)


def _bar(of: Bar) -> Html:
    if of.chance is not None:
        return bar(of.share, chance=of.chance, cue=of.cue)
    return bar(of.share, chance=0.0, cue=f"free {of.cue}".strip())
