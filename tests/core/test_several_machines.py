"""Trainings on two machines, each a torchrun of its own on this one: weights, resume, a lost one, what is refused."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from safetensors.torch import load_file

from tests.imagenet.test_train_classifier import data as class_folders
from tests.imagenet.test_train_classifier import shards
from tests.support.toy_nets import write_nets

ROOT = Path(__file__).parents[2]
SECONDS = 300.0
"""A process that has not ended by then hangs."""
GAN = ("train_cgn", "imagenet/miniature", "--assets", "assets", "--model")
INTERVALS = {"log": 1, "checkpoint": 2, "sheet": 100}
ROUNDING = 1e-6

pytestmark = pytest.mark.long


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with assets and params.yaml: 8 updates of 4 batches."""
    write_nets(tmp_path / "assets")
    train_cgn = {"batch_size": 2, "batches_per_update": 4, "updates": 8, "accelerator": "cpu", "intervals": INTERVALS}
    classify = {"batch_size": 4, "epochs": 2, "batch_norm": "frozen", "accelerator": "cpu", "image_size": 32}
    write_params(tmp_path, train_cgn=train_cgn, train_classifier=classify)
    return tmp_path


def write_params(home: Path, **changes: dict[str, Any]) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for verb, values in changes.items():
        params["imagenet"]["miniature"][verb] |= values
    (home / "params.yaml").write_text(yaml.safe_dump(params))


def machines(*words: str, home: Path, other: Path | None = None) -> tuple["subprocess.Popen[str]", ...]:
    """Two torchruns, each with one process of the command in a folder; the first one hosts the rendezvous."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
    torchrun += ["--rdzv_backend", "c10d", "--rdzv_endpoint", endpoint, "--local_addr", "127.0.0.1", "-m", "cgn"]
    return tuple(
        subprocess.Popen(
            [*torchrun, *words], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for folder in (home, other or home)
    )  # fmt: skip


def ended(*processes: "subprocess.Popen[str]") -> list[str]:
    """What each has printed at its end."""
    return [process.communicate(timeout=SECONDS)[0] for process in processes]


def _ended_soon(process: "subprocess.Popen[str]", *, seconds: float = 60) -> str:
    """Where the training had ended before the loss was noticed, torchrun waits 300 s for the other torchrun's end."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


def alone(*words: str, home: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "cgn", *words], cwd=home, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True
    )


def difference(first: Path, second: Path) -> float:
    """The largest difference of a weight."""
    one, other = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def test_two_machines_train_as_one_and_continue_after_one_was_lost(home: Path) -> None:
    alone(*GAN, "one", home=home)
    ended(*machines(*GAN, "two", home=home))
    assert difference(home / "one", home / "two") < ROUNDING
    for lost, kept, out in ((0, 1, "power"), (1, 0, "torchrun")):
        pair = machines(*GAN, out, home=home)
        while not (home / f"{out}.partial" / "state.pt").is_file():
            assert pair[0].poll() is None
            time.sleep(0.05)
        agent = psutil.Process(pair[lost].pid)
        processes = agent.children(recursive=True)
        for process in (*(processes if out == "power" else ()), agent):
            process.kill()
        printed = ended(pair[kept])[0] if out == "power" else _ended_soon(pair[kept])
        ended(pair[lost])
        assert not psutil.wait_procs(processes, timeout=SECONDS)[1]
        if out == "power":  # where torchrun alone was killed, the training may have ended before it was noticed
            assert "error: another process of the training ended, or was stopped, or its machine cannot be" in printed
            assert pair[kept].returncode
            assert not (home / out).exists()
        printed = "".join(ended(*machines(*GAN, out, home=home)))
        assert "continues after update" in printed or out != "power"
        assert (home / out / "model.safetensors").read_bytes() == (home / "two" / "model.safetensors").read_bytes()


def test_a_classifier_trains_on_two_machines_as_on_one(home: Path) -> None:
    class_folders.__wrapped__(home)  # type: ignore[attr-defined]
    shards(home / "generate")
    command = [
        "train_classifier",
        "imagenet/miniature",
        "--arm",
        "ensemble",
        "--data",
        "prepare",
        "--images",
        "generate",
    ]
    alone(*command, "--classifier", "one", home=home)
    ended(*machines(*command, "--classifier", "two", home=home))
    assert 0 < difference(home / "one", home / "two") < ROUNDING
    write_params(home, train_classifier={"batch_size": 5, "accelerator": "cpu"})
    printed = "".join(ended(*machines(*command, "--classifier", "odd", home=home)))
    assert "takes 5 images of a batch as batch_size, but 2 processes share it evenly" in printed


def test_machines_that_do_not_share_the_output_are_refused(home: Path) -> None:
    other = home / "other"
    other.mkdir()
    (other / "assets").symlink_to(home / "assets")
    pair = machines(*GAN, "model", home=home, other=other)
    for printed in ended(*pair):
        assert "is not the folder that the first process writes to: put the output on a file system" in printed
    assert all(process.returncode for process in pair)
    assert not (home / "model").exists()
    assert not (other / "model").exists()


def test_more_processes_than_batches_and_a_training_of_one_process_are_refused(home: Path) -> None:
    """MNIST's trainings compute in one process."""
    write_params(home, train_cgn={"batch_size": 2, "batches_per_update": 1, "updates": 2, "accelerator": "cpu"})
    printed = "".join(ended(*machines(*GAN, "model", home=home)))
    assert "train_cgn.batches_per_update is 1, but 2 processes train: start fewer" in printed
    (home / "data").mkdir()
    pair = machines("train_cgn", "mnist/digits", *GAN[2:4], "--data", "data", "--model", "m", home=home)
    printed = "".join(ended(*pair))
    assert "torchrun started 2 processes, but this training uses one: start it without torchrun" in printed
    assert "the first process of the training ended with an error: see its output" in printed
    assert all(process.returncode for process in pair)
