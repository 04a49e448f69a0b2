"""mnist report: the stored decisions and the sheets of a run -> index.html, summary.md, bars.csv, confusion.csv.

Every accuracy is computed again from decisions.parquet; no network is loaded. The test on random looks comes first,
because it is the question: only the shape of the digit tells its class there. A number stands beside what it can be
compared with; the words are in report/templates/mnist.jinja. A sheet that does not exist is left out.
"""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from cgn.config.mnist import Mnist, Report
from cgn.core.images import png
from cgn.core.metrics import MetricSink
from cgn.core.parameters import Input, OptionalInput, Output
from cgn.data.shards import samples
from cgn.evaluation.expected import Headline, remarks
from cgn.evaluation.intervals import Proportion, compared
from cgn.evaluation.metrics import accuracies, confusion, estimate, followed, separable
from cgn.evaluation.predictions import CUES, Predictions
from cgn.evaluation.seeds import Figure
from cgn.mnist.arms import ARMS
from cgn.mnist.colorings import BACKGROUND_COLORS, OBJECT_COLORS
from cgn.mnist.published import published_accuracies
from cgn.report.figures import bars, confusion_panel
from cgn.report.page import PAPER, REPLICATION, image, last_sheet, sheets, write_page
from cgn.report.plots import write_bars, write_confusion
from cgn.report.run import Run, read_decisions, read_run, read_verdict
from cgn.report.settings import departure_table, settings
from cgn.report.tables import Cell, Measure, Row, Table, measure, percent

TRAINING, ORDINARY, RANDOMISED = "train", "test_iid", "test_random"
SPLITS = {
    TRAINING: "Training images",
    ORDINARY: "Test images, same looks",
    RANDOMISED: "Test images, random looks",
}
SOURCES = {PAPER: "Paper: running / random looks", REPLICATION: "Replication: running / random looks"}
HEADS = {
    "Running accuracy in training": "its own images, last epoch",
    "Original training set": "whatever it was trained on",
    "Test, same looks": "look and label agree",
    "Test, random looks": "only the shape tells",
}
CUE_NAMES = {"shape": "shape (the digit)", "texture": "texture (of the digit)"}
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
    verdict: OptionalInput = None,
    page: Output,
) -> None:
    """Write index.html and summary.md; `verdict` is the folder that gate wrote.

    Raises ArtifactError for decisions or a verdict that are missing, broken or another variant's; for broken sheets.
    """
    target = f"mnist/{variant}"
    run = read_run(target, data=data, model=model, images=images, decisions=decisions)
    stored = read_decisions(run)
    # Without evaluate's only parameter, the size of its batches: it decides nothing.
    params = {verb: values for verb, values in run.params.items() if verb != "evaluate"}
    expected = remarks(headlines(stored), target=target, params=run.params)
    caption = "Generated images; a counterfactual one has shape, texture and background of different digits"
    known = published_accuracies(variant)
    write_page(
        page,
        template="mnist",
        target=target,
        seed=seed,
        variant=variant,
        verdict=read_verdict(verdict, run=run),
        expected=expected,
        examples=sheets([(images / "examples.png", caption)]),
        chance=percent(1 / stored.classes),
        leading=_leading(stored),
        accuracies=_accuracies(run, stored, variant),
        sources=list(dict.fromkeys(entry.source for entry in known)),
        **_randomised(run, stored, count=config.examples),
        sheets=sheets([(data / "examples.png", "The data: one image of each digit in each split"), *last_sheet(model)]),
        hidden=_hidden(run, stored),
        departures=departure_table(Mnist, params) if known else "",
        settings=settings(
            Mnist, params, devices=run.devices, facts={"Variant": target, "Seed": seed} | _counts(stored), known=KNOWN
        ),
    )
    _write_plots(page, stored)
    for remark in expected:
        print(remark, flush=True)
    sink.picture(page / "index.html")


def _write_plots(page: Path, stored: Predictions) -> None:
    """What `dvc plots` draws: every accuracy, and what each classifier decides on random looks."""
    found, tested = accuracies(stored), stored.of(condition=RANDOMISED)
    arms = _arms(stored.rows)
    splits = [(title, split) for split, title in reversed(SPLITS.items())]
    measured = [(title, arm, found[arm].get(split)) for title, split in splits for arm in arms]
    write_bars(page, [(title, arm, estimate(share)) for title, arm, share in measured if share])
    matrices = {arm: confusion(tested[tested["classifier"] == arm], classes=stored.classes) for arm in arms}
    write_confusion(page, matrices, labels=[str(digit) for digit in range(stored.classes)])


def headlines(stored: Predictions) -> list[Headline]:
    """The headline figures, for `cgn.evaluation.expected`."""
    return [figure.headline for figure in figures(stored)]


def figures(stored: Predictions) -> list[Figure]:
    """The headline figures: each classifier's accuracy on random looks."""
    found = accuracies(stored)
    return [
        Figure(measure="accuracy on random looks", head=title, of=estimate(found[arm][RANDOMISED]))
        for arm, title in ARMS.items()
        if RANDOMISED in found.get(arm, {})
    ]


def _randomised(run: Run, stored: Predictions, *, count: int) -> dict[str, Any]:
    """What was decided on random looks, by cue: figures, tables, single images."""
    chance, rows = 1 / stored.classes, stored.of(condition=RANDOMISED)
    tested = {_title(name): rows[rows["classifier"] == name] for name in _arms(rows)}
    cues = {title: followed(decided) for title, decided in tested.items()}
    bar_rows = {
        title: {cue: Measure(of=estimate(share), cue=cue) for cue, share in shares.items()}
        for title, shares in cues.items()
    }
    return {
        "cue_bars": [bars(f"Trained on {title}", each, chance=chance).svg for title, each in bar_rows.items()],
        "cues": _cues(cues, chance=chance),
        "decisions": _decisions(run, tested, count=count),
        "confusions": {
            cue: [
                confusion_panel(confusion(decided, classes=stored.classes, cue=cue), title=title, cue=cue).svg
                for title, decided in tested.items()
            ]
            for cue in CUES
            if any(cue in shares for shares in cues.values())
        },
    }


def _arms(rows: pd.DataFrame) -> list[str]:
    """The classifiers that decided, known ones first."""
    found = sorted(map(str, rows["classifier"].unique()))
    return [*(name for name in ARMS if name in found), *(name for name in found if name not in ARMS)]


def _title(name: str) -> str:
    """What a classifier was trained on."""
    return ARMS.get(name, name)


def _leading(stored: Predictions) -> str:
    """The headline numbers."""
    found = {name: of[RANDOMISED] for name, of in accuracies(stored).items() if RANDOMISED in of}
    chosen = [name for name in LEADING if name in found] or list(found)
    return "; ".join(f"{measure(found[name])} when trained on {_title(name)} images" for name in chosen)


def _accuracies(run: Run, stored: Predictions, variant: str) -> Table:
    """Accuracies of every classifier, the published ones beside them."""
    measured, known = accuracies(stored), {entry.source for entry in published_accuracies(variant)}
    rows: list[Row] = []
    for name in _arms(stored.rows):
        running, of = run.trainings.get(name, {}).get("running_accuracy"), measured[name]
        rows.append(
            {
                "Trained on": _title(name),
                "Test, random looks": measure(of.get(RANDOMISED), chance=1 / stored.classes),
                "Test, same looks": measure(of.get(ORDINARY), bar=False),
                "Running accuracy in training": percent(running if isinstance(running, int | float) else None),
                "Original training set": measure(of.get(TRAINING), bar=False),
                **{
                    title: _published(name, variant, source, of.get(RANDOMISED))
                    for source, title in SOURCES.items()
                    if source in known
                },
            }
        )
    caption = "Accuracy with 95 % intervals (Wilson's, for the finite set of images)"
    return Table(caption=caption, lines=rows, heads=HEADS)


def _published(arm: str, variant: str, source: str, ours: Proportion | None) -> Cell | None:
    """What a source prints, and how the accuracy compares where the published arm is the same one."""
    for entry in published_accuracies(variant):
        if (entry.arm, entry.source) == (arm, source):
            note = entry.remark or (f"here {compared(ours, entry.test / 100)}" if ours else "")
            return Cell(value=f"{entry.train:.1f} / {entry.test:.1f}", note=note, style="muted")
    return None


def _cues(found: Mapping[str, Mapping[str, Proportion]], *, chance: float) -> Table | None:
    names = dict.fromkeys(cue for shares in found.values() for cue in shares)
    rows: list[Row] = [
        {
            "Trained on": title,
            **{CUE_NAMES.get(cue, cue): measure(shares.get(cue), chance=chance, cue=cue) for cue in names},
        }
        for title, shares in found.items()
    ]
    caption = "Share of decisions on random looks that equal the cue's own label"
    return Table(caption=caption, lines=rows) if rows else None


def _decisions(run: Run, tested: Mapping[str, pd.DataFrame], *, count: int) -> Table | None:
    """The first `count` randomised test images as columns, each classifier's decision on them as rows."""
    heads = {}
    for number, sample in enumerate(islice(samples(run.data, split=RANDOMISED), count if tested else 0), start=1):
        labels = ", ".join(f"{cue} {sample.facts[cue]}" for cue in CUES)
        heads[f"image {number}"] = image(png(sample.image), alt=f"test image: {labels}", enlarged=2)
    rows: list[Row] = [
        {"Trained on": title, **dict(zip(heads, _equal_cues(decided.head(len(heads))), strict=False))}
        for title, decided in tested.items()
    ]
    return Table(caption="Decisions on single images", lines=rows, style="examples", heads=heads) if rows else None


def _equal_cues(rows: pd.DataFrame) -> list[Cell]:
    """Each decision with the cues whose label it equals."""
    named = separable(rows)
    cells = []
    for row in rows.to_dict("records"):
        equal = [cue for cue, column in CUES.items() if row["top_1"] == row[column]]
        words = ", ".join(cue for cue in equal if cue in named) or "none"
        cells.append(Cell(value=str(row["top_1"]), detail=words, style="shape" if "shape" in equal else "other"))
    return cells


def _hidden(run: Run, stored: Predictions) -> dict[str, str] | None:
    """How many random looks hide the digit, where object and background have the same ten colours."""
    if run.params.get("prepare", {}).get("look") != "double_colored":
        return None
    looks = stored.of(condition=RANDOMISED).drop_duplicates("image")
    hidden = sum(
        OBJECT_COLORS[texture] == BACKGROUND_COLORS[background]
        for texture, background in zip(looks["texture"], looks["background"], strict=True)
    )
    seen = 1 - hidden / max(len(looks), 1) * (1 - 1 / stored.classes)
    return {"images": f"{hidden:,}", "of": f"{len(looks):,}", "seen": percent(seen)}


def _counts(stored: Predictions) -> dict[str, str]:
    counts = stored.rows.drop_duplicates(["condition", "image"]).groupby("condition").size()
    return {title: f"{counts[split]:,}" for split, title in SPLITS.items() if split in counts}
