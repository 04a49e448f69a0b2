"""mnist report: the stored decisions and the sheets of a run -> index.html and summary.md.

Every accuracy is computed again from decisions.parquet; no network is loaded. The test on random looks comes first,
because it is the question: only the shape of the digit tells its class there. A number stands beside what it can be
compared with, and whatever limits it is on the page. A sheet that does not exist is left out.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import pandas as pd

from cgn.config.mnist import Mnist, Report
from cgn.core.files import read_json
from cgn.core.images import png
from cgn.core.metrics import MetricSink
from cgn.core.parameters import Input, Output
from cgn.data.shards import samples
from cgn.evaluation.expected import Headline, remarks
from cgn.evaluation.intervals import Proportion, compared
from cgn.evaluation.metrics import accuracies, confusion, largest_error, separable
from cgn.evaluation.predictions import CUES, Predictions
from cgn.evaluation.results import Published, Result, results
from cgn.mnist.arms import ARMS
from cgn.mnist.published import published
from cgn.mnist.report_notes import ON_ORIGINAL, RANDOMISED, RUNNING, note_blocks, own_note, shown_params
from cgn.report.figures import Bar, bars, confusion_panel
from cgn.report.page import (
    PAPER,
    REPLICATION,
    Figure,
    Group,
    PageBlock,
    Section,
    Sources,
    Text,
    image,
    last_sheet,
    sheets,
    write_page,
)
from cgn.report.run import Run, read_decisions, read_run
from cgn.report.settings import settings as settings_blocks
from cgn.report.tables import Cell, Row, Table, percent, share_cell, table, with_interval

TRAINING, ORDINARY = "train", "test_iid"
SPLITS = {
    TRAINING: "Training images",
    ORDINARY: "Test images, same looks",
    RANDOMISED: "Test images, random looks",
}
SOURCES = {PAPER: "Paper: running / random looks", REPLICATION: "Replication: running / random looks"}
CUE_NAMES = {"shape": "shape (the digit)", "texture": "texture (of the digit)", "background": "background"}
LEADING = ("original", "counterfactual", "original_counterfactual")
"""The classifiers of the page's first sentence."""
KNOWN = {
    "prepare.digits": "Digits from",
    "prepare.image_size": "Image size",
    "train_cgn.updates": "Updates of the generative network",
    "train_cgn.losses.perceptual.features": "Features of the perceptual loss",
    "generate.counterfactual_images": "Counterfactual images",
    "train_classifier.epochs": "Epochs of each classifier",
}
"""Parameters that the page shows unfolded."""


def report(
    config: Report,
    *,
    seed: int,
    variant: str,
    sink: MetricSink,
    data: Input,
    model: Input,
    images: Input,
    decisions: Input,
    page: Output,
) -> None:
    """Write index.html and summary.md.

    Raises ArtifactError for decisions that are missing, broken or another variant's, and for broken sheets.
    """
    target = f"mnist/{variant}"
    run = read_run(target, data=data, model=model, images=images, decisions=decisions)
    stored = read_decisions(run)
    expected = remarks(headlines(stored), target=target, params=run.params)
    trainings = _trainings(run)
    rows = results(stored, arms=ARMS, randomised=RANDOMISED, trainings=trainings, published=published(variant))
    chance = 1 / stored.classes
    cited = [row.source for row in published(variant)]
    lead: list[PageBlock] = [
        Text(words=_answer(rows, chance=chance), style="answer", summary=True),
        *(
            sheets(
                [
                    (
                        images / "examples.png",
                        "Generated images; a counterfactual one has shape, texture and background of different digits",
                    )
                ]
            )
        ),
        _result_table(rows, chance=chance),
        Sources(names=cited) if cited else Text(words=own_note(variant), style="note", summary=True),
        Text(words=f"Decisions on random looks that equal a cue's own label. Dotted line: chance, {percent(chance)}."),
        Group(blocks=[Figure(svg=_cue_bars(row, chance=chance)) for row in rows if row.cues]),
        *([Text(words=" ".join(expected), style="limit", summary=True)] if expected else []),
    ]
    sections = [
        Section(title="Which cue does each classifier follow?", name="cues", blocks=_cues(rows, chance=chance)),
        Section(
            title="What the classifiers decided on single images",
            name="examples",
            blocks=_examples(run, stored, rows, count=config.examples),
        ),
        Section(title="Confusion on random looks", name="confusion", blocks=_confusions(stored, rows)),
        Section(title="The data and the generative network", name="sheets", blocks=_sheets(run)),
        Section(title="What can be compared with what", name="notes", blocks=note_blocks(run, stored, variant)),
        Section(
            title="Settings of this run",
            name="run",
            blocks=_settings(run, stored, variant=variant, seed=seed, trainings=trainings),
        ),
    ]
    write_page(
        page,
        target=target,
        seed=seed,
        title="Does it see the digit, or only its look?",
        description=f"Accuracy of classifiers trained on original and counterfactual images of {target}",
        lead=lead,
        sections=sections,
        footer="Accuracies on this page are computed from decisions.parquet, one row per image and classifier.",
    )
    for remark in expected:
        print(remark, flush=True)
    sink.picture(page / "index.html")


def headlines(stored: Predictions) -> list[Headline]:
    """The headline figures, for `cgn.evaluation.expected`: each classifier's accuracy on random looks."""
    found = accuracies(stored)
    return [
        Headline(name=f"accuracy on random looks ({title})", value=found[arm][RANDOMISED].share)
        for arm, title in ARMS.items()
        if RANDOMISED in found.get(arm, {})
    ]


def _trainings(run: Run) -> dict[str, Mapping[str, Any]]:
    """Classifier -> what its training recorded, as evaluate repeats it."""
    stored = read_json(run.decisions / "accuracy.json")
    return {arm: measured.get("training", {}) for arm, measured in stored.items()}


def verdict(row: Result, entry: Published) -> str:
    """How accuracy on random looks compares with a published one; empty where the published arm is another one."""
    if entry.remark or RANDOMISED not in row.measured:
        return ""
    return compared(row.measured[RANDOMISED], entry.test / 100)


def _answer(rows: Sequence[Result], *, chance: float) -> str:
    """The headline numbers in one sentence."""
    found = {row.arm: row for row in rows if RANDOMISED in row.measured}
    chosen = [found[arm] for arm in LEADING if arm in found] or list(found.values())
    each = "; ".join(f"{with_interval(row.measured[RANDOMISED])} when trained on {row.title} images" for row in chosen)
    return (
        f"On digits whose looks are drawn at random, where guessing is right in {percent(chance)}, a classifier is "
        f"right in: {each}."
    )


def _result_table(rows: Sequence[Result], *, chance: float) -> Table:
    """Accuracies of every classifier, the published ones beside them."""
    known = {entry.source for row in rows for entry in row.published}
    lines = [
        {
            "Trained on": row.title,
            "Test, random looks": share_cell(row.measured.get(RANDOMISED), chance=chance),
            "Test, same looks": share_cell(row.measured.get(ORDINARY), bar=False),
            RUNNING: percent(row.running_accuracy),
            ON_ORIGINAL: share_cell(row.measured.get(TRAINING), bar=False),
            **{title: _published(row, source) for source, title in SOURCES.items() if source in known},
        }
        for row in rows
    ]
    heads = {
        RUNNING: "its own images, last epoch",
        ON_ORIGINAL: "whatever it was trained on",
        "Test, same looks": "look and label agree",
        "Test, random looks": "only the shape tells",
    }
    return table("Accuracy with 95 % intervals (Wilson's, for the finite set of images)", lines, heads=heads)


def _published(row: Result, source: str) -> Cell | None:
    found = next((entry for entry in row.published if entry.source == source), None)
    if found is None:
        return None
    judged = verdict(row, found)
    notes = [f"here {judged}" if judged else "", found.remark or ""]
    return Cell(value=f"{found.train:.1f} / {found.test:.1f}", note="; ".join(filter(None, notes)), style="muted")


def _cue_bars(row: Result, *, chance: float) -> str:
    shares = {cue: share for cue, share in row.cues.items() if cue in CUES}
    lines = [Bar(name=cue, value=share.share, low=share.low, high=share.high, cue=cue) for cue, share in shares.items()]
    numbers = ", ".join(f"{cue} {with_interval(share)}" for cue, share in shares.items())
    alt = f"Trained on {row.title}: share of decisions on random looks that equal each cue's label: {numbers}"
    return bars(f"Trained on {row.title}", lines, chance=chance).svg(alt=alt)


def _cues(rows: Sequence[Result], *, chance: float) -> list[PageBlock]:
    shown = [row for row in rows if row.cues]
    if not shown:
        return [Text(words="No classifier was tested on random looks.", style="muted")]
    cues = dict.fromkeys(cue for row in shown for cue in row.cues)

    def cell(row: Result, cue: str) -> Cell:
        share: Proportion = row.cues[cue]
        return share_cell(share, chance=chance, cue=cue)

    lines: list[Row] = [
        {"Trained on": row.title, **{CUE_NAMES.get(cue, cue): cell(row, cue) for cue in cues if cue in row.cues}}
        for row in shown
    ]
    words = (
        f"The dotted line is chance, {percent(chance)}: a cue that is ignored ends there. Labels of two cues "
        "coincide by chance in some images, so a row may add up to more than 100 %."
    )
    caption = "Share of decisions on random looks that equal the cue's own label"
    return [table(caption, lines, summary=False), Text(words=words, style="note")]


def _examples(run: Run, stored: Predictions, rows: Sequence[Result], *, count: int) -> list[PageBlock]:
    """The first `count` randomised test images as columns, each classifier's decision on them as rows."""
    shown = list(islice(samples(run.data, split=RANDOMISED), count))
    heads = {}
    for number, sample in enumerate(shown, start=1):
        labels = ", ".join(f"{cue} {sample.facts[cue]}" for cue in CUES)
        heads[f"image {number}"] = image(png(sample.image), alt=f"test image: {labels}", enlarged=2)
    lines: list[Row] = []
    for row in rows:
        decided = stored.of(classifier=row.arm, condition=RANDOMISED).head(len(shown))
        if len(decided):
            lines.append({"Trained on": row.title, **dict(zip(heads, _decisions(decided), strict=False))})
    if not lines:
        return [Text(words="No classifier was tested on random looks.", style="muted")]
    words = (
        "The first images of the randomised test in their order, none selected. Below each decision stand the labels "
        "that it equals: shape is the right answer; texture or background means that the look was read, not the digit."
    )
    found = table("Decisions on single images", lines, style="examples", heads=heads, summary=False)
    return [Text(words=words), found]


def _decisions(rows: pd.DataFrame) -> list[Cell]:
    """Each decision with the cues whose label it equals."""
    named = separable(rows)
    cells = []
    for row in rows.to_dict("records"):
        equal = [cue for cue, column in CUES.items() if row["top_1"] == row[column]]
        words = ", ".join(cue for cue in equal if cue in named) or "none"
        cells.append(Cell(value=str(row["top_1"]), detail=words, style="shape" if "shape" in equal else "other"))
    return cells


def _confusions(stored: Predictions, rows: Sequence[Result]) -> list[PageBlock]:
    """A panel for each classifier by the shape's label; those by the other cues' labels are folded."""
    decided = {row.title: stored.of(classifier=row.arm, condition=RANDOMISED) for row in rows if row.cues}
    words = (
        "Rows are the label, columns the decision, cells the percentage of a row. A strong diagonal means that the "
        "classifier reads this cue."
    )
    blocks: list[PageBlock] = [Text(words=words)]
    for cue in CUES:
        if not any(cue in separable(each) for each in decided.values()):
            continue
        panels = [Figure(svg=_confusion(each, title, cue, classes=stored.classes)) for title, each in decided.items()]
        title = "" if cue == "shape" else f"The same decisions against the {cue} label"
        blocks.append(Group(blocks=[Group(blocks=panels)], title=title) if title else Group(blocks=panels))
    return blocks


def _confusion(rows: pd.DataFrame, title: str, cue: str, *, classes: int) -> str:
    matrix = confusion(rows, classes=classes, cue=cue)
    equal = percent(float(matrix.trace() / max(int(matrix.sum()), 1)))
    alt = f"Confusion matrix of the classifier trained on {title} by {cue} label: {equal} are on the diagonal"
    if error := largest_error(matrix):
        alt += f"; most often off it, {cue} {error[0]} was called {error[1]} ({percent(error[2])} of its images)"
    return confusion_panel(matrix, title=title, rows=f"{cue} label").svg(alt=alt)


def _sheets(run: Run) -> list[PageBlock]:
    files = [(run.data / "examples.png", "The data: one image of each digit in each split"), *last_sheet(run.model)]
    return sheets(files)


def _settings(
    run: Run, stored: Predictions, *, variant: str, seed: int, trainings: Mapping[str, Mapping[str, Any]]
) -> list[PageBlock]:
    trained = next((training["device"] for training in trainings.values() if "device" in training), None)
    devices = run.devices | ({"train_classifier": trained} if trained else {})
    counts = stored.rows.drop_duplicates(["condition", "image"]).groupby("condition").size()
    images = {title: f"{counts[split]:,}" for split, title in SPLITS.items() if split in counts}
    facts = {"Variant": f"mnist/{variant}", "Seed": seed, **images}
    return settings_blocks(Mnist, shown_params(run), devices=devices, facts=facts, known=KNOWN)
