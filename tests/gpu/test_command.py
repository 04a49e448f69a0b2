"""The GPU checks themselves, tried on the CPU at small sizes."""

import json
from pathlib import Path

import pytest

from tests.gpu.__main__ import main, write
from tests.gpu.measure import Row


@pytest.mark.long
def test_the_command_runs_on_a_cpu_and_writes_its_rows(tmp_path: Path) -> None:
    assert main(["--device", "cpu", "--sizes", "small", "--minutes", "0", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.json")
    rows = json.loads(path.read_text())["rows"]
    same = {row["case"]: row["value"] for row in rows if row["part"] == "equality"}
    assert len(same) == 24
    assert set(same.values()) == {0.0}
    assert [row["case"] for row in rows if row["part"] == "verbs"][-1] == "evaluate mnist/digits"
    speeds = [row for row in rows if row["part"] == "speed"]
    assert speeds
    assert all(row["note"] == "not measured: time is up" for row in speeds)


def test_what_is_too_large_or_failed_is_told_apart_from_what_was_not_measured(tmp_path: Path) -> None:
    large = Row(part="equality", case="large", value=0.1, unit="share", allowed=0.01)
    failed = Row(part="speed", case="failed", value=None, unit="images/s", note="failed: no kernel")
    nothing = Row.judged("equality", "not a number", float("nan"), "share", 0.01)
    late = Row(part="speed", case="late", value=None, unit="images/s", note="not measured: time is up")
    assert [row.passed for row in (large, failed, nothing, late)] == [False, False, False, True]
    write(
        tmp_path,
        [large, nothing],
        about={"card": "A card/of two", "command": "python -m tests.gpu", "torch": "2", "seconds": 1},
    )
    (page,) = tmp_path.glob("*-A-card-of-two.md")
    assert "| too large |" in page.read_text()
