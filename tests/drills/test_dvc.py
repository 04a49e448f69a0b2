"""`dvc repro` disturbed: kill -9, a full disk, files cut short, two at once, a shared cache."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.drills.conftest import Drill, digests
from tests.flows.conftest import make_project, until

pytestmark = [pytest.mark.drill, pytest.mark.long]


def test_kill_a_stage(drill: Drill) -> None:
    with drill.project.running("dvc", "repro") as dvc:
        until(lambda: "runs/side/left" in drill.project.ran(), what="a slow stage")
        drill.kill("toy.py", "side")
        assert dvc.wait(30) != 0
    assert not (drill.project.folder / "runs/side/left").exists()
    drill.recovered("dvc ends with an error; the output stays <out>.partial")


def test_kill_dvc(drill: Drill) -> None:
    with drill.project.running("dvc", "repro", SHELL="/bin/sh") as dvc:
        until(lambda: "runs/side/left" in drill.project.ran(), what="a slow stage")
        os.kill(dvc.pid, signal.SIGKILL)
        dvc.wait(10)
        drill.gone("toy.py")
    assert not (drill.project.folder / "runs/side/left").exists()
    drill.recovered("its stage ends with it")


def test_fill_the_disk(drill: Drill) -> None:
    with tmpfs(drill.project.folder / "runs", megabytes=1) as disk:
        filler = disk / "filler"
        subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4096"], stderr=subprocess.DEVNULL, check=False)
        said = drill.project.run("dvc", "repro", status=255)
        assert "no space is left on this disk" in said
        assert "Traceback" not in said
        filler.unlink()
        drill.recovered("one line: no space is left on this disk, and what to do")


def test_truncate_an_entry_of_the_cache(drill: Drill) -> None:
    drill.project.run("dvc", "repro")
    (entry,) = [
        path
        for path in (drill.project.folder / ".dvc/cache/files/md5").rglob("*")
        if path.is_file() and path.read_bytes() == b"join\n"
    ]
    entry.chmod(0o644)
    entry.write_bytes(b"jo")
    shutil.rmtree(drill.project.folder / "runs/join")
    drill.recovered("an entry that is not write-protected is checked: DVC makes the output again")
    assert entry.read_bytes() == b"join\n"


def test_truncate_dvc_lock(drill: Drill) -> None:
    drill.project.run("dvc", "repro")
    lock = drill.project.folder / "dvc.lock"
    lock.write_bytes(lock.read_bytes()[: lock.stat().st_size // 2 - 7])
    drill.project.run("dvc", "repro", status=255)
    lock.unlink()
    drill.project.forget()
    drill.recovered("DVC ends with an error that names a stage only; after `rm dvc.lock` it takes all from its cache")
    assert not drill.project.ran()


def test_two_pipelines_at_once_in_one_checkout(drill: Drill) -> None:
    project = drill.project
    with project.running("dvc", "repro") as first, project.running("dvc", "repro") as second:
        assert sorted([first.wait(120), second.wait(120)]) == [0, 255]
    assert "is busy" in (project.folder / "running.log").read_text()
    assert sorted(project.ran()) == ["runs/data", "runs/join", "runs/side/left", "runs/side/right"]  # once each
    drill.recovered("one runs every stage; DVC refuses the other: the output is busy, and the number of the process")


def test_two_clones_that_share_a_cache(drill: Drill, tmp_path: Path) -> None:
    other = make_project(tmp_path / "other")
    other.environment["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    for project in (drill.project, other):
        project.run("dvc", "cache", "dir", "--local", str(tmp_path / "cache"))
    with drill.project.running("dvc", "repro") as first, other.running("dvc", "repro") as second:
        until(lambda: "runs/side/left" in drill.project.ran(), what="a slow stage")
        drill.kill("toy.py", "side")
        first.wait(30)
        assert second.wait(120) == 0
    assert digests(other.folder) == drill.whole
    drill.project.forget()
    drill.recovered(
        "one is killed, the other ends; the killed one then takes what the other made", unused=["side/left.partial"]
    )
    assert "runs/data" not in drill.project.ran()


@contextmanager
def tmpfs(folder: Path, *, megabytes: int) -> Iterator[Path]:
    """A small disk in memory at a folder; the test is skipped where nothing may be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here: run it as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # an uploader may still have a file open there
