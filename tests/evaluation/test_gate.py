"""The rule of a gate: which end of an interval counts, what is undecided, missing or not a number, and the verdict."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from cgn.evaluation.gate import Check, conclude
from cgn.evaluation.intervals import Estimate

HALF = Estimate(value=0.5, low=0.4, high=0.6)


class Sink:
    """Keeps the final values."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def log(self, values: Any, *, step: int) -> None: ...
    def picture(self, path: Path) -> None: ...
    def rewind(self, step: int) -> None: ...
    def summary(self, values: Any) -> None:
        self.values = dict(values)


def check(measured: Estimate | None = HALF, *, doubt: str = "", name: str = "bias/shape", **threshold: float) -> Check:
    ((kind, value),) = threshold.items()
    return Check(name=name, measured=measured, kind=kind, threshold=value, doubt=doubt)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("threshold", "passed", "margin"),
    [
        ({"least": 0.4}, True, 0.0),
        ({"least": 0.41}, False, -0.01),
        ({"most": 0.6}, True, 0.0),
        ({"most": 0.59}, False, -0.01),
        ({"least": 0.1}, True, 0.3),
        ({"most": 0.9}, True, 0.3),
    ],
)
def test_the_less_favourable_end_counts_and_the_threshold_itself_passes(
    threshold: dict[str, Any], passed: bool, margin: float
) -> None:
    found = check(**threshold)
    assert found.passed is passed
    assert found.margin == pytest.approx(margin)


def test_a_reason_says_which_end_is_on_which_side() -> None:
    low, high = check(least=0.55), check(most=0.55)
    assert low.reason == "the lower end of its interval, 40.0 %, is below the threshold 55.0 %"
    assert high.reason == "the upper end of its interval, 60.0 %, is above the threshold 55.0 %"


@pytest.mark.parametrize("threshold", [{"least": 0.0}, {"most": 1.0}])
@pytest.mark.parametrize("end", ["value", "low", "high"])
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_does_not_pass(threshold: dict[str, Any], end: str, wrong: float) -> None:
    found = check(Estimate(**(vars(HALF) | {end: wrong})), **threshold)
    assert not found.passed
    assert found.reason == "not a finite number"
    assert found.facts[end] is None


def test_what_is_undecided_or_missing_does_not_pass_however_good() -> None:
    undecided = check(doubt="12 decisions, 30 are needed", least=0.0)
    assert (undecided.passed, undecided.reason) == (False, "undecided: 12 decisions, 30 are needed")
    assert check(None, least=0.0).reason == "not measured"
    assert check(None, doubt="no head", least=0.0).reason == "no head"


def test_the_verdict_is_written_printed_and_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sink, good, bad = Sink(), check(least=0.3), check(None, doubt="no such head", name="gap/x", most=0.2)
    assert not conclude([good, bad], classifier="ensemble", target="imagenet/x", folder=tmp_path, sink=sink)
    assert json.loads((tmp_path / "gate.json").read_text(encoding="utf-8")) == {
        "passed": False,
        "classifier": "ensemble",
        "checks": [
            {**vars(HALF), "name": "bias/shape", "least": 0.3, "passed": True, "reason": ""},
            {
                "name": "gap/x",
                "value": None,
                "low": None,
                "high": None,
                "most": 0.2,
                "passed": False,
                "reason": "no such head",
            },
        ],
    }
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2:] == ["gap/x: no such head", "refused: ensemble of imagenet/x"]
    text = (tmp_path / "verdict.md").read_text(encoding="utf-8")
    assert text.startswith("# refused: ensemble of imagenet/x\n\n| check |")
    assert "| 50.0 % | 40.0 % to 60.0 % | at least 30.0 % | +10.0 points | passed |" in text
    assert text.endswith("- gap/x: no such head\n")
    assert sink.values == {"passed": 0.0, "margin/bias/shape": pytest.approx(0.1)}


def test_all_that_pass_pass(tmp_path: Path) -> None:
    sink = Sink()
    assert conclude([check(least=0.4)], classifier="a", target="mnist/x", folder=tmp_path, sink=sink)
    assert sink.values["passed"] == 1.0
