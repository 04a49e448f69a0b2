"""The notes of an ImageNet report: what is missing, how images were shown, what each stage took.

A suite, variation or corruption that was not evaluated is named, and every image that could not be read is counted
and named. Times are of the last run that wrote each folder; a value that no log has is a dash.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cgn.evaluation.corruption_error import ALEXNET
from cgn.evaluation.predictions import CLEAN, CUE_CONFLICT, IMAGENET_C, IN9, STYLIZED, SUITES
from cgn.evaluation.suites import PREPARATION, preparations, span
from cgn.imagenet.data.image_folders import VARIATIONS
from cgn.imagenet.report_parts.heads import BASELINE, TITLES, Results
from cgn.imagenet.report_parts.published import IMAGES
from cgn.report.tables import DASH, Cell, Row, Table

NAMES = {
    CLEAN: "Clean validation images",
    IN9: "ImageNet-9",
    CUE_CONFLICT: "Cue conflict",
    STYLIZED: "Stylized-ImageNet",
    IMAGENET_C: "Corruptions (ImageNet-C)",
}
MINUTE, HOUR = 60, 3600


def notes(results: Results) -> dict[str, Any]:
    """What the template says of comparisons, of what is missing, of how images were shown, and of times."""
    suites: Mapping[str, str] = results.preparation.get("suites", {})
    return {
        "other_counts": _other_counts(results),
        "preparations": _preparation_table(results),
        "shown": [f"{NAMES.get(suite, suite)}: {words}" for suite, words in suites.items()],
        "missing": _missing(results),
        "unreadable": list(map(str, results.stored.facts["unreadable"])),
        "times": _times(results),
    }


def _missing(results: Results) -> list[str]:
    """A sentence for each thing that was not evaluated."""
    asked = results.run.params.get("evaluate", {}).get("suites")
    items = [f"{NAMES[suite]}: not evaluated{_asked(suite, asked)}" for suite in SUITES if suite not in results.counts]
    if absent := _absent(results, IN9, VARIATIONS):
        items.append(f"ImageNet-9: no {', '.join(absent)}")
    if absent := _absent(results, IMAGENET_C, tuple(ALEXNET)):
        items.append(f"Corruptions: no {', '.join(absent)}; so there is no mCE")
    if not results.head(BASELINE):
        items.append("No baseline was evaluated, so nothing tells what the counterfactuals changed")
    if absent := [title for key, title in TITLES.items() if key[0] == "ensemble" and not results.head(key)]:
        items.append(f"Heads that were not evaluated: {', '.join(absent)}")
    items += [str(remark) for remark in results.stored.facts["remarks"]]
    return items or ["Nothing: every suite, variation and corruption was evaluated."]


def image_counts(results: Results) -> dict[str, str]:
    """Suite -> how many images it has, in words; those in two conditions count twice."""
    found = {}
    for suite, name in NAMES.items():
        if counts := results.counts.get(suite):
            each = f" in {len(counts)} conditions, {span(counts)} each" if len(counts) > 1 else ""
            found[name] = f"{sum(counts):,} images{each}"
    return found


def _other_counts(results: Results) -> str:
    """Where a suite's conditions have another number of images than the published ones."""
    return "; ".join(
        f"{NAMES[suite]}: {span(results.counts[suite])} images here, {images:,} published"
        for suite, images in IMAGES.items()
        if suite in results.counts and set(results.counts[suite]) != {images}
    )


def _preparation_table(results: Results) -> Table | None:
    """Network, preparation and file of each classifier, where the decisions say it."""
    titles = ["Classifier", *(title[0].upper() + title[1:] for title in PREPARATION)]
    rows = preparations(results.preparation)
    lines = [dict(zip(titles, [cell or DASH for cell in row], strict=True)) for row in rows]
    caption = "What each classifier was shown: photographs by resize/crop/interpolation"
    return Table(caption=caption, lines=lines, style="dense settings") if rows else None


def _times(results: Results) -> Table:
    """Time and cost: a row for each stage and each classifier, in the order in which they run."""
    run, train = results.run, results.run.params.get("train_cgn", {})
    factors = [train.get(name, 0) for name in ("updates", "batch_size", "batches_per_update")]
    images = {
        "prepare": _total(run.records["prepare"].metrics.get("images")),
        "train_cgn": math.prod(map(int, factors)) if all(factors) else None,
        "generate": _total(run.records["generate"].metrics.get("images")),
        "evaluate": len(results.stored.rows.drop_duplicates(["suite", "condition", "image"])),
    }
    rows = {verb: _stage(results, verb, images=count) for verb, count in images.items()}
    classifiers = [_classifier(results, name) for name in run.trainings]
    last = rows.pop("evaluate")
    return Table(caption="Time and cost of each stage", lines=[*rows.values(), *classifiers, last])


def _stage(results: Results, verb: str, *, images: int | None) -> Row:
    record, params = results.run.records[verb], results.run.params.get(verb, {})
    speed = record.metric("images_per_second")
    if speed is None and record.starts <= 1 and record.seconds and images:
        speed = images / record.seconds
    again = f"the last of {record.starts} starts" if record.starts > 1 else ""
    updates = params.get("updates") if verb == "train_cgn" else None
    device = _device(record.machine, params)
    return _row(verb, record.seconds, updates, images, speed, device=device, params=params, note=again)


def _classifier(results: Results, name: str) -> Row:
    """From what evaluate repeats of a training, and from its log, where it noted how long that took."""
    training, record = results.run.trainings[name], results.run.records["evaluate"]
    params = results.run.params.get("train_classifier", {})
    updates, seconds, speed = (
        float(training[key]) if isinstance(training.get(key), int | float) else record.metric(f"training/{name}/{key}")
        for key in ("updates", "seconds", "images_per_second")
    )
    images, device = _total(training.get("images")), _device({}, params, chosen=training.get("device"))
    return _row(f"train_classifier: {name}", seconds, updates, images, speed, device=device, params=params)


def _row(
    stage: str,
    seconds: float | None,
    updates: float | None,
    images: int | None,
    speed: float | None,
    *,
    device: str | None,
    params: Mapping[str, Any],
    note: str = "",
) -> Row:
    clock = ""
    if seconds is not None and seconds >= 2 * MINUTE:
        clock = f"{seconds / HOUR:.1f} h" if seconds >= HOUR else f"{seconds / MINUTE:.1f} min"
    return {
        "Stage": stage,
        "Seconds": None if seconds is None else Cell(value=f"{seconds:,.1f}", detail=clock, note=note, style="bold"),
        "Updates": None if updates is None else f"{int(updates):,}",
        "Images": None if images is None else f"{images:,}",
        "Images/s": None if speed is None else f"{speed:,.1f}",
        "Device": device,
        "Precision": params.get("precision"),
    }


def _total(counts: Any) -> int | None:
    """A count, or the sum of counts by name."""
    values = counts.values() if isinstance(counts, Mapping) else [counts]
    known = [value for value in values if isinstance(value, int | float)]
    return int(sum(known)) if known else None


def _device(machine: Mapping[str, Any], params: Mapping[str, Any], *, chosen: Any = None) -> str | None:
    """What a stage ran on: the GPUs that it may have used, or the processor; else what the stage says it chose."""
    accelerator, count = params.get("accelerator"), params.get("devices", 1)
    times = f"{count} \N{MULTIPLICATION SIGN} " if count > 1 else ""
    gpus = machine.get("gpus") or []
    if gpus and accelerator in ("auto", "cuda"):
        return f"{times}{gpus[0]}"
    if machine:
        return f"{machine.get('cpu', 'CPU')}, {machine.get('cores', '?')} cores"
    accelerator = chosen if isinstance(chosen, str) else accelerator
    return None if accelerator in (None, "auto") else f"{times}{accelerator}"


def _asked(suite: str, asked: Sequence[str] | None) -> str:
    """Whether the parameters name it, where they are known."""
    if asked is None:
        return ""
    return f", though evaluate.suites names {suite}" if suite in asked else f", as evaluate.suites leaves {suite} out"


def _absent(results: Results, suite: str, expected: Sequence[str]) -> list[str]:
    """Conditions that an evaluated suite lacks."""
    rows = results.stored.of(suite)
    present = {str(condition).partition("/")[0] for condition in rows["condition"].unique()}
    return [name for name in expected if present and name not in present]
