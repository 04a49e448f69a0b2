"""The MNIST track's examination: every classifier on every split, beside one another.

Decided here: it runs on the CPU, in float32 and eval mode, so one machine makes the same bytes with and without a GPU.
accuracy.json is computed from the decisions alone; beside them it repeats, as `training`, what each classifier's own
training said of itself, and classifiers.json says with which parameters, so that the report needs no classifier. The
accuracy on the split `train` is called that on the original training set, so that nobody takes it for the running
accuracy, which training counts on the arm's own images.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from cgn.core.checkpoints import load_model
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.facts import refuse_foreign
from cgn.core.files import read_object
from cgn.core.images import from_bytes
from cgn.core.outputs import DEFINITION
from cgn.core.weights import load_strictly
from cgn.data.shards import Images, load_split, read_manifest
from cgn.evaluation.metrics import accuracies, confusion, separable
from cgn.evaluation.predictions import Predictions, gather, table, write
from cgn.report.figures import sheet
from cgn.stages.evaluate import Findings, Request


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A classifier that was trained as one of the arms."""

    arm: str
    module: nn.Module
    training: Mapping[str, Any]
    defined: Mapping[str, Any]
    image_size: int


@dataclass(frozen=True, kw_only=True)
class Examiner:
    """A request -> findings, of one variant."""

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
    build: Callable[[], nn.Module]
    """A classifier to load weights into: images (B,3,H,W) in [-1,1] -> log-probabilities (B,classes)."""

    def __call__(self, request: Request) -> Findings:
        """Raises ArtifactError for data or classifiers of another kind, ConfigError for options of another track."""
        for name, value in (("network", request.network), ("assets", request.assets)):
            if value:
                raise ConfigError(f"--{name} {value}: the track {self.track} has no use for it; leave it out")
        refuse_foreign(read_manifest(request.data).facts, source=request.data, track=self.track, variant=self.variant)
        judges = self._judges(request.classifiers)
        tables, seen = [], 0
        for condition in self.conditions:
            images = load_split(request.data, split=condition)
            for judge in judges:
                tables.append(self._decide(judge, images, condition=condition))
                seen += len(images.pixels)
                right = float((tables[-1]["decision"] == tables[-1]["label"]).mean())
                request.sink.log({f"accuracy/{judge.arm}/{named(condition)}": right}, step=seen)
        made = gather(tables, facts={"track": self.track, "variant": self.variant, "classes": self.classes})
        measured = accuracies(made)
        return Findings(
            write=lambda path: write(made, path),
            numbers={
                "accuracy.json": {j.arm: _told(measured[j.arm]) | {"training": j.training} for j in judges},
                "classifiers.json": {judge.arm: judge.defined for judge in judges},
            },
            texts={},
            pictures={"confusion.png": self._confusions(made, judges)},
            summary={
                f"accuracy/{arm}/{named(name)}": p.share for arm, by in measured.items() for name, p in by.items()
            },
        )

    def _judges(self, folders: Sequence[Path]) -> list[Judge]:
        """All classifiers, in the order of the arms whatever the order they were named in."""
        found: dict[str, tuple[Path, Judge]] = {}
        for folder in folders:
            judge = self._judge(folder)
            if judge.arm in found:
                raise ArtifactError(
                    f"{folder} and {found[judge.arm][0]} are both the arm {judge.arm!r}: "
                    "give one classifier of each arm"
                )
            found[judge.arm] = (folder, judge)
        return [found[arm][1] for arm in self.arms if arm in found]

    def _judge(self, folder: Path) -> Judge:
        path = folder / "model.safetensors"
        tensors, facts = load_model(path, track=self.track, variant=self.variant)
        if facts.get("arm") not in self.arms:
            raise ArtifactError(
                f"{path} is a classifier of the arm {facts.get('arm')!r}; known: {', '.join(self.arms)}"
            )
        if facts.get("classes") != self.classes or not isinstance(facts.get("image_size"), int):
            raise ArtifactError(
                f"{path} has classes {facts.get('classes')!r} and image_size {facts.get('image_size')!r}: expected "
                f"{self.classes} classes and a whole number"
            )
        module = self.build()
        load_strictly(module, tensors, source=str(path))
        defined = read_object(folder / DEFINITION) if (folder / DEFINITION).is_file() else {}
        return Judge(
            arm=facts["arm"],
            module=module.eval(),
            training=read_object(folder / "training.json"),
            defined={key: defined[key] for key in ("params", "seed") if key in defined},
            image_size=facts["image_size"],
        )

    def _decide(self, judge: Judge, images: Images, *, condition: str) -> pd.DataFrame:
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
                for pixels in torch.split(images.pixels, self.batch_size)
            ]
        best, decision = torch.cat(batches).max(dim=1)
        if not bool(torch.isfinite(best).all()):
            raise ArtifactError(f"the classifier {judge.arm} answers with numbers that are not finite: train it again")
        return table(
            judge.arm,
            condition=condition,
            labels={name: labels.numpy() for name, labels in images.labels.items()},
            decision=decision.numpy(),
            probability=best.exp().clamp(0, 1).numpy(),
        )

    def _confusions(self, decisions: Predictions, judges: Sequence[Judge]) -> Any:
        """A panel for each cue and classifier: whose diagonal is dark shows which cue is followed."""
        rows = [decisions.of(judge.arm, condition=self.pictured) for judge in judges]
        panels = {
            cue: [confusion(table, classes=self.classes, cue=cue) for table in rows] for cue in separable(rows[0])
        }
        return sheet(panels, titles=[self.arms[judge.arm] for judge in judges])


def named(condition: str) -> str:
    """How numbers call a split."""
    return "original_training_set" if condition == "train" else condition


def _told(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Condition -> accuracy in [0,1] with the ends of its 95 % interval."""
    return {
        named(condition): {"accuracy": p.share, "low": p.low, "high": p.high, "images": p.images}
        for condition, p in measured.items()
    }
