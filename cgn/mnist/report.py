"""mnist report: the stored decisions and the sheets of a run -> index.html and summary.md.

Every accuracy is computed again from decisions.parquet; no network is loaded. The test on random looks comes first,
because it is the question: only the shape of the digit tells its class there. A number stands beside what it can be
compared with; the words are in report/templates/mnist.jinja. A sheet that does not exist is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pandas as pd

from cgn.config.mnist import Mnist, Report
from cgn.core.arguments import Input, Output
from cgn.core.images import png
from cgn.core.metrics import MetricSink
from cgn.data.shards import samples
from cgn.evaluation.expected import Headline, remarks
from cgn.evaluation.intervals import Proportion, compared
from cgn.evaluation.metrics import accuracies, confusion, followed, separable
from cgn.evaluation.predictions import CUES, Predictions
from cgn.mnist.arms import ARMS
from cgn.mnist.colorings import BACKGROUND_COLORS, OBJECT_COLORS
from cgn.mnist.published import published
from cgn.report.figures import bars, confusion_panel
from cgn.report.page import PAPER, REPLICATION, image, last_sheet, sheets, write_page
from cgn.report.run import Run, read_decisions, read_run
from cgn.report.settings import departure_table, settings
from cgn.report.tables import Cell, Row, Table, measure, percent

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


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A classifier by its training images."""

    name: str
    measured: Mapping[str, Proportion]
    """Condition -> accuracy."""
    randomised: pd.DataFrame
    """The decisions on random looks; empty where there are none."""
    training: Mapping[str, Any]

    @property
    def title(self) -> str:
        """What it was trained on."""
        return ARMS.get(self.name, self.name)

    @property
    def cues(self) -> dict[str, Proportion]:
        """Cue -> the share of decisions on random looks that equal its label."""
        return followed(self.randomised) if len(self.randomised) else {}


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
    arms, chance = _arms(run, stored), 1 / stored.classes
    tested = [arm for arm in arms if arm.cues]
    # Without evaluate's only parameter, the size of its batches: it decides nothing.
    params = {verb: values for verb, values in run.params.items() if verb != "evaluate"}
    expected = remarks(headlines(stored), target=target, params=run.params)
    caption = "Generated images; a counterfactual one has shape, texture and background of different digits"
    known = published(variant)
    write_page(
        page,
        template="mnist",
        target=target,
        seed=seed,
        variant=variant,
        chance=percent(chance),
        leading=_leading(arms),
        expected=expected,
        examples=sheets([(images / "examples.png", caption)]),
        accuracies=_accuracies(arms, variant, chance=chance),
        sources=list(dict.fromkeys(entry.source for entry in known)),
        cue_bars=[_cue_bars(arm, chance=chance) for arm in tested],
        cues=_cues(tested, chance=chance),
        decisions=_decisions(run, tested, count=config.examples),
        confusions=_confusions(tested, classes=stored.classes),
        sheets=sheets([(data / "examples.png", "The data: one image of each digit in each split"), *last_sheet(model)]),
        hidden=_hidden(run, stored),
        departures=departure_table(Mnist, params) if known else "",
        settings=settings(
            Mnist, params, devices=run.devices, facts={"Variant": target, "Seed": seed} | _counts(stored), known=KNOWN
        ),
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


def _arms(run: Run, stored: Predictions) -> list[Arm]:
    """Every classifier that decided, known ones first; what its training recorded, as evaluate repeats it."""
    measured = accuracies(stored)
    return [
        Arm(
            name=name,
            measured=measured[name],
            randomised=stored.of(classifier=name, condition=RANDOMISED),
            training=run.trainings.get(name, {}),
        )
        for name in (*(name for name in ARMS if name in measured), *(name for name in measured if name not in ARMS))
    ]


def _leading(arms: Sequence[Arm]) -> str:
    """The headline numbers."""
    found = {arm.name: arm for arm in arms if RANDOMISED in arm.measured}
    chosen = [found[name] for name in LEADING if name in found] or list(found.values())
    return "; ".join(f"{measure(arm.measured[RANDOMISED])} when trained on {arm.title} images" for arm in chosen)


def _accuracies(arms: Sequence[Arm], variant: str, *, chance: float) -> Table:
    """Accuracies of every classifier, the published ones beside them."""
    known = {entry.source for entry in published(variant)}
    rows: list[Row] = []
    for arm in arms:
        running = arm.training.get("running_accuracy")
        rows.append(
            {
                "Trained on": arm.title,
                "Test, random looks": measure(arm.measured.get(RANDOMISED), chance=chance),
                "Test, same looks": measure(arm.measured.get(ORDINARY), bar=False),
                "Running accuracy in training": percent(running if isinstance(running, int | float) else None),
                "Original training set": measure(arm.measured.get(TRAINING), bar=False),
                **{title: _published(arm, variant, source) for source, title in SOURCES.items() if source in known},
            }
        )
    return Table(
        caption="Accuracy with 95 % intervals (Wilson's, for the finite set of images)", lines=rows, heads=HEADS
    )


def _published(arm: Arm, variant: str, source: str) -> Cell | None:
    """What a source prints, and how the accuracy compares where the published arm is the same one."""
    for entry in published(variant):
        if (entry.arm, entry.source) == (arm.name, source):
            same = not entry.remark and RANDOMISED in arm.measured
            note = f"here {compared(arm.measured[RANDOMISED], entry.test / 100)}" if same else entry.remark or ""
            return Cell(value=f"{entry.train:.1f} / {entry.test:.1f}", note=note, style="muted")
    return None


def _cue_bars(arm: Arm, *, chance: float) -> str:
    shares = {cue: measure(share, cue=cue) for cue, share in arm.cues.items()}
    return bars(f"Trained on {arm.title}", {cue: share for cue, share in shares.items() if share}, chance=chance).svg


def _cues(tested: Sequence[Arm], *, chance: float) -> Table | None:
    if not tested:
        return None
    cues = dict.fromkeys(cue for arm in tested for cue in arm.cues)
    rows: list[Row] = [
        {
            "Trained on": arm.title,
            **{CUE_NAMES.get(cue, cue): measure(arm.cues.get(cue), chance=chance, cue=cue) for cue in cues},
        }
        for arm in tested
    ]
    return Table(caption="Share of decisions on random looks that equal the cue's own label", lines=rows)


def _decisions(run: Run, tested: Sequence[Arm], *, count: int) -> Table | None:
    """The first `count` randomised test images as columns, each classifier's decision on them as rows."""
    if not tested:
        return None
    heads = {}
    for number, sample in enumerate(islice(samples(run.data, split=RANDOMISED), count), start=1):
        labels = ", ".join(f"{cue} {sample.facts[cue]}" for cue in CUES)
        heads[f"image {number}"] = image(png(sample.image), alt=f"test image: {labels}", enlarged=2)
    rows: list[Row] = [
        {"Trained on": arm.title, **dict(zip(heads, _equal_cues(arm.randomised.head(len(heads))), strict=False))}
        for arm in tested
    ]
    return Table(caption="Decisions on single images", lines=rows, style="examples", heads=heads)


def _equal_cues(rows: pd.DataFrame) -> list[Cell]:
    """Each decision with the cues whose label it equals."""
    named = separable(rows)
    cells = []
    for row in rows.to_dict("records"):
        equal = [cue for cue, column in CUES.items() if row["top_1"] == row[column]]
        words = ", ".join(cue for cue in equal if cue in named) or "none"
        cells.append(Cell(value=str(row["top_1"]), detail=words, style="shape" if "shape" in equal else "other"))
    return cells


def _confusions(tested: Sequence[Arm], *, classes: int) -> dict[str, list[str]]:
    """Cue -> a panel for each classifier, of the cues that can be told from the shape."""
    return {
        cue: [
            confusion_panel(confusion(arm.randomised, classes=classes, cue=cue), title=arm.title, cue=cue).svg
            for arm in tested
        ]
        for cue in CUES
        if any(cue in arm.cues for arm in tested)
    }


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
