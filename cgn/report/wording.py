"""Measured numbers in writing: in percent, with their interval, with a bar; tables in Markdown.

Decided here: numbers are shown in percent with one decimal, a missing one as a dash. A bar never stands without its
number, and chance is a dotted line on it.
"""

from collections.abc import Sequence

from cgn.evaluation.intervals import Interval
from cgn.report.page import Html, element

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
"""Stands where there is no number."""


def percent(share: float | None) -> str:
    """0.9514 -> "95.1 %" (with a space that does not break); None is a dash."""
    return DASH if share is None else f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def interval(measured: Interval) -> str:
    """The 95 % interval in percent, "94.7 to 95.5"."""
    return " to ".join(f"{100 * end:.1f}".replace("-", MINUS) for end in (measured.low, measured.high))


def bar(share: float, *, chance: float, cue: str = "") -> Html:
    """A bar of `share` in [0,1]; the number beside it speaks for it, so it is hidden from screen readers."""
    style = f"--share:{100 * share:.1f}%;--chance:{100 * chance:.1f}%"
    return element("span", element("i"), class_=f"bar {cue}".strip(), style=style, aria_hidden="true")


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
