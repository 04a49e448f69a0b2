"""Several processes on this machine that work as one, a device each; the one that was asked speaks to the outside.

Decided here: all ranks are children, so whoever started the stage waits for any of them, not for the slowest: when one
fails, the others are ended at once and its error is raised here, instead of a collective call that waits for ever.
When the starter is killed, they end themselves. Rank 0's metrics travel to the starter's sink; the others' go nowhere.
"""

import multiprocessing
import os
import socket
import threading
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cgn.core.devices import fits, resolve_device
from cgn.core.errors import CgnError
from cgn.core.metrics import MetricSink, Silent

Work = Callable[[MetricSink], None]


def launch(
    work: Work,
    *,
    accelerator: str,
    devices: int,
    batch_size: int,
    remedy: str = "lower batch_size or set accelerator to cpu",
    sink: MetricSink,
) -> None:
    """Call `work` in a process for each device: here, or, picklable, in as many that are started.

    Raises ConfigError for a GPU that is absent, before any process starts, and for one whose memory is too small.
    """
    resolve_device(accelerator, devices=devices)
    together(partial(_fitting, work, batch_size=batch_size, remedy=remedy), processes=devices, sink=sink)


def _fitting(work: Work, sink: MetricSink, *, batch_size: int, remedy: str) -> None:
    with fits(batch_size, remedy=remedy):
        work(sink)


def together(work: Work, *, processes: int, sink: MetricSink) -> None:
    """Call `work` with `sink` here, or, picklable, in as many processes, which `devices.open_fabric` then joins.

    Raises what a rank raised: a CgnError as it is, anything else as a RuntimeError that holds its traceback.
    """
    if processes == 1:
        work(sink)
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads, and cannot use a GPU
    port = _free_port()
    ends: dict[Connection, BaseProcess] = {}
    try:
        for rank in range(processes):
            ours, theirs = spawn.Pipe(duplex=False)
            told = {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            process: BaseProcess = spawn.Process(target=_rank, args=(work, told, theirs), name=f"rank {rank}")
            process.start()
            theirs.close()
            ends[ours] = process
        _listen(ends, sink)
    finally:
        for ours, process in ends.items():
            process.kill()
            process.join()
            ours.close()


def _listen(ends: Mapping[Connection, BaseProcess], sink: MetricSink) -> None:
    """Pass on what rank 0 measures until every rank has ended. Raises the first error, a CgnError before others."""
    open_ends = dict(ends)
    while open_ends:
        failed: list[Exception] = []
        for ready in wait(list(open_ends)):
            assert isinstance(ready, Connection)
            try:
                name, arguments, options = ready.recv()
            except EOFError:
                process = open_ends.pop(ready)
                process.join()
                if process.exitcode:
                    failed.append(RuntimeError(f"{process.name} ended with exit status {process.exitcode}"))
                continue
            if name == "failed":
                failed.append(arguments)
            else:
                getattr(sink, name)(*arguments, **options)
        if failed:
            raise min(failed, key=lambda error: not isinstance(error, CgnError))


class _Relay:
    """The sink of rank 0: what it is told goes through a pipe."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        self.pipe.send(("log", (dict(values),), {"step": step}))

    def summary(self, values: Mapping[str, float]) -> None:
        self.pipe.send(("summary", (dict(values),), {}))

    def picture(self, path: Path) -> None:
        self.pipe.send(("picture", (path,), {}))

    def rewind(self, step: int) -> None:
        self.pipe.send(("rewind", (step,), {}))


def _rank(work: Work, told: Mapping[str, str], pipe: Connection) -> None:
    threading.Thread(target=_end_with_starter, daemon=True).start()
    os.environ.update(told)
    try:
        work(_Relay(pipe) if told["LOCAL_RANK"] == "0" else Silent())
    except CgnError as error:
        pipe.send(("failed", error, {}))
    except BaseException:
        pipe.send(("failed", RuntimeError(f"rank {told['LOCAL_RANK']}: {traceback.format_exc()}"), {}))
    finally:
        _leave()
        pipe.close()


def _leave() -> None:
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _end_with_starter() -> Any:
    starter = multiprocessing.parent_process()
    assert starter is not None
    starter.join()
    os._exit(1)  # the main thread may be waiting in a collective call, where no exception reaches it


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
