"""A gate: measured numbers against thresholds, each by the end of its 95 % interval that is the less favourable one.

What must be at least a threshold passes with the lower end of its interval, what must be at most one with the upper
end; an end at the threshold passes. A number that is undecided, was not measured, or is not finite does not pass.

    gate.json     {"passed", "classifier", "checks": [{"name", "value", "low", "high", "least" or "most", "passed",
                  "reason"}]}; `reason` says why a check did not pass, and is empty where it did
    verdict.md    the same as a table
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cgn.core.files import write_json, write_text
from cgn.core.metrics import MetricSink
from cgn.evaluation.intervals import Estimate
from cgn.evaluation.suite_tables import markdown_table

FILE, TEXT = "gate.json", "verdict.md"
COLUMNS = ("check", "measured", "95 % interval", "threshold", "margin", "verdict")
TITLES = {True: "passed", False: "refused"}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One measured number against its threshold. Shares or differences of shares; None where nothing was measured."""

    name: str
    measured: Estimate | None
    kind: Literal["least", "most"]
    threshold: float
    doubt: str = ""
    """Why the number must not be quoted, or was not measured."""

    @property
    def margin(self) -> float | None:
        """How far the end of the interval that counts is on the good side of the threshold."""
        if self.measured is None:
            return None
        if self.kind == "least":
            return self.measured.low - self.threshold
        return self.threshold - self.measured.high

    @property
    def reason(self) -> str:
        """Why it does not pass; empty where it passes."""
        if self.measured is None or self.margin is None:
            return self.doubt or "not measured"
        if not all(map(math.isfinite, (self.measured.value, self.measured.low, self.measured.high))):
            return "not a finite number"
        if self.doubt:
            return f"undecided: {self.doubt}"
        if self.margin >= 0:
            return ""
        end, side = ("lower", "below") if self.kind == "least" else ("upper", "above")
        measured = self.measured.low if self.kind == "least" else self.measured.high
        return (
            f"the {end} end of its interval, {_percent(measured)}, is {side} the threshold {_percent(self.threshold)}"
        )

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reason

    @property
    def facts(self) -> dict[str, Any]:
        """As gate.json has it."""
        of = self.measured
        numbers = {name: _number(getattr(of, name)) if of else None for name in ("value", "low", "high")}
        return {"name": self.name, **numbers, self.kind: self.threshold, "passed": self.passed, "reason": self.reason}

    @property
    def row(self) -> list[str]:
        """As a table has it, below COLUMNS."""
        of, threshold = self.measured, f"at {self.kind} {_percent(self.threshold)}"
        shown = [_percent(of.value), f"{_percent(of.low)} to {_percent(of.high)}"] if of else ["", ""]
        margin = "" if self.margin is None else f"{100 * self.margin:+.1f} points"
        return [self.name, *shown, threshold, margin, TITLES[self.passed]]


def conclude(checks: Sequence[Check], *, classifier: str, target: str, folder: Path, sink: MetricSink) -> bool:
    """Write the verdict on a classifier into `folder`, print it, and log it; whether every check passed.

    Metrics: `passed` (0 or 1), and `margin/<check>` of what was measured.
    """
    passed = all(check.passed for check in checks)
    write_json(folder / FILE, {"passed": passed, "classifier": classifier, "checks": [check.facts for check in checks]})
    reasons = [f"{check.name}: {check.reason}" for check in checks if not check.passed]
    heading, rows = f"{TITLES[passed]}: {classifier} of {target}", [check.row for check in checks]
    because = "".join(f"\n- {reason}" for reason in reasons)
    write_text(folder / TEXT, f"# {heading}\n\n{markdown_table(COLUMNS, rows)}" + (f"{because}\n" if because else ""))
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (COLUMNS, *rows)]
    print("\n".join([*lines, *reasons, heading]), flush=True)
    margins = {f"margin/{check.name}": _number(check.margin) for check in checks}
    sink.summary({"passed": float(passed)} | {name: value for name, value in margins.items() if value is not None})
    return passed


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
