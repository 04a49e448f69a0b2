"""imagenet report: the stored decisions and the sheets of a run -> index.html, summary.md, bars.csv, confusion.csv.

Every number of a classifier is computed again from decisions.parquet; no network is loaded. What the counterfactuals
changed against the baseline comes first, in the four questions that the paper asks: of the mean of heads, the
prediction that one would use, and where the paper asks it of another head, of that head too. Every table of the paper
follows, ours (bold, with its interval) beside the published numbers (muted, as they are printed); the words are in
report/templates/imagenet.jinja.

A shape bias or background gap that is undecided is not quoted, and neither is what would compare it: its difference, or
the paper's number. Better or worse than the paper is said only where the suite has as many images and classes as the
published one.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from cgn.config.imagenet import ImageNet, Report
from cgn.core.metrics import MetricSink
from cgn.core.parameters import Input, OptionalInput, Output
from cgn.evaluation.expected import remarks
from cgn.evaluation.intervals import compared, difference
from cgn.evaluation.metrics import CHANCE, RANDOM, SAME, confusion
from cgn.evaluation.predictions import CLEAN, CUE_CONFLICT, IN9
from cgn.imagenet.data.image_folders import VARIATIONS
from cgn.imagenet.data.prepared_sets import PreparedSets
from cgn.imagenet.data.wnids import class_words
from cgn.imagenet.report_parts.corruptions import corruptions
from cgn.imagenet.report_parts.examples import SHOWN, open_collection, scene, stimuli
from cgn.imagenet.report_parts.heads import (
    AVERAGE,
    BASELINE,
    CHOSEN,
    SHAPE,
    SHAPE_TEXTURE,
    Head,
    Results,
    headlines,
    read_results,
)
from cgn.imagenet.report_parts.network import network_section
from cgn.imagenet.report_parts.notes import image_counts, notes
from cgn.imagenet.report_parts.published import (
    ACCURACY,
    BACKGROUNDS,
    CLASSES,
    DECISIONS,
    ELSEWHERE,
    IMAGES,
    STYLIZED,
    head_table,
    published_value,
)
from cgn.report.figures import bars, shape_bias_panel
from cgn.report.page import LINKS, PAPER, sheets, write_page
from cgn.report.plots import write_bars, write_confusion
from cgn.report.run import read_run, read_verdict
from cgn.report.settings import departure_table, settings
from cgn.report.tables import Cell, Measure, Row, Table, interval, percent, points, printed

ASKED = (
    ("bias", AVERAGE), ("bias", SHAPE),
    ("gap", AVERAGE), ("gap", SHAPE), ("gap", SHAPE_TEXTURE),
    ("top_1", AVERAGE), ("mean_error", AVERAGE),
)  # fmt: skip
"""Question, by its measure, and the head of the ensemble that answers it."""
QUESTIONS: Mapping[str, tuple[str, Literal["higher", "lower"]]] = {
    "bias": ("Shape bias", "higher"),
    "gap": ("Background gap", "lower"),
    "top_1": ("Top-1", "higher"),
    "mean_error": ("Error under corruption", "lower"),
}
"""Measure -> its name, and what is better."""
PRINTED = {"bias": (ACCURACY, CUE_CONFLICT), "gap": (BACKGROUNDS, IN9), "top_1": (ACCURACY, CLEAN)}
"""Measure -> the published rows, and the suite."""
ROLES = {
    AVERAGE: "the prediction that one would use",
    SHAPE_TEXTURE: "the heads that the paper takes",
    SHAPE: "trained to follow shape alone",
}
"""Head -> why it is asked."""
KNOWN = {
    "train_cgn.updates": "Updates of the generative network",
    "train_cgn.batch_size": "Images in a batch",
    "train_cgn.batches_per_update": "Batches summed for an update",
    "generate.weights": "Network that drew the images",
    "generate.counterfactual_images": "Counterfactual images",
    "generate.truncation": "Truncation of the noise",
    "train_classifier.backbone": "Backbone of the classifiers",
    "train_classifier.pretrained": "Its first weights",
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
    target = f"imagenet/{variant}"
    run = read_run(target, data=data, model=model, images=images, decisions=decisions)
    results, collection = read_results(run), open_collection(run.data)
    expected = remarks(headlines(results.heads), target=target, params=run.params)
    facts = {"Variant": target, "Seed": seed, "Classes": f"{results.stored.classes:,}", **image_counts(results)}
    caption = "Counterfactual images: shape, texture and background of different classes"
    write_page(
        page,
        template="imagenet",
        target=target,
        seed=seed,
        verdict=read_verdict(verdict, run=run),
        expected=expected,
        examples=sheets([(images / "examples.png", caption)]),
        **_headline(results),
        **_suites(results, collection),
        stimuli=stimuli(results, collection, count=config.examples),
        **network_section(run, class_words(collection.class_names) if collection else ()),
        **notes(results),
        departures=departure_table(ImageNet, run.params),
        settings=settings(ImageNet, run.params, devices=run.devices, facts=facts, known=KNOWN),
    )
    _write_plots(page, results)
    for remark in expected:
        print(remark, flush=True)
    sink.picture(page / "index.html")


def _write_plots(page: Path, results: Results) -> None:
    """What `dvc plots` draws: each question's numbers, and the category that is decided for on the cue conflicts."""
    write_bars(
        page,
        [
            (question, head.title, of)
            for name, (question, _) in QUESTIONS.items()
            for head in results.heads
            if (found := head.measures.get(name)) and (of := found.quoted)
        ],
    )
    names, matrices = results.stored.facts["categories"], {}
    for head in (head for key in CHOSEN if (head := results.head(key))):
        rows = results.stored.of(CUE_CONFLICT, classifier=head.key[0], head=head.key[1])
        matrices[head.title] = confusion(rows.assign(top_1=rows["category"]), classes=len(names))
    write_confusion(page, matrices, labels=names)


def _headline(results: Results) -> dict[str, Any]:
    """The ensemble's heads against the baseline: in a sentence for each question, in a table, in figures."""
    answers = {}
    for name, keys in (("bias", (SHAPE, AVERAGE, BASELINE)), ("gap", (AVERAGE, BASELINE))):
        heads = [head for key in keys if (head := results.head(key)) and name in head.measures]
        if len(heads) > 1 and heads[-1].key == BASELINE:
            answers[name] = "; ".join(f"{head.title} {_brief(head, head.measures[name])}" for head in heads)
    tops = (f"{head.title} {head.measures['top_1']}" for head in results.heads if "top_1" in head.measures)
    return {
        "answers": answers,
        "tops": "; ".join(tops),
        "chance": percent(1 / results.stored.classes),
        "category_chance": next((percent(1 / len(of.by_category)) for of in results.heads if of.by_category), ""),
        "changes": _change_table(results),
        "figures": _figures(results),
        "classes": f"{results.stored.classes:,}",
        "published_classes": f"{CLASSES:,}",
        "sources": list(LINKS),
    }


def _change_table(results: Results) -> Table | None:
    """Baseline, ensemble, difference and the paper's two numbers; None where there is nothing to compare."""
    rows: list[Row] = []
    for name, key in ASKED:
        (question, better), head = QUESTIONS[name], results.head(key)
        before, after = results.measure(BASELINE, name), results.measure(key, name)
        if before is None or after is None or head is None:
            continue
        top = results.measure(key, "top_1") if key == SHAPE else None
        roles = [ROLES[key], f"its top-1 on clean images is {top.number}" if top else "", f"{better} is better"]
        paper, verdict = _paper(results, name, key, after)
        change = difference(after.quoted, before.quoted) if before.quoted and after.quoted else None
        shown = points(change.value, plus="+") if change else ""
        rows.append(
            {
                "Question": Cell(value=f"{question}, {head.title}", detail="; ".join(filter(None, roles))),
                "here: baseline": before,
                "here: ensemble": after,
                "here: difference": Cell(value=shown, detail=interval(change), style="bold") if change else None,
                "paper: baseline": printed(paper.get(BASELINE), unit=after.unit),
                "paper: ensemble": printed(paper.get(key), unit=after.unit, note=f"here {verdict}" if verdict else ""),
            }
        )
    return Table(caption="The ensemble against the baseline, with 95 % intervals", lines=rows) if rows else None


def _paper(
    results: Results, name: str, key: tuple[str, str], after: Measure
) -> tuple[dict[tuple[str, str], str | None], str]:
    """The paper's numbers by head, and how the ensemble's compares with it where that can be said."""
    if name not in PRINTED or after.quoted is None:
        return {}, ""
    rows, suite = PRINTED[name]
    found = {each: published_value(rows, each, source=PAPER, column=name) for each in (BASELINE, key)}
    same_size = results.stored.classes == CLASSES and max(results.counts[suite]) == IMAGES[suite]
    if not same_size or not (number := found[key]):
        return found, ""
    half = 0.5 / 10 ** (len(number.partition(".")[2]) + 2)
    return found, compared(after.quoted, float(number) / 100, better=QUESTIONS[name][1], rounding=half)


def _brief(head: Head, found: Measure) -> str:
    """An answer within a sentence."""
    if found.quoted is None:
        return f"{found.number} ({found.undecided})"
    decided = f"; {found.note.partition(';')[0]}" if found.note else ""
    right = f", shape accuracy {head.measures['shape_accuracy'].number}" if found.note else ""
    return f"{found.number} ({interval(found.quoted)}{decided}{right})"


def _figures(results: Results) -> list[str]:
    """A panel of bars for each question, every head a row."""
    one, panels = 1 / results.stored.classes, []
    for name, chance in {"bias": 0.5, "gap": 0.0, "top_1": one, "mean_error": 1 - one}.items():
        rows = {head.title: of for head in results.heads if (of := head.measures.get(name)) and of.of}
        title = QUESTIONS[name][0] + (" (of decisions for either cue)" if name == "bias" else "")
        panels += [bars(title, rows, chance=chance).svg] if rows else []
    return panels


def _suites(results: Results, collection: PreparedSets | None) -> dict[str, Any]:
    """Tables and figures of every suite, None and empty where it was not evaluated."""
    names = {"Shape bias": "bias", "Top-1": "top_1", "Top-5": "top_5"}
    gaps = {name: name for name in ("original", SAME, RANDOM)} | {"BG-gap": "gap"}
    tops = {"Top-1": "stylized/top_1", "Top-5": "stylized/top_5"}
    present = [name for name in VARIATIONS if any(name in head.measures for head in results.heads)]
    variations = head_table("ImageNet-9: accuracy on every variation", results.heads, {name: name for name in present})
    scenes = SHOWN | (scene(results, collection) if collection else {})
    return {
        "accuracies": head_table("Shape bias, top-1 and top-5", results.heads, names, ACCURACY),
        "by_class": [
            shape_bias_panel(head.title, head.by_category, quoted=not head.measures["bias"].undecided).svg
            for head in results.heads
            if "bias" in head.measures
        ],
        "decisions": DECISIONS,
        "stylized": head_table("Stylized-ImageNet: top-1 and top-5", results.heads, tops, STYLIZED),
        "elsewhere": ELSEWHERE,
        "gaps": head_table("ImageNet-9: accuracy and background gap", results.heads, gaps, BACKGROUNDS),
        "superclass_chance": f"{100 * CHANCE:.1f} %",
        "variations": variations and replace(variations, heads=scenes),
        **corruptions(results),
    }
