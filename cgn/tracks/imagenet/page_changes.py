"""What the counterfactuals changed: the ensemble against the baseline, in the four questions that the paper asks.

Decided here: each question is asked of the head that the paper asks it of, of the mean of the three where it names
none. The interval of a difference is Newcombe's from the two intervals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cgn.core.page import Html, element, paragraph, section, text
from cgn.evaluation.estimates import Estimate, difference, estimate
from cgn.evaluation.literature import PAPER
from cgn.evaluation.tabulated import Cell, Column, Table
from cgn.evaluation.wording import interval, percent
from cgn.tracks.imagenet.cells import in_points, number, points
from cgn.tracks.imagenet.evidence import AVERAGE, BASELINE, SHAPE, SHAPE_TEXTURE, Evidence, Head, title
from cgn.tracks.imagenet.published import ACCURACY, BACKGROUNDS, published


@dataclass(frozen=True, kw_only=True)
class Change:
    """One question: `before` is the baseline's answer, `after` that of a head of the ensemble."""

    question: str
    head: str
    better: str
    before: Estimate
    after: Estimate
    unit: str
    paper: tuple[str, str] | None
    """Baseline's and ensemble's number as the paper prints them."""

    @property
    def difference(self) -> Estimate:
        """after - before."""
        return difference(self.after, self.before)

    def told(self, value: Estimate) -> str:
        """An answer in its unit."""
        return in_points(value.value) if self.unit == "pt" else percent(value.value)


def changes(evidence: Evidence) -> list[Change]:
    """The questions that both have answered."""
    baseline = evidence.head(BASELINE)
    asked = (
        ("Shape bias", SHAPE, "higher", "%", _bias, (ACCURACY, "bias")),
        ("Background gap", SHAPE_TEXTURE, "lower", "pt", _gap, (BACKGROUNDS, "gap")),
        ("Top-1", AVERAGE, "higher", "%", _first, (ACCURACY, "top_1")),
        ("Error under corruption", AVERAGE, "lower", "%", _error, None),
    )
    found = []
    for question, key, better, unit, answer, source in asked:
        before, after = _answered(baseline, answer), _answered(evidence.head(key), answer)
        if before is None or after is None:
            continue
        paper = None
        if source:
            printed = [published(source[0], head, source=PAPER, column=source[1]) for head in (BASELINE, key)]
            paper = (printed[0] or "", printed[1] or "")
        found.append(
            Change(
                question=question,
                head=title(key),
                better=better,
                before=before,
                after=after,
                unit=unit,
                paper=paper,
            )
        )
    return found


def change_table(found: Sequence[Change]) -> Table:
    """Baseline, ensemble, difference, and the paper's two numbers."""
    columns = [
        Column(title="Question"),
        Column(title="baseline", group="here"),
        Column(title="ensemble", group="here"),
        Column(title="difference", group="here"),
        Column(title="baseline", group="paper"),
        Column(title="ensemble", group="paper"),
    ]
    rows = []
    for change in found:
        answers = [points(each) if change.unit == "pt" else number(each) for each in (change.before, change.after)]
        paper = [
            Cell(value=f"{value}\N{NO-BREAK SPACE}{change.unit}" if value else "\N{EN DASH}", weight="muted")
            for value in change.paper or ("", "")
        ]
        asked = Cell(value=change.question, detail=f"{change.head}; {change.better} is better")
        rows.append([asked, *answers, points(change.difference, signed="+"), *paper])
    return Table(caption="The ensemble against the baseline, with 95 % intervals", columns=columns, rows=rows)


def change_section(evidence: Evidence) -> Html | None:
    """The table; None where there is nothing to compare."""
    found = changes(evidence)
    if not found:
        return None
    told = (
        "The baseline has one head and was trained on original images alone; the ensemble shares its backbone among "
        "three heads and was trained on counterfactuals as well, each head on the label of its own cue."
    )
    return section("What the counterfactuals changed", paragraph(told), change_table(found).html(), name="changes")


def heroes(found: Sequence[Change]) -> Html:
    """The same as tiles for the top of the page."""
    return element("dl", *map(_hero, found), class_="heroes")


def _hero(change: Change) -> Html:
    details = [f"{change.head}", f"baseline {change.told(change.before)}"]
    if change.paper and all(change.paper):
        details.append(f"paper: {change.paper[0]} \N{RIGHTWARDS ARROW} {change.paper[1]} {change.unit}")
    small = [element("small", text(words)) for words in (interval(change.after), *details[1:])]
    return element(
        "div",
        element("dt", text(change.question)),
        element("dd", text(change.told(change.after)), class_="number"),
        element("dd", text(details[0]), *small, class_="detail"),
    )


def _answered(head: Head | None, answer: Callable[[Head], Estimate | None]) -> Estimate | None:
    return None if head is None else answer(head)


def _bias(head: Head) -> Estimate | None:
    return estimate(head.bias.bias) if head.bias and head.bias.bias else None


def _gap(head: Head) -> Estimate | None:
    return estimate(head.gap) if head.gap else None


def _first(head: Head) -> Estimate | None:
    return estimate(head.clean[0]) if head.clean else None


def _error(head: Head) -> Estimate | None:
    return head.estimates.mean_error if head.estimates else None
