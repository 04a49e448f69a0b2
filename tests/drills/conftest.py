"""Drills: something is killed, cut short or taken away; the next run must end with the bytes of an undisturbed one.

Every drill says through `Drill.recovered` what was seen and how long the next run took; pytest prints the table.
"""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from cgn.core.files import sha256
from tests.conftest import DRILL
from tests.flows.conftest import Project, make_project, until

OUTPUTS = ("data", "side/left", "side/right", "join")


class Drill:
    """A fresh toy project, the bytes of an undisturbed run, and what must hold after the next one."""

    def __init__(self, project: Project, whole: dict[str, str], note: Callable[[str, object], None]) -> None:
        self.project, self.whole, self.note = project, whole, note

    def kill(self, *words: str) -> None:
        """SIGKILL for the process of this project whose command line holds all words."""
        found = [process for process in here(self.project.folder) if all(word in line(process) for word in words)]
        assert found, f"no process with {words} among {[line(process) for process in here(self.project.folder)]}"
        for process in found:
            process.kill()
        psutil.wait_procs(found, timeout=10)

    def gone(self, *words: str, seconds: float = 20) -> None:
        """Nothing with these words in its command line is left working in the project."""
        until(
            lambda: not [left for left in self.project.processes() if not words or any(word in left for word in words)],
            seconds=seconds,
            what=f"the end of {self.project.processes()}",
        )

    def recovered(self, seen: str, again: Callable[[], Any] | None = None, *, unused: Sequence[str] = ()) -> None:
        """Run again (by `dvc repro` where nothing else is given); no bytes differ, no process and no lock is left.

        `unused`: folders that a killed stage had begun, whose outputs then came from DVC's cache; `clean` removes them.
        """
        started = time.monotonic()
        (again or (lambda: self.project.run("dvc", "repro")))()
        seconds = time.monotonic() - started
        assert digests(self.project.folder) == self.whole
        runs = self.project.folder / "runs"
        assert [str(path.relative_to(runs)) for path in runs.rglob("*.partial")] == list(unused)
        assert "Data and pipelines are up to date" in self.project.run("dvc", "status")
        rwlock = self.project.folder / ".dvc/tmp/rwlock"
        numbers = re.findall(r'"pid": (\d+)', rwlock.read_text()) if rwlock.exists() else []
        assert not [number for number in numbers if psutil.pid_exists(int(number))]  # DVC clears those of the dead
        self.gone("dvc", "toy.py")
        self.note(DRILL, (seen, f"{seconds:.1f}"))


def here(folder: Path) -> list[psutil.Process]:
    """The processes that work in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def line(process: psutil.Process) -> str:
    """Its command line, empty once it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def digests(folder: Path) -> dict[str, str]:
    """Every file of every output."""
    runs = folder / "runs"
    files = [path for name in OUTPUTS for path in (runs / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(runs)): sha256(path) for path in sorted(files)}


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The bytes of a run that nothing disturbed."""
    project = make_project(tmp_path_factory.mktemp("whole") / "project")
    project.environment["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    project.run("dvc", "repro")
    found = digests(project.folder)
    assert len(found) == 2 * len(OUTPUTS)
    return found


@pytest.fixture
def drill(tmp_path: Path, whole: dict[str, str], record_property: Callable[[str, object], None]) -> Drill:
    """A drill in a project of its own, without an MLflow server, which would take seconds."""
    project = make_project(tmp_path / "project")
    project.environment["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    return Drill(project, whole, record_property)
