"""imagenet gate: each threshold against predictions whose numbers are known, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from cgn.config.imagenet import Gate
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.metrics import Silent
from cgn.core.validation import build
from cgn.evaluation.intervals import Proportion
from cgn.evaluation.metrics import Gap, estimate
from cgn.evaluation.predictions import Predictions, write_predictions
from cgn.imagenet.gate import gate
from tests.support.sample_predictions import HEADS, predictions

OFF: dict[str, Any] = {
    name: {value: None} for name, value in (("background_gap", "most"), ("shape_bias", "least"), ("top_1", "least"))
}
GAP = Gap(same=Proportion(hits=9, images=10), random=Proportion(hits=8, images=10))
"""Of the mean of heads."""
BIAS = Proportion(hits=7, images=8)
"""Of the shape head."""
TOP = Proportion(hits=18, images=20)
"""Of the mean of heads."""


def verdict(folder: Path, stored: Predictions | None = None, **changes: Any) -> dict[str, Any]:
    """The verdict on predictions of the default heads, all thresholds off but the given ones."""
    write_predictions(stored or predictions(), folder / "decisions.parquet")
    config = build(Gate, OFF | changes, key="imagenet.miniature.gate")
    gate(config, variant="miniature", sink=Silent(), decisions=folder, verdict=folder)
    found: dict[str, Any] = json.loads((folder / "gate.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(("beyond", "passed"), [(0.0, True), (1e-9, False)])
def test_each_number_by_the_end_of_its_interval(tmp_path: Path, beyond: float, passed: bool) -> None:
    found = verdict(
        tmp_path,
        background_gap={"heads": ["avg"], "most": GAP.high - beyond},
        shape_bias={"least": BIAS.low + beyond, "decided": 8},
        top_1={"least": TOP.low + beyond},
    )
    assert found["passed"] is passed
    assert found["classifier"] == "ensemble"
    assert [check["name"] for check in found["checks"]] == ["background_gap/avg", "shape_bias/shape", "top_1/avg"]
    assert [check["passed"] for check in found["checks"]] == [passed] * 3
    for check, of in zip(found["checks"], (estimate(GAP), estimate(BIAS), estimate(TOP)), strict=True):
        assert (check["value"], check["low"], check["high"]) == pytest.approx((of.value, of.low, of.high))


def test_an_undecided_shape_bias_does_not_pass(tmp_path: Path) -> None:
    found = verdict(tmp_path, shape_bias={"least": 0.0, "heads": ["shape", "background"], "decided": 1})
    shape, background = found["checks"]
    assert shape["passed"]
    assert background["reason"] == "undecided: its interval holds the 50 % that guessing gives"
    assert not found["passed"]


def test_too_few_decisions_do_not_pass(tmp_path: Path) -> None:
    (check,) = verdict(tmp_path, shape_bias={"least": 0.0, "decided": 9})["checks"]
    assert check["reason"] == "undecided: 8 decisions for either cue, 9 are needed"


def test_a_gap_of_guesses_does_not_pass(tmp_path: Path) -> None:
    """Who guesses has no gap at all, which would be the best of all gaps."""
    stored = predictions()
    chosen = stored.rows["suite"] == "in9"
    stored.rows.loc[chosen, "top_1"] = 0
    (check,) = verdict(tmp_path, stored, background_gap={"most": 1.0})["checks"]
    assert check["reason"].startswith("undecided: no better than chance on mixed_same")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"background_gap": {"most": 1.0, "heads": ["avg"]}}, "have no background gap of the head avg of ensemble"),
        ({"shape_bias": {"least": 0.0, "heads": ["avg"]}}, "have no shape bias of the head avg of ensemble"),
        ({"top_1": {"least": 0.0}}, "have no clean images of the head avg of ensemble"),
    ],
)
@pytest.mark.parametrize("missing", ["head", "suite"])
def test_what_was_not_evaluated_does_not_pass(
    tmp_path: Path, missing: str, changes: dict[str, Any], reason: str
) -> None:
    heads = [key for key in HEADS if key[1] != "avg"]
    stored = predictions(heads=heads) if missing == "head" else predictions(suites=("stylized",))
    (check,) = verdict(tmp_path, stored, **changes)["checks"]
    assert check["reason"] == f"the decisions {reason}"
    assert check["value"] is None
    assert not check["passed"]


def test_the_baseline_can_be_gated(tmp_path: Path) -> None:
    found = verdict(tmp_path, arm="baseline", top_1={"least": 0.5, "heads": ["label"]})
    assert (found["passed"], found["classifier"]) == (True, "baseline")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (OFF, "gate.top_1.least is None, allowed: a number where every other threshold is null"),
        ({"top_1": {"least": 1.5}}, "gate.top_1.least is 1.5, allowed: 0 to 1"),
        ({"top_1": {"heads": []}}, "gate.top_1.heads is (), allowed: one head or more"),
        ({"shape_bias": {"heads": ["shapes"]}}, "gate.shape_bias.heads[0] is 'shapes' (str), allowed: label, shape"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(Gate, values, key="gate")
    assert message in str(error.value)


def test_decisions_of_another_variant_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="variant 'mini', expected 'miniature'"):
        verdict(tmp_path, predictions(variant="mini"), top_1={"least": 0.0})
