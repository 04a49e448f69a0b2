"""mnist evaluate: every classifier's prediction on every image of every split, stored, with all that follows from them.

    decisions.parquet     one row per image and classifier (`cgn.evaluation.predictions`)
    accuracy.json         accuracies with their intervals; as `training`, what each classifier's own training measured
    classifiers.json      with which parameters and seed each was trained, so that the report needs no classifier

It runs on the CPU, in float32 and eval mode, so one machine computes the same bytes with and without a GPU. Where there
are several cores, classifiers run side by side and the next split is decoded meanwhile (`cgn.core.parallel`). The
accuracy on the split `train` is called that on the original training set, so that nobody mistakes it for the running
accuracy, which training counts on the arm's own images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cgn.config.mnist import CLASSES, Evaluate
from cgn.core.devices import importing, limit_threads
from cgn.core.errors import ArtifactError
from cgn.core.files import read_object, write_json
from cgn.core.metrics import MetricSink
from cgn.core.outputs import DEFINITION
from cgn.core.parameters import Input, Inputs, Output
from cgn.evaluation.intervals import Proportion
from cgn.evaluation.metrics import accuracies, accuracy
from cgn.evaluation.predictions import (
    FILE,
    SPLITS,
    Predictions,
    gather,
    image_names,
    prediction_rows,
    write_predictions,
)
from cgn.mnist.arms import ARMS

if TYPE_CHECKING:
    from torch import nn

    from cgn.data.shards import Images
    from cgn.nets.classifiers import Cnn

CONDITIONS = ("train", "test_iid", "test_random")
"""The splits."""
HEAD = "label"
"""What the one head of a classifier is called."""
COMPARED = ("accuracy/*/test_random",)
"""Of the final values, those that go to metrics.json; the others are in accuracy.json."""
HEADLINES = {
    "accuracy": "accuracy/original_counterfactual/test_random",
    "baseline": "accuracy/original/test_random",
}
"""Short name -> final value, for headlines.json: does training on counterfactual images help where only shape does?"""


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A classifier that was trained as one of the arms."""

    arm: str
    module: "nn.Module"
    """Images (B,3,S,S) in [-1,1], `image_size` S -> log-probabilities (B,10)."""
    image_size: int
    training: Mapping[str, Any]
    definition: Mapping[str, Any]
    """Its parameters and seed."""


def evaluate(
    config: Evaluate,
    *,
    seed: int,
    variant: str,
    sink: MetricSink,
    data: Input,
    classifier: Inputs,
    decisions: Output,
) -> None:
    """Evaluate the classifiers that train_classifier wrote, one of each arm. Nothing is random: the seed is not used.

    Raises ArtifactError for data or classifiers that are foreign, broken, or do not fit each other.
    """
    with importing():
        from cgn.core.facts import refuse_foreign
        from cgn.core.parallel import ahead, concurrently
        from cgn.data.shards import load_split, read_manifest

    del seed
    limit_threads()
    refuse_foreign(read_manifest(data).facts, source=data, track="mnist", variant=variant)
    classifiers = open_classifiers(classifier, variant=variant)
    tables: list[pd.DataFrame] = []
    seen = 0
    loaded = ahead((condition, load_split(data, split=condition)) for condition in CONDITIONS)
    for condition, images in loaded:
        tasks = [
            partial(predict, one, images, condition=condition, batch_size=config.batch_size) for one in classifiers
        ]
        tables += (found := concurrently(*tasks, device=images.pixels.device))
        for one, rows in zip(classifiers, found, strict=True):
            seen += len(rows)
            sink.log({f"accuracy/{one.arm}/{called(condition)}": accuracy(rows).share}, step=seen)
    predictions = gather(tables, track="mnist", variant=variant, classes=CLASSES, suites={SPLITS: CLASSES})
    write_evaluation(predictions, classifiers, decisions, sink=sink)


def open_classifiers(folders: Sequence[Path], *, variant: str) -> list[Classifier]:
    """All classifiers, in the order of the arms. Raises ArtifactError for two of one, or a foreign or broken one."""
    found: dict[str, tuple[Path, Classifier]] = {}
    for folder in folders:
        one = _open(folder, variant=variant)
        if one.arm in found:
            raise ArtifactError(
                f"{folder} and {found[one.arm][0]} are both the arm {one.arm!r}: give one classifier of each arm"
            )
        found[one.arm] = (folder, one)
    return [found[arm][1] for arm in ARMS if arm in found]


def predict(classifier: Classifier, images: "Images", *, condition: str, batch_size: int) -> pd.DataFrame:
    """Its predictions on one split. Raises ArtifactError for images of another size, or answers that are not finite."""
    import torch

    from cgn.core.images import from_bytes
    from cgn.evaluation.predict import rank

    height, width = images.pixels.shape[1:3]
    if (height, width) != (classifier.image_size, classifier.image_size):
        raise ArtifactError(
            f"the classifier {classifier.arm} was trained at {classifier.image_size} pixels, the images of {condition} "
            f"are {width}x{height}: evaluate it on the data it was made with"
        )
    # Channels last: the same answers from a CPU in half the time.
    module = classifier.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        answers = [
            module(from_bytes(pixels).contiguous(memory_format=torch.channels_last))
            for pixels in torch.split(images.pixels, batch_size)
        ]
    best, tops = rank(torch.cat(answers))
    if not bool(torch.isfinite(best).all()):
        raise ArtifactError(f"the classifier {classifier.arm} answers with numbers that are not finite: train it again")
    return prediction_rows(
        classifier=classifier.arm,
        head=HEAD,
        suite=SPLITS,
        condition=condition,
        images=image_names(len(best)),
        labels={cue: labels.numpy() for cue, labels in images.labels.items()},
        tops=tops,
        probability=best.exp().clamp(0, 1).numpy(),
    )


def write_evaluation(
    predictions: Predictions, classifiers: Sequence[Classifier], folder: Path, *, sink: MetricSink
) -> None:
    """Write the predictions and the numbers that follow from them."""
    measured = accuracies(predictions)
    write_predictions(predictions, folder / FILE)
    write_json(
        folder / "accuracy.json",
        {one.arm: _with_intervals(measured[one.arm]) | {"training": one.training} for one in classifiers},
    )
    write_json(folder / "classifiers.json", {one.arm: one.definition for one in classifiers})
    sink.summary(
        {f"accuracy/{arm}/{called(name)}": share.share for arm, by in measured.items() for name, share in by.items()}
    )


def called(condition: str) -> str:
    """What numbers call a split."""
    return "original_training_set" if condition == "train" else condition


def load_trained(folder: Path, *, variant: str) -> tuple["Cnn", Mapping[str, Any]]:
    """The network that train_classifier left in `folder`, on the CPU, in eval mode, and the facts of its file.

    Facts: track, variant, arm, classes, image_size. Raises ArtifactError for a missing, broken or foreign file.
    """
    from cgn.core.checkpoints import load_model, load_strictly
    from cgn.nets.classifiers import Cnn

    path = folder / "model.safetensors"
    tensors, facts = load_model(path, track="mnist", variant=variant)
    if facts.get("arm") not in ARMS:
        raise ArtifactError(f"{path} is a classifier of the arm {facts.get('arm')!r}; known: {', '.join(ARMS)}")
    if facts.get("classes") != CLASSES or not isinstance(facts.get("image_size"), int):
        raise ArtifactError(
            f"{path} has classes {facts.get('classes')!r} and image_size {facts.get('image_size')!r}: expected "
            f"{CLASSES} classes and a whole number"
        )
    module = Cnn(classes=CLASSES)
    load_strictly(module, tensors, source=str(path))
    return module.eval().requires_grad_(False), facts


def _open(folder: Path, *, variant: str) -> Classifier:
    module, facts = load_trained(folder, variant=variant)
    definition = read_object(folder / DEFINITION) if (folder / DEFINITION).is_file() else {}
    return Classifier(
        arm=facts["arm"],
        module=module,
        image_size=facts["image_size"],
        training=read_object(folder / "training.json"),
        definition={key: definition[key] for key in ("params", "seed") if key in definition},
    )


def _with_intervals(measured: Mapping[str, Proportion]) -> dict[str, Any]:
    """Condition -> accuracy in [0,1] with the ends of its 95 % interval."""
    return {
        called(condition): {"accuracy": share.share, "low": share.low, "high": share.high, "images": share.images}
        for condition, share in measured.items()
    }
