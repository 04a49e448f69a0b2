"""Processes that work as one: sums, metrics of the first, errors of any, and no process left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from cgn.core.devices import open_fabric, usable_cores
from cgn.core.errors import ConfigError
from cgn.core.launch import together
from cgn.core.metrics import Files, MetricSink, Silent

ROOT = Path(__file__).parents[2]


def added(sink: MetricSink) -> None:
    """Each process gives its number plus one; the first logs the sum."""
    device = open_fabric(accelerator="cpu", devices=2)
    total = torch.tensor(float(device.global_rank + 1))
    device.all_reduce(total, reduce_op="sum")
    sink.rewind(-1)
    sink.log({"total": float(total), "world": device.world_size, "cores": usable_cores()}, step=0)


def failing(sink: MetricSink, *, error: Exception) -> None:
    """Process 1 fails; process 0 waits for it in a collective call."""
    device = open_fabric(accelerator="cpu", devices=2)
    sink.log({"begun": 1.0}, step=0)
    if device.global_rank == 1:
        raise error
    device.barrier()


def waiting(sink: MetricSink, *, folder: Path) -> None:
    """Each process writes its number and sleeps."""
    del sink
    (folder / f"{os.getpid()}.pid").touch()
    time.sleep(600)


@pytest.mark.long
def test_processes_add_up_and_the_first_one_logs(tmp_path: Path) -> None:
    together(added, processes=2, sink=Files(tmp_path))
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert f'"total": 3.0, "world": 2, "cores": {max(1, usable_cores() // 2)}' in line


def test_one_process_is_this_one() -> None:
    seen: list[tuple[int, MetricSink]] = []
    sink = Silent()
    together(lambda given: seen.append((os.getpid(), given)), processes=1, sink=sink)
    assert seen == [(os.getpid(), sink)]


@pytest.mark.long
@pytest.mark.parametrize("error", [ConfigError("lower batch_size"), KeyError("surprise")])
def test_an_error_of_any_process_ends_all(error: Exception) -> None:
    expected = ConfigError if isinstance(error, ConfigError) else RuntimeError
    with pytest.raises(expected, match=r"lower batch_size|process 1: Traceback[\s\S]*KeyError: 'surprise'"):
        together(partial(failing, error=error), processes=2, sink=Silent())


@pytest.mark.long
def test_processes_end_when_their_starter_is_killed(tmp_path: Path) -> None:
    code = (
        "from functools import partial; from pathlib import Path; from cgn.core.metrics import Silent; "
        "from cgn.core.launch import together; from tests.core.test_launch import waiting; "
        f"together(partial(waiting, folder=Path({str(tmp_path)!r})), processes=2, sink=Silent())"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    processes = [int(path.stem) for path in tmp_path.glob("*.pid")]
    assert all(alive(process) for process in processes)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    wait_until(lambda: not any(alive(process) for process in processes))


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.long
def test_torchrun_starts_the_processes_of_a_training(tmp_path: Path) -> None:
    """As `devices` processes do: equal to the bit, because two terms have one sum in any order."""
    from tests.support.toy_nets import write_nets  # the processes of the other tests import this module

    write_nets(tmp_path / "assets")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["imagenet"]["miniature"]["train_cgn"] |= {
        "batch_size": 2, "batches_per_update": 2, "updates": 2, "devices": 2, "accelerator": "cpu",
    }  # fmt: skip
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    command = ["-m", "cgn", "train_cgn", "imagenet/miniature", "--assets", "assets", "--model"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    run = partial(subprocess.run, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    run([sys.executable, *command, "own"], check=True)
    run([*torchrun, "2", *command, "torchrun"], check=True)
    own, other = (tmp_path / name / "model.safetensors" for name in ("own", "torchrun"))
    assert own.read_bytes() == other.read_bytes()
    refused = run([*torchrun, "1", *command, "refused"], capture_output=True, text=True)
    assert "torchrun started 1 processes on this machine, but devices is 2: set devices to 1" in refused.stderr
    assert refused.returncode


SHARING = """
import os
from pathlib import Path
from cgn.core.devices import usable_cores
from cgn.core.launch import together, under_torchrun
from cgn.core.metrics import Silent

def work(_):
    Path(os.environ["RANK"] + ".cores").write_text(str(usable_cores()))

under_torchrun(lambda: together(work, processes=2, sink=Silent()))
"""


@pytest.mark.long
def test_torchruns_processes_share_the_cores_of_their_machine(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SHARING)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "script.py"]
    subprocess.run(torchrun, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    expected = str(max(1, usable_cores() // 2))
    assert {path.name: path.read_text() for path in tmp_path.glob("*.cores")} == {
        "0.cores": expected, "1.cores": expected,
    }  # fmt: skip
