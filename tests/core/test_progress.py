"""Progress: silent for short work, a plain line a minute for long work where there is no terminal."""

import pytest

from cgn.core.progress import progress


def test_long_work_prints_lines_that_say_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("cgn.core.progress.time.monotonic", lambda: now)
    with progress(total=1280, initial=640, unit="batches") as bar:
        for _ in range(128):
            now += 2.0
            bar.update()
    printed = capsys.readouterr().err.splitlines()
    assert printed[0] == "670 of 1,280 batches (52%), 2 s each, 20:20 to go"
    assert len(printed) == 128 * 2 // 60
    assert not any("\r" in line for line in printed)


def test_short_work_and_work_of_other_processes_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for shown in (True, False):
        with progress(total=3, unit="updates", shown=shown) as bar:
            bar.update()
            bar.update(2)
    assert capsys.readouterr().err == ""
