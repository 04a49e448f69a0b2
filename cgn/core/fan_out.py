"""Items computed side by side, with one result each: `fan_out(opening, items, workers=choose_workers(...))`.

    in this process        where one worker is enough
    in local processes     one for each device, by concurrent.futures
    as tasks of Ray        one for each item, on any machine of a cluster (`cgn.core.fan_out_ray`)

The workers change the speed, not the results: an item's result must be a function of the item alone. A worker calls
`opening` once, which loads what it needs, and then computes items. Few items are queued at a time, so a billion of them
need no more memory than a hundred.
"""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing.queues import SimpleQueue
from typing import Any, TypeVar

import torch

from cgn.core.devices import CORES, limit_threads, resolve_device, usable_cores
from cgn.core.errors import ConfigError, WorkerError
from cgn.core.launch import end_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")
Compute = Callable[[Item], Result]
Opening = Callable[[torch.device], Compute[Item, Result]]
"""Loads on a device what computing needs; returns the function item -> result. Picklable, as items and results are."""
QUEUED = 2
"""Items that are queued for each worker: the one that it computes, and the next."""


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The processes or the cluster that compute the items of a fan-out."""

    devices: tuple[torch.device, ...]
    """One for each process of this machine. With Ray, the one of the process that runs the command."""
    ray: str = ""
    """Address of a Ray cluster; "local" starts one on this machine; empty: processes of this machine."""
    accelerator: str = "auto"
    at_most: int = 0
    """Tasks that a Ray cluster is given at a time; 0: as many as keep all of it busy."""

    @property
    def in_this_process(self) -> bool:
        """Whether no other process takes part."""
        return len(self.devices) == 1 and not self.ray


def choose_workers(accelerator: str, *, workers: int = 0, ray: str = "", here: int = 0) -> Workers:
    """`workers`: their number; 0: all of a cluster, on this machine `here`, or if that is 0 one for each GPU or core.

    `ray`: the cluster's address, by default that in the environment variable RAY_ADDRESS.

    Raises ConfigError for a GPU that is asked for and absent, and for a negative number of workers.
    """
    if workers < 0:
        raise ConfigError(f"workers is {workers}, allowed: 0 or more (0: one for each GPU, or for each core)")
    if address := ray or os.environ.get("RAY_ADDRESS", ""):
        own = torch.device(resolve_device("cpu" if accelerator == "cpu" else "auto"))
        return Workers(devices=(own,), ray=address, accelerator=accelerator, at_most=workers)
    if resolve_device(accelerator) == "cuda":
        devices = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    else:
        devices = [torch.device("cpu")] * usable_cores()
    count = workers or here or len(devices)
    return Workers(devices=tuple(devices[number % len(devices)] for number in range(count)))


def fan_out(
    opening: Opening[Item, Result], items: Sequence[Item], *, workers: Workers, name: Callable[[Item], str] = str
) -> Iterator[tuple[Item, Result]]:
    """Each item with its result, in the order in which they are finished; `name`: what an error calls an item.

    What an item raises is raised here; on Ray, after other nodes have tried it. Raises WorkerError where workers are
    lost. Closing the iterator ends the workers.
    """
    if workers.ray and items:
        from cgn.core.fan_out_ray import on_cluster

        yield from on_cluster(opening, items, workers=workers, name=name)
    elif min(len(workers.devices), len(items)) <= 1:
        compute = opening(workers.devices[0]) if items else None
        for item in items:
            assert compute is not None
            yield item, compute(item)
    else:
        yield from _in_processes(opening, items, devices=workers.devices[: len(items)])


def _in_processes(
    opening: Opening[Item, Result], items: Sequence[Item], *, devices: Sequence[torch.device]
) -> Iterator[tuple[Item, Result]]:
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    queue = spawn.SimpleQueue()
    for device in devices:
        queue.put(device)
    coming = iter(items)
    pending: dict[Future[Result], Item] = {}
    given = (pickle.dumps(opening), max(1, usable_cores() // len(devices)), queue)
    with ProcessPoolExecutor(len(devices), mp_context=spawn, initializer=_start, initargs=given) as pool:
        try:
            while True:
                for item in islice(coming, QUEUED * len(devices) - len(pending)):
                    pending[pool.submit(_compute, item)] = item
                if not pending:
                    return
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    yield pending.pop(future), future.result()
        except BrokenProcessPool:
            raise WorkerError(
                "a worker process was killed, most often because the memory was full: free some, or give fewer by "
                "--workers, and run the same command again; what is finished is kept"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_worker: dict[str, Any] = {}
"""What a local worker process was started with."""


def _start(opening: bytes, cores: int, queue: "SimpleQueue[torch.device]") -> None:
    """`opening`: pickled here, because torch would put its tensors into /dev/shm, which a container has little of."""
    threading.Thread(target=end_with_parent, daemon=True).start()  # a killed parent would leave it waiting
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches all; the parent reports it
    os.environ[CORES] = str(cores)
    limit_threads()
    _worker.update(opening=opening, device=queue.get())


def _compute(item: Any) -> Any:
    if "compute" not in _worker:  # here, not in `_start`, whose errors reach nobody
        _worker["compute"] = pickle.loads(_worker["opening"])(_worker["device"])
    return _worker["compute"](item)
