"""A broken entry of DVC's cache is named and removed, so that the next `dvc repro` makes what it held. DVC is real."""

import re
import sys
from pathlib import Path

import pytest

from tests.flows.conftest import Project

MAKE = """
from pathlib import Path
folder = Path("runs/data")
folder.mkdir(parents=True, exist_ok=True)
for name, content in (("a.txt", "a" * 1000), ("b.txt", "b" * 10), ("empty.txt", "")):
    (folder / name).write_text(content)
Path("runs/single.txt").write_text("s" * 500)
"""
USE = """
import sys
from pathlib import Path
from cgn.core.errors import ArtifactError
from flows.stage import main

def front_door(argv, run):
    sizes = {"runs/data/a.txt": 1000, "runs/data/b.txt": 10, "runs/data/empty.txt": 0, "runs/single.txt": 500}
    for name, size in sizes.items():
        if Path(name).stat().st_size != size or "?" in Path(name).read_text():
            raise ArtifactError(f"{name} is broken: remove it and run the stage that makes it again")
    Path("runs/result").write_text("whole" + Path("number.txt").read_text())

sys.exit(main([], front_door=front_door))
"""
PIPELINE = f"""
stages:
  make:
    cmd: {sys.executable} make.py
    deps: [make.py]
    outs: [runs/data, runs/single.txt]
  use:
    cmd: {sys.executable} use.py
    deps: [use.py, runs/data, runs/single.txt, number.txt]
    outs: [runs/result]
"""


@pytest.fixture
def made(project: Project) -> Project:
    """A pipeline that ran once, and whose second stage has to run again."""
    for name, content in (("make.py", MAKE), ("use.py", USE), ("dvc.yaml", PIPELINE), ("number.txt", "1")):
        (project.folder / name).write_text(content)
    (project.folder / "dvc.lock").unlink(missing_ok=True)
    project.environment["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    project.run("dvc", "repro")
    (project.folder / "number.txt").write_text("2")
    return project


def entries(project: Project, content: str) -> list[Path]:
    """The entries of the cache with this content."""
    found = (project.folder / ".dvc/cache/files/md5").rglob("*")
    return [path for path in found if path.is_file() and path.read_text(errors="replace") == content]


@pytest.mark.long
@pytest.mark.parametrize(
    ("content", "broken", "name"),
    [
        ("a" * 1000, "a" * 400, "runs/data/a.txt"),  # cut short
        ("b" * 10, "b" * 4 + "?" + "b" * 5, "runs/data/b.txt"),  # of the same size
        ("s" * 500, "", "runs/single.txt"),  # an output that is one file, emptied
    ],
)
def test_a_broken_entry_of_the_cache_is_removed_and_made_again(
    made: Project, content: str, broken: str, name: str
) -> None:
    (entry,) = entries(made, content)
    entry.chmod(0o644)
    entry.write_text(broken)
    entry.chmod(0o444)
    made.run("rm", "-r", "runs/data", "runs/single.txt")
    said = made.run("dvc", "repro", status=255)  # DVC restores the broken bytes
    assert re.search(rf"error: {name} is broken: .* DVC's cache held the same broken bytes, in \S*{entry.name}", said)
    assert not entry.exists()
    assert len(entries(made, "b" * 10 if name != "runs/data/b.txt" else "a" * 1000)) == 1
    made.run("dvc", "repro")
    assert (made.folder / "runs/result").read_text() == "whole2"
    assert len(entries(made, content)) == 1


def test_a_whole_cache_is_left_alone_and_not_blamed(made: Project) -> None:
    (made.folder / "runs/data/a.txt").write_text("a" * 999)
    before = sorted((made.folder / ".dvc/cache/files/md5").rglob("*"))
    said = made.run("python", "use.py", status=2)
    assert "runs/data/a.txt is broken: remove it and run the stage that makes it again\n" in said
    assert sorted((made.folder / ".dvc/cache/files/md5").rglob("*")) == before
    made.run("dvc", "repro")  # makes it whole again, as DVC sees that it changed


def test_an_error_outside_a_dvc_project_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.cache import repaired

    monkeypatch.chdir(tmp_path)
    assert repaired("runs/data/a.txt is broken") == ""
    (tmp_path / "dvc.lock").write_text("[1]")
    assert "could not be checked" in repaired("runs/data/a.txt is broken")
