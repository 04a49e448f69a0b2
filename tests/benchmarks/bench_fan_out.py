"""What a fan-out costs an item, and what a second worker gains: python -m tests.benchmarks.bench_fan_out

    --noops 2000 --busy 24 --seconds 0.5 --rounds 2 [--many 100000]

A no-op item shows the overhead, an item that computes for `--seconds` the speed-up from one worker to two; local
processes and a local Ray take turns. Time runs from the first result to the last, so that starting workers is apart
("start"). `--many` puts so many no-op items through a local Ray and prints the peak of this process's memory.
"""

import argparse
import resource
import time
from collections.abc import Sequence
from functools import partial

import torch

from cgn.core.fan_out import Compute, Opening, choose_workers, fan_out
from tests.support.fan_out_tasks import nothing


def main(argv: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--noops", type=int, default=2000)
    parser.add_argument("--busy", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--many", type=int, default=0)
    given = parser.parse_args(argv)
    if given.many:
        _line("Ray, 2 workers", nothing, given.many, workers=2, ray="local")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"peak memory of the command: {peak:,.0f} MiB", flush=True)
        return
    rounds = int(given.seconds * _rounds_per_second())
    for _ in range(given.rounds):
        for name, ray in (("processes", ""), ("Ray", "local")):
            _line(f"{name}, 2 workers, no-op", nothing, given.noops, workers=2, ray=ray)
            for count in (1, 2):
                opening = partial(busy, rounds=rounds)
                _line(f"{name}, {count} workers, busy", opening, given.busy, workers=count, ray=ray)


def _line(name: str, opening: Opening[int, float], items: int, *, workers: int, ray: str) -> None:
    started = time.perf_counter()
    first, computing = 0.0, 0.0
    results = fan_out(opening, range(items), workers=choose_workers("cpu", workers=workers, ray=ray))
    for done, (_, seconds) in enumerate(results, start=1):
        first = first or time.perf_counter()
        last = time.perf_counter()
        computing += seconds
        if done % 10_000 == 0:
            print(f"{done:,} after {last - started:.0f} s", flush=True)
    each = 1000 * (last - first) / (items - 1)
    rate = f"{1000 / each:8.1f} items/s, {each:9.3f} ms each, CPU in items {1000 * computing / items:7.1f} ms each"
    print(f"{name:28} {items:7,} items in {last - first:7.1f} s: {rate}; start {first - started:5.1f} s", flush=True)


def busy(device: torch.device, *, rounds: int) -> Compute[int, float]:
    """Computes for so many rounds; an item's result is the processor time that it took."""
    del device
    return partial(_busy, rounds=rounds)


def _busy(_: int, *, rounds: int) -> float:
    started = time.process_time()
    for _ in range(rounds):
        pass
    return time.process_time() - started


def _rounds_per_second() -> float:
    return 10_000_000 / _busy(0, rounds=10_000_000)


if __name__ == "__main__":
    from tests.benchmarks import bench_fan_out

    bench_fan_out.main()  # workers know its functions by this name, not by __main__
