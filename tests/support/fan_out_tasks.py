"""What workers of the fan-out tests compute; in a module, so that they can import it."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from cgn.core.fan_out import Compute


def square(device: torch.device) -> Compute[int, int]:
    """Squares numbers."""
    assert device.type == "cpu"
    return partial(pow, exp=2)


def nothing(device: torch.device) -> Compute[int, float]:
    """Takes no time."""
    del device
    return _nothing


def _nothing(_: int) -> float:
    return 0.0


def killed_once(device: torch.device, *, folder: Path) -> Compute[int, int]:
    """Squares; the process that computes the item 5 for the first time kills itself."""
    del device
    return partial(_killed, folder=folder, times=1)


def killed_always(device: torch.device, *, folder: Path) -> Compute[int, int]:
    """Squares; every process that computes the item 5 kills itself."""
    del device
    return partial(_killed, folder=folder, times=1000)


def _killed(item: int, *, folder: Path, times: int) -> int:
    time.sleep(0.05)
    killed = len([*folder.glob("killed-*")])
    if item == 5 and killed < times:
        (folder / f"killed-{killed}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item**2


def failing(device: torch.device, *, message: str) -> Compute[int, int]:
    """Squares; the item 5 always raises."""
    del device
    return partial(_failing, message=message)


def _failing(item: int, *, message: str) -> int:
    if item == 5:
        raise ValueError(message)
    return item**2


def on_a_bad_node(device: torch.device, *, folder: Path) -> Compute[int, str]:
    """The node that computed an item; the node that computes the first one of all is bad."""
    del device
    return partial(_on_a_bad_node, folder=folder)


def _on_a_bad_node(item: int, *, folder: Path) -> str:
    import ray

    del item
    node: str = ray.get_runtime_context().get_node_id()
    try:
        with (folder / "bad").open("x") as file:
            file.write(node)
    except FileExistsError:
        time.sleep(0.05)
    if (folder / "bad").read_text() == node:
        raise OSError(28, "No space left on device")
    return node


def unopened(device: torch.device) -> Compute[int, int]:
    """Cannot be opened."""
    raise ValueError(f"no model here, on {device}")


class Counted(Sequence[int]):
    """Numbers from 0; it counts how many were requested."""

    def __init__(self, size: int) -> None:
        self.size, self.asked = size, 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, place: int) -> int:  # type: ignore[override]
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        for number in range(self.size):
            self.asked += 1
            yield number


def most_ahead(results: Iterator[tuple[int, object]], items: Counted) -> int:
    """The most items that were asked for and not finished at a time."""
    return max(items.asked - done for done, _ in enumerate(results))


def seconds(function: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started
