"""Errors under corruption on an ImageNet report (Hendrycks & Dietterich, ICLR 2019): tables, curves, who corrupted."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from cgn.evaluation.corruption_error import ALEXNET, ALEXNET_CLEAN, SEVERITIES
from cgn.evaluation.predictions import IMAGENET_C
from cgn.evaluation.suites import span
from cgn.imagenet.report_parts.heads import CHOSEN, Head, Results
from cgn.imagenet.report_parts.published import IMAGENET_C_IMAGES, head_table
from cgn.report.figures import CURVES, curve_panels
from cgn.report.tables import Cell, Measure, Row, Table, printed

ERRORS = {
    "Clean error": ("clean_error", "the same images"),
    "Mean error": ("mean_error", "fifteen corruptions"),
    "mCE": ("mce", "over the fifteen"),
    "Relative mCE": ("relative_mce", "over the fifteen"),
}
"""Column -> its measure, and what stands below its title."""


def corruptions(results: Results) -> dict[str, Any]:
    """What the template shows of the corruptions, None and empty where they were not evaluated."""
    heads = [head for head in results.heads if head.corruptions]
    chosen = [head for key in CHOSEN for head in heads if head.key == key] or heads[: len(CHOSEN)]
    return {
        "errors": _errors(heads),
        "corrupted": _corrupted(results),
        "curves": _curves(chosen) if chosen else [],
        "by_corruption": _by_corruption(chosen),
        "severities": _severities(heads),
    }


def _errors(heads: Sequence[Head]) -> Table | None:
    found = head_table("Errors under corruption", heads, {title: name for title, (name, _) in ERRORS.items()})
    alexnet = [f"{100 * error:.1f}" for error in (ALEXNET_CLEAN, fmean(ALEXNET.values()), 1.0, 1.0)]
    title = Cell(value="AlexNet on ImageNet-C, published", style="muted")
    last = {"Classifier": title, **dict(zip(ERRORS, map(printed, alexnet), strict=True))}
    small = {title: words for title, (_, words) in ERRORS.items()}
    return replace(found, lines=[*found.lines, last], heads=small) if found else None


def _by_corruption(heads: Sequence[Head]) -> Table | None:
    rows: list[Row] = []
    for name in _corruptions(heads):
        alexnet = printed(f"{100 * ALEXNET[name]:.1f}" if name in ALEXNET else None)
        row: dict[str, Cell | Measure | str | None] = {"Corruption": name.replace("_", " "), "AlexNet: error": alexnet}
        for head in heads:
            row[f"{head.title}: error"] = head.measures.get(f"error/{name}")
            row[f"{head.title}: CE"] = head.measures.get(f"ce/{name}")
        rows.append(row)
    caption = "Mean error over five severities and CE, with 95 % intervals"
    return Table(caption=caption, lines=rows, style="dense") if rows else None


def _severities(heads: Sequence[Head]) -> Table | None:
    rows: list[Row] = [
        {
            "Corruption, severity": f"{name.replace('_', ' ')}, {severity}",
            **{head.title: head.measures.get(f"error/{name}/{severity}") for head in heads},
        }
        for name in _corruptions(heads)
        for severity in SEVERITIES
    ]
    return Table(caption="Plain error, with 95 % intervals", lines=rows, style="dense settings") if rows else None


def _curves(heads: Sequence[Head]) -> list[str]:
    """The panels with the titles that the page uses."""
    errors = [
        replace(head.corruptions, classifier=head.title, head=head.owner or head.key[1])
        for head in heads[: len(CURVES)]
        if head.corruptions
    ]
    return [panel.svg for panel in curve_panels(errors).values()]


def _corrupted(results: Results) -> dict[str, Any]:
    """Who corrupted the images (in older runs only the parameters say it), and how many there are."""
    folders = results.run.params.get("prepare", {}).get("folders") or {}
    by = results.preparation.get("corrupted_by") or ("user" if folders.get("imagenet_c") else "here")
    counts = results.counts.get(IMAGENET_C, [0])
    own = set(counts) == {IMAGENET_C_IMAGES} and by != "here"
    return {"by": by, "own": own, "images": span(counts), "published": f"{IMAGENET_C_IMAGES:,}"}


def _corruptions(heads: Sequence[Head]) -> list[str]:
    return list(dict.fromkeys(name for head in heads if head.corruptions for name in head.corruptions.errors))
