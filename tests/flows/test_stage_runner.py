"""DVC run for a stage: what its output means, whom it waits for, and that it ends with whoever started it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows import stage_runner
from flows.stage_runner import Busy, Outcome, StageRunner, StoppedError
from tests.flows.conftest import ROOT, Project, until

TOOLS = ("import os, signal, sys, time", f"sys.path.insert(0, {str(ROOT)!r})")


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The toy project as the current folder; tracking is another test's matter."""
    monkeypatch.chdir(project.folder)
    return project


def make_runner(project: Project) -> StageRunner:
    return StageRunner(environment=project.environment | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})


def outcome(*lines: str, status: int = 255) -> Outcome:
    return Outcome(status=status, lines=lines)


FAILED = "ERROR: failed to reproduce 'a': failed to run: python -m flows.stage train_cgn a, exited with {}"


@pytest.mark.parametrize(
    ("lines", "reason", "ended"),
    [
        (
            ["> python", "error: no such file", "note: MLflow is away", FAILED.format(2)],
            "error: no such file",
            "status 2",
        ),
        (["> python", "Traceback ...", "ValueError: wrong", FAILED.format(1)], "ValueError: wrong", "exit status 1"),
        (["> python", "error: 3 %", "KeyError: 'x'", FAILED.format(1)], "KeyError: 'x'", "exit status 1"),
        (["> python", "epoch 3", FAILED.format(-9)], "epoch 3", "ended by SIGKILL"),
        (["> python", FAILED.format(143)], "it printed nothing", "ended by SIGTERM"),
        (["ERROR: failed to reproduce 'a': missing data 'source': b"], "missing data 'source': b", "exit status 255"),
    ],
)
def test_a_failure_says_why_and_how(lines: list[str], reason: str, ended: str) -> None:
    found = outcome(*lines)
    assert found.reason.endswith(reason)
    assert found.ended.endswith(ended)


def test_dvcs_own_words_are_not_logged_and_the_stages_are(here: Project) -> None:
    logged: list[str] = []
    found = make_runner(here).reproduce("mnist_data", cores=3, log=logged.append)
    assert (found.status, found.skipped) == (0, False)
    assert logged[0] == "> python toy.py data --out runs/data"
    assert [line for line in logged if line.startswith("data step")][:2] == ["data step 1", "data step 2"]
    assert not [line for line in logged if "git add" in line or "lock file" in line or "dvc push" in line]
    assert (here.folder / "ran.txt").read_text().split()[-1] == "3"  # cores
    logged.clear()
    assert make_runner(here).reproduce("mnist_data", cores=3, log=logged.append).skipped
    assert not logged


@pytest.mark.long
def test_a_stage_waits_for_a_terminals_dvc(here: Project) -> None:
    here.params("data", seconds=4.0)  # DVC takes seconds to start where the machine is busy
    with here.running("dvc", "repro", "mnist_data", MLFLOW_TRACKING_URI="http://127.0.0.1:9") as terminal:
        until(here.ran, what="the stage")
        runner = make_runner(here)
        logged: list[str] = []
        busy = runner.reproduce("mnist_data", cores=1, log=logged.append).busy
        assert busy is not None
        assert not logged
        assert f"PID {terminal.pid}, which runs dvc repro mnist_data" in str(busy)
        runner.wait(busy)
        assert terminal.wait(60) == 0
    assert runner.reproduce("mnist_data", cores=1, log=logged.append).skipped
    assert here.ran() == ["runs/data"]


def test_a_cancel_ends_the_waiting() -> None:
    runner = StageRunner(environment={})
    runner.stopped.set()
    with pytest.raises(StoppedError):
        runner.wait(Busy(path="/x", holders={os.getpid(): "dvc repro"}))


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process that is none of DVC's."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process.pid
    process.kill()
    process.wait()


@pytest.fixture
def zombie() -> Iterator[int]:
    """A process that has ended and whose number is still taken."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE, what="its end")
    yield process.pid
    process.wait()


@pytest.mark.long
@pytest.mark.parametrize("dead", ["sleeper", "zombie"])
def test_a_dead_holder_whose_number_is_taken_is_not_waited_for(
    here: Project, dead: str, request: pytest.FixtureRequest
) -> None:
    pid = request.getfixturevalue(dead)
    out = str(here.folder / "runs/data")
    here.run("dvc", "status")  # makes .dvc/tmp
    file = here.folder / stage_runner.RWLOCK
    file.write_text(json.dumps({"write": {out: {"pid": pid, "cmd": "/bin/dvc repro mnist_data"}}, "read": {}}))
    runner = make_runner(here)
    busy = runner.reproduce("mnist_data", cores=1, log=print).busy
    assert busy is not None
    assert busy.holders == {pid: "/bin/dvc repro mnist_data"}
    runner.wait(busy)
    assert runner.reproduce("mnist_data", cores=1, log=print).status == 0


def test_nothing_starts_after_a_stop(here: Project) -> None:
    runner = make_runner(here)
    runner.stop()
    with pytest.raises(StoppedError):
        runner.reproduce("mnist_data", cores=1, log=print)
    assert not here.ran()


def test_a_stop_ends_running_stages_as_stopped(here: Project) -> None:
    here.params("data", seconds=60.0)
    runner, ends = make_runner(here), list[str]()

    def reproduce() -> None:
        try:
            runner.reproduce("mnist_data", cores=1, log=print)
        except StoppedError:
            ends.append("stopped")

    thread = threading.Thread(target=reproduce)
    thread.start()
    until(here.ran, what="the stage")
    runner.stop()
    thread.join(20)
    assert ends == ["stopped"]


def python(*lines: str) -> "subprocess.Popen[str]":
    code = "\n".join([*TOOLS, *lines])
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_a_bound_command_ends_with_a_parent_that_was_killed() -> None:
    """Started from a thread, as tasks are."""
    parent = python(
        "import subprocess, threading",
        "from flows.stage_runner import BOUND",
        "command = [*BOUND, str(os.getpid()), sys.executable, '-c', 'import time; time.sleep(60)']",
        "run = lambda: print(subprocess.Popen(command).pid, flush=True) or time.sleep(60)",
        "threading.Thread(target=run).start()",
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        until(lambda: "sleep" in " ".join(psutil.Process(child).cmdline()), seconds=20, what="the command")
        parent.kill()
        until(lambda: ended(child), seconds=5, what="its end")


def test_a_command_whose_parent_is_dead_already_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "started"
    command = [*stage_runner.BOUND, str(os.getppid()), sys.executable, "-c", f"open({str(file)!r}, 'w')"]
    assert subprocess.run(command, check=False).returncode == 128 + signal.SIGTERM
    assert not file.exists()


def test_a_stage_that_cannot_be_unwound_is_killed_when_its_pipeline_is_gone() -> None:
    stubborn = python(
        "import flows.stage",
        "flows.stage.UNWIND_SECONDS = 0.2",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "flows.stage.die_with_parent('999999999-1')",
        "time.sleep(60)",
    )
    with stubborn:
        assert stubborn.wait(20) == -signal.SIGKILL


def ended(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_a_lock_that_cannot_be_read_is_asked_again(here: Project) -> None:
    (here.folder / ".dvc/tmp").mkdir(exist_ok=True)
    (here.folder / stage_runner.RWLOCK).write_text("{half")
    start = time.monotonic()
    make_runner(here).wait(Busy(path="/x", holders={os.getpid(): "dvc repro"}))
    assert time.monotonic() - start < 10
