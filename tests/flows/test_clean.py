"""python -m flows.clean: one command lists and removes what is stale of all three stores, and nothing else."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows import clean
from tests.flows.conftest import ROOT, Project, until
from tests.flows.stored import files, runs, store

CLEAN = ("python", "-m", "flows.clean", "--params", str(ROOT / "params.yaml"))  # the toy's are none of the library's


@pytest.fixture
def used(project: Project) -> Project:
    """A project whose outputs were made twice, the second time with other parameters."""
    project.run("dvc", "repro", "mnist_data")
    project.params("data", steps=3)
    text = project.folder / "toy.py"
    text.write_text(text.read_text("utf-8").replace('f"{given.verb}\\n"', 'f"{given.verb} again\\n"'), encoding="utf-8")
    project.run("dvc", "repro", "mnist_data")
    waiting = project.folder / "runs/untracked"
    until(lambda: not list(waiting.glob("*/*/stage.json")), seconds=120, what="tracking")
    return project


@pytest.mark.long
def test_only_what_nothing_names_is_listed_and_removed(used: Project) -> None:
    cache = used.folder / ".dvc/cache/files/md5"
    objects = {path for path in cache.rglob("*") if path.is_file()}
    (used.folder / "runs/gone.log").mkdir()
    (used.folder / "runs/gone.log/run.json").write_text("{}")
    found = runs(store(used))["data"]
    artifacts = Path(found.info.artifact_uri.removeprefix("file://"))
    assert artifacts.is_dir()
    used.run("mlflow", "runs", "delete", "--run-id", found.info.run_id, MLFLOW_TRACKING_URI=store(used))

    said = used.run(*CLEAN)
    assert "runs/gone.log: the record of a run that made nothing" in said
    assert "objects that no workspace, branch, tag or experiment names" in said
    assert f"{artifacts.parent}: of a run that was deleted" in said
    assert "removed" not in said
    assert {path for path in cache.rglob("*") if path.is_file()} == objects
    assert artifacts.is_dir()

    said = used.run(*CLEAN, "--yes")
    assert said.count("removed ") == 3
    left = {path for path in cache.rglob("*") if path.is_file()}
    assert left < objects
    assert not artifacts.exists()
    assert not (used.folder / "runs/gone.log").exists()
    others = [run for name, run in runs(store(used)).items() if name == "data"]
    assert others, "the run before it"
    assert files(store(used), others[0])
    assert "stale" not in used.run(*CLEAN).replace("0 stale", "")
    used.forget()
    used.run("dvc", "repro", "mnist_data")
    assert used.ran() == [], "what the workspace names is still in the cache"


@pytest.mark.long
def test_a_cache_elsewhere_and_a_server_are_left_alone(project: Project, tmp_path: Path) -> None:
    project.run("dvc", "config", "--local", "cache.dir", str(tmp_path / "shared"))
    said = project.run(*CLEAN, MLFLOW_TRACKING_URI="http://user:secret@127.0.0.1:9")
    assert f"{tmp_path / 'shared' / 'files' / 'md5'}: outside this checkout" in said
    assert "http://127.0.0.1:9: a server's" in said


def test_a_cache_that_is_linked_to_another_place_is_left_alone(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = tmp_path / "shared"
    (shared / "files/md5/00").mkdir(parents=True)
    (shared / "files/md5/00" / ("0" * 30)).touch()
    (project.folder / ".dvc/cache").symlink_to(shared)
    monkeypatch.chdir(project.folder)
    assert clean.clean_cache(remove=True)
    assert "outside this checkout" in capsys.readouterr().out
    assert (shared / "files/md5/00" / ("0" * 30)).is_file()


def test_without_dvc_there_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not clean.clean_cache(remove=True)
    assert capsys.readouterr().err.startswith("error: you are not inside of a DVC repository")


def make_store(folder: Path, *runs: tuple[str, str, str]) -> None:
    """As much of MLflow's tables as is read."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        database.execute("CREATE TABLE runs (run_uuid, artifact_uri, lifecycle_stage)")
        database.executemany("INSERT INTO runs VALUES (?, ?, ?)", runs)
        database.commit()


def test_a_copied_store_frees_nothing_of_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the original the run may be there."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    artifacts = tmp_path / "original/mlartifacts" / ("a" * 32) / "artifacts"
    artifacts.mkdir(parents=True)
    (tmp_path / "copy").mkdir()
    make_store(tmp_path / "copy", ("a" * 32, artifacts.as_uri(), "deleted"))
    assert clean.clean_store(tmp_path / "copy", remove=True)
    assert capsys.readouterr().out.startswith("kept")
    assert artifacts.is_dir()


def test_artifacts_of_no_run_are_named_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They may belong to a copy of the store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert clean.clean_store(tmp_path, remove=True), "without a store there is nothing to do"
    make_store(tmp_path, ("a" * 32, "file:///x", "active"))
    for run in ("a" * 32, "b" * 32, "models"):
        (tmp_path / "mlartifacts" / run / "artifacts").mkdir(parents=True)
    assert clean.clean_store(tmp_path, remove=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("kept")
    assert f"{'b' * 32}: of no run in mlflow.db" in line
    assert len(list((tmp_path / "mlartifacts").iterdir())) == 3
