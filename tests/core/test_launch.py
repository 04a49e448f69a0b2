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

from cgn.core.devices import open_fabric
from cgn.core.errors import ConfigError
from cgn.core.launch import together
from cgn.core.metrics import Files, MetricSink, Silent

ROOT = Path(__file__).parents[2]


def added(sink: MetricSink) -> None:
    """Each rank gives its number plus one; the first tells the sum."""
    device = open_fabric(accelerator="cpu", devices=2)
    total = torch.tensor(float(device.global_rank + 1))
    device.all_reduce(total, reduce_op="sum")
    sink.rewind(-1)
    sink.log({"total": float(total), "world": device.world_size}, step=0)


def failing(sink: MetricSink, *, error: Exception) -> None:
    """Rank 1 fails; rank 0 waits for it in a collective call."""
    device = open_fabric(accelerator="cpu", devices=2)
    sink.log({"begun": 1.0}, step=0)
    if device.global_rank == 1:
        raise error
    device.barrier()


def waiting(sink: MetricSink, *, folder: Path) -> None:
    """Each rank notes its process and sleeps."""
    del sink
    (folder / f"{os.getpid()}.pid").touch()
    time.sleep(600)


def test_ranks_add_up_and_the_first_one_tells(tmp_path: Path) -> None:
    together(added, processes=2, sink=Files(tmp_path))
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert '"total": 3.0, "world": 2' in line


def test_one_process_is_this_one() -> None:
    seen: list[tuple[int, MetricSink]] = []
    sink = Silent()
    together(lambda given: seen.append((os.getpid(), given)), processes=1, sink=sink)
    assert seen == [(os.getpid(), sink)]


@pytest.mark.parametrize("error", [ConfigError("lower batch_size"), KeyError("surprise")])
def test_an_error_of_any_rank_ends_all(error: Exception) -> None:
    expected = ConfigError if isinstance(error, ConfigError) else RuntimeError
    with pytest.raises(expected, match=r"lower batch_size|rank 1: Traceback[\s\S]*KeyError: 'surprise'"):
        together(partial(failing, error=error), processes=2, sink=Silent())


def test_ranks_end_when_their_starter_is_killed(tmp_path: Path) -> None:
    code = (
        "from functools import partial; from pathlib import Path; from cgn.core.metrics import Silent; "
        "from cgn.core.launch import together; from tests.core.test_launch import waiting; "
        f"together(partial(waiting, folder=Path({str(tmp_path)!r})), processes=2, sink=Silent())"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    ranks = [int(path.stem) for path in tmp_path.glob("*.pid")]
    assert all(alive(rank) for rank in ranks)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    wait_until(lambda: not any(alive(rank) for rank in ranks))


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
