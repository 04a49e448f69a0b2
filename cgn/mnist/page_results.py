"""The tables of the page: accuracies beside the published ones, and the cue each classifier followed.

Decided here: columns for published numbers are there only where something was published.
"""

from collections.abc import Sequence

from cgn.evaluation.intervals import Proportion, compared
from cgn.evaluation.results import Published, Result
from cgn.mnist.evidence import RANDOMISED
from cgn.report.literature import PAPER, REPLICATION
from cgn.report.page import Html, element, join, paragraph, table, text
from cgn.report.wording import DASH, bar, interval, percent

TRAINING, ORDINARY = "train", "test_iid"

RUNNING, ON_ORIGINAL = "Running accuracy in training", "Original training set"
"""Two quantities that must not be taken for each other; the first is the published train accuracy."""
COLUMNS = ("Trained on", RUNNING, ON_ORIGINAL, "Test, same looks", "Test, random looks")
SOURCES = {PAPER: "Paper: running / random looks", REPLICATION: "Replication: running / random looks"}
CUE_NAMES = {"shape": "shape (the digit)", "texture": "texture (the digit's look)", "background": "background"}


def own_note(variant: str) -> str:
    """Why a variant has no published numbers beside it."""
    return (
        f"Nothing is published for mnist/{variant}: it is this project's own small benchmark, made so that the whole "
        "pipeline runs in minutes. Its numbers compare with one another only."
    )


def result_cells(rows: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """(columns, rows) of the main table as plain text."""
    sources = _sources(rows)
    cells = [
        [
            row.title,
            percent(row.running_accuracy),
            *(_with_interval(row, condition) for condition in (TRAINING, ORDINARY, RANDOMISED)),
            *(_judged(row, source) for source in sources),
        ]
        for row in rows
    ]
    return [*COLUMNS, *(SOURCES[source] for source in sources)], cells


def result_table(rows: Sequence[Result], *, classes: int) -> Html:
    """The main table."""
    sources = _sources(rows)
    cells = [
        [
            text(row.title),
            text(percent(row.running_accuracy)),
            _measured(row.measured.get(TRAINING), chance=None),
            _measured(row.measured.get(ORDINARY), chance=None),
            _measured(row.measured.get(RANDOMISED), chance=1 / classes),
            *(_published(row, source) for source in sources),
        ]
        for row in rows
    ]
    small = {
        RUNNING: "its own images, last epoch",
        ON_ORIGINAL: "whatever it was trained on",
        "Test, same looks": "label decides",
        "Test, random looks": "only shape tells",
    }
    columns = [
        join([text(name), *([element("small", text(small[name]))] if name in small else [])]) for name in COLUMNS
    ]
    columns += [text(SOURCES[source]) for source in sources]
    caption = "Accuracy with 95 % intervals"
    return table(caption=caption, columns=columns, rows=cells, class_="results")


def cue_table(rows: Sequence[Result], *, classes: int) -> Html:
    """For each classifier the share of decisions that equal each cue's label, as numbers and bars."""
    shown = [row for row in rows if row.cues]
    cues = list(dict.fromkeys(cue for row in shown for cue in row.cues))
    chance = 1 / classes
    cells = [[text(row.title), *(_cue(row, cue, chance=chance) for cue in cues)] for row in shown]
    caption = "Share of decisions on random looks that equal the cue's own label"
    told = (
        f"The dotted line is chance, {percent(chance)}: a cue that is ignored ends there. Labels of two cues "
        "coincide by chance in some images, so a row may add up to more than 100 %."
    )
    columns = [text("Trained on"), *(text(CUE_NAMES.get(cue, cue)) for cue in cues)]
    return join([table(caption=caption, columns=columns, rows=cells, class_="cues"), paragraph(told, class_="note")])


def _cue(row: Result, cue: str, *, chance: float) -> Html:
    share = row.cues[cue]
    strongest = share.share == max(other.share for other in row.cues.values())
    number = element("b" if strongest else "span", text(percent(share.share)))
    return join([number, bar(share.share, chance=chance, cue=cue)])


def _measured(proportion: Proportion | None, *, chance: float | None) -> Html:
    if proportion is None:
        return text(DASH)
    number = [text(percent(proportion.share)), element("small", text(interval(proportion)))]
    if chance is None:
        return join(number)
    return join([element("b", number[0]), bar(proportion.share, chance=chance), number[1]])


def _published(row: Result, source: str) -> Html:
    found = [entry for entry in row.published if entry.source == source]
    remarks = [element("small", text(entry.remark)) for entry in found if entry.remark]
    verdicts = [element("small", text(f"here {told}")) for entry in found if (told := verdict(row, entry))]
    return join([text(_pair(row, source)), *verdicts, *remarks])


def verdict(row: Result, entry: Published) -> str:
    """How accuracy on random looks stands to a published one; empty where the published arm is another one."""
    if entry.remark or RANDOMISED not in row.measured:
        return ""
    return compared(row.measured[RANDOMISED], entry.test / 100)


def _judged(row: Result, source: str) -> str:
    told = [verdict(row, entry) for entry in row.published if entry.source == source]
    return f"{_pair(row, source)}; here {told[0]}" if told and told[0] else _pair(row, source)


def _pair(row: Result, source: str) -> str:
    found = [entry for entry in row.published if entry.source == source]
    return f"{found[0].train:.1f} / {found[0].test:.1f}" if found else DASH


def _with_interval(row: Result, condition: str) -> str:
    if condition not in row.measured:
        return DASH
    return f"{percent(row.measured[condition].share)} ({interval(row.measured[condition])})"


def _sources(rows: Sequence[Result]) -> list[str]:
    known = {entry.source for row in rows for entry in row.published}
    return [source for source in SOURCES if source in known]
