"""The notes of an ImageNet report: what can be compared with what, how images were shown, what is missing, times.

A suite, variation or corruption that was not evaluated is named, and every image that could not be read is counted
and named. Times are of the last run that made each folder; what no log says is a dash, never a guess.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cgn.config.imagenet import ImageNet
from cgn.evaluation.corruption_error import ALEXNET
from cgn.evaluation.predictions import CLEAN, CUE_CONFLICT, IMAGENET_C, IN9, STYLIZED, SUITES
from cgn.evaluation.records import Record
from cgn.evaluation.suites import PREPARATION, preparations, span
from cgn.imagenet.data.image_folders import VARIATIONS
from cgn.imagenet.report_parts.heads import BASELINE, TITLES, Results
from cgn.imagenet.report_parts.published import CLASSES, IMAGES
from cgn.report.page import Group, Heading, Items, PageBlock, Text
from cgn.report.settings import departure_blocks
from cgn.report.tables import DASH, Cell, Table, table

NAMES = {
    CLEAN: "Clean validation images",
    IN9: "ImageNet-9",
    CUE_CONFLICT: "Cue conflict",
    STYLIZED: "Stylized-ImageNet",
    IMAGENET_C: "Corruptions (ImageNet-C)",
}
MINUTE, HOUR = 60, 3600


def note_blocks(results: Results) -> list[PageBlock]:
    """What can be compared with what, and where the run departs from the published settings."""
    limits = Items(items=comparisons(results), title="Comparisons", summary=True)
    return [limits, *departure_blocks(ImageNet, results.run.params)]


def shown_blocks(results: Results) -> list[PageBlock]:
    """How images were shown, what is missing, and what could not be read."""
    unreadable = [str(why) for why in results.stored.facts["unreadable"]]
    suites: Mapping[str, str] = results.preparation.get("suites", {})
    shown = [f"{NAMES.get(suite, suite)}: {words}" for suite, words in suites.items()]
    blocks: list[PageBlock] = [_preparation_table(results)] if preparations(results.preparation) else []
    blocks += [Items(items=shown, title="Shown", summary=True)] if shown else []
    blocks += [Heading(title="What is missing"), Items(items=missing(results), title="Missing", summary=True)]
    if not unreadable:
        return [*blocks, Text(words="Every image could be read.", style="note", summary=True)]
    count = f"{len(unreadable):,} images" if len(unreadable) > 1 else "1 image"
    words = f"Not read: {count}, which are in no number; the page names them."
    named = f"{count} could not be read and {'are' if len(unreadable) > 1 else 'is'} in no number"
    return [
        *blocks,
        Text(words=words, style="note", summary=True),
        Group(title=named, blocks=[Items(items=unreadable, code=True)]),
    ]


def comparisons(results: Results) -> list[str]:
    """One sentence for each limit of a comparison."""
    items = [
        "Intervals are 95 %: Wilson's for shares, Newcombe's for differences; where an image was shown under several "
        "corruptions, images and not answers were counted as independent. They belong to these trained classifiers; "
        "another seed trains others.",
        first_limit(results),
    ]
    if differences := _other_counts(results):
        items.append(f"The benchmarks are not of the published size. {differences}.")
    items.append(
        "The paper's classifiers are ResNet-50 on ImageNet, the replication's (Bagad et al.) on ImageNet-mini. A "
        "published top-1 of the ensemble is set beside the mean of its three heads, the background gap beside shape "
        "+ texture, as the paper computes it. “Better” and “worse” than the paper mean that the whole interval is on "
        "one side of the paper's number, else they are equal within the interval; it is said only where a suite has as "
        "many images and classes as the published one."
    )
    return items


def first_limit(results: Results) -> str:
    """Whether the published numbers are of the same task at all, in one sentence."""
    if results.classes != CLASSES:
        return (
            f"Not comparable in size: this run tells {results.classes} classes apart, the published ones "
            f"{CLASSES:,}, on other images. Chance, accuracies, errors and gaps differ for that alone. The published "
            "numbers are here to show which way an effect should point."
        )
    return (
        f"The published numbers are of the same {CLASSES:,} classes. They can be compared where images and settings "
        "are the published ones; the differences are listed below."
    )


def missing(results: Results) -> list[str]:
    """A sentence for each thing that was not evaluated."""
    present = {str(suite) for suite in results.stored.rows["suite"].unique()}
    asked = results.run.params.get("evaluate", {}).get("suites")
    items = [f"{NAMES[suite]}: not evaluated{_asked(suite, asked)}" for suite in SUITES if suite not in present]
    if IN9 in present and (absent := _absent(results, IN9, VARIATIONS)):
        items.append(f"ImageNet-9: no {', '.join(absent)}")
    if IMAGENET_C in present and (absent := _absent(results, IMAGENET_C, tuple(ALEXNET))):
        items.append(f"Corruptions: no {', '.join(absent)}; so there is no mCE")
    if BASELINE not in {head.key for head in results.heads}:
        items.append("No baseline was evaluated, so nothing tells what the counterfactuals changed")
    if absent := [title for key, title in TITLES.items() if key[0] == "ensemble" and not results.head(key)]:
        items.append(f"Heads that were not evaluated: {', '.join(absent)}")
    items += [str(remark) for remark in results.stored.facts["remarks"]]
    return items or ["Nothing: every suite, variation and corruption was evaluated."]


def image_counts(results: Results) -> dict[str, str]:
    """Suite -> how many images it has, in words; those in two conditions count twice."""
    found = {}
    for suite in (CLEAN, IN9, CUE_CONFLICT, STYLIZED, IMAGENET_C):
        if counts := _by_condition(results, suite):
            each = f" in {len(counts)} conditions, {span(counts)} each" if len(counts) > 1 else ""
            found[NAMES[suite]] = f"{sum(counts):,} images{each}"
    return found


def time_blocks(results: Results) -> list[PageBlock]:
    """Time and cost of each stage, and how to read them."""
    words = (
        "Seconds are of the run that finished a stage, loading and checkpoints included; a stage that was "
        "interrupted is marked, and only its last part is counted. Images/s is the stage's own count where it keeps "
        "one, else images over these seconds. Images are those that a stage made, drew, was trained on or was shown. "
        "A dash: no log was found beside the folder. Times of the classifiers are those that evaluate recorded."
    )
    return [_times(results), Text(words=words, style="note")]


def _preparation_table(results: Results) -> Table:
    """Network, preparation and file of each classifier."""
    titles = [title[0].upper() + title[1:] for title in PREPARATION]
    rows = [
        dict(zip(["Classifier", *titles], [cell or DASH for cell in row], strict=True))
        for row in preparations(results.preparation)
    ]
    caption = "What each classifier was shown: photographs by resize/crop/interpolation"
    return table(caption, rows, style="dense settings")


def _asked(suite: str, asked: Sequence[str] | None) -> str:
    """Whether the parameters name it, where they are known."""
    if asked is None:
        return ""
    return f", though evaluate.suites names {suite}" if suite in asked else f", as evaluate.suites leaves {suite} out"


def _absent(results: Results, suite: str, expected: Sequence[str]) -> list[str]:
    conditions = results.stored.of(suite)["condition"].unique()
    present = {str(condition).partition("/")[0] for condition in conditions}
    return [name for name in expected if name not in present]


def _other_counts(results: Results) -> str:
    """Where a suite's conditions have another number of images than the published ones."""
    found = {suite: _by_condition(results, suite) for suite in IMAGES}
    return "; ".join(
        f"{NAMES[suite]}: {span(counts)} images here, {IMAGES[suite]:,} published"
        for suite, counts in found.items()
        if counts and set(counts) != {IMAGES[suite]}
    )


def _by_condition(results: Results, suite: str) -> list[int]:
    """How many images each condition of a suite has."""
    return [int(count) for count in results.stored.of(suite).groupby("condition")["image"].nunique()]


def _times(results: Results) -> Table:
    """A row for each stage, in the order in which they run."""
    run, params = results.run, results.run.params
    train = params.get("train_cgn", {})
    updates = train.get("updates")
    seen = updates * train["batch_size"] * train["batches_per_update"] if updates and "batch_size" in train else None
    shown = len(results.stored.rows.drop_duplicates(["suite", "condition", "image"]))
    images = {"prepare": _total(run.records["prepare"]), "train_cgn": seen, "generate": _total(run.records["generate"])}
    rows = [
        _time_row(
            verb, run.records[verb], params.get(verb, {}), images=count, updates=updates if count is seen else None
        )
        for verb, count in images.items()
    ]
    rows += [_classifier_row(results, name) for name in run.trainings]
    rows.append(_time_row("evaluate", run.records["evaluate"], params.get("evaluate", {}), images=shown))
    return table("Time and cost of each stage", rows)


def _time_row(
    stage: str, record: Record, params: Mapping[str, Any], *, images: int | None, updates: int | None = None
) -> dict[str, Cell | str | None]:
    speed = record.metric("images_per_second")
    if speed is None and record.starts <= 1 and record.seconds and images:
        speed = images / record.seconds
    again = f"the last of {record.starts} starts" if record.starts > 1 else ""
    return {
        "Stage": stage,
        "Seconds": _seconds(record.seconds, note=again),
        "Updates": None if updates is None else f"{updates:,}",
        "Images": None if images is None else f"{images:,}",
        "Images/s": None if speed is None else f"{speed:,.1f}",
        "Device": _device(record.machine, params),
        "Precision": params.get("precision"),
    }


def _classifier_row(results: Results, name: str) -> dict[str, Cell | str | None]:
    """From what evaluate repeats of a training, and from its log, where it noted how long that took."""
    training, record = results.run.trainings[name], results.run.records["evaluate"]
    params = results.run.params.get("train_classifier", {})

    def number(key: str) -> float | None:
        value = training.get(key)
        return float(value) if isinstance(value, int | float) else record.metric(f"training/{name}/{key}")

    counted = training.get("images")
    images = sum(counted.values()) if isinstance(counted, Mapping) else counted
    updates, speed = number("updates"), number("images_per_second")
    return {
        "Stage": f"train_classifier: {name}",
        "Seconds": _seconds(number("seconds")),
        "Updates": None if updates is None else f"{int(updates):,}",
        "Images": None if images is None else f"{images:,}",
        "Images/s": None if speed is None else f"{speed:,.1f}",
        "Device": _device({}, params, chosen=training.get("device")),
        "Precision": params.get("precision"),
    }


def _seconds(seconds: float | None, *, note: str = "") -> Cell | None:
    if seconds is None:
        return None
    clock = f"{seconds / HOUR:.1f} h" if seconds >= HOUR else f"{seconds / MINUTE:.1f} min"
    return Cell(value=f"{seconds:,.1f}", detail=clock if seconds >= 2 * MINUTE else "", note=note, style="bold")


def _total(record: Record) -> int | None:
    """All that a stage counted under `images/`."""
    counts = record.metrics.get("images")
    if not isinstance(counts, Mapping):
        return None
    return int(sum(value for value in counts.values() if isinstance(value, int | float)))


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
