"""Sides of a benchmark in processes of their own that take turns: what one does not share, the other does not see.

Sides are interleaved, so that a machine that slows down slows both; each process tells its own processor
time, which counts where other work shares the cores, and its peak of memory (resident, or the GPU's).
"""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch

Turn = Callable[[int], Mapping[str, float]]
"""The number of the turn -> `images`, `seconds`, and whatever else is measured."""


@dataclass(kw_only=True)
class Side:
    """`count` processes that do their turns at the same time; `make(place, **given)` opens what one needs."""

    name: str
    make: Callable[..., Turn]
    given: Mapping[str, Any]
    count: int = 1
    turns: list[dict[str, float]] = field(default_factory=list)

    def start(self) -> None:
        """Open the processes; they come back once all are ready."""
        spawn = multiprocessing.get_context("spawn")
        self.lines: list[Connection] = []
        for place in range(self.count):
            ours, theirs = spawn.Pipe()
            spawn.Process(target=_serve, args=(theirs, self.make, place, dict(self.given)), daemon=True).start()
            theirs.close()
            self.lines.append(ours)
        with self._alive():
            for line in self.lines:
                assert line.recv() == "ready"

    def turn(self, number: int) -> None:
        """All processes at once: images add up, the slowest one's seconds count, and memory adds up."""
        with self._alive():
            for line in self.lines:
                line.send(number)
            values: list[dict[str, float]] = [line.recv() for line in self.lines]
        summed = {name: sum(one[name] for one in values) for name in values[0]}
        self.turns.append(summed | {"seconds": max(one["seconds"] for one in values)})

    def stop(self) -> None:
        """Let the processes end."""
        with self._alive():
            for line in self.lines:
                line.send(None)

    @contextmanager
    def _alive(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError):
            sys.exit(f"a process of '{self.name}' ended, killed for want of memory? Ask for fewer sides or images")

    @property
    def per_second(self) -> float:
        """Images, over all turns."""
        return sum(turn["images"] for turn in self.turns) / sum(turn["seconds"] for turn in self.turns)

    @property
    def per_processor_second(self) -> float:
        """Images, over all turns and processes."""
        return sum(turn["images"] for turn in self.turns) / sum(turn["processor"] for turn in self.turns)

    @property
    def peak(self) -> float:
        """GiB, of all the side's processes."""
        return self.turns[-1]["peak"]


def ratios(side: Side, *, reference: Side) -> str:
    """How many times as fast it was as the other, in each round."""
    pairs = zip(side.turns, reference.turns, strict=True)
    found = [(one["images"] / one["seconds"]) / (other["images"] / other["seconds"]) for one, other in pairs]
    return ", ".join(f"{ratio:.2f}" for ratio in found)


def race(sides: Sequence[Side], *, rounds: int) -> None:
    """Open all sides, then let them take turns."""
    for side in sides:
        side.start()
    for number in range(rounds):
        for side in sides:
            side.turn(number)
    for side in sides:
        side.stop()


def _serve(line: Connection, make: Callable[..., Turn], place: int, given: dict[str, Any]) -> None:
    turn = make(place, **given)
    line.send("ready")
    while (number := line.recv()) is not None:
        before = time.process_time()
        measured = dict(turn(number))
        measured["processor"] = time.process_time() - before
        resident = 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = float(torch.cuda.max_memory_allocated()) if given["device"] == "cuda" else resident
        line.send(measured | {"peak": peak / 2**30})
