"""A training on a local Ray cluster: weights, resume after an actor was killed, and what is refused."""

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import yaml

from cgn.core import launch_ray
from cgn.core.errors import ConfigError, WorkerError
from cgn.core.launch import launch
from cgn.core.metrics import Files, MetricSink, Silent
from tests.core.test_several_machines import GAN, ROOT, ROUNDING, SECONDS, alone, difference, home, write_params

__all__ = ["home"]  # the fixture of a folder with assets and params.yaml
pytest.importorskip("ray", reason="Ray is in the dependency group `cluster`")
pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short path of its own, because Ray's sockets are there."""
    monkeypatch.setenv("RAY_TMPDIR", tempfile.mkdtemp(prefix="ray"))


def command(*words: str, home: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "cgn", *words, "--ray", "local"], cwd=home, env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_actors_train_as_one_process_and_continue_after_one_was_killed(home: Path) -> None:
    alone(*GAN, "one", home=home)
    write_params(home, train_cgn={**read_gan(home), "devices": 2})
    command(*GAN, "two", home=home).communicate(timeout=SECONDS)
    assert difference(home / "one", home / "two") < ROUNDING
    lines = [(home / f"{name}.log" / "metrics.jsonl").read_text().count("\n") for name in ("one", "two")]
    assert lines[0] == lines[1]

    killed = command(*GAN, "killed", home=home)
    while not (home / "killed.partial" / "state.pt").is_file():
        assert killed.poll() is None
        time.sleep(0.05)
    everyone = psutil.Process(killed.pid).children(recursive=True)
    (actor, _) = (process for process in everyone if "_Member" in "".join(process.cmdline()))
    actor.kill()
    printed, _ = killed.communicate(timeout=SECONDS)
    assert "error: another process of the training ended, or was stopped, or its machine cannot be reached" in printed
    assert killed.returncode == 2
    assert not psutil.wait_procs(everyone, timeout=SECONDS)[1]
    assert not list((home / "killed.partial").glob(".*"))
    command(*GAN, "killed", home=home).communicate(timeout=SECONDS)
    assert (home / "killed" / "model.safetensors").read_bytes() == (home / "two" / "model.safetensors").read_bytes()


def read_gan(home: Path) -> dict[str, object]:
    params: dict[str, object] = yaml.safe_load((home / "params.yaml").read_text())["imagenet"]["miniature"]["train_cgn"]
    return params


def measuring(sink: MetricSink, *, error: Exception | None) -> None:
    """Log the process's place, or fail."""
    if error is not None and os.environ["RANK"] == "1":
        raise error
    sink.rewind(-1)
    sink.log({"world": float(os.environ["WORLD_SIZE"])}, step=0)


def launched(tmp_path: Path, *, error: Exception | None = None, accelerator: str = "cpu", ray: str = "local") -> None:
    launch(
        partial(measuring, error=error), accelerator=accelerator, devices=2, batch_size=1, folder=tmp_path, ray=ray,
        sink=Silent() if error else Files(tmp_path),
    )  # fmt: skip


def test_the_first_process_measures(tmp_path: Path) -> None:
    launched(tmp_path)
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert '"world": 2.0' in line


@pytest.mark.parametrize("error", [ConfigError("lower batch_size"), KeyError("surprise")])
def test_an_error_of_any_process_is_raised(tmp_path: Path, error: Exception) -> None:
    expected = ConfigError if isinstance(error, ConfigError) else WorkerError
    with pytest.raises(expected, match=r"lower batch_size|process 1 on .*: Traceback[\s\S]*KeyError: 'surprise'"):
        launched(tmp_path, error=error)


def test_a_cluster_without_room_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_ray, "ROOM_SECONDS", 1.0)
    with pytest.raises(ConfigError, match=r"--ray local: the cluster had no 2 free GPUs for 1 s: set devices lower"):
        launched(tmp_path, accelerator="cuda")
    assert not list(tmp_path.glob(".*"))


def test_without_ray_the_group_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"--ray local: Ray is not installed here; run the command by `uv run"):
        launched(tmp_path)
