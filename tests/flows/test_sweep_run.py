"""The run of a sweep in MLflow, and the runs below it. MLflow is real, the stages are not."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import untracked
from flows.points import POINT, SAVED, Sweep
from flows.processes import alive
from flows.sweep_run import log_means, log_study, tracked
from flows.tracking import sync
from flows.untracked import Pipeline, UntrackedRun
from tests.flows.conftest import ROOT
from tests.flows.stored import files, history, runs

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own, of its database layer
MEAN = {"group": "", "measure": "shape bias", "head": "mean of heads", "mean": 0.2, "low": 0.1, "high": None}
PARAMETERS = {"variant": "mnist/digits", "mnist.digits.seed": "0, 1"}


@pytest.fixture
def sweep(tmp_path: Path, isolated_mlflow: None, monkeypatch: pytest.MonkeyPatch) -> Sweep:  # noqa: ARG001 sets up
    """A sweep in a checkout with two points that are done."""
    monkeypatch.setattr(Sweep, "key", "digits-seeds-0123abcd")
    monkeypatch.chdir(tmp_path)
    made = Sweep(root=tmp_path, variant="mnist/digits", name="digits-seeds")
    for seed in range(2):
        folder = made.folder / f"cgn-{seed}"
        folder.mkdir(parents=True)
        point = {"experiment": folder.name, "overrides": {"mnist.digits.seed": seed}, "variant": made.variant}
        (folder / POINT).write_text(json.dumps(point), encoding="utf-8")
    (made.folder / SAVED).write_text(json.dumps({"means": [MEAN]}), encoding="utf-8")
    (made.folder / "compare.md").write_text("| a |\n", encoding="utf-8")
    return made


def uri(sweep: Sweep) -> str:
    return f"sqlite:///{sweep.root}/mlflow.db"


def stage(sweep: Sweep, *, experiment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage of an experiment, as it runs below a sweep: what it belongs to comes by the environment."""
    monkeypatch.setenv("DVC_EXP_NAME", experiment)
    pipeline = Pipeline(key=experiment, name=experiment, process=alive(1))
    monkeypatch.setenv("CGN_PIPELINE", pipeline.environment["CGN_PIPELINE"])
    run = UntrackedRun(sweep.root, pipeline=untracked.current_pipeline())
    facts = {"name": f"prepare of {experiment}", "verb": "prepare", "track": "mnist", "variant": "digits", "inputs": {}}
    run.begin(facts, out=Path("out"), log=Path("out.log"))
    run.end("FINISHED")
    monkeypatch.delenv("DVC_EXP_NAME")


def finished(sweep: Sweep, work: Callable[[UntrackedRun], object]) -> Any:
    """The run of a sweep that ended well and was sent."""
    with tracked(sweep, kind="seeds", parameters=PARAMETERS) as run:
        work(run)
    assert sync(sweep.root) == 0
    return runs(uri(sweep))["digits-seeds"]


def test_a_sweep_has_means_parameters_and_the_runs_of_its_experiments(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [sweep.folder / f"cgn-{seed}" for seed in range(2)]

    def work(run: UntrackedRun) -> None:
        stage(sweep, experiment="cgn-1", monkeypatch=monkeypatch)
        log_means(run, sweep, folders, parameters=PARAMETERS)

    run = finished(sweep, work)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {
        "seeds/shape_bias/mean_of_heads.mean": 0.2,
        "seeds/shape_bias/mean_of_heads.low": 0.1,
    }
    assert run.data.params == PARAMETERS
    assert run.data.tags["cgn.experiment.0"] == "cgn-0: mnist.digits.seed=0"
    assert {"compare.md", "compare.json"} <= files(uri(sweep), run)
    found = runs(uri(sweep))
    assert found["cgn-1"].data.tags["mlflow.parentRunId"] == run.info.run_id
    assert found["cgn-1"].data.tags["dvc.dvc_exp_name"] == "cgn-1"
    assert found["prepare of cgn-1"].data.tags["mlflow.parentRunId"] == found["cgn-1"].info.run_id


def test_a_sweep_that_is_started_again_continues_its_run(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an experiment's stage was sent first, which then has created the sweep's run."""

    def work(run: UntrackedRun) -> None:
        stage(sweep, experiment="cgn-0", monkeypatch=monkeypatch)
        away = run.folder.parent.rename(sweep.root / "away")
        assert sync(sweep.root) == 0  # the stage alone
        assert runs(uri(sweep))["digits-seeds"].info.status == "RUNNING"
        away.rename(run.folder.parent)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finished(sweep, work)
    assert sync(sweep.root) == 0
    first = runs(uri(sweep))
    assert first["digits-seeds"].info.status == "KILLED"
    assert first["cgn-0"].data.tags["mlflow.parentRunId"] == first["digits-seeds"].info.run_id
    run = finished(sweep, lambda run: log_means(run, sweep, [], parameters=PARAMETERS))
    assert run.info.run_id == first["digits-seeds"].info.run_id
    assert run.info.status == "FINISHED"
    assert len(runs(uri(sweep))) == 3


def test_what_a_server_that_is_down_misses_is_sent_later(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with tracked(sweep, kind="seeds", parameters=PARAMETERS) as run:
        log_means(run, sweep, [], parameters=PARAMETERS)
    assert sync(sweep.root) == 1
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert sync(sweep.root) == 0
    assert runs(uri(sweep))["digits-seeds"].data.metrics["seeds/shape_bias/mean_of_heads.mean"] == 0.2
    assert not list((sweep.root / "runs/untracked").glob("*/"))


def test_a_study_has_its_trials_by_number(sweep: Sweep) -> None:
    trials = [
        {"step": 1, "time": 1.0, "study/value": 0.5, "study/best": 0.5},
        {"step": 2, "time": 2.0, "study/value": 0.4, "study/best": 0.5},
    ]

    def work(run: UntrackedRun) -> None:
        for known in (trials[:1], trials):  # as after each trial
            metrics = {"study/best_value": 0.5}
            log_study(run, sweep, [], parameters=PARAMETERS, trials=known, metrics=metrics, tags={"cgn.best.a": "3"})

    run = finished(sweep, work)
    assert history(uri(sweep), run, "study/value") == [(1, 0.5), (2, 0.4)]
    assert history(uri(sweep), run, "study/best") == [(1, 0.5), (2, 0.5)]
    assert run.data.tags["cgn.best.a"] == "3"


def test_an_uploader_ends_with_its_pipeline_not_with_the_sweep(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else ten trials would leave ten uploaders at work until the last one."""
    stage(sweep, experiment="cgn-0", monkeypatch=monkeypatch)
    untracked.end_pipeline(sweep.root, key="cgn-0", metrics={})
    folder = sweep.root / "runs/untracked/cgn-0"
    command = [sys.executable, "-m", "flows.tracking", "upload", str(folder), alive(os.getpid())]
    subprocess.run(command, cwd=sweep.root, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=300, check=True)
    assert runs(uri(sweep))["cgn-0"].info.status == "FINISHED"
    assert not folder.exists()
