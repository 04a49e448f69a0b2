"""The pictures of the page: test images with the decisions on them, confusion matrices, and the stages' sheets.

Decided here: confusion panels are drawn again from the decisions, once for light and once for dark screens. Sheets
are taken as the stages left them (`cgn.report.page_sheets`).
"""

import io
from collections.abc import Sequence
from itertools import islice

import pandas as pd

from cgn.core.images import png
from cgn.data.shards import samples
from cgn.evaluation.metrics import confusion, largest_error, separable
from cgn.evaluation.predictions import CUES
from cgn.evaluation.results import Result
from cgn.mnist.evidence import RANDOMISED, Evidence
from cgn.report.confusion_picture import DARK, LIGHT, Theme, panel
from cgn.report.page import Html, element, join, paragraph, picture, section, table, text
from cgn.report.page_sheets import figures, last_sheet
from cgn.report.wording import percent


def examples(evidence: Evidence, rows: Sequence[Result], *, count: int) -> Html:
    """The first `count` randomised test images as columns, each classifier's decision on them as rows."""
    shown = list(islice(samples(evidence.data, split=RANDOMISED), count))
    columns = [text("Trained on")]
    for sample in shown:
        labels = ", ".join(f"{cue} {sample.facts[cue]}" for cue in CUES)
        columns.append(picture(png(sample.image), alt=f"test image: {labels}", enlarged=2))
    decided = {
        row.arm: evidence.decisions.of(classifier=row.arm, condition=RANDOMISED).head(len(shown)) for row in rows
    }
    cells = [[text(row.title), *_decisions(decided[row.arm])] for row in rows if len(decided[row.arm])]
    told = (
        "The first images of the randomised test in their order, nothing picked. Below each decision stand the labels "
        "that it equals: shape is the right answer; texture or background means that the look was read, not the digit."
    )
    grid = element("div", table(caption="Decisions on single images", columns=columns, rows=cells), class_="examples")
    return section("What the classifiers said", paragraph(told), grid, name="examples")


def confusions(evidence: Evidence, rows: Sequence[Result]) -> Html:
    """A panel for each classifier by shape; the other cues' panels folded away."""
    content: list[Html] = []
    tables = {row.title: evidence.decisions.of(classifier=row.arm, condition=RANDOMISED) for row in rows if row.cues}
    cues = [cue for cue in CUES if any(cue in separable(table) for table in tables.values())]
    classes = evidence.decisions.classes
    for cue in cues:
        panels = [_panel(table, title=title, cue=cue, classes=classes) for title, table in tables.items()]
        grid = element("div", *panels, class_="grid")
        if cue == "shape":
            content.append(grid)
        else:
            label = f"The same decisions against the {cue} label"
            content.append(element("details", element("summary", text(label)), grid))
    told = (
        "Rows are the label, columns the decision, cells the percentage of a row. A strong diagonal means that the "
        "classifier reads this cue."
    )
    return section("Confusion on random looks", paragraph(told), *content, name="confusion")


def sheets(evidence: Evidence) -> Html:
    """The pictures that prepare, train_cgn and generate left."""
    drawn = [
        (evidence.data / "examples.png", "The data: one image of each digit in each split"),
        *last_sheet(evidence.model),
        (evidence.images / "examples.png", "The images generated for training"),
    ]
    return section("Sheets", *figures(drawn, alt="Sheet of small images with labelled rows"), name="sheets")


def _decisions(rows: pd.DataFrame) -> list[Html]:
    cells = []
    for _, row in rows.iterrows():
        equal = [cue for cue, column in CUES.items() if row["top_1"] == row[column]]
        named = [cue for cue in equal if cue in separable(rows)]
        words = element("small", *([join(map(text, named), between="<br>")] if named else [text("none")]))
        cell = join([element("b", text(int(row["top_1"]))), words])
        cells.append(element("span", cell, class_="right" if "shape" in equal else "wrong"))
    return cells


def _panel(rows: pd.DataFrame, *, title: str, cue: str, classes: int) -> Html:
    matrix = confusion(rows, classes=classes, cue=cue)
    equal = percent(float(matrix.trace() / max(int(matrix.sum()), 1)))
    alt = f"Confusion matrix of the classifier trained on {title} by {cue} label: {equal} lie on the diagonal"
    if error := largest_error(matrix):
        alt += f"; most often off it, {cue} {error[0]} was called {error[1]} ({percent(error[2])} of its images)"

    def drawn(theme: Theme) -> bytes:
        buffer = io.BytesIO()
        panel(matrix, title=title, rows=f"{cue} label", theme=theme).save(buffer, format="PNG")
        return buffer.getvalue()

    return element("div", picture(drawn(LIGHT), dark=drawn(DARK), alt=alt))
