"""The headline of an ImageNet report: the ensemble against the baseline, in the four questions that the paper asks.

Each question is asked of the mean of heads, the prediction that one would use, and, where the paper asks it of another
head, of that head too. A shape bias or background gap that is undecided is not quoted, and neither is what would
compare it: its difference, or the paper's number. Better or worse than the paper is said only where the suite has as
many images and classes as the published one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from cgn.evaluation.intervals import Estimate, compared, difference
from cgn.evaluation.metrics import estimate
from cgn.evaluation.predictions import CLEAN, CUE_CONFLICT, IN9
from cgn.imagenet.report_parts.heads import AVERAGE, BASELINE, SHAPE, SHAPE_TEXTURE, Head, Results, title
from cgn.imagenet.report_parts.published import ACCURACY, BACKGROUNDS, IMAGES, PublishedRow, published
from cgn.imagenet.report_parts.published import CLASSES as PUBLISHED_CLASSES
from cgn.report.figures import Bar, bars
from cgn.report.page import PAPER, Figure
from cgn.report.tables import (
    NOTHING,
    Cell,
    Table,
    interval,
    percent,
    points,
    points_cell,
    share_cell,
    table,
    with_interval,
)

BIAS, GAP, TOP_1, ERROR = "Shape bias", "Background gap", "Top-1", "Error under corruption"
ASKED = (
    (BIAS, AVERAGE), (BIAS, SHAPE),
    (GAP, AVERAGE), (GAP, SHAPE), (GAP, SHAPE_TEXTURE),
    (TOP_1, AVERAGE), (ERROR, AVERAGE),
)  # fmt: skip
"""Question, and the head of the ensemble that answers it."""
BETTER: Mapping[str, Literal["higher", "lower"]] = {BIAS: "higher", GAP: "lower", TOP_1: "higher", ERROR: "lower"}
PRINTED: dict[str, tuple[tuple[PublishedRow, ...], str, str]] = {
    BIAS: (ACCURACY, "bias", CUE_CONFLICT),
    GAP: (BACKGROUNDS, "gap", IN9),
    TOP_1: (ACCURACY, "top_1", CLEAN),
}
"""Question -> the published rows, their column, and the suite."""
ROLES = {AVERAGE: "the prediction that one would use", SHAPE_TEXTURE: "the heads that the paper takes"}
"""Head -> why it is asked."""
UNDECIDED = "undecided"
"""Stands in the place of a shape bias or a gap that must not be quoted."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one head answers to a question."""

    value: Estimate | None
    cell: Cell
    undecided: str | None = None
    """Why the value must not be quoted; None where it may be."""

    @property
    def quoted(self) -> Estimate | None:
        """The number, where it may be quoted."""
        return None if self.undecided else self.value


def answers(head: Head, *, classes: int) -> dict[str, Answer]:
    """Question -> answer, of the questions whose suite this head was evaluated on."""
    found = {}
    if head.bias:
        value = estimate(head.bias.bias) if head.bias.bias else None
        found[BIAS] = Answer(value=value, undecided=head.undecided, cell=shape_bias_cell(head))
    if head.gap:
        found[GAP] = Answer(value=estimate(head.gap), undecided=head.gap.undecided, cell=gap_cell(head))
    if head.clean:
        found[TOP_1] = Answer(value=estimate(head.clean[0]), cell=share_cell(head.clean[0], chance=1 / classes))
    if head.estimates and head.estimates.mean_error:
        error = head.estimates.mean_error
        found[ERROR] = Answer(value=error, cell=share_cell(error))
    return found


def change_table(results: Results) -> Table | None:
    """Baseline, ensemble, difference and the paper's two numbers; None where there is nothing to compare."""
    every = {head.key: answers(head, classes=results.classes) for head in results.heads}
    rows = []
    for question, key in ASKED:
        before, after = every.get(BASELINE, {}).get(question), every.get(key, {}).get(question)
        if before is None or after is None:
            continue
        role = "; ".join(filter(None, [_role(results.head(key)), f"{BETTER[question]} is better"]))
        change = difference(after.quoted, before.quoted) if before.quoted and after.quoted else None
        paper, verdict = _paper(results, question, key, after)
        rows.append(
            {
                "Question": Cell(value=f"{question}, {title(key)}", detail=role),
                "here: baseline": before.cell,
                "here: ensemble": after.cell,
                "here: difference": points_cell(change, plus="+"),
                "paper: baseline": _printed(paper.get(BASELINE), question),
                "paper: ensemble": _printed(paper.get(key), question, note=f"here {verdict}" if verdict else ""),
            }
        )
    return table("The ensemble against the baseline, with 95 % intervals", rows) if rows else None


def answer(results: Results) -> str:
    """The headline numbers in two sentences: the ensemble's and the baseline's, with what guessing gets."""
    every = {head.key: answers(head, classes=results.classes) for head in results.heads}
    chance = next((percent(head.conflict_chance) for head in results.heads if head.by_category), "")
    guess = {BIAS: f"guessing has 50 % and a shape accuracy of {chance}", GAP: "guessing has none"}
    sentences = []
    for question, keys in ((BIAS, (SHAPE, AVERAGE, BASELINE)), (GAP, (AVERAGE, BASELINE))):
        found = [head for key in keys if (head := results.head(key)) and question in every[key]]
        if len(found) > 1 and found[-1].key == BASELINE:
            each = "; ".join(f"{head.title} {_brief(head, every[head.key][question], question)}" for head in found)
            sentences.append(f"{question} ({guess[question]}): {each}.")
    if sentences:
        return " ".join(sentences)
    tops = "; ".join(f"{head.title} {with_interval(head.clean[0])}" for head in results.heads if head.clean)
    measured = f" Top-1 on clean images, chance {percent(1 / results.classes)}: {tops}." if tops else ""
    return f"Nothing here compares an ensemble with a baseline in shape bias or background gap.{measured}"


def figures(results: Results) -> list[Figure]:
    """A panel of bars for each question, every head a row."""
    panels = []
    chances = {BIAS: 0.5, GAP: 0.0, TOP_1: 1 / results.classes, ERROR: 1 - 1 / results.classes}
    for question, chance in chances.items():
        rows, numbers = [], []
        for head in results.heads:
            found = answers(head, classes=results.classes).get(question)
            if found is None or found.value is None:
                continue
            cue = head.key[1] if head.key[1] in ("texture", "background") else "shape"
            quoted = found.quoted.value if found.quoted else None
            decided = head.bias.shape + head.bias.texture if head.bias else 0
            note = f"of {decided}" if question == BIAS and quoted is not None else ""
            low, high = max(found.value.low, -1.0), min(found.value.high, 1.0)
            rows.append(Bar(name=head.title, value=quoted, low=low, high=high, cue=cue, note=note))
            numbers.append(f"{head.title}: {_words(found, question)}")
        if rows:
            unit = "pt" if question == GAP else "%"
            heading = f"{question} (of decisions for either cue)" if question == BIAS else question
            panel = bars(heading, rows, chance=chance, unit=unit)
            panels.append(Figure(svg=panel.svg(alt=f"{question}. {'. '.join(numbers)}")))
    return panels


def grounds(head: Head) -> list[str]:
    """What a shape bias is quoted with: how many decisions it counts, and the shape accuracy beside chance."""
    if head.bias is None or head.bias.accuracy is None:
        return []
    return [
        f"{head.bias.shape + head.bias.texture:,} of {head.bias.conflicts:,} decided",
        f"shape accuracy {with_interval(head.bias.accuracy)}, chance {percent(head.conflict_chance)}",
    ]


def shape_bias_cell(head: Head, *, cue: str = "") -> Cell:
    """A head's shape bias with its grounds; a word and the reason in its place where it must not be quoted."""
    if head.bias is None:
        return NOTHING
    if head.undecided:
        ends = interval(head.bias.bias) if head.bias.bias else ""
        return Cell(value=UNDECIDED, detail=ends, note="; ".join([*grounds(head), head.undecided]), style="muted")
    return replace(share_cell(head.bias.bias, cue=cue), note="; ".join(grounds(head)))


def gap_cell(head: Head) -> Cell:
    """A head's background gap; a word and the reason in its place where it must not be quoted."""
    if head.gap and head.gap.undecided:
        return Cell(value=UNDECIDED, detail=interval(head.gap), note=head.gap.undecided, style="muted")
    return points_cell(estimate(head.gap) if head.gap else None)


def of_published_size(results: Results, suite: str) -> bool:
    """Whether a suite had as many images as the published one, for networks of as many classes."""
    rows = results.stored.of(suite)
    if results.classes != PUBLISHED_CLASSES or not len(rows):
        return False
    return int(rows.groupby("condition")["image"].nunique().max()) == IMAGES.get(suite)


def _paper(
    results: Results, question: str, key: tuple[str, str], after: Answer
) -> tuple[dict[tuple[str, str], str | None], str]:
    """The paper's numbers by head, and how the ensemble's compares with it where that can be said."""
    if question not in PRINTED or after.undecided:
        return {}, ""
    rows, column, suite = PRINTED[question]
    found = {each: published(rows, each, source=PAPER, column=column) for each in (BASELINE, key)}
    number = found[key]
    if not number or after.quoted is None or not of_published_size(results, suite):
        return found, ""
    half = 0.5 / 10 ** (len(number.partition(".")[2]) + 2)
    return found, compared(after.quoted, float(number) / 100, better=BETTER[question], rounding=half)


def _role(head: Head | None) -> str:
    """Why this head is asked; of the shape head, how good it is on clean images."""
    if head and head.key == SHAPE:
        right = f"; its top-1 on clean images is {percent(head.clean[0].share)}" if head.clean else ""
        return f"trained to follow shape alone{right}"
    return ROLES.get(head.key, "") if head else ""


def _brief(head: Head, found: Answer, question: str) -> str:
    """An answer within a sentence."""
    if found.quoted is None:
        return f"{UNDECIDED} ({found.undecided})"
    if question == GAP or not head.bias or not head.bias.accuracy:
        return f"{points(found.quoted.value)} ({interval(found.quoted)})"
    counts = f"{head.bias.shape + head.bias.texture:,} of {head.bias.conflicts:,} decided"
    right = f"shape accuracy {percent(head.bias.accuracy.share)}"
    return f"{percent(found.quoted.value)} ({interval(found.quoted)}; {counts}, {right})"


def _words(found: Answer, question: str) -> str:
    """A number with what it is quoted with, or that it is undecided and why, on one line."""
    if found.quoted is None:
        details = [found.cell.detail, found.cell.note]
        return f"{UNDECIDED} ({'; '.join(filter(None, details))})"
    number = points(found.quoted.value) if question == GAP else percent(found.quoted.value)
    return f"{number} ({'; '.join(filter(None, [found.cell.detail, found.cell.note]))})"


def _printed(value: str | None, question: str, *, note: str = "") -> Cell:
    unit = "pt" if question == GAP else "%"
    return Cell(value=f"{value}\N{NO-BREAK SPACE}{unit}", note=note, style="muted") if value else NOTHING
