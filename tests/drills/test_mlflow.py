"""MLflow down, hanging, answering 500, its store cut short: the pipeline ends well all the same, tracked later."""

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.drills.conftest import Drill
from tests.flows.conftest import free_port
from tests.flows.stored import runs, store

pytestmark = [pytest.mark.drill, pytest.mark.long]
SYNC = (sys.executable, "-m", "flows.tracking", "sync")


@contextmanager
def down() -> Iterator[int]:
    """Nobody listens."""
    yield free_port()


@contextmanager
def hanging() -> Iterator[int]:
    """Connections are taken, nothing is answered."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield server.getsockname()[1]


class Failing(BaseHTTPRequestHandler):
    """Every request fails in the server."""

    def do_GET(self) -> None:  # the base class's name for it
        self.send_error(500)

    do_POST = do_GET  # noqa: N815 (the base class's name for it)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def failing() -> Iterator[int]:
    """Every answer is 500."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("server", [down, hanging, failing], ids=lambda server: server.__name__)
def test_mlflow(drill: Drill, server: type) -> None:
    project = drill.project
    with server() as port:
        project.run("dvc", "repro", MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}")
        drill.gone(seconds=90)  # the uploader gives up by itself

    def later() -> None:
        project.run(*SYNC, MLFLOW_TRACKING_URI=store(project))

    drill.recovered("every stage ends well and none is tracked; `python -m flows.tracking sync` tracks all", later)
    assert {"data", "side/left", "side/right", "join"} <= set(runs(store(project)))


def test_truncate_mlflow_db(drill: Drill) -> None:
    project = drill.project
    project.environment["MLFLOW_TRACKING_URI"] = store(project)
    project.run("dvc", "repro", "mnist_data")
    drill.gone(seconds=90)
    file = project.folder / "mlflow.db"
    file.write_bytes(file.read_bytes()[:5000])
    project.run("dvc", "repro")
    drill.gone(seconds=90)
    said = project.run(*SYNC, status=1)
    assert "mlflow.db" in said
    file.unlink()
    drill.recovered(
        "every stage ends well; sync names the broken store, and tracks what it missed into a new one",
        lambda: project.run(*SYNC),
    )
    assert {"side/left", "side/right", "join"} <= set(runs(store(project)))
