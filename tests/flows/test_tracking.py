"""Every stage is a run nested in its pipeline's run, and no server can stop, slow or lose one. MLflow is real."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flows.observed import changed_parameters, dvc_hashes
from flows.untracked import read_text
from tests.flows.conftest import Project, answers, end_group, free_port, make_project, until
from tests.flows.stored import datasets, files, history, images, runs, store

TOY = (sys.executable, "toy.py")


def untracked(project: Project) -> list[Path]:
    """The folders of the runs that are not tracked yet."""
    return [file.parent for file in sorted((project.folder / "runs/untracked").glob("*/*/stage.json"))]


def settled(project: Project) -> None:
    """Wait until all is tracked and no uploader works."""
    until(lambda: not untracked(project) and not project.processes(), what=f"tracking: {project.processes()}")


@pytest.fixture
def toy(project: Project, empty_store: Path) -> Project:
    """A fresh toy with an empty store."""
    shutil.copy(empty_store, project.folder)
    return project


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The toy after a plain `dvc repro`."""
    project = make_project(tmp_path_factory.mktemp("tracking") / "project")
    project.run("dvc", "repro")
    settled(project)
    return project


@pytest.mark.long
def test_stages_are_nested_in_their_pipelines_run(reproduced: Project) -> None:
    found = runs(store(reproduced))
    assert set(found) == {"dvc repro", "data", "side/left", "side/right", "join"}
    pipeline = found.pop("dvc repro")
    assert {run.data.tags["mlflow.parentRunId"] for run in found.values()} == {pipeline.info.run_id}
    assert {run.info.status for run in [pipeline, *found.values()]} == {"FINISHED"}
    assert pipeline.data.params == {"command": "dvc repro", "mnist.toy.seed": "7"}
    assert pipeline.data.metrics["stages/made"] == 4
    assert pipeline.data.tags["git_revision"] == "abc+"


def test_a_run_tells_what_it_was(reproduced: Project) -> None:
    uri = store(reproduced)
    left = runs(uri)["side/left"]
    assert left.data.params == {"nested.steps": "3", "nested.seconds": "0.3", "nested.fail": "False", "seed": "7"}
    assert left.data.tags["mlflow.source.git.commit"] == "abc"
    assert left.data.tags["cgn.verb"] == "side"
    assert history(uri, left, "loss/toy") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert left.data.metrics["accuracy/toy/test"] == 0.5
    assert files(uri, left) == {"run.json"}
    assert images(uri, left) == [("sheets", 1)]


@pytest.mark.filterwarnings("ignore")  # DVC's own
def test_hashes_are_those_of_dvc(reproduced: Project) -> None:
    lock = yaml.safe_load((reproduced.folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]["mnist_join"]
    locked = {entry["path"]: entry["md5"] for entry in lock["deps"] + lock["outs"]}
    join = runs(store(reproduced))["join"]
    assert join.data.tags["dvc.output"] == locked["runs/join"]
    inputs = [locked["runs/side/left"], locked["runs/side/right"]]
    assert join.data.tags["dvc.input.data"] == " ".join(inputs)
    made = {("mnist/toy", digest, "evaluation") for digest in inputs}
    assert set(datasets(store(reproduced), join)) == made | {("mnist/toy", locked["runs/join"], "output")}
    assert dvc_hashes(reproduced.folder, ["toy.py", "nothing"]) == {"toy.py": locked["toy.py"]}
    assert dvc_hashes(reproduced.folder / "nothing", ["toy.py"]) == {}


@pytest.mark.long
def test_experiments_show_parameters_and_metrics(reproduced: Project) -> None:
    reproduced.run("dvc", "exp", "run", "--temp", "-S", "side.steps=2", "-n", "shorter")
    settled(reproduced)
    shown = reproduced.run("dvc", "exp", "show", "--csv", "--no-pager")
    (row,) = [line for line in shown.splitlines() if line.startswith("shorter")]
    assert ",0.5,0.5," in row  # of runs/side/left.log/metrics.json and its sibling
    assert "accuracy.toy.test" in reproduced.run("dvc", "metrics", "show")
    assert "loss/toy" in reproduced.run("dvc", "plots", "show", "--show-vega", "runs/side/left.log/curves.csv")
    found = runs(store(reproduced))
    assert found["shorter"].info.status == "FINISHED"
    assert found["side/left"].data.tags["dvc.dvc_exp_name"] == "shorter"
    assert "?? runs" not in reproduced.run("git", "status", "--short")


@pytest.mark.long
def test_an_experiment_in_a_temporary_copy_finds_the_users_data(reproduced: Project) -> None:
    said = reproduced.run("dvc", "exp", "run", "--temp", "-S", "side.steps=1", "-n", "copied")
    found = {line for line in said.splitlines() if " is the user's, from " in line}
    assert found
    for line in found:
        data, _, here = line.partition(" is the user's, from ")
        assert Path(data) == reproduced.folder / "data"
        assert Path(here).is_relative_to(reproduced.folder / ".dvc/tmp/exps")
    settled(reproduced)


@pytest.mark.long
def test_a_failed_stage_is_reported_in_one_line(toy: Project) -> None:
    toy.params("data", fail=True)
    said = toy.run(*TOY, "data", "--out", "runs/data", status=2)
    assert said.splitlines()[-1] == "error: the toy was asked to fail"
    settled(toy)
    failed = runs(store(toy))["data"]
    assert failed.info.status == "FAILED"
    assert failed.data.tags["cgn.message"] == "TrainingError: the toy was asked to fail"


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_stage_ends_as_killed(toy: Project, number: int) -> None:
    toy.params("data", steps=100, seconds=0.5)
    with toy.running(*TOY, "data", "--out", "runs/data") as process:
        until(lambda: [run for run in untracked(toy) if "loss" in read_text(run / "metrics.jsonl")], what="a step")
        until(
            lambda: [run for run in untracked(toy) if read_text(run / "system.jsonl")], what="a sample of the machine"
        )
        os.kill(process.pid, number)
        process.wait(10)
        settled(toy)
    found = runs(store(toy))["data"]
    assert found.info.status == "KILLED"
    assert found.data.metrics["system/system_memory_usage_percentage"] > 0


@pytest.mark.long
def test_a_killed_dvc_leaves_no_stage_behind(toy: Project) -> None:
    toy.params("data", steps=100, seconds=0.5)
    with toy.running("dvc", "repro", "mnist_data", SHELL="/bin/sh") as process:
        until(toy.ran, what="the stage")
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        until(lambda: not any("toy.py" in line for line in toy.processes()), seconds=5, what="the end of the stage")
        settled(toy)
    assert runs(store(toy))["data"].info.status == "KILLED"


@pytest.fixture
def server(toy: Project) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    port = free_port()
    home = toy.folder.parent / "server"
    home.mkdir()
    words = ("mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    place = ("--backend-store-uri", f"sqlite:///{home}/server.db", "--artifacts-destination", str(home / "artifacts"))
    extra = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "DO_NOT_TRACK": "true"}
    process = subprocess.Popen(
        (*words, *place),
        cwd=home,
        env=toy.environment | extra,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    uri = f"http://127.0.0.1:{port}"
    try:
        until(lambda: answers(f"{uri}/health"), what="the MLflow server")
        yield uri, process
    finally:
        end_group(process)


@pytest.mark.long
def test_a_server_that_dies_midway_loses_nothing(toy: Project, server: tuple[str, "subprocess.Popen[bytes]"]) -> None:
    uri, process = server
    toy.params("data", steps=60, seconds=0.1)
    with toy.running(*TOY, "data", "--out", "runs/data", MLFLOW_TRACKING_URI=uri) as stage:
        until(lambda: "data" in runs(uri) and history(uri, runs(uri)["data"], "loss/toy"), what="live metrics")
        end_group(process)
        assert stage.wait(30) == 0
        until(lambda: not toy.processes(), what="the uploader to give up")
    assert (toy.folder / "runs/data/text.txt").is_file()
    assert len(untracked(toy)) == 1
    toy.run(sys.executable, "-m", "flows.tracking", "sync")  # to another store: all of it again
    assert not untracked(toy)
    found = runs(store(toy))["data"]
    assert found.info.status == "FINISHED"
    assert history(store(toy), found, "loss/toy") == [(step, 1 / step) for step in range(1, 61)]
    assert files(store(toy), found) == {"run.json"}
    assert images(store(toy), found) == [("sheets", 1)]


@pytest.mark.long
def test_a_server_that_hangs_costs_seconds_only(toy: Project) -> None:
    toy.params("data", steps=2)
    with socket.socket() as hung:
        hung.bind(("127.0.0.1", 0))
        hung.listen(50)  # takes connections and never answers
        uri = f"http://127.0.0.1:{hung.getsockname()[1]}"
        start = time.monotonic()
        toy.run(*TOY, "data", "--out", "runs/data", MLFLOW_TRACKING_URI=uri)
        assert time.monotonic() - start < 30  # a request without a limit takes minutes
        until(lambda: not toy.processes(), what="the uploader to give up")
    assert len(untracked(toy)) == 1


@pytest.mark.long
def test_the_next_run_tracks_what_the_last_could_not(toy: Project) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    toy.run(*TOY, "data", "--out", "runs/data", MLFLOW_TRACKING_URI=nobody)
    until(lambda: not toy.processes(), what="the uploader to give up")
    assert len(untracked(toy)) == 1
    failed = toy.run(sys.executable, "-m", "flows.tracking", "sync", status=1, MLFLOW_TRACKING_URI=nobody)
    assert f"error: {nobody} cannot be used now" in failed
    toy.run(*TOY, "join", "--out", "runs/join", "--in", "runs/data")
    settled(toy)
    assert {"data", "join"} <= set(runs(store(toy)))
    assert toy.run(sys.executable, "-m", "flows.tracking", "sync").strip() == "everything is tracked"


@pytest.mark.long
def test_a_run_that_is_refused_holds_up_no_other(toy: Project) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    for number in (1, 2):
        toy.run(*TOY, "data", "--out", f"runs/data{number}", MLFLOW_TRACKING_URI=nobody)
        until(lambda: not toy.processes(), what="the uploader to give up")
    first = untracked(toy)[0] / "metrics.jsonl"
    first.write_text(first.read_text().replace("loss/toy", "loss?toy"))  # no name that MLflow takes
    said = toy.run(sys.executable, "-m", "flows.tracking", "sync", status=2)
    assert "1 of 2 runs tracked" in said
    assert "loss?toy" in said
    assert untracked(toy) == [first.parent]
    first.write_text(first.read_text().replace("loss?toy", "loss/toy"))
    toy.run(sys.executable, "-m", "flows.tracking", "sync")
    assert {"data1", "data2"} <= set(runs(store(toy)))


def test_a_wrong_command_line_leaves_nothing(toy: Project) -> None:
    toy.run(*TOY, "data", status=2)
    until(lambda: not toy.processes(), what="the uploader")
    assert not list((toy.folder / "runs/untracked").glob("*/*"))


@pytest.mark.filterwarnings("ignore")  # DVC's own
def test_a_pipeline_knows_which_parameters_were_changed(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True)

    params = tmp_path / "params.yaml"
    committed = "mnist:\n  digits: {seed: 0, train_cgn: {updates: 10, rate: 0.1}}\n  wildlife: {seed: 3}\n"
    params.write_text(committed, encoding="utf-8")
    git("init", "-q")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=tmp_path, check=True)
    assert changed_parameters(tmp_path, above="mnist.digits.") == {}  # no revision yet
    git("add", "params.yaml")
    git("commit", "-qm", "params")
    assert changed_parameters(tmp_path, above="mnist.digits.") == {}
    params.write_text(committed.replace("updates: 10", "updates: 20").replace("seed: 3", "seed: 4"), encoding="utf-8")
    assert changed_parameters(tmp_path, above="mnist.digits.") == {"mnist.digits.train_cgn.updates": "20"}
    assert changed_parameters(tmp_path, above="mnist.unknown.") == {}
    params.unlink()
    assert changed_parameters(tmp_path, above="mnist.digits.") == {}
