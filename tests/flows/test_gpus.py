"""GPUs are shared out by file locks. No GPU is needed: a script stands in for nvidia-smi."""

import importlib
import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cgn.core.errors import ConfigError
from flows import gpus
from flows.stage import _cgn, _gpus
from tests.flows.conftest import ROOT, until

STAGE = """
import os, sys, time
from flows import gpus
gpus.LOOK_SECONDS = 0.05
count = None if sys.argv[1] == "all" else int(sys.argv[1])
with gpus.claimed(count, holder=sys.argv[2]):
    print("sees", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    time.sleep(60)
"""


NODE = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
print("sees", os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
time.sleep(60)
"""


class Machine:
    """A machine with some GPUs, and stages in processes of their own."""

    def __init__(self, folder: Path, *, listed: int) -> None:
        self.folder, self.stages = folder, list[subprocess.Popen[bytes]]()
        script = folder / "nvidia-smi"
        script.write_text(f"#!/bin/sh\nfor n in $(seq {listed}); do echo GPU-$n; done\n", encoding="utf-8")
        script.chmod(0o755)
        path = os.pathsep.join([str(folder), os.environ["PATH"]])
        self.environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), gpus.FOLDER: str(folder / "locks")}
        self.environment.pop(gpus.VISIBLE, None)

    def start(self, name: str, count: str, **environment: str) -> "subprocess.Popen[bytes]":
        """A stage that claims GPUs and keeps them."""
        command = [sys.executable, "-c", STAGE, count, name]
        with (self.folder / f"{name}.log").open("wb") as log:
            self.stages.append(subprocess.Popen(command, env=self.environment | environment, stdout=log, stderr=log))
        return self.stages[-1]

    def assert_says(self, name: str, text: str) -> None:
        """Wait until a stage has printed a text."""
        file = self.folder / f"{name}.log"
        until(lambda: text in file.read_text(encoding="utf-8"), seconds=30, what=f"{text!r} of {name}")

    def said(self, name: str, text: str) -> str:
        """All that a stage has printed once it has printed a text."""
        self.assert_says(name, text)
        return (self.folder / f"{name}.log").read_text(encoding="utf-8")

    def end(self) -> None:
        """End what was started."""
        for stage in self.stages:
            stage.kill()
            stage.wait()


@pytest.fixture
def machine(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Machine]:
    made = Machine(tmp_path, listed=getattr(request, "param", 1))
    yield made
    made.end()


def test_a_second_stage_waits_says_for_whom_and_goes_on_when_the_first_is_killed(machine: Machine) -> None:
    first = machine.start("first", "1")
    machine.assert_says("first", "sees GPU-1")
    machine.start("second", "1")
    said = machine.said("second", "waiting for a GPU: ")
    assert said == f"waiting for a GPU: GPU-1 is used by PID {first.pid}, first\n"
    machine.start("cpu", "0")
    assert machine.said("cpu", "sees") == "sees None\n"  # it works beside
    first.send_signal(signal.SIGKILL)
    machine.assert_says("second", "sees GPU-1")


@pytest.mark.parametrize("machine", [2], indirect=True)
def test_each_stage_sees_a_gpu_of_its_own(machine: Machine) -> None:
    machine.start("first", "1")
    machine.assert_says("first", "sees GPU-1")
    machine.start("second", "1")
    machine.assert_says("second", "sees GPU-2")
    machine.start("both", "2")
    assert machine.said("both", "waiting").count("is used by") == 2


@pytest.mark.parametrize("machine", [3], indirect=True)
def test_a_generation_takes_all_that_are_free_and_a_user_may_hide_some(machine: Machine) -> None:
    machine.start("first", "1", CUDA_VISIBLE_DEVICES="1")
    machine.assert_says("first", "sees GPU-2")
    machine.start("all", "all")
    machine.assert_says("all", "sees GPU-1,GPU-3")


def test_stages_share_a_gpu_where_that_is_allowed(machine: Machine) -> None:
    machine.start("first", "1")
    machine.assert_says("first", "sees GPU-1")
    machine.start("second", "1", CGN_SHARE_GPUS="1")
    assert machine.said("second", "sees") == "sees None\n"


def test_all_who_may_use_the_folder_may_lock(machine: Machine) -> None:
    (machine.folder / "locks").mkdir()
    (machine.folder / "locks").chmod(0o2770)
    machine.start("first", "1")
    machine.assert_says("first", "sees GPU-1")
    assert (machine.folder / "locks/GPU-1.lock").stat().st_mode & 0o777 == 0o660


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(gpus.FOLDER, raising=False)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert gpus.locks().stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "getuid", lambda: 2**20)
    monkeypatch.setattr(gpus, "visible", lambda: ["GPU-1"])
    paths = ("--params", str(ROOT / "params.yaml"), "--assets", "a", "--data", "d", "--model", str(tmp_path / "m"))
    run: Any = SimpleNamespace(begin=lambda *_, **__: None)
    with pytest.raises(ConfigError, match=r"cgn-gpus-1048576 belongs to another user\): name .* CGN_GPU_LOCKS"):
        _cgn(["train_cgn", "mnist/digits", *paths], run)


@pytest.mark.parametrize("machine", [0], indirect=True)
def test_without_gpus_nothing_is_claimed(machine: Machine) -> None:
    machine.start("first", "1")
    assert machine.said("first", "sees") == "sees None\n"
    machine.start("hidden", "1", CUDA_VISIBLE_DEVICES="-1")
    assert machine.said("hidden", "sees") == "sees -1\n"
    assert not (machine.folder / "locks").exists()


@pytest.mark.parametrize(
    ("verb", "target", "expected"),
    [
        ("train_cgn", "mnist/digits", 1),
        ("generate", "mnist/digits", 0),
        ("evaluate", "mnist/digits", 0),
        ("generate", "imagenet/full", None),
        ("evaluate", "imagenet/full", 1),
        ("report", "imagenet/full", 0),
    ],
)
def test_a_stage_claims_what_it_computes_on(
    verb: str, target: str, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert claims(verb, target) == expected


def claims(verb: str, target: str, **options: str) -> int | None:
    """How many GPUs a verb claims; its options are those that it has."""
    from cgn.config.load import load

    module = importlib.import_module(f"cgn.{target.partition('/')[0]}.{verb}")
    has_ray = "ray" in inspect.signature(getattr(module, verb)).parameters
    call: Any = SimpleNamespace(verb=verb, options=({"ray": ""} if has_ray else {}) | options)
    section = getattr(module, "SECTION", verb)
    return _gpus(call, getattr(load(ROOT / "params.yaml").variant(target), section))


def test_what_a_cluster_computes_claims_no_gpu_of_this_machine_and_sees_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.VISIBLE, "0,1")
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert claims("train_classifier", "imagenet/full", ray="local") is None  # a local Ray is given all that are free
    assert os.environ[gpus.VISIBLE] == "0,1"
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert claims("train_cgn", "mnist/digits") == 1  # it never works on a cluster
    assert os.environ[gpus.VISIBLE] == "0,1"
    for verb in ("train_cgn", "generate", "evaluate"):
        assert claims(verb, "imagenet/full") == 0
    assert os.environ[gpus.VISIBLE] == ""


def test_a_node_of_ray_may_claim_what_is_free(machine: Machine) -> None:
    """Any command may; it ends with the one that claims."""
    command = [sys.executable, "-m", "flows.gpus", sys.executable, "-c", NODE]
    with (machine.folder / "node.log").open("wb") as log:
        node = subprocess.Popen(command, env=machine.environment, cwd=ROOT, stdout=log, stderr=log)
    machine.stages.append(node)
    machine.assert_says("node", "sees GPU-1")
    machine.start("stage", "1")
    machine.assert_says("stage", f"waiting for a GPU: GPU-1 is used by PID {node.pid}, {sys.executable} -c")
    node.terminate()
    machine.assert_says("stage", "sees GPU-1")
    machine.assert_says("node", "ended")
