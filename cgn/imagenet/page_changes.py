"""What the counterfactuals changed: the ensemble against the baseline, in the four questions that the paper asks.

Decided here: each question is asked of the mean of heads, the prediction that one would use, and, where the paper asks
it of another head, of that head too; for both the page says the shape bias and the background gap. The interval of a
difference is Newcombe's from the two intervals. A shape bias or gap that is undecided is not quoted, and neither is
what would compare it: its difference, or the paper's number. Better or worse than the paper is said only where the
pictures are as many as the published ones and of as many classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from cgn.evaluation.intervals import Estimate, compared, difference
from cgn.evaluation.metrics import estimate
from cgn.evaluation.predictions import CLEAN, CUE_CONFLICT, IN9
from cgn.imagenet.cells import UNDECIDED, gap_cell, grounds, in_points, number, points, shape_bias_cell
from cgn.imagenet.evidence import AVERAGE, BASELINE, SHAPE, SHAPE_TEXTURE, Evidence, Head, title
from cgn.imagenet.page_notes import of_published_size
from cgn.imagenet.published import ACCURACY, BACKGROUNDS, Row, published
from cgn.report.literature import PAPER
from cgn.report.page import Html, element, paragraph, section, text
from cgn.report.tabulated import NOTHING, Cell, Column, Table
from cgn.report.wording import interval, percent

Better = Literal["higher", "lower"]
ROLES = {AVERAGE: "the prediction that one would use", SHAPE_TEXTURE: "the heads that the paper takes"}
"""Head -> why it is asked."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one head answers: the number, in words why it must not be quoted, and what it goes with."""

    value: Estimate | None
    undecided: str | None = None
    grounds: Sequence[str] = ()
    cell: Cell = NOTHING

    @property
    def quoted(self) -> Estimate | None:
        """The number, where it may be quoted."""
        return None if self.undecided else self.value


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked, and of which head of the ensemble."""

    name: str
    head: tuple[str, str]
    better: Better
    unit: str
    answer: Callable[[Head], Answer | None]
    suite: str | None = None
    """Of the published number."""
    source: tuple[tuple[Row, ...], str] | None = None


@dataclass(frozen=True, kw_only=True)
class Change:
    """One question: `before` is the baseline's answer, `after` that of a head of the ensemble."""

    asked: Question
    role: str
    before: Answer
    after: Answer
    paper: tuple[str, str] | None
    """Baseline's and ensemble's number as the paper prints them."""
    verdict: str
    """How the ensemble's stands to the paper's; empty where they cannot be compared."""

    @property
    def title(self) -> str:
        """Question and head."""
        return f"{self.asked.name}, {title(self.asked.head)}"

    @property
    def difference(self) -> Estimate | None:
        """after - before; None where one of them must not be quoted."""
        if self.before.quoted is None or self.after.quoted is None:
            return None
        return difference(self.after.quoted, self.before.quoted)

    def told(self, answer: Answer) -> str:
        """An answer in its unit, or that it is undecided."""
        if answer.quoted is None:
            return UNDECIDED
        return in_points(answer.quoted.value) if self.asked.unit == "pt" else percent(answer.quoted.value)


def changes(evidence: Evidence) -> list[Change]:
    """The questions that both have answered."""
    found = []
    for question in _questions():
        before, after = (_answered(evidence.head(key), question) for key in (BASELINE, question.head))
        if before is None or after is None:
            continue
        paper = None
        if question.source and not after.undecided:
            rows, column = question.source
            printed = [published(rows, head, source=PAPER, column=column) for head in (BASELINE, question.head)]
            paper = (printed[0] or "", printed[1] or "")
        found.append(
            Change(
                asked=question,
                role=_role(evidence.head(question.head), question),
                before=before,
                after=after,
                paper=paper,
                verdict=_verdict(evidence, question, after, paper),
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
        notes = ("", f"here {change.verdict}" if change.verdict else "")
        paper = [
            Cell(value=f"{value}\N{NO-BREAK SPACE}{change.asked.unit}", note=note, weight="muted") if value else NOTHING
            for value, note in zip(change.paper or ("", ""), notes, strict=True)
        ]
        asked = Cell(value=change.title, detail=f"{change.role}; {change.asked.better} is better".removeprefix("; "))
        rows.append([asked, change.before.cell, change.after.cell, points(change.difference, signed="+"), *paper])
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
    """A number that may be quoted, or the word that it is undecided and why."""
    after, before = change.after, change.before
    details = [interval(after.value)] if after.value else []
    details += [*after.grounds, *([after.undecided] if after.undecided else [])]
    ends = f" ({interval(before.value)})" if before.value else ""
    details.append("; ".join([f"baseline {change.told(before)}{ends}", *before.grounds]))
    if change.paper and all(change.paper):
        verdict = f"; here {change.verdict}" if change.verdict else ""
        arrow = "\N{RIGHTWARDS ARROW}"
        details.append(f"paper: {change.paper[0]} {arrow} {change.paper[1]} {change.asked.unit}{verdict}")
    return element(
        "div",
        element("dt", text(change.title)),
        element("dd", text(change.told(after)), class_="number undecided" if after.undecided else "number"),
        element("dd", text(change.role), *(element("small", text(words)) for words in details), class_="detail"),
    )


def _questions() -> tuple[Question, ...]:
    bias, gap = (ACCURACY, "bias"), (BACKGROUNDS, "gap")
    return (
        *(
            Question(
                name="Shape bias", head=head, better="higher", unit="%", answer=_bias, suite=CUE_CONFLICT, source=bias
            )
            for head in (AVERAGE, SHAPE)
        ),
        *(
            Question(name="Background gap", head=head, better="lower", unit="pt", answer=_gap, suite=IN9, source=gap)
            for head in (AVERAGE, SHAPE, SHAPE_TEXTURE)
        ),
        Question(
            name="Top-1",
            head=AVERAGE,
            better="higher",
            unit="%",
            answer=_first,
            suite=CLEAN,
            source=(ACCURACY, "top_1"),
        ),
        Question(name="Error under corruption", head=AVERAGE, better="lower", unit="%", answer=_error),
    )


def _answered(head: Head | None, question: Question) -> Answer | None:
    return None if head is None else question.answer(head)


def _role(head: Head | None, question: Question) -> str:
    """Why this head is asked; of the shape head, how good it is on clean pictures."""
    if head and question.head == SHAPE:
        right = f"; its top-1 on clean pictures is {percent(head.clean[0].share)}" if head.clean else ""
        return f"trained to follow shape alone{right}"
    return ROLES.get(question.head, "")


def _verdict(evidence: Evidence, question: Question, after: Answer, paper: tuple[str, str] | None) -> str:
    """Better, equal within the interval or worse than the paper, where that can be said at all."""
    if not paper or not paper[1] or after.quoted is None or question.suite is None:
        return ""
    if not of_published_size(evidence, question.suite):
        return ""
    digits = len(paper[1].partition(".")[2])
    half = 0.5 / 10 ** (digits + 2)
    return compared(after.quoted, float(paper[1]) / 100, better=question.better, rounding=half)


def _bias(head: Head) -> Answer | None:
    if head.bias is None:
        return None
    value = estimate(head.bias.bias) if head.bias.bias else None
    return Answer(value=value, undecided=head.undecided, grounds=grounds(head), cell=shape_bias_cell(head))


def _gap(head: Head) -> Answer | None:
    if head.gap is None:
        return None
    return Answer(value=estimate(head.gap), undecided=head.gap.undecided, cell=gap_cell(head))


def _first(head: Head) -> Answer | None:
    if head.clean is None:
        return None
    return Answer(value=estimate(head.clean[0]), cell=number(estimate(head.clean[0])))


def _error(head: Head) -> Answer | None:
    if head.estimates is None or head.estimates.mean_error is None:
        return None
    return Answer(value=head.estimates.mean_error, cell=number(head.estimates.mean_error))
