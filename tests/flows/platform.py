"""A project with a real Prefect server and a real process worker, as an operator starts them."""

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psutil

from tests.flows.conftest import Project, answers, free_port, until

NOBODY = "http://127.0.0.1:9"  # these tests do not track, and loading MLflow takes seconds
SERVER = ("prefect", "server", "start", "--host", "127.0.0.1", "--no-ui", "--port")
WORKER = ("prefect", "worker", "start", "--pool", "cgn", "--type", "process")
PATIENCE_SECONDS = 600  # on a machine that is busy
DEPLOY = ("prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "pipelines.yaml")


class Platform:
    """A project with a server and a worker."""

    def __init__(self, project: Project, *, api: str, worker: "subprocess.Popen[bytes]") -> None:
        self.project, self.api, self.worker = project, api, worker

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """What the server answers."""
        request = urllib.request.Request(
            f"{self.api}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        return _answer(request)

    def typed(self, name: str, *words: str) -> str:
        """Type `prefect deployment run NAME`, with `words` after it; the id of the flow run."""
        said = self.project.run("prefect", "deployment", "run", name, *words, timeout=PATIENCE_SECONDS)
        (found,) = [line.split()[-1] for line in said.splitlines() if "UUID:" in line]
        return found

    def start(self, name: str, *, flow: str = "cgn", **parameters: Any) -> str:
        """The same without the seconds that the command takes to start."""
        deployment = _answer(urllib.request.Request(f"{self.api}/deployments/name/{flow}/{name}"))["id"]
        body = {"parameters": parameters, "job_variables": {"env": {"MLFLOW_TRACKING_URI": NOBODY}}}
        made = self.post(f"deployments/{deployment}/create_flow_run", body)
        return str(made["id"])

    def run(self, run: str) -> Any:
        """What the server knows of a run."""
        (found,) = self.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        return found

    def state(self, run: str) -> str:
        """The name of a run's state."""
        return str(self.run(run)["state_name"])

    def name(self, run: str) -> str:
        """The name of a run."""
        return str(self.run(run)["name"])

    def scheduled(self, name: str) -> tuple[list[Any], dict[str, str]]:
        """A deployment's schedules, and the states of the runs that they made."""
        found = _answer(urllib.request.Request(f"{self.api}/deployments/name/cgn/{name}"))
        made = self.post("flow_runs/filter", {"flow_runs": {"deployment_id": {"any_": [found["id"]]}}})
        states = {run["id"]: run["state_name"] for run in made if run["auto_scheduled"]}
        return [entry["schedule"] for entry in found["schedules"]], states

    def engines(self) -> list[int]:
        """The processes of the flow runs at work."""
        found = []
        for process in psutil.process_iter():
            try:
                if "prefect.engine" in process.cmdline() and process.cwd() == str(self.project.folder):
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    def ended(self, run: str, *, seconds: float = PATIENCE_SECONDS) -> str:
        """The name of a run's last state."""
        last = ("Completed", "Failed", "Cancelled", "Crashed")
        until(lambda: self.state(run) in last, seconds=seconds, what="end of the run")
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
        until(lambda: line in self.log(run), what=f"{line!r} in the log of the run")

    def artifacts(self, run: str) -> dict[str, str]:
        """The keys and types of a run's artifacts."""
        found = self.post("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
        return {artifact["key"]: artifact["type"] for artifact in found}


@contextmanager
def started(plain: Project, *, server: Sequence[str] = SERVER, port: int | None = None) -> Iterator[Platform]:
    """A server and a worker for a project, with its deployments."""
    port = port or free_port()
    api = f"http://127.0.0.1:{port}/api"
    extra = {"PREFECT_API_URL": api, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    project = replace(plain, environment=plain.environment | extra)
    with project.running(*server, str(port)):
        until(lambda: answers(f"{api}/health"), what="the server")
        with project.running(*WORKER) as worker:
            until(lambda: answers(f"{api}/work_pools/cgn"), what="the worker's pool")
            project.run(*DEPLOY, timeout=PATIENCE_SECONDS)
            yield Platform(project, api=api, worker=worker)


def _answer(request: urllib.request.Request, *, tries: int = 8) -> Any:
    """JSON; a server whose database is busy says 503, and Prefect's own client asks again, too."""
    for left in reversed(range(tries)):
        try:
            with urllib.request.urlopen(request, timeout=90) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 503 or not left:
                raise
            time.sleep(1)
    raise AssertionError
