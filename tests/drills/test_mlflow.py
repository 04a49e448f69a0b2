"""MLflow down, hanging, answering 500, its store cut short: the pipeline ends well all the same, tracked later.

The same for datasets, images, trained models, versions and the alias: all is kept, sent later, and there once.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cgn.core.files import folder_digest
from flows import tracked_run, untracked
from flows.tracking import sync
from flows.untracked import write_json
from tests.drills.conftest import Drill
from tests.flows.conftest import empty_store, free_port, isolated_mlflow, root
from tests.flows.stored import datasets, history, images, runs, store
from tests.flows.test_mlflow_client import uri
from tests.flows.test_models import NAME, classifier, client, judged, models, versions
from tests.flows.toy.toy import pixel

__all__ = ["empty_store", "isolated_mlflow", "root"]  # fixtures
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


# Datasets, images, trained models, versions, the alias

TRAINED = "train_classifier mnist/toy original"
quiet = pytest.mark.filterwarnings("ignore")  # MLflow's own, of its database layer and of type hints


@pytest.fixture
def stages(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in which a classifier was trained, evaluated and judged, and MLflow was not there."""
    monkeypatch.setattr("flows.tracking.GRACE_SECONDS", 0.0)
    folder = classifier(root)
    (run,) = waiting(root)
    sheet = run / untracked.IMAGES / "sheets" / "000003.png"
    sheet.parent.mkdir(parents=True)
    sheet.write_bytes(pixel())
    data = {"name": "mnist/toy", "digest": "abc.dir", "path": "runs/mnist/toy/prepare", "context": "training"}
    write_json(run / untracked.INPUTS, {"tags": {}, "changed": {}, "datasets": [data]})
    judged(root, folder, passed=True)
    return root


def waiting(root: Path) -> list[Path]:
    """The runs that are kept."""
    return sorted(file.parent for file in (root / untracked.UNTRACKED).glob(f"*/*/{untracked.STAGE}"))


def all_is_there_once(root: Path) -> None:
    """MLflow has what the stages left, and nothing is kept any more."""
    assert waiting(root) == []
    everything = client(root).search_runs([client(root).get_experiment_by_name("cgn").experiment_id])
    assert sorted(run.data.tags.get("cgn.verb", "pipeline") for run in everything) == [
        "evaluate",
        "gate",
        "pipeline",
        "train_classifier",
    ]
    assert {run.info.status for run in everything} == {"FINISHED"}
    trained = runs(uri(root))[TRAINED]
    assert datasets(uri(root), trained) == [("mnist/toy", "abc.dir", "training")]
    assert images(uri(root), trained) == [("sheets", 3)]
    values = history(uri(root), trained, "train/loss")  # of the record, and the final one, of another time
    assert set(values) == {(3, 0.5)}
    assert len(values) <= 2
    (model,), (version,) = models(root), versions(root)
    assert str(model.status) == "READY"
    assert [made.model_id for made in trained.outputs.model_outputs] == [model.model_id]
    assert {metric.key for metric in model.metrics} == {"train/loss", "accuracy/original/test"}
    assert version.aliases == ["champion"]
    assert (version.name, version.tags["gate"]) == (NAME, "passed")
    assert version.tags["folder"] == folder_digest(Path("runs/mnist/toy/train_classifier/original"))


@quiet
@pytest.mark.parametrize("server", [down, hanging, failing], ids=lambda server: server.__name__)
def test_models_and_images_wait_for_the_server(stages: Path, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = waiting(stages)
    with server() as port, monkeypatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        assert sync(stages) == 1
    assert waiting(stages) == kept
    assert sync(stages) == 0
    all_is_there_once(stages)


@quiet
@pytest.mark.parametrize(
    "call",
    [
        "create_run",
        "log_inputs",
        "log_artifacts",
        "create_logged_model",
        "log_model_artifacts",
        "log_outputs",
        "create_model_version",
        "set_registered_model_alias",
        "set_terminated",
    ],
)
def test_an_uploader_that_is_killed_after_a_call_is_followed_by_one_that_sends_the_rest(
    stages: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    real = getattr(MlflowClient, call)

    def kill_after(*given: Any, **named: Any) -> None:
        real(*given, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    if not (child := os.fork()):  # MLflow's import takes seconds; a fork has it
        monkeypatch.setattr(MlflowClient, call, kill_after)
        sync(stages)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert waiting(stages)
    assert sync(stages) == 0
    all_is_there_once(stages)


@quiet
def test_a_disk_that_is_full_after_each_call_sends_all_twice_and_leaves_it_once(
    stages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: set[tuple[Path, int]] = set()

    def full_at_first(file: Path, value: Any) -> None:
        if file.name == untracked.SENT and (step := (file, len(value["files"]))) not in failed:
            failed.add(step)
            raise OSError(28, "No space left on device")
        write_json(file, value)

    monkeypatch.setattr(tracked_run, "write_json", full_at_first)
    while sync(stages):
        assert len(failed) < 40
    assert len(failed) > 12, "a run's begin and each of its files"
    all_is_there_once(stages)
