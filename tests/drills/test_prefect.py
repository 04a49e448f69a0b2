"""Prefect disturbed: kill -9 of the flow, the worker and the server; a restart of the server; a terminal beside it."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from tests.drills.conftest import Drill
from tests.flows.conftest import answers, free_port, until
from tests.flows.platform import DEPLOY, SERVER, WORKER, Platform

pytestmark = [pytest.mark.drill, pytest.mark.long]


class Services:
    """A Prefect server and a worker that can be killed and started again."""

    def __init__(self, drill: Drill, stack: ExitStack) -> None:
        self.port, self.stack = free_port(), stack
        self.api = f"http://127.0.0.1:{self.port}/api"
        extra = {"PREFECT_API_URL": self.api, "PREFECT_WORKER_QUERY_SECONDS": "1"}
        drill.project = replace(drill.project, environment=drill.project.environment | extra)
        self.project = drill.project
        self.start_server()
        self.start_worker()
        self.project.run(*DEPLOY)
        self.platform = Platform(self.project, api=self.api, worker=self.worker)

    def start_server(self) -> None:
        """With the database that is there."""
        self.server = self.stack.enter_context(self.project.running(*SERVER, str(self.port)))
        until(lambda: answers(f"{self.api}/health"), what="the server")

    def start_worker(self) -> None:
        """On the pool of the deployments."""
        self.worker = self.stack.enter_context(self.project.running(*WORKER))
        until(lambda: answers(f"{self.api}/work_pools/cgn"), what="the worker's pool")

    def begun(self) -> str:
        """A run of cgn-full whose slow stages have started."""
        run = self.platform.start("cgn-full")
        until(lambda: "runs/side/left" in self.project.ran(), what="a slow stage")
        return run

    def again(self) -> None:
        """The next run, to its end."""
        run = self.platform.start("cgn-full")
        assert self.platform.ended(run) == "Completed", self.platform.log(run)


@contextmanager
def services(drill: Drill) -> Iterator[Services]:
    """They end with the drill. Stages take a little longer, so that there is time to disturb them."""
    drill.project.params("side", seconds=1.0)
    with ExitStack() as stack:
        yield Services(drill, stack)


def kill(pid: int) -> None:
    """One process, none of its children."""
    os.kill(pid, signal.SIGKILL)


def test_kill_the_flow(drill: Drill) -> None:
    with services(drill) as given:
        run = given.begun()
        (engine,) = given.platform.engines()
        kill(engine)
        drill.gone("toy.py", "dvc")
        assert given.platform.ended(run) == "Crashed"
        drill.recovered("its stages end with it, the run is Crashed", given.again)


def test_kill_the_worker(drill: Drill) -> None:
    with services(drill) as given:
        run = given.begun()
        kill(given.worker.pid)
        given.start_worker()
        assert given.platform.ended(run) in ("Completed", "Crashed")
        ended = given.platform.state(run)
        drill.recovered(f"the run that it had started is {ended}; a new worker takes the next one", given.again)


def test_kill_the_prefect_server(drill: Drill) -> None:
    with services(drill) as given:
        run = given.begun()
        os.killpg(given.server.pid, signal.SIGKILL)
        given.server.wait(10)
        given.start_server()
        assert given.platform.run(run)["id"] == run
        drill.recovered("the server starts again with its database; the next run ends", given.again)


def test_restart_the_prefect_server_midway(drill: Drill) -> None:
    with services(drill) as given:
        run = given.begun()
        given.server.terminate()
        given.server.wait(30)
        given.start_server()
        assert given.platform.ended(run) == "Completed"
        drill.recovered("the run that was at work completes", given.again)


def test_dvc_repro_beside_a_run_of_the_worker(drill: Drill) -> None:
    with services(drill) as given:
        run = given.begun()
        said = given.project.run("dvc", "repro", status=255)
        assert "is busy" in said
        assert given.platform.ended(run) == "Completed"
        assert sorted(set(given.project.ran())) == sorted(given.project.ran())
        drill.recovered("DVC refuses the terminal's: busy, and by whom; the run ends, every stage ran once")
