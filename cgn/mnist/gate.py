"""mnist gate: does a trained classifier reach the thresholds in params.yaml? gate.json and verdict.md.

Both numbers are of the test set with random looks, where only the shape helps, with their 95 % intervals. The verdict
is an output: a refused classifier is no error.
"""

from collections.abc import Iterator

from cgn.config.mnist import Gate
from cgn.core.facts import refuse_foreign
from cgn.core.metrics import MetricSink
from cgn.core.parameters import Input, Output
from cgn.evaluation.gate import Check, conclude
from cgn.evaluation.intervals import difference
from cgn.evaluation.metrics import accuracies, estimate
from cgn.evaluation.predictions import FILE, Predictions, read_predictions

RANDOMISED = "test_random"
ORIGINAL = "original"
"""The arm that the other ones are compared with."""


def gate(config: Gate, *, variant: str, sink: MetricSink, decisions: Input, verdict: Output) -> None:
    """Compare what evaluate stored with the thresholds. Raises ArtifactError for broken or foreign decisions."""
    predictions = read_predictions(decisions / FILE)
    refuse_foreign(predictions.facts, source=decisions / FILE, track="mnist", variant=variant)
    conclude(
        list(_checks(config, predictions)),
        classifier=config.arm,
        target=f"mnist/{variant}",
        folder=verdict,
        sink=sink,
    )


def _checks(config: Gate, predictions: Predictions) -> Iterator[Check]:
    found = {arm: estimate(of[RANDOMISED]) for arm, of in accuracies(predictions).items() if RANDOMISED in of}
    after, before = found.get(config.arm), found.get(ORIGINAL)
    missing = [arm for arm in dict.fromkeys((config.arm, ORIGINAL)) if arm not in found]
    doubt = f"the decisions have none of the arm {' and '.join(missing)} on {RANDOMISED}" if missing else ""
    if config.accuracy is not None:
        words = doubt if after is None else ""
        yield Check(name="accuracy", measured=after, kind="least", threshold=config.accuracy, doubt=words)
    if config.gain is not None:
        gain = difference(after, before) if after and before else None
        yield Check(name="gain", measured=gain, kind="least", threshold=config.gain, doubt=doubt)
