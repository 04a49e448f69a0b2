"""imagenet evaluate: every classifier's prediction on every picture of the suites, stored, with all that follows.

decisions.parquet             one row per picture and head (`cgn.evaluation.predictions`)
results.json, results.md      the numbers that follow from it, with their intervals
classifiers.json              what each classifier's training says of itself
"""

from typing import Any

import torch

from cgn.config.imagenet import Evaluate
from cgn.core.devices import limit_threads
from cgn.core.fan_out import choose_workers
from cgn.core.metrics import MetricSink
from cgn.core.parameters import Cluster, Input, Inputs, OptionalInput, Output, Speed
from cgn.imagenet.classifiers import open_classifiers
from cgn.imagenet.evaluation.predict import predict_suites, write_evaluation
from cgn.imagenet.evaluation.suites import ALL, COMPARED_VALUES, check_options, open_data

COMPARED = COMPARED_VALUES
HEADLINES = {
    "shape_bias": "ensemble/shape/cue_conflict/shape_bias",
    "bg_gap": "ensemble/shape_texture/in9/bg_gap",
    "top_1": "ensemble/avg/clean/top_1",
}
"""Short name -> final value, for headlines.json: the paper's question of each head of the ensemble."""


def check(config: Evaluate, *, variant: str, suite: str, **_: Any) -> None:
    """Raise ConfigError for a suite or a corruption that does not exist, before anything is written."""
    check_options(suite, corruptions=config.corruptions, variant=variant)


def evaluate(
    config: Evaluate,
    *,
    seed: int,
    variant: str,
    sink: MetricSink,
    data: Input,
    classifier: Inputs,
    decisions: Output,
    assets: OptionalInput = None,
    suite: str = ALL,
    workers: Speed = 0,
    ray: Cluster = "",
) -> None:
    """Evaluate the classifiers that train_classifier wrote.

    `suite`: one instead of all that the parameters name; `assets`: a folder with the photographs of frost, where the
    data have none; `workers`: processes that share the conditions, by default this one, which uses every core; `ray`: a
    cluster instead (`cgn.core.fan_out`). Raises ConfigError for an unknown suite or corruption, ArtifactError for data
    or classifiers that are foreign, broken, or do not fit each other.
    """
    limit_threads()
    check_options(suite, corruptions=config.corruptions, variant=variant)
    chosen = choose_workers(config.accelerator, workers=workers, ray=ray, here=1)
    device = chosen.devices[0] if chosen.in_this_process else torch.device("cpu")
    collection = open_data(data, variant=variant)
    classifiers = open_classifiers(classifier, collection=collection, variant=variant, device=device)
    predictions = predict_suites(
        classifiers,
        collection,
        config=config,
        variant=variant,
        seed=seed,
        suite=suite,
        assets=assets,
        folder=decisions,
        workers=chosen,
        sink=sink,
    )
    write_evaluation(predictions, classifiers, decisions, sink=sink)
