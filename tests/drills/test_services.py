"""The services of compose.yaml, started from packages with the file's own commands; the S3 store is moto's.

One `cgn-full` of the toy project goes through them: its states are in Prefect's database, its runs in MLflow's, its
artifacts in the store, its outputs in a DVC remote there.
"""

import json
import os
import pwd
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import Project, answers, free_port, make_project, until
from tests.support.compose import read_compose

STAGES = {"mnist_data", "mnist_side@left", "mnist_side@right", "mnist_join"}
BINARIES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/nowhere"))
PORTS = ("database:5432", "store:9000", "prefect:4200", "mlflow:5000")
"""Of the services, as the others in compose.yaml reach them."""


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """The project, its services by their addresses, and compose.yaml with these."""

    project: Project
    addresses: dict[str, str]
    services: dict[str, Any]

    def ask(self, path: str, body: Any = None) -> Any:
        """What Prefect's API answers."""
        data = None if body is None else json.dumps(body).encode()
        url = f"http://{self.addresses['prefect']}/api/{path}"
        with urllib.request.urlopen(urllib.request.Request(url, data, {"Content-Type": "application/json"})) as reply:
            return json.loads(reply.read())

    def rows(self, database: str, query: str) -> list[Any]:
        """What PostgreSQL answers."""
        psycopg2 = pytest.importorskip("psycopg2")
        password = self.services["database"]["environment"]["POSTGRES_PASSWORD"]
        host, port = self.addresses["database"].split(":")
        connection = psycopg2.connect(host=host, port=port, user="cgn", password=password, dbname=database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(query)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def bucket(self, name: str) -> dict[str, int]:
        """Key and bytes of each object in the store."""
        boto3 = pytest.importorskip("boto3")
        store = self.services["mlflow"]["environment"]
        keys = {"aws_access_key_id": "cgn", "aws_secret_access_key": store["AWS_SECRET_ACCESS_KEY"]}
        s3 = boto3.resource("s3", endpoint_url=store["AWS_ENDPOINT_URL"], region_name="us-east-1", **keys)
        return {entry.key: entry.size for entry in s3.Bucket(name).objects.all()}


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    if not (BINARIES / "initdb").is_file():
        pytest.skip("PostgreSQL is not installed here (Debian: apt-get install postgresql)")
    pytest.importorskip("moto.server", reason="the S3 server of the tests is in the dependency group services")
    pytest.importorskip("psycopg2", reason="PostgreSQL's driver is in the dependency group services")
    addresses = {name.partition(":")[0]: f"127.0.0.1:{free_port()}" for name in PORTS}
    services = read_compose(replaced={name: addresses[name.partition(":")[0]] for name in PORTS})["services"]
    project = make_project(tmp_path_factory.mktemp("services") / "project")
    with ExitStack() as stack:
        database = services["database"]["environment"]
        stack.enter_context(postgresql(addresses["database"], password=database["POSTGRES_PASSWORD"]))
        host, port = addresses["store"].split(":")
        stack.enter_context(project.running("moto_server", "-H", host, "-p", port))
        until(lambda: answers(f"http://{addresses['store']}/moto-api/"), seconds=60, what="the store")
        project.run(*services["buckets"]["command"], **services["buckets"]["environment"])
        for name, health in {"prefect": "api/health", "mlflow": "health"}.items():
            words = local(services[name]["command"], port=addresses[name].split(":")[1])
            stack.enter_context(project.running(*words, **services[name]["environment"]))
            until(partial(answers, f"http://{addresses[name]}/{health}"), seconds=240, what=name)
        worker, environment = services["worker"]["command"], services["worker"]["environment"]
        health_port = {"PREFECT_WORKER_WEBSERVER_PORT": str(free_port()), "PREFECT_WORKER_QUERY_SECONDS": "1"}
        project = replace(project, environment=project.environment | environment)
        stack.enter_context(project.running(*worker, **health_port))
        until(
            lambda: answers(f"{environment['PREFECT_API_URL']}/work_pools/cgn"), seconds=120, what="the worker's pool"
        )
        project.run(*services["deploy"]["command"])
        yield Deployed(project=project, addresses=addresses, services=services)


def local(command: list[str], *, port: str) -> list[str]:
    """A server's command, on loopback and a port of this test's own."""
    words = ["127.0.0.1" if word == "0.0.0.0" else word for word in command]
    words[words.index("--port") + 1] = port
    return words


@contextmanager
def postgresql(address: str, *, password: str) -> Iterator[None]:
    """A server with the databases of compose.yaml. It refuses to run as root."""
    host, port = address.split(":")
    folder = Path(tempfile.mkdtemp(prefix="cgn-postgresql-"))
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        entry = pwd.getpwnam("postgres")
        user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    (folder / "password").write_text(password, encoding="utf-8")
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "cwd": folder, **user}
    files = ["--pwfile", str(folder / "password"), "--pgdata", str(folder / "data")]
    subprocess.run([BINARIES / "initdb", "--auth", "scram-sha-256", "--username", "cgn", *files], check=True, **quiet)
    options = ["-h", host, "-p", port, "-k", str(folder), "-c", "fsync=off"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [BINARIES / "postgres", "-D", folder / "data", *options], stderr=log, cwd=folder, **user
        )
    try:
        ready: list[str | Path] = [BINARIES / "pg_isready", "-q", "-h", host, "-p", port]
        until(lambda: subprocess.run(ready, check=False).returncode == 0, seconds=60, what="PostgreSQL")
        sql = ["CREATE DATABASE prefect", read_compose()["configs"]["databases"]["content"]]
        for line in sql:
            words = [BINARIES / "psql", "-q", "-h", host, "-p", port, "-U", "cgn", "-d", "postgres", "-c", line]
            subprocess.run(words, check=True, env={"PGPASSWORD": password}, **quiet)
        yield
    finally:
        server.terminate()  # ends when its clients have left; SIGINT would not wait for them
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        shutil.rmtree(folder)


@pytest.mark.long
def test_cgn_full_goes_through_all_services(deployed: Deployed) -> None:
    project = deployed.project
    made = deployed.ask(f"deployments/{deployed.ask('deployments/name/cgn/cgn-full')['id']}/create_flow_run", {})

    def state() -> str:
        return str(deployed.ask(f"flow_runs/{made['id']}")["state_name"])

    until(lambda: state() in ("Completed", "Failed", "Crashed"), seconds=240, what="the end of the run")
    assert state() == "Completed"
    assert set(project.ran()) == {"runs/data", "runs/side/left", "runs/side/right", "runs/join"}
    tasks = deployed.rows("prefect", f"SELECT name, state_name FROM task_run WHERE flow_run_id = '{made['id']}'")
    assert dict(tasks) == dict.fromkeys(STAGES, "Completed")

    def uploaded() -> bool:
        return not list((project.folder / "runs/untracked").glob("*/*/stage.json"))

    until(uploaded, seconds=120, what="tracking")
    runs = dict(deployed.rows("mlflow", "SELECT name, status FROM runs"))
    assert {name: status for name, status in runs.items() if name in ("data", "join", "side/left", "side/right")} == {
        "data": "FINISHED", "join": "FINISHED", "side/left": "FINISHED", "side/right": "FINISHED",
    }  # fmt: skip
    assert len(runs) == 5, "and the pipeline's"
    assert deployed.rows("mlflow", "SELECT count(*) FROM metrics WHERE key LIKE 'loss%'")[0][0] > 0
    artifacts = deployed.bucket("mlflow")
    assert len([key for key in artifacts if key.endswith("/run.json")]) == 4
    assert len([key for key in artifacts if key.endswith(".png")]) >= 4
    assert all(artifacts.values())
    assert not (project.folder / "mlflow.db").exists()
    assert not (project.folder / "mlartifacts").exists()


@pytest.mark.long
def test_outputs_go_to_a_dvc_remote_in_the_store(deployed: Deployed) -> None:
    pytest.importorskip("dvc_s3", reason="DVC remotes in S3 need the group cluster")
    project = deployed.project
    project.run("dvc", "repro")
    project.run("dvc", "remote", "add", "--default", "store", "s3://dvc")
    project.run("dvc", "remote", "modify", "store", "verify", "true")
    project.run("dvc", "push")
    assert deployed.bucket("dvc")
    assert "0 of them not there" in project.run("python", "-m", "flows.remote")


@pytest.mark.long
def test_the_doctor_finds_both_servers(deployed: Deployed) -> None:
    said = deployed.project.run(
        "python", "-m", "cgn", "doctor", "--params", str(Path(__file__).parents[2] / "params.yaml")
    )
    found = [line.split(maxsplit=2) for line in said.splitlines()]
    answered = {words[1] for words in found if words[0] == "ok" and words[-1].endswith("answers")}
    assert answered == {"Prefect", "MLflow"}
