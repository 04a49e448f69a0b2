"""mnist gate: accuracy on random looks and what it gained, against thresholds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgn.config.mnist import Gate
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.metrics import Silent
from cgn.core.validation import build
from cgn.evaluation.intervals import Proportion, difference
from cgn.evaluation.metrics import estimate
from cgn.evaluation.predictions import gather, image_names, prediction_rows, write_predictions
from cgn.mnist.gate import gate

IMAGES = 100
RIGHT = {"original": 12, "counterfactual": 80}
AFTER, BEFORE = (Proportion(hits=RIGHT[arm], images=IMAGES) for arm in ("counterfactual", "original"))
GAIN = difference(estimate(AFTER), estimate(BEFORE))


def verdict(folder: Path, *, leave_out: str = "", variant: str = "digits", **values: Any) -> dict[str, Any]:
    """The verdict on the arm `counterfactual`, RIGHT images of 100 being right on random looks."""
    label = np.arange(IMAGES) % 10
    tables = [
        prediction_rows(
            classifier=arm,
            head="label",
            suite="splits",
            condition="test_random",
            images=image_names(IMAGES),
            labels={"shape": label},
            tops=np.where(np.arange(IMAGES) < right, label, (label + 1) % 10)[:, None],
            probability=np.ones(IMAGES),
        )
        for arm, right in RIGHT.items()
        if arm != leave_out
    ]
    stored = gather(tables, track="mnist", variant=variant, classes=10, suites={"splits": 10})
    write_predictions(stored, folder / "decisions.parquet")
    config = build(Gate, {"arm": "counterfactual"} | values, key="mnist.digits.gate")
    gate(config, variant="digits", sink=Silent(), decisions=folder, verdict=folder)
    found: dict[str, Any] = json.loads((folder / "gate.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(("beyond", "passed"), [(0.0, True), (1e-9, False)])
def test_both_numbers_by_the_lower_end(tmp_path: Path, beyond: float, passed: bool) -> None:
    found = verdict(tmp_path, accuracy=AFTER.low + beyond, gain=GAIN.low + beyond)
    assert (found["passed"], found["classifier"]) == (passed, "counterfactual")
    accuracy, gain = found["checks"]
    assert (accuracy["name"], accuracy["value"], accuracy["low"]) == ("accuracy", 0.8, pytest.approx(AFTER.low))
    assert (gain["name"], gain["value"], gain["low"]) == ("gain", pytest.approx(0.68), pytest.approx(GAIN.low))
    assert accuracy["passed"] is gain["passed"] is passed


def test_null_switches_a_check_off(tmp_path: Path) -> None:
    assert [check["name"] for check in verdict(tmp_path, accuracy=None)["checks"]] == ["gain"]
    assert [check["name"] for check in verdict(tmp_path, gain=None)["checks"]] == ["accuracy"]


def test_an_arm_that_was_not_evaluated_does_not_pass(tmp_path: Path) -> None:
    accuracy, gain = verdict(tmp_path, leave_out="original", accuracy=0.0, gain=-1.0)["checks"]
    assert accuracy["passed"]
    assert gain["reason"] == "the decisions have none of the arm original on test_random"
    found = verdict(tmp_path, leave_out="counterfactual", accuracy=0.0, gain=-1.0)
    assert not found["passed"]
    assert {check["reason"] for check in found["checks"]} == {
        "the decisions have none of the arm counterfactual on test_random"
    }
    assert [check["low"] for check in found["checks"]] == [None, None]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"accuracy": None, "gain": None}, "gate.accuracy is None, allowed: a number where gain is null"),
        ({"gain": 2}, "gate.gain is 2, allowed: -1 to 1"),
        ({"arm": "x"}, "gate.arm is 'x' (str), allowed: original, gan, counterfactual, original_counterfactual"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(Gate, values, key="gate")
    assert message in str(error.value)


def test_decisions_of_another_variant_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="variant 'wildlife', expected 'digits'"):
        verdict(tmp_path, variant="wildlife")
