"""imagenet gate: does a trained classifier reach the thresholds in params.yaml? gate.json and verdict.md.

Every number is computed from decisions.parquet, with its 95 % interval. The verdict is an output: a refused classifier
is no error.
"""

from collections.abc import Iterator

import numpy as np

from cgn.config.imagenet import Gate
from cgn.core.facts import refuse_foreign
from cgn.core.metrics import MetricSink
from cgn.core.parameters import Input, Output
from cgn.evaluation.gate import Check, conclude
from cgn.evaluation.metrics import background_gap, by_variation, estimate, shape_bias, top
from cgn.evaluation.predictions import CLEAN, CUE_CONFLICT, FILE, Predictions, read_predictions
from cgn.evaluation.suites import why_undecided


def gate(config: Gate, *, variant: str, sink: MetricSink, decisions: Input, verdict: Output) -> None:
    """Compare what evaluate stored with the thresholds. Raises ArtifactError for broken or foreign decisions."""
    predictions = read_predictions(decisions / FILE)
    refuse_foreign(predictions.facts, source=decisions / FILE, track="imagenet", variant=variant)
    checks = [*_gap_checks(config, predictions), *_bias_checks(config, predictions), *_top_checks(config, predictions)]
    conclude(checks, classifier=config.arm, target=f"imagenet/{variant}", folder=verdict, sink=sink)


def _gap_checks(config: Gate, predictions: Predictions) -> Iterator[Check]:
    if (most := config.background_gap.most) is None:
        return
    superclass_of = np.array(predictions.facts["superclass_of"], dtype=np.int64)
    variations = by_variation(predictions, superclass_of=superclass_of).get(config.arm, {})
    for head in config.background_gap.heads:
        gap, name = background_gap(variations.get(head, {})), f"background_gap/{head}"
        if gap is None:
            doubt = f"the decisions have no background gap of the head {head} of {config.arm}"
            yield Check(name=name, measured=None, kind="most", threshold=most, doubt=doubt)
        else:
            yield Check(name=name, measured=estimate(gap), kind="most", threshold=most, doubt=gap.undecided or "")


def _bias_checks(config: Gate, predictions: Predictions) -> Iterator[Check]:
    if (least := config.shape_bias.least) is None:
        return
    for head in config.shape_bias.heads:
        rows, name = predictions.of(CUE_CONFLICT, classifier=config.arm, head=head), f"shape_bias/{head}"
        counts = shape_bias(rows)
        if counts.bias is None:
            doubt = f"the decisions have no shape bias of the head {head} of {config.arm}"
            yield Check(name=name, measured=None, kind="least", threshold=least, doubt=doubt)
            continue
        doubt, needed = why_undecided(rows, predictions) or "", config.shape_bias.decided
        if counts.bias.images < needed:
            doubt = f"{counts.bias.images} decisions for either cue, {needed} are needed"
        yield Check(name=name, measured=estimate(counts.bias), kind="least", threshold=least, doubt=doubt)


def _top_checks(config: Gate, predictions: Predictions) -> Iterator[Check]:
    if (least := config.top_1.least) is None:
        return
    for head in config.top_1.heads:
        rows, name = predictions.of(CLEAN, classifier=config.arm, head=head), f"top_1/{head}"
        doubt = "" if len(rows) else f"the decisions have no clean images of the head {head} of {config.arm}"
        measured = estimate(top(rows, kept=1)) if len(rows) else None
        yield Check(name=name, measured=measured, kind="least", threshold=least, doubt=doubt)
