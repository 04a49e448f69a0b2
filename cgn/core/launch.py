"""Several processes that work as one, one device each; the one that runs the command writes and logs.

On one machine they are started here, all as children: the command waits for any of them, not for the slowest, so when
one fails, the others are ended at once and its error is raised, instead of a collective call that waits for ever. When
the command is killed, they end themselves. Process 0's metrics go to the command's sink, the others' nowhere.

On several machines torchrun starts them, N on each, and its environment variables say who is who:

    torchrun --nnodes 2 --nproc_per_node 8 ... -m cgn train_cgn imagenet/full ...

The first process runs the command and sends the others, which wait for it (`under_torchrun`), what to compute. All need
the same paths. torchrun ends all of them when one fails.
"""

import multiprocessing
import os
import pickle
import socket
import threading
import traceback
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from itertools import count
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cgn.core.devices import fits, limit_threads, resolve_device, started_by_torchrun, torchrun_machines
from cgn.core.errors import CgnError
from cgn.core.metrics import MetricSink, Silent

Work = Callable[[MetricSink], None]
NEVER = timedelta(days=365)


def launch(
    work: Work,
    *,
    accelerator: str,
    devices: int,
    batch_size: int,
    remedy: str = "lower batch_size or set accelerator to cpu",
    sink: MetricSink,
) -> None:
    """Call `work` in a process for each device: in this one, or, picklable, in several.

    Raises ConfigError for a GPU that is absent, before any process starts, and for one whose memory is too small.
    """
    resolve_device(accelerator, devices=devices)
    together(partial(_fitting, work, batch_size=batch_size, remedy=remedy), processes=devices, sink=sink)


def _fitting(work: Work, sink: MetricSink, *, batch_size: int, remedy: str) -> None:
    with fits(batch_size, remedy=remedy):
        work(sink)


def together(work: Work, *, processes: int, sink: MetricSink) -> None:
    """Call `work` with `sink` here, or, picklable, in as many processes, which `open_fabric` then joins.

    Raises what a process raised: a CgnError as it is, anything else as a RuntimeError that holds its traceback.
    """
    if started_by_torchrun():
        torchrun_machines(processes)  # refused before the others begin
        _send(work)
        work(sink)
    elif processes == 1:
        work(sink)
    else:
        _start_and_wait(work, processes=processes, sink=sink)


def under_torchrun(command: Callable[[], object]) -> None:
    """In the first of torchrun's processes call the command, in the others what it sends them until it ends."""
    if os.environ["RANK"] == "0":
        try:
            command()
        finally:
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


def _send(work: Work | None) -> None:
    """Let torchrun's other processes call `work`, or end."""
    store = _store()
    store.set(f"cgn/work/{store.add('cgn/sent', 1) - 1}", pickle.dumps(work))


def _store() -> Any:
    """Key-value pairs that all processes of torchrun share."""
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://"))
    return store


def _start_and_wait(work: Work, *, processes: int, sink: MetricSink) -> None:
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads, and cannot use a GPU
    port = _free_port()
    ends: dict[Connection, BaseProcess] = {}
    try:
        for rank in range(processes):
            ours, theirs = spawn.Pipe(duplex=False)
            variables = {
                "LOCAL_RANK": str(rank),
                "NODE_RANK": "0",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
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


class _PipeSink:
    """The sink of process 0 sends every call through a pipe."""

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


def _child(work: Work, variables: Mapping[str, str], pipe: Connection) -> None:
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.environ.update(variables)
    try:
        work(_PipeSink(pipe) if variables["LOCAL_RANK"] == "0" else Silent())
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
