"""evaluate: every classifier's decision on every image, stored; the accuracies and pictures are derived from them.

Decided here: it runs on the CPU, in float32 and eval mode, so one machine makes the same bytes with and without a GPU.
accuracy.json is computed from the decisions alone; beside them it repeats, as `training`, what each classifier's own
training said of itself, and classifiers.json says with which parameters, so that the report needs no classifier.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgn.core.errors import ArtifactError
from cgn.core.files import DEFINITION, read_json, write_json
from cgn.core.metrics import MetricSink
from cgn.core.roles import Input, Inputs, Output

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from cgn.data.shards import Images
    from cgn.evaluation.decisions import Decisions

DECISIONS = "decisions.parquet"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What evaluate needs from a track."""

    track: str
    variant: str
    classes: int
    arms: Mapping[str, str]
    """Arm -> its title in pictures, in the order they show them."""
    conditions: Sequence[str]
    """Splits of the data."""
    pictured: str
    """The condition whose confusion is drawn."""
    batch_size: int
    build: Callable[[], "nn.Module"]
    """A classifier to load weights into: images (B,3,H,W) in [-1,1] -> log-probabilities (B,classes)."""


@dataclass(frozen=True, kw_only=True)
class _Classifier:
    arm: str
    module: "nn.Module"
    training: Mapping[str, Any]
    defined: Mapping[str, Any]
    image_size: int


def evaluate(parts: Parts, *, data: Input, classifier: Inputs, decisions: Output, sink: MetricSink) -> None:
    """Write decisions.parquet, accuracy.json, classifiers.json and confusion.png."""
    from cgn.core.checkpoints import refuse_foreign
    from cgn.core.images import save_picture
    from cgn.data.shards import load, read_manifest
    from cgn.evaluation.accuracy import accuracies
    from cgn.evaluation.decisions import gathered, write

    refuse_foreign(read_manifest(data).facts, source=data, track=parts.track, variant=parts.variant)
    judges = _classifiers(classifier, parts)
    tables, seen = [], 0
    for condition in parts.conditions:
        images = load(data, split=condition)
        for judge in judges:
            tables.append(_decide(judge, images, condition=condition, parts=parts))
            seen += len(images.pixels)
            right = float((tables[-1]["decision"] == tables[-1]["label"]).mean())
            sink.log({f"accuracy/{judge.arm}/{condition}": right}, step=seen)
    facts = {"track": parts.track, "variant": parts.variant, "classes": parts.classes}
    made = gathered(tables, facts=facts)
    write(made, decisions / DECISIONS)
    measured = accuracies(made)
    write_json(decisions / "accuracy.json", {j.arm: _told(measured[j.arm]) | {"training": j.training} for j in judges})
    write_json(decisions / "classifiers.json", {judge.arm: judge.defined for judge in judges})
    save_picture(_confusions(made, judges, parts=parts), decisions / "confusion.png")
    sink.picture(decisions / "confusion.png")
    sink.summary({f"accuracy/{arm}/{name}": p.share for arm, by in measured.items() for name, p in by.items()})


def _told(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Condition -> accuracy in [0,1] with the ends of its 95 % interval."""
    return {
        condition: {"accuracy": p.share, "low": p.low, "high": p.high, "images": p.images}
        for condition, p in measured.items()
    }


def _classifiers(folders: Sequence[Path], parts: Parts) -> list[_Classifier]:
    """All classifiers, in the order of the track's arms whatever the order they were named in."""
    found: dict[str, tuple[Path, _Classifier]] = {}
    for folder in folders:
        judge = _classifier(folder, parts)
        if judge.arm in found:
            raise ArtifactError(
                f"{folder} and {found[judge.arm][0]} are both the arm {judge.arm!r}: give one classifier of each arm"
            )
        found[judge.arm] = (folder, judge)
    return [found[arm][1] for arm in parts.arms if arm in found]


def _classifier(folder: Path, parts: Parts) -> _Classifier:
    from cgn.core.checkpoints import load_model, load_strictly

    path = folder / "model.safetensors"
    tensors, facts = load_model(path, track=parts.track, variant=parts.variant)
    if facts.get("arm") not in parts.arms:
        raise ArtifactError(f"{path} is a classifier of the arm {facts.get('arm')!r}; known: {', '.join(parts.arms)}")
    if facts.get("classes") != parts.classes or not isinstance(facts.get("image_size"), int):
        raise ArtifactError(
            f"{path} has classes {facts.get('classes')!r} and image_size {facts.get('image_size')!r}: expected "
            f"{parts.classes} classes and a whole number"
        )
    module = parts.build()
    load_strictly(module, tensors, source=str(path))
    defined = read_json(folder / DEFINITION) if (folder / DEFINITION).is_file() else {}
    return _Classifier(
        arm=facts["arm"],
        module=module.eval(),
        training=read_json(folder / "training.json"),
        defined={key: defined[key] for key in ("params", "seed") if key in defined},
        image_size=facts["image_size"],
    )


def _decide(judge: _Classifier, images: "Images", *, condition: str, parts: Parts) -> "pd.DataFrame":
    import torch

    from cgn.core.images import from_bytes
    from cgn.evaluation.decisions import decided

    height, width = images.pixels.shape[1:3]
    if (height, width) != (judge.image_size, judge.image_size):
        raise ArtifactError(
            f"the classifier {judge.arm} was trained at {judge.image_size} pixels, the images of {condition} are "
            f"{width}x{height}: evaluate it on the data it was made with"
        )
    # Channels last: the same answers from a CPU in half the time.
    module = judge.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        batches = [
            module(from_bytes(pixels).contiguous(memory_format=torch.channels_last))
            for pixels in torch.split(images.pixels, parts.batch_size)
        ]
    best, decision = torch.cat(batches).max(dim=1)
    if not bool(torch.isfinite(best).all()):
        raise ArtifactError(f"the classifier {judge.arm} answers with numbers that are not finite: train it again")
    return decided(
        judge.arm,
        condition=condition,
        labels={name: labels.numpy() for name, labels in images.labels.items()},
        decision=decision.numpy(),
        probability=best.exp().clamp(0, 1).numpy(),
    )


def _confusions(decisions: "Decisions", judges: Sequence[_Classifier], *, parts: Parts) -> Any:
    """A panel for each cue and classifier: whose diagonal is dark shows which cue is followed."""
    from cgn.evaluation.confusion import confusion, separable
    from cgn.evaluation.confusion_picture import sheet

    rows = [decisions.of(judge.arm, condition=parts.pictured) for judge in judges]
    panels = {cue: [confusion(table, classes=parts.classes, cue=cue) for table in rows] for cue in separable(rows[0])}
    return sheet(panels, titles=[parts.arms[judge.arm] for judge in judges])
