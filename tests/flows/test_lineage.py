"""A process has one name as long as it lives, whatever the clock says; a pipeline knows what was changed for it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.journal import Journal
from flows.lineage import Pipeline, alive, changed_parameters, is_alive
from tests.flows.conftest import ROOT

linux = pytest.mark.skipif(sys.platform != "linux", reason="shifts psutil's boot time as Linux has it")


@linux
@pytest.mark.parametrize("seconds", [1, -1, 86400])
def test_a_process_keeps_its_name_when_the_clock_is_set(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    name, started = alive(os.getpid()), psutil.Process().create_time()
    boot = psutil.boot_time()
    monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: boot + seconds)
    assert abs(psutil.Process().create_time() - started) > 0.5  # the clock was set, as psutil sees it
    assert alive(os.getpid()) == name
    assert is_alive(name)


@linux
def test_dvc_is_found_above_a_stage_while_the_clock_is_set(tmp_path: Path) -> None:
    script = tmp_path / "stage.py"
    script.write_text(
        "import itertools, psutil\n"
        "from flows.lineage import nearest_dvc\n"
        "clock = itertools.count(int(psutil.boot_time()), 60)\n"
        "psutil._psplatform.boot_time = lambda: next(clock)\n"
        "print(nearest_dvc())\n",
        encoding="utf-8",
    )
    below = f"{sys.executable} {script}; true"
    done = subprocess.run(
        ["bash", "-c", 'exec -a dvc bash -c "$0" repro', below],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() not in ("", "None"), done.stderr


def test_parameters_are_passed_on_when_the_clock_is_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """run.json is then older than the stage's start."""
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "out.log"
    log.mkdir()
    (log / "run.json").write_text(json.dumps({"seed": 1}), encoding="utf-8")  # of the run before
    journal = Journal(tmp_path, pipeline=Pipeline(key="k", name="n", process=alive(os.getpid())))
    journal.begin({"inputs": {}}, out=tmp_path / "out", log=log)
    journal.log({"loss": 1.0}, step=1)
    (log / "new.json").write_text(json.dumps({"seed": 2}), encoding="utf-8")
    (log / "new.json").replace(log / "run.json")
    os.utime(log / "run.json", (time.time() - 3600,) * 2)
    journal.log({"loss": 0.5}, step=2)
    events = [json.loads(line) for line in (journal.folder / "events.jsonl").read_text().splitlines()]
    assert [event["run"]["seed"] for event in events if event["event"] == "note"] == [2]


@linux
def test_a_name_with_parentheses_hides_no_process() -> None:
    script = "import ctypes; ctypes.CDLL(None).prctl(15, b'a) Z 1 (b', 0, 0, 0); print(); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        name = alive(process.pid)
        assert is_alive(name)
        process.stdin.write(b"\n")
        process.stdin.close()
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        assert not is_alive(name)  # a zombie
    assert not is_alive(name)
    assert not is_alive("")


def test_a_pipeline_knows_which_parameters_were_changed(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True)

    params = tmp_path / "params.yaml"
    committed = "mnist:\n  digits: {seed: 0, train_cgn: {updates: 10, rate: 0.1}}\n  wildlife: {seed: 3}\n"
    params.write_text(committed, encoding="utf-8")
    git("init", "-q")
    assert changed_parameters(tmp_path, track="mnist", variant="digits") == {}  # no revision yet
    git("add", "params.yaml")
    git("commit", "-qm", "params")
    assert changed_parameters(tmp_path, track="mnist", variant="digits") == {}
    params.write_text(committed.replace("updates: 10", "updates: 20").replace("seed: 3", "seed: 4"), encoding="utf-8")
    assert changed_parameters(tmp_path, track="mnist", variant="digits") == {"mnist.digits.train_cgn.updates": "20"}
    assert changed_parameters(tmp_path, track="mnist", variant="unknown") == {}
    params.unlink()
    assert changed_parameters(tmp_path, track="mnist", variant="digits") == {}
