"""A training on a local Ray cluster: weights, a worker that was killed, a command that was, and what is refused."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
import yaml

from cgn.core import launch_ray
from cgn.core.devices import usable_cores
from cgn.core.errors import ConfigError, TrainingError, WorkerError
from cgn.core.launch import launch
from cgn.core.metrics import Files, MetricSink, Silent
from tests.core.test_several_machines import GAN, ROOT, ROUNDING, alone, difference, home, write_params
from tests.support.ray_cluster import RayCluster, ray_cluster

__all__ = ["home"]  # the fixture of a folder with assets and params.yaml
pytest.importorskip("ray", reason="Ray is in the dependency group `cluster`")
pytestmark = [
    pytest.mark.extended,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray Data, which Ray Train loads, deprecates its own
]
SECONDS = 900.0
"""A command that has not ended by then hangs: it starts ten processes, one after another, twice where one is killed."""


@pytest.fixture(autouse=True)
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short path of its own, because Ray's sockets are there."""
    monkeypatch.setenv("RAY_TMPDIR", tempfile.mkdtemp(prefix="ray"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """Two nodes of one core, as docs/scale.md starts them: without the dashboard."""
    with ray_cluster(nodes=2) as started:
        yield started


def command(*words: str, home: Path, ray: str = "local") -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "cgn", *words, "--ray", ray], cwd=home, env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_a_cluster_trains_as_one_process_and_continues_by_itself_after_a_worker_was_killed(home: Path) -> None:
    alone(*GAN, "one", home=home)
    write_params(home, train_cgn={**read_gan(home), "devices": 2})
    command(*GAN, "two", home=home).communicate(timeout=SECONDS)
    assert difference(home / "one", home / "two") < ROUNDING
    lines = [(home / f"{name}.log" / "metrics.jsonl").read_text().count("\n") for name in ("one", "two")]
    assert lines[0] == lines[1]

    training = command(*GAN, "killed", home=home)
    _wait_for(home / "killed.partial" / "state.pt", training)
    everyone = psutil.Process(training.pid).children(recursive=True)
    first, _ = (process for process in everyone if "RayTrainWorker" in "".join(process.cmdline()))
    first.kill()
    printed, _ = training.communicate(timeout=SECONDS)
    assert "a process of the training was lost: all start again from the last checkpoint" in printed
    assert training.returncode == 0
    assert not psutil.wait_procs(everyone, timeout=SECONDS)[1]
    assert (home / "killed" / "model.safetensors").read_bytes() == (home / "two" / "model.safetensors").read_bytes()
    assert (home / "killed.log" / "metrics.jsonl").read_text().count("\n") == lines[1], "no update is logged twice"


def test_a_killed_command_leaves_no_process_and_is_continued(cluster: RayCluster, home: Path) -> None:
    """On a cluster that lives on, and with one of its own."""
    write_params(home, train_cgn={**read_gan(home), "devices": 2})
    for out, ray in (("local", "local"), ("cluster", cluster.address)):
        training = command(*GAN, out, home=home, ray=ray)
        _wait_for(home / f"{out}.partial" / "state.pt", training)
        everyone = psutil.Process(training.pid).children(recursive=True) if ray == "local" else _actors(cluster)
        assert len([process for process in everyone if "RayTrainWorker" in "".join(process.cmdline())]) == 2
        training.kill()
        training.communicate()
        assert not psutil.wait_procs(everyone, timeout=SECONDS)[1]
    again = command(*GAN, "cluster", home=home, ray=cluster.address)
    printed, _ = again.communicate(timeout=SECONDS)
    assert again.returncode == 0, printed
    assert not list((home / "cluster").glob(".*"))


def _actors(cluster: RayCluster) -> list[psutil.Process]:
    """The processes of a training; what Ray starts once for all is none of them."""
    servers = [psutil.Process(server) for node in cluster.nodes for server in node]
    found = [process for server in servers for process in server.children(recursive=True)]
    once = ("ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::IDLE", "ray::_AutoscalingCoordinatorActor")
    return [one for one in found if (line := "".join(one.cmdline())).startswith("ray::") and not line.startswith(once)]


def _wait_for(path: Path, training: "subprocess.Popen[str]") -> None:
    while not path.is_file():
        assert training.poll() is None
        time.sleep(0.05)


def read_gan(home: Path) -> dict[str, object]:
    params: dict[str, object] = yaml.safe_load((home / "params.yaml").read_text())["imagenet"]["miniature"]["train_cgn"]
    return params


def measuring(sink: MetricSink, *, error: Exception | None) -> None:
    """Log the process's place, or fail."""
    if error is not None and os.environ["RANK"] == "1":
        raise error
    sink.rewind(-1)
    sink.log({"world": float(os.environ["WORLD_SIZE"]), "cores": usable_cores()}, step=0)


def launched(tmp_path: Path, *, ray: str, error: Exception | None = None, accelerator: str = "cpu") -> None:
    launch(
        partial(measuring, error=error), accelerator=accelerator, devices=2, batch_size=1, folder=tmp_path, ray=ray,
        sink=Silent() if error else Files(tmp_path),
    )  # fmt: skip


def test_the_first_process_measures(cluster: RayCluster, tmp_path: Path) -> None:
    launched(tmp_path, ray=cluster.address)
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert '"world": 2.0, "cores": 1' in line, "those that Ray gave it"


@pytest.mark.parametrize("error", [ConfigError("lower batch_size"), KeyError("surprise")])
def test_an_error_of_any_process_is_raised(cluster: RayCluster, tmp_path: Path, error: Exception) -> None:
    expected = ConfigError if isinstance(error, ConfigError) else WorkerError
    with pytest.raises(expected, match=r"lower batch_size|process 1 on .*: Traceback[\s\S]*KeyError: 'surprise'"):
        launched(tmp_path, ray=cluster.address, error=error)


def dying(_: MetricSink) -> None:
    if os.environ["RANK"] == "1":
        os._exit(1)
    time.sleep(SECONDS)


def test_a_process_that_dies_again_and_again_ends_the_training(
    cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch_ray, "RESTARTS", 1)
    with pytest.raises(TrainingError, match=r"another process of the training ended, or was stopped, or its machine"):
        launch(
            dying, accelerator="cpu", devices=2, batch_size=1, folder=tmp_path, ray=cluster.address, sink=Silent()
        )  # fmt: skip
    assert capsys.readouterr().err.count("all start again from the last checkpoint") == 1
    assert not list(tmp_path.glob(".*"))


def test_a_cluster_without_room_is_refused(
    cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster has two cores; the two processes ask for six."""
    monkeypatch.setattr(launch_ray, "ROOM_SECONDS", 1.0)
    monkeypatch.setattr(launch_ray, "resources_of_worker", lambda *_: (3, 0))
    with pytest.raises(ConfigError, match=rf"--ray {cluster.address}: the cluster had no 2 free cores for 1 s: set"):
        launched(tmp_path, ray=cluster.address)
    assert not list(tmp_path.glob(".*"))


def test_a_cluster_without_gpus_is_refused_at_once(cluster: RayCluster, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"'cuda', but the Ray cluster at {cluster.address} has no GPU: set auto"):
        launched(tmp_path, ray=cluster.address, accelerator="cuda")
    assert not list(tmp_path.glob(".*"))


def test_without_ray_the_group_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"--ray local: Ray is not installed here; run the command by `uv run"):
        launched(tmp_path, ray="local")
