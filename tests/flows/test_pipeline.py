"""The flow on a real Prefect server with a real process worker, as an operator starts it."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._models import DeploymentConfig, PrefectYamlModel, WorkPoolConfig
from prefect.client.schemas.schedules import IntervalSchedule

from tests.flows.conftest import ROOT, make_project, until
from tests.flows.platform import Platform, started
from tests.flows.stored import runs, store

STAGES = {"mnist_data", "mnist_side@left", "mnist_side@right", "mnist_join"}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with started(make_project(tmp_path_factory.mktemp("prefect") / "project")) as platform:
        yield platform


@pytest.mark.long
def test_a_bare_name_runs_all_stages(platform: Platform) -> None:
    project = platform.project
    run = platform.typed("cgn-full")
    assert platform.ended(run) == "Completed", platform.log(run)
    assert platform.tasks(run) == dict.fromkeys(STAGES, "Completed")
    ran = project.ran()
    assert ran[0] == "runs/data"
    assert set(ran[1:3]) == {"runs/side/left", "runs/side/right"}
    assert ran[3:] == ["runs/join"]
    platform.logged(run, "side step 3")
    kinds = platform.artifacts(run)
    assert kinds["mnist-side-left-sheets"] == "image"
    assert kinds["mnist-side-right-values"] == "table"
    until(lambda: not list((project.folder / "runs/untracked").glob("*/*/stage.json")), what="tracking")
    found = runs(store(project))
    pipeline = found[platform.name(run)]
    assert pipeline.data.tags["cgn.pipeline"] == run
    assert pipeline.data.params["targets"] == "['*']"
    assert pipeline.data.metrics["stages/made"] == len(STAGES)
    assert found["side/left"].data.tags["mlflow.parentRunId"] == pipeline.info.run_id
    assert platform.name(run) == "cgn-full"  # the toy has no variants
    assert kinds["summary"] == "markdown"
    assert "git add" not in platform.log(run)
    assert "lock file" not in platform.log(run)


@pytest.mark.long
def test_what_is_up_to_date_is_cached(platform: Platform) -> None:
    project = platform.project
    project.forget()
    project.params("join", steps=2)
    run = platform.typed("cgn/cgn-mnist")
    assert platform.ended(run) == "Completed", platform.log(run)
    assert platform.tasks(run) == dict.fromkeys(STAGES, "Cached") | {"mnist_join": "Completed"}
    assert project.ran() == ["runs/join"]
    shown = {"mnist-join-sheets", "mnist-join-values", "summary"}
    assert set(platform.artifacts(run)) <= shown  # the others' are stored already


@pytest.mark.long
def test_a_cancelled_run_leaves_nothing(platform: Platform) -> None:
    project = platform.project
    project.forget()
    before = len(project.processes())
    project.params("side", seconds=60.0)
    run = platform.start("cgn-full", at_once=1, retries=2)
    until(lambda: [out for out in project.ran() if out.startswith("runs/side")], what="a slow stage")
    begun = platform.tasks(run)
    assert [name for name, state in begun.items() if state == "Running"] == ["mnist_side@left"]
    assert len(begun) == 2  # what waits for a place does not say that it works
    project.run("prefect", "flow-run", "cancel", run)
    assert platform.ended(run) == "Cancelled"
    until(lambda: len(project.processes()) <= before, seconds=15, what=f"the end of {project.processes()}")
    time.sleep(1)
    assert len(project.ran()) == 1
    assert not any("toy.py" in line for line in project.processes())
    assert platform.tasks(run) == {"mnist_data": "Cached", "mnist_side@left": "Cancelled"}
    assert "Failed to initialize plugins" not in (project.folder / "running.log").read_text(encoding="utf-8")


@pytest.mark.long
def test_a_killed_flow_leaves_neither_dvc_nor_a_stage(platform: Platform) -> None:
    project = platform.project
    project.forget()
    run = platform.start("cgn-full", at_once=2)
    until(lambda: len(project.ran()) == 2, what="two slow stages")
    (engine,) = platform.engines()
    os.kill(engine, signal.SIGKILL)
    until(lambda: not [line for line in project.processes() if "dvc" in line or "toy.py" in line], seconds=10)
    assert sorted(project.ran()) == ["runs/side/left", "runs/side/right"], "nothing was started afterwards"
    assert platform.ended(run) == "Crashed"  # the worker saw it, so its place is free for the next test's run


@pytest.mark.long
def test_runs_that_share_stages_work_one_after_the_other(platform: Platform) -> None:
    """And the killed run before left no lock behind."""
    project = platform.project
    project.forget()
    project.params("side", seconds=1.5)
    both = [platform.start(name, retries=0) for name in ("cgn-full", "cgn-mnist")]
    for run in both:
        assert platform.ended(run) == "Completed", platform.log(run)
    assert sorted(project.ran()) == ["runs/side/left", "runs/side/right"]  # once each
    until(lambda: any("waiting for PID " in platform.log(run) for run in both), seconds=30, what="who waited for whom")
    assert not any("is busy" in platform.log(run) for run in both)


@pytest.mark.long
def test_a_failed_stage_stops_only_what_needs_it(platform: Platform) -> None:
    """It is not tried again, since it refused its input; the run says what failed, why, and what did not start."""
    project = platform.project
    project.forget()
    project.params("side", seconds=0.1, fail=True)
    run = platform.start("cgn-full", retries=1)
    assert platform.ended(run) == "Failed"
    assert platform.tasks(run) == {"mnist_data": "Cached", "mnist_side@left": "Failed", "mnist_side@right": "Failed"}
    assert len(project.ran()) == 2
    said = platform.run(run)["state"]["message"].splitlines()
    failed = "mnist_side@{} failed: error: the toy was asked to fail (exit status 2)"
    assert sorted(said[:2]) == [failed.format("left"), failed.format("right")]
    assert said[2:] == ["not started, because they need what failed: mnist_join"]
    platform.logged(run, "error: the toy was asked to fail")


@pytest.mark.long
def test_a_schedule_starts_runs_until_it_is_dropped(platform: Platform) -> None:
    project = platform.project
    project.params("side", fail=False)
    tree = yaml.safe_load((ROOT / "pipelines.yaml").read_text(encoding="utf-8"))
    soon = (datetime.now(UTC) + timedelta(seconds=12)).isoformat()
    timing = {"interval": 60, "anchor_date": soon, "timezone": "UTC"}  # the next minute, where deploying took longer
    tree["deployments"] = [
        entry | {"schedules": [timing]} for entry in tree["deployments"] if entry["name"] == "cgn-mnist"
    ]
    (project.folder / "timed.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    project.run("prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "timed.yaml")
    until(lambda: "Completed" in platform.scheduled("cgn-mnist")[1].values(), what="a scheduled run")
    said = project.run("prefect", "--no-prompt", "deploy", "--name", "cgn-mnist", "--prefect-file", "pipelines.yaml")
    assert "cgn-mnist: the file has no schedule, so the old one is removed: interval 60" in said
    schedules, _ = platform.scheduled("cgn-mnist")
    assert not schedules
    # a second run may have begun meanwhile; none is left that waits for its time
    until(lambda: set(platform.scheduled("cgn-mnist")[1].values()) == {"Completed"}, what="the end of what was begun")


@pytest.mark.long
def test_a_name_that_is_not_there_is_refused(platform: Platform) -> None:
    assert "'cgn-ful'" in platform.project.run("prefect", "deployment", "run", "cgn-ful", status=1)


def test_keys_of_the_deployment_file_are_known_to_prefect() -> None:
    unknown = _unknown(yaml.safe_load((ROOT / "pipelines.yaml").read_text(encoding="utf-8")))
    assert not unknown
    assert _unknown({"deployments": [{"nme": "x", "work_pool": {"naem": "y"}}]}) == ["nme", "work_pool.naem"]


def _unknown(tree: dict[str, Any]) -> list[str]:
    """Prefect ignores what it does not know; we do not."""
    wrong = [key for key in tree if key not in {*PrefectYamlModel.model_fields, "prefect-version"}]
    for deployment in tree["deployments"]:
        wrong += [key for key in deployment if key not in DeploymentConfig.model_fields]
        wrong += [f"work_pool.{key}" for key in deployment["work_pool"] if key not in WorkPoolConfig.model_fields]
    return wrong


@pytest.mark.parametrize("given", ["", "wondrous-auk"])
def test_a_run_is_first_named_after_its_deployment(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__NAME", given)
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__NAME", "cgn-mnist")
    from flows.pipeline import _first_name

    assert _first_name() == "cgn-mnist"


@pytest.mark.parametrize("given", ["before the holidays", "seed-3"])
def test_a_run_that_was_named_keeps_its_name(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__NAME", given)
    from flows.pipeline import _first_name, rename

    assert _first_name() == given
    assert rename("cgn-full · digits seed 0") == given


@pytest.mark.parametrize(
    ("failed", "left"),
    [(["mnist_data"], "mnist_side, mnist_join"), (["mnist_side"], "mnist_join"), (["mnist_join"], None)],
)
def test_a_failure_names_what_was_not_started(failed: list[str], left: str | None) -> None:
    from flows.pipeline import failure
    from tests.flows.test_graph import chain

    stages = chain(mnist_data="", mnist_side="mnist_data", mnist_join="mnist_side", other="")
    said = failure(stages, failed=dict.fromkeys(failed, "error: no (exit status 2)")).splitlines()
    assert said[0] == f"{failed[0]} failed: error: no (exit status 2)"
    assert said[1:] == ([f"not started, because they need what failed: {left}"] if left else [])


@pytest.mark.parametrize(("kept", "removed"), [([], ["first", "second"]), (["new"], [])])
def test_deploying_removes_schedules_only_where_the_file_has_none(kept: list[str], removed: list[str]) -> None:
    from flows.bare_names import _without_old_schedules

    gone = []

    class Client:
        async def read_deployment_schedules(self, _deployment: str) -> list[Any]:
            schedule = IntervalSchedule(interval=timedelta(hours=1))
            return [SimpleNamespace(id=name, schedule=schedule) for name in ("first", "second")]

        async def delete_deployment_schedule(self, _deployment: str, name: str) -> None:
            gone.append(name)

    async def original(*_: Any) -> str:
        return "id"

    this = SimpleNamespace(schedules=kept, name="cgn-mnist")
    assert asyncio.run(_without_old_schedules(original)(this, "id", Client(), None)) == "id"
    assert gone == removed


DROPPED = "a schedule started this run, and pipelines.yaml has none for cgn-mnist"


@pytest.mark.parametrize(
    ("entries", "auto", "warned"),
    [
        ([{"name": "cgn-full", "schedules": [{"interval": 60}]}], True, True),  # the deployment is gone from the file
        ([{"name": "cgn-mnist", "schedules": []}], True, True),
        ([{"name": "cgn-mnist", "schedules": [{"interval": 60}]}], True, False),
        ([{"name": "cgn-mnist"}], False, False),  # somebody started it
    ],
)
def test_a_run_of_a_schedule_that_the_file_lacks_says_how_to_end_it(
    entries: list[Any], auto: bool, warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import pipeline

    (tmp_path / "pipelines.yaml").write_text(yaml.safe_dump({"deployments": entries}), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    context = SimpleNamespace(flow_run=SimpleNamespace(auto_scheduled=auto))
    monkeypatch.setattr("flows.pipeline.FlowRunContext", SimpleNamespace(get=lambda: context))
    monkeypatch.setattr("flows.pipeline.deployment", SimpleNamespace(name="cgn-mnist"))
    said = pipeline._dropped()
    assert said.startswith(DROPPED) if warned else not said
    assert said.endswith("prefect deployment schedule clear -y cgn/cgn-mnist") or not warned


def test_parameters_of_the_deployment_file_are_the_flow_s() -> None:
    for deployment in yaml.safe_load((ROOT / "pipelines.yaml").read_text(encoding="utf-8"))["deployments"]:
        file, _, name = deployment["entrypoint"].partition(":")
        flow = getattr(import_module(file.removesuffix(".py").replace("/", ".")), name)
        assert set(deployment["parameters"]) <= set(flow.parameters.properties)
