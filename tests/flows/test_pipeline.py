"""The flow on a real Prefect server with a real process worker, as an operator starts it."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._models import DeploymentConfig, PrefectYamlModel, WorkPoolConfig

from tests.flows.conftest import ROOT, Project, answers, free_port, make_project, until
from tests.flows.stored import runs, store

STAGES = {"mnist_data", "mnist_side@left", "mnist_side@right", "mnist_join"}
NOBODY = "http://127.0.0.1:9"  # tracking is another test's matter, and loading MLflow takes seconds


class Platform:
    """A project with a server and a worker."""

    def __init__(self, project: Project, *, api: str) -> None:
        self.project = project
        self.api = api

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """What the server answers."""
        request = urllib.request.Request(
            f"{self.api}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        return _answer(request)

    def typed(self, name: str) -> str:
        """Type `prefect deployment run NAME`; the id of the flow run."""
        said = self.project.run("prefect", "deployment", "run", name)
        (found,) = [line.split()[-1] for line in said.splitlines() if "UUID:" in line]
        return found

    def start(self, name: str, **parameters: Any) -> str:
        """The same without the seconds that the command takes to start."""
        deployment = _answer(urllib.request.Request(f"{self.api}/deployments/name/cgn/{name}"))["id"]
        body = {"parameters": parameters, "job_variables": {"env": {"MLFLOW_TRACKING_URI": NOBODY}}}
        made = self.post(f"deployments/{deployment}/create_flow_run", body)
        return str(made["id"])

    def state(self, run: str) -> str:
        """The name of a run's state."""
        (found,) = self.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        return str(found["state_name"])

    def name(self, run: str) -> str:
        """The name that Prefect gave a run."""
        (found,) = self.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        return str(found["name"])

    def ended(self, run: str) -> str:
        """The name of a run's last state."""
        last = ("Completed", "Failed", "Cancelled", "Crashed")
        until(lambda: self.state(run) in last, seconds=90, what="end of the run")
        return self.state(run)

    def tasks(self, run: str) -> dict[str, str]:
        """The states of a run's tasks."""
        found = self.post("task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        return {task["name"]: task["state_name"] for task in found}

    def log(self, run: str) -> str:
        """All that a run logged."""
        body = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"}
        return "\n".join(line["message"] for line in self.post("logs/filter", body))

    def logged(self, run: str, line: str) -> None:
        """Wait for a line in a run's log: Prefect sends the last lines after the run has ended."""
        until(lambda: line in self.log(run), seconds=30, what=f"{line!r} in the log of the run")

    def artifacts(self, run: str) -> dict[str, str]:
        """The keys and types of a run's artifacts."""
        found = self.post("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
        return {artifact["key"]: artifact["type"] for artifact in found}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    plain = make_project(tmp_path_factory.mktemp("prefect") / "project")
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    project = Project(
        folder=plain.folder,
        environment=plain.environment | {"PREFECT_API_URL": api, "PREFECT_WORKER_QUERY_SECONDS": "1"},
    )
    server = ("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui")
    worker = ("prefect", "worker", "start", "--pool", "cgn", "--type", "process")
    with project.running(*server):
        until(lambda: answers(f"{api}/health"), what="the server")
        with project.running(*worker):
            until(lambda: answers(f"{api}/work_pools/cgn"), what="the worker's pool")
            project.run("prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "pipelines.yaml")
            yield Platform(project, api=api)


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
    until(lambda: not list((project.folder / "runs/untracked").glob("*/*/events.jsonl")), what="tracking")
    found = runs(store(project))
    pipeline = found[platform.name(run)]
    assert pipeline.data.tags["cgn.pipeline"] == run
    assert pipeline.data.params["targets"] == "['*']"
    assert pipeline.data.metrics["stages/made"] == len(STAGES)
    assert found["side/left"].data.tags["mlflow.parentRunId"] == pipeline.info.run_id


def test_what_is_up_to_date_is_cached(platform: Platform) -> None:
    project = platform.project
    project.forget()
    project.params("join", steps=2)
    run = platform.typed("cgn/cgn-mnist")
    assert platform.ended(run) == "Completed", platform.log(run)
    assert platform.tasks(run) == dict.fromkeys(STAGES, "Cached") | {"mnist_join": "Completed"}
    assert project.ran() == ["runs/join"]


def test_a_cancelled_run_leaves_nothing(platform: Platform) -> None:
    project = platform.project
    project.forget()
    before = len(project.processes())
    project.params("side", seconds=60.0)
    run = platform.start("cgn-full", at_once=1, retries=2)
    until(lambda: [out for out in project.ran() if out.startswith("runs/side")], what="a slow stage")
    project.run("prefect", "flow-run", "cancel", run)
    assert platform.ended(run) == "Cancelled"
    until(lambda: len(project.processes()) <= before, seconds=15, what=f"the end of {project.processes()}")
    time.sleep(1)
    assert len(project.ran()) == 1
    assert not any("toy.py" in line for line in project.processes())


def test_a_failed_stage_stops_only_what_needs_it(platform: Platform) -> None:
    """And the run before left no lock behind."""
    project = platform.project
    project.params("side", seconds=0.1, fail=True)
    run = platform.start("cgn-full", retries=0)
    assert platform.ended(run) == "Failed"
    assert platform.tasks(run) == {
        "mnist_data": "Cached",
        "mnist_side@left": "Failed",
        "mnist_side@right": "Failed",
        "mnist_join": "NotReady",
    }
    platform.logged(run, "error: the toy was asked to fail")


def test_a_name_that_is_not_there_is_refused(platform: Platform) -> None:
    assert "'cgn-ful'" in platform.project.run("prefect", "deployment", "run", "cgn-ful", status=1)


def test_keys_of_the_deployment_file_are_known_to_prefect() -> None:
    unknown = _unknown(yaml.safe_load((ROOT / "pipelines.yaml").read_text(encoding="utf-8")))
    assert not unknown
    assert _unknown({"deployments": [{"nme": "x", "work_pool": {"naem": "y"}}]}) == ["nme", "work_pool.naem"]


def _answer(request: urllib.request.Request, *, tries: int = 8) -> Any:
    """JSON; a server whose database is busy says 503, and Prefect's own client asks again, too."""
    for left in reversed(range(tries)):
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 503 or not left:
                raise
            time.sleep(1)
    raise AssertionError


def _unknown(tree: dict[str, Any]) -> list[str]:
    """Prefect ignores what it does not know; we do not."""
    wrong = [key for key in tree if key not in {*PrefectYamlModel.model_fields, "prefect-version"}]
    for deployment in tree["deployments"]:
        wrong += [key for key in deployment if key not in DeploymentConfig.model_fields]
        wrong += [f"work_pool.{key}" for key in deployment["work_pool"] if key not in WorkPoolConfig.model_fields]
    return wrong


def test_parameters_of_the_deployment_file_are_the_flow_s() -> None:
    from flows.pipeline import cgn

    known = set(cgn.parameters.properties)
    for deployment in yaml.safe_load((ROOT / "pipelines.yaml").read_text(encoding="utf-8"))["deployments"]:
        assert set(deployment["parameters"]) <= known
        assert Path(ROOT, deployment["entrypoint"].partition(":")[0]).is_file()
