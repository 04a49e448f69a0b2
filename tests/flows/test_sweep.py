"""Sweeps: points are experiments, a killed sweep goes on, a study asks for what it would have asked for."""

import json
import os
import shutil
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.sweep import planned
from tests.flows.conftest import ROOT, Project, make_project, until
from tests.flows.platform import NOBODY, started

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # DVC's pygtrie
SWEEP = ("python", "-m", "flows.sweep")
SEEDS = (*SWEEP, "seeds", "mnist/digits", "--seeds", "0", "1")
RATE, METRIC = "mnist.digits.train_classifier.learning_rate", "accuracy/counterfactual/test_random"
STUDY = (*SWEEP, "study", "mnist/digits", "--set", f"{RATE}=log:0.001:1", "--maximize", METRIC, "--trials")


def make_sweeping(folder: Path) -> Project:
    """A project with this one's params.yaml, and the stages of points.py."""
    plain = make_project(folder)
    extra = {"RAN": str(folder / "ran.txt"), "MLFLOW_TRACKING_URI": NOBODY}
    project = replace(plain, environment=plain.environment | extra)
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "sweep.yaml").replace(folder / "dvc.yaml")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "sweeping")
    return project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_sweeping(tmp_path / "project")


def sweep(project: Project, *words: str, status: int = 0) -> str:
    """What a sweep prints; each experiment takes seconds, on a busy machine many."""
    return project.run(*words, status=status, timeout=1800)


def steps(project: Project) -> list[str]:
    """The steps of trainings since the last call."""
    file = project.folder / "ran.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    project.forget()
    return lines


def slow(project: Project, seconds: float) -> None:
    (project.folder / "ran.txt.slow").write_text(str(seconds), encoding="utf-8")


def kill_tree(process: Any) -> None:
    """SIGKILL to a process and all below it, as a machine that goes down."""
    tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for one in tree:
        try:
            one.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(tree, timeout=10)


def five(seed: int) -> list[str]:
    return [f"seed {seed} rate 0.1 step {step}" for step in range(5)]


def trials(project: Project) -> list[tuple[str, float]]:
    """State and learning rate of the trials in Optuna's file."""
    query = "SELECT t.state, p.param_value FROM trials t JOIN trial_params p USING (trial_id) ORDER BY t.number"
    with closing(sqlite3.connect(project.folder / "optuna.db")) as database:
        return [(str(state), float(value)) for state, value in database.execute(query)]


def no_half_experiment(project: Project) -> bool:
    return project.run("git", "worktree", "list").count("\n") == 1 and not list(
        (project.folder / ".dvc/tmp/exps").glob("cgn-*")
    )


@pytest.mark.long
def test_seeds_become_experiments_and_one_table(project: Project) -> None:
    said = sweep(project, *SEEDS)
    assert steps(project) == five(0) + five(1)
    assert "70.2 %" in said  # 140 and 141 of 200
    assert "2 (0, 1)" in said
    assert no_half_experiment(project)
    assert project.run("git", "status", "--short") == ""
    listed = project.run("dvc", "exp", "show", "--csv")
    assert all(f"cgn-digits-seed-{seed}-" in listed for seed in range(2))
    saved = json.loads((project.folder / "runs/sweeps/digits-seeds/compare.json").read_text(encoding="utf-8"))
    (mean,) = saved["means"]
    assert mean["mean"] == pytest.approx(0.7025)
    assert mean["high"] - mean["mean"] == pytest.approx(12.7062 * 0.0025, rel=1e-4)  # Student, one degree of freedom
    assert sweep(project, *SEEDS).count("done before") == 2
    shutil.rmtree(project.folder / "runs/sweeps")
    sweep(project, *SEEDS)  # without what it kept: DVC restores from its cache
    assert not steps(project)
    (name,) = [line for line in project.run("dvc", "exp", "list", "--name-only").splitlines() if "seed-1" in line]
    project.run("dvc", "exp", "apply", name)
    assert "seed: 1" in (project.folder / "params.yaml").read_text(encoding="utf-8")


@pytest.mark.long
def test_a_killed_sweep_goes_on_with_what_is_missing(project: Project) -> None:
    slow(project, 0.5)
    with project.running(*SEEDS) as process:
        ran = project.folder / "ran.txt"
        until(lambda: ran.exists() and "seed 1 rate 0.1 step 1" in ran.read_text(encoding="utf-8"), what="seed 1")
        kill_tree(process)
    killed = steps(project)
    assert killed[:5] == five(0)
    slow(project, 0)
    said = sweep(project, *SEEDS)
    assert "seed=0: done before" in said
    assert "continues the experiment cgn-digits-seed-1-" in said
    again = steps(project)
    assert 0 < len(again) < 5  # it began where the checkpoint was, not at step 0
    assert sorted({*killed, *again}) == sorted(five(0) + five(1))
    assert "2 (0, 1)" in said
    assert no_half_experiment(project)


@pytest.mark.long
def test_a_point_that_fails_leaves_the_others(project: Project) -> None:
    fail = project.folder / "ran.txt.fail"
    fail.write_text("0", encoding="utf-8")
    said = sweep(project, *SEEDS, status=1)
    assert "1 (1)" in said
    assert "error: mnist.digits.seed=0: dvc repro ended with status" in said
    fail.unlink()
    assert steps(project) == five(1)
    assert "2 (0, 1)" in sweep(project, *SEEDS)
    assert steps(project) == five(0)


@pytest.mark.long
def test_a_grid_groups_its_seeds_by_their_values(project: Project) -> None:
    said = sweep(project, *SWEEP, "grid", "mnist/digits", "-S", f"++{RATE}=0.1,0.01", "--seeds", "0", "1")
    assert len(steps(project)) == 20
    assert "mnist/digits, learning_rate 0.01" in said
    assert "60.2 %" in said  # 120 and 121 of 200
    assert "70.2 %" in said


@pytest.mark.long
def test_a_killed_study_asks_for_what_it_would_have_asked_for(project: Project, tmp_path: Path) -> None:
    slow(project, 0.3)
    with project.running(*STUDY, "5") as process:
        ran = project.folder / "ran.txt"
        until(lambda: ran.exists() and ran.read_text(encoding="utf-8").count("step 1\n") == 3, what="the third trial")
        kill_tree(process)
    cut = steps(project)
    slow(project, 0)
    said = sweep(project, *STUDY, "5")
    assert "a trial was cut, it is run first" in said
    assert len(cut) + len(steps(project)) in (25, 26)  # five steps a trial, none twice but the one that was cut
    found = trials(project)
    assert [state for state, _ in found].count("COMPLETE") == 5
    assert [state for state, _ in found].count("FAIL") == 1
    assert "**" in said
    assert no_half_experiment(project)
    assert "done before" not in sweep(project, *STUDY, "5")
    assert not steps(project)
    whole = make_sweeping(tmp_path / "whole")
    sweep(whole, *STUDY, "5")
    assert [rate for _, rate in trials(whole)] == [rate for state, rate in found if state == "COMPLETE"]


@pytest.mark.long
def test_a_study_refuses_what_does_not_compare(project: Project) -> None:
    assert "the evaluation has no metric 'accuracy'; it has: accuracy/counter" in sweep(
        project,
        *SWEEP,
        "study",
        "mnist/digits",
        "--set",
        f"{RATE}=log:0.001:1",
        "--maximize",
        "accuracy",
        "--trials",
        "1",
        status=2,
    )
    sweep(project, *STUDY, "1")
    other = [word.replace("0.001:1", "0.01:1") for word in STUDY]
    assert "was begun with another space: give this one a --name of its own" in sweep(project, *other, "2", status=2)
    wrong = [word.replace("learning_rate", "learning_rat") for word in STUDY]
    assert "learning_rat" in sweep(project, *wrong, "1", "--name", "other", status=2)
    sweep(project, *STUDY, "1", "--name", "other")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "name one of them"),
        ({"seeds": [0], "space": {"a.b": "1,2"}}, "name one of them"),
        ({"space": {"a.b": "1,2"}, "trials": 1}, "needs a metric"),
        ({"space": {"a.b": "1,2"}, "metric": "m"}, "a number of trials"),
        ({"seeds": [0], "name": "../x"}, "letters, digits"),
    ],
)
def test_what_is_no_sweep_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        planned(Path(), variant="mnist/digits", **given)


def test_points_are_all_combinations() -> None:
    sweep, points, search = planned(Path(), variant="mnist/digits", seeds=[0, 1], grid={"mnist.digits.a": [1, 2]})
    assert (sweep.name, search) == ("digits-grid", None)
    assert points == [{"mnist.digits.a": a, "mnist.digits.seed": seed} for a in (1, 2) for seed in (0, 1)]
    assert os.fspath(sweep.folder) == "runs/sweeps/digits-grid"


@pytest.mark.long
def test_a_sweep_by_prefect_runs_below_one_flow_run(project: Project) -> None:
    with started(project) as platform:
        run = platform.start("cgn-sweep", flow="sweep", variant="mnist/digits", seeds=[0, 1])
        assert platform.ended(run, seconds=600) == "Completed", platform.log(run)
        assert platform.name(run) == "cgn-sweep · digits-seeds · 2 experiments"
        assert platform.artifacts(run) == {"sweep-digits-seeds": "markdown", "sweep-digits-seeds-progress": "progress"}
        below = platform.post("flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}})
        names = {"digits-seeds · mnist.digits.seed=0", "digits-seeds · mnist.digits.seed=1"}
        assert {(one["name"], one["state_name"]) for one in below} == {(name, "Completed") for name in names}
    assert steps(project) == five(0) + five(1)
    assert no_half_experiment(project)
