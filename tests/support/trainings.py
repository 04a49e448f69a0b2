"""Configs of trainings that take seconds, an exception that interrupts them, and the columns of their logs."""

import json
from pathlib import Path
from typing import Any

from cgn.config.imagenet import TrainClassifier

CLASSIFIER = TrainClassifier(
    backbone="shufflenet_v2_x0_5",
    pretrained="none",
    batch_norm="trained",
    image_size=16,
    smallest_crop=0.5,
    learning_rate=0.01,
    momentum=0.9,
    weight_decay=1e-4,
    decay_factor=0.1,
    decay_epochs=2,
    epochs=2,
    batch_size=4,
    counterfactuals_per_real=1.5,
    workers=0,
    log_updates=2,
    checkpoint_updates=2,
    accelerator="cpu",
    devices=1,
    precision="32-true",
)
OFTEN = {"updates": 4, "log_updates": 1, "checkpoint_updates": 2, "sheet_updates": 4}
PRETRAINING: dict[str, dict[str, Any]] = {
    "features": {"blocks": [[4], [4], [6], [6]], "images": 120, "batch_size": 6, "precision": "32-true", **OFTEN},
    "segmenter": {"net": {"down": [[2, 4]] * 6, "up": [[2, 4]] * 5}, "images": 36, "batch_size": 6, **OFTEN},
    "biggan": {
        "net": {
            "noise_size": 32,
            "embedding_size": 4,
            "classes": 9,
            "width": 8,
            "blocks": [[True, 2, 2], [True, 2, 1], [True, 1, 1]],
            "attention_at": 1,
            "statistics": 3,
        },
        "discriminator_width": 4,
        "images": 36,
        "images_per_class": 2,
        "precision": "32-true",
        "compiler": "eager",
        "statistics_batches": 2,
        "statistics_batch_size": 18,
        **OFTEN,
    },
    "report": {"images_per_class": 2, "readout_images": 60},
}
"""Changes to the pretraining's params.yaml."""


class Stop(Exception):  # noqa: N818 (no error)
    """Interrupts a training, as a kill would."""


def column(record: Path, name: str) -> list[float]:
    """A value's course in a metrics.jsonl."""
    return [json.loads(line)[name] for line in record.read_text().splitlines()]
