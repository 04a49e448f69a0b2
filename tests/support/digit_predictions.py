"""The evaluation of one digits classifier that is right on so many images with random looks."""

from pathlib import Path

import numpy as np

from cgn.core.files import write_json
from cgn.evaluation.predictions import SPLITS, gather, image_names, prediction_rows, write_predictions


def write_evaluation(folder: Path, *, seed: int, right: int, images: int) -> None:
    """Write decisions.parquet and definition.json of mnist/digits into `folder`, which must not exist."""
    labels = np.arange(images) % 10
    rows = prediction_rows(
        classifier="counterfactual",
        head="label",
        suite=SPLITS,
        condition="test_random",
        images=image_names(images),
        labels={"shape": labels, "texture": labels, "background": labels},
        tops=np.where(np.arange(images) < right, labels, (labels + 1) % 10).reshape(images, 1),
        probability=np.ones(images),
    )
    predictions = gather([rows], track="mnist", variant="digits", classes=10, suites={SPLITS: 10})
    folder.mkdir(parents=True)
    write_predictions(predictions, folder / "decisions.parquet")
    definition = {"verb": "evaluate", "track": "mnist", "variant": "digits", "seed": seed, "params": {}}
    write_json(folder / "definition.json", definition)
