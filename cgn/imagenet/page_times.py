"""What each stage took: seconds, updates, images, images a second, and on which machine.

Decided here: times are of the last run that made each folder, so two pages of equal results may differ in their times;
the MNIST page, which has none, is the same bytes each time. What no log tells is a dash, never a guess.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cgn.imagenet.evidence import Evidence
from cgn.report.page import Html, paragraph, section
from cgn.report.records import Record
from cgn.report.tabulated import NOTHING, Cell, Column, Table

COLUMNS = ("Seconds", "Updates", "Images", "Images/s", "Device", "Precision")
MINUTE, HOUR = 60, 3600


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One stage's row; None where nothing tells."""

    stage: str
    seconds: float | None
    starts: int
    updates: int | None
    images: int | None
    images_per_second: float | None
    device: str | None
    precision: str | None


def times_table(evidence: Evidence) -> Table:
    """A row for each stage."""
    columns = [Column(title="Stage"), *(Column(title=title) for title in COLUMNS)]
    rows = [_cells(cost) for cost in costs(evidence)]
    return Table(caption="Time and cost of each stage", columns=columns, rows=rows)


def times_section(evidence: Evidence) -> Html:
    """The table and how to read it."""
    told = (
        "Seconds are of the run that finished a stage, loading and checkpoints included; a stage that was "
        "interrupted is marked, and only its last part is counted. Images/s is the stage's own count where it keeps "
        "one, else images over these seconds. Images are those that a stage made, "
        "drew, was trained on or was shown. A dash: its log is not beside its folder. fetch and the classifiers "
        "are no inputs of this page, so their logs are looked for nowhere; what evaluate handed on of the "
        "classifiers is shown."
    )
    return section("Time and cost", times_table(evidence).html(), paragraph(told, class_="note"), name="times")


def costs(evidence: Evidence) -> Iterator[Cost]:
    """The stages in the order in which they run."""
    records, params = evidence.records, evidence.params
    yield _cost("prepare", records["prepare"], {}, images=_total(records["prepare"]))
    train = params.get("train_cgn", {})
    updates = train.get("updates")
    seen = updates * train["batch_size"] * train["batches_per_update"] if updates and "batch_size" in train else None
    yield _cost("train_cgn", records["train_cgn"], train, images=seen, updates=updates)
    yield _cost("generate", records["generate"], params.get("generate", {}), images=_total(records["generate"]))
    for name, training in evidence.trainings.items():
        yield _classifier(name, training, evidence)
    shown = evidence.examination.rows.drop_duplicates(["suite", "condition", "image"])
    yield _cost("evaluate", records["evaluate"], params.get("evaluate", {}), images=len(shown))


def _classifier(name: str, training: Mapping[str, Any], evidence: Evidence) -> Cost:
    """From what evaluate repeats of a training, and from its log where it noted how long that took."""
    record, params = evidence.records["evaluate"], evidence.params.get("train_classifier", {})

    def told(key: str) -> float | None:
        value = training.get(key)
        return float(value) if isinstance(value, int | float) else record.metric(f"training/{name}/{key}")

    held = training.get("images")
    images = sum(held.values()) if isinstance(held, Mapping) else held
    updates = told("updates")
    return Cost(
        stage=f"train_classifier: {name}",
        seconds=told("seconds"),
        starts=1,
        updates=None if updates is None else int(updates),
        images=images,
        images_per_second=told("images_per_second"),
        device=_device({}, params, chosen=training.get("device")),
        precision=params.get("precision"),
    )


def _cost(
    stage: str, record: Record, params: Mapping[str, Any], *, images: int | None, updates: int | None = None
) -> Cost:
    speed = record.metric("images_per_second")
    if speed is None and record.starts <= 1 and record.seconds and images:
        speed = images / record.seconds
    return Cost(
        stage=stage,
        seconds=record.seconds,
        starts=record.starts,
        updates=updates,
        images=images,
        images_per_second=speed,
        device=_device(record.machine, params),
        precision=params.get("precision"),
    )


def _total(record: Record) -> int | None:
    """All that a stage counted under `images/`."""
    counts = record.metrics.get("images")
    if not isinstance(counts, Mapping):
        return None
    return int(sum(value for value in counts.values() if isinstance(value, int | float)))


def _device(machine: Mapping[str, Any], params: Mapping[str, Any], *, chosen: Any = None) -> str | None:
    """What a stage ran on: the GPUs that it may have used, or the processor; else what the stage says it chose."""
    accelerator, count = params.get("accelerator"), params.get("devices", 1)
    gpus = machine.get("gpus") or []
    if gpus and accelerator in ("auto", "cuda"):
        return f"{count} \N{MULTIPLICATION SIGN} {gpus[0]}" if count > 1 else str(gpus[0])
    if machine:
        return f"{machine.get('cpu', 'CPU')}, {machine.get('cores', '?')} cores"
    accelerator = chosen if isinstance(chosen, str) else accelerator
    if accelerator in (None, "auto"):
        return None
    return f"{count} \N{MULTIPLICATION SIGN} {accelerator}" if count > 1 else str(accelerator)


def _cells(cost: Cost) -> list[Cell]:
    again = f"the last of {cost.starts} starts" if cost.starts > 1 else ""
    seconds = NOTHING
    if cost.seconds is not None:
        seconds = Cell(value=f"{cost.seconds:,.1f}", detail=_clock(cost.seconds), note=again, weight="bold")
    counts = [NOTHING if count is None else Cell(value=f"{count:,}") for count in (cost.updates, cost.images)]
    speed = NOTHING if cost.images_per_second is None else Cell(value=f"{cost.images_per_second:,.1f}")
    words = [NOTHING if told is None else Cell(value=told) for told in (cost.device, cost.precision)]
    return [Cell(value=cost.stage), seconds, *counts, speed, *words]


def _clock(seconds: float) -> str:
    """Minutes or hours, where seconds are many."""
    if seconds >= HOUR:
        return f"{seconds / HOUR:.1f} h"
    return f"{seconds / MINUTE:.1f} min" if seconds >= 2 * MINUTE else ""
