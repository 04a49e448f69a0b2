"""Several processes that work as one, one device each; the one that runs the command writes and logs.

On one machine they are started here, all as children: the command waits for any of them, not for the slowest, so when
one fails, the others are ended at once and its error is raised, instead of a collective call that never returns. When
the command is killed, they end themselves. Only process 0's metrics go to the command's sink.

On a Ray cluster (`--ray ADDRESS`) they are Ray Train's workers: `cgn.core.launch_ray`. On several machines without one,
torchrun starts them, N on each, and sets their ranks in environment variables:

    torchrun --nnodes 2 --nproc_per_node 8 ... -m cgn train_cgn imagenet/full ...

The first process runs the command and sends the others, which wait for it (`under_torchrun`), what to compute. It alone
writes checkpoints and outputs, and after a restart another machine may be the first: so all machines must share the
output folder (`refuse_unshared`). Inputs need only have the same paths. torchrun ends all processes when one fails.
"""

import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cache, partial
from itertools import count
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cgn.core.devices import (
    CORES,
    fits,
    limit_threads,
    processes_of_torchrun,
    resolve_device,
    started_by_torchrun,
    usable_cores,
)
from cgn.core.errors import CgnError, ConfigError, TrainingError
from cgn.core.metrics import MetricSink, Silent

Work = Callable[[MetricSink], None]
NEVER = timedelta(days=365)
LOST = (
    "another process of the training ended, or was stopped, or its machine cannot be reached: see its output, then "
    "run the same command again on all machines; it continues from the last checkpoint"
)


class LostProcessError(TrainingError):
    """Another process of the training was lost. The same training, started again, continues."""


def launch(
    work: Work,
    *,
    accelerator: str,
    devices: int,
    batch_size: int,
    remedy: str = "lower batch_size or set accelerator to cpu",
    folder: Path,
    ray: str,
    sink: MetricSink,
) -> None:
    """Call `work` in a process for each device: in this one, or, picklable, in several.

    `ray`: the address of a Ray cluster, by default that in RAY_ADDRESS; then `devices` is the number of all processes,
    on any of its machines, and `folder` must be on a file system that they share. Raises ConfigError for a GPU that is
    absent, before any process starts, and for one whose memory is too small.
    """
    work = partial(_fitting, work, batch_size=batch_size, remedy=remedy)
    if (address := ray or os.environ.get("RAY_ADDRESS", "")) and not started_by_torchrun():
        from cgn.core.launch_ray import together_on_ray

        together_on_ray(
            work, address=address, accelerator=accelerator, processes=devices, folder=folder.absolute(), sink=sink
        )
        return
    resolve_device(accelerator, devices=devices)
    together(work, processes=devices, sink=sink)


def _fitting(work: Work, sink: MetricSink, *, batch_size: int, remedy: str) -> None:
    with fits(batch_size, remedy=remedy):
        work(sink)


def together(work: Work, *, processes: int, sink: MetricSink) -> None:
    """Call `work` with `sink` here, or, picklable, in as many processes, which `open_fabric` then joins.

    Raises what a process raised: a CgnError as it is, anything else as a RuntimeError that holds its traceback.
    """
    if started_by_torchrun():
        _, here = processes_of_torchrun()
        if here != processes:  # refused before the others begin
            raise ConfigError(
                f"torchrun started {here} processes on this machine, but devices is {processes}: set devices to "
                f"{here}, or --nproc_per_node to {processes}"
            )
        _send(work)
        work(sink)
    elif processes == 1:
        work(sink)
    else:
        _start_and_wait(work, processes=processes, sink=sink)


def under_torchrun(command: Callable[[], object]) -> None:
    """In the first of torchrun's processes call the command, in the others what it sends them until it ends.

    Each may use its share of this machine's cores. Raises TrainingError where another process was lost.
    """
    signal.signal(signal.SIGTERM, _end)
    _, here = processes_of_torchrun()
    os.environ[CORES] = str(max(1, usable_cores() // here))
    with loss_explained():
        if os.environ["RANK"] == "0":
            try:
                command()
            except BaseException:
                _send(_first_failed)  # else torchrun would wait for minutes on the machines where all went well
                raise
            _send(None)
            _leave()
            return
        limit_threads()
        store = _store()
        for number in count():
            key = f"cgn/work/{number}"
            store.wait([key], NEVER)
            work = pickle.loads(store.get(key))
            if work is None:
                break
            work(Silent())
        _leave()


def _first_failed(_: MetricSink) -> None:
    raise TrainingError("the first process of the training ended with an error: see its output")


def _end(*_: object) -> None:
    """torchrun ends the processes of a machine when one of them, or another machine, is lost."""
    print(f"error: {LOST}", file=sys.stderr, flush=True)
    os._exit(1)


@contextmanager
def loss_explained() -> Iterator[None]:
    """Turn what torch raises for a lost connection into a LostProcessError."""
    try:
        yield
    except RuntimeError as error:
        from torch.distributed import DistError

        if isinstance(error, CgnError) or not (isinstance(error, DistError) or "gloo" in str(error)):
            raise
        raise LostProcessError(f"{LOST} ({str(error).splitlines()[0]})") from error


def _send(work: Work | None) -> None:
    """Let torchrun's other processes call `work`, or end."""
    store = _store()
    store.set(f"cgn/work/{store.add('cgn/sent', 1) - 1}", pickle.dumps(work))


@cache
def _store() -> Any:
    """Key-value pairs that all processes of torchrun share. One connection: a new one would wait for a lost machine."""
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://"))
    return store


def _start_and_wait(work: Work, *, processes: int, sink: MetricSink) -> None:
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads, and cannot use a GPU
    port, cores = free_port(), max(1, usable_cores() // processes)
    ends: dict[Connection, BaseProcess] = {}
    try:
        for rank in range(processes):
            ours, theirs = spawn.Pipe(duplex=False)
            variables = {
                "LOCAL_RANK": str(rank),
                "NODE_RANK": "0",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                CORES: str(cores),
            }
            process: BaseProcess = spawn.Process(target=_child, args=(work, variables, theirs), name=f"process {rank}")
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
    """Pass on what process 0 measures until all have ended. Raises the first error, a CgnError before others."""
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


class PipeSink:
    """The sink of process 0 sends every call through a pipe."""

    def __init__(self, send: Callable[[Any], object]) -> None:
        self.send = send

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        self.send(("log", (dict(values),), {"step": step}))

    def summary(self, values: Mapping[str, float]) -> None:
        self.send(("summary", (dict(values),), {}))

    def picture(self, path: Path) -> None:
        self.send(("picture", (path,), {}))

    def rewind(self, step: int) -> None:
        self.send(("rewind", (step,), {}))


def _child(work: Work, variables: Mapping[str, str], pipe: Connection) -> None:
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.environ.update(variables)
    try:
        work(PipeSink(pipe.send) if variables["LOCAL_RANK"] == "0" else Silent())
    except CgnError as error:
        pipe.send(("failed", error, {}))
    except BaseException:
        pipe.send(("failed", RuntimeError(f"process {variables['LOCAL_RANK']}: {traceback.format_exc()}"), {}))
    finally:
        _leave()
        pipe.close()


def _leave() -> None:
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def end_with_parent() -> None:
    """Wait for the parent process to end, then end this one; for a daemon thread."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # the main thread may be waiting in a collective call, where no exception reaches it


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
