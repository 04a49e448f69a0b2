"""A fan-out over a Ray cluster: one Ray task for each item, on any machine that is free.

Each rule avoids a known problem:

- Only as many tasks are queued as keep the cluster busy (`QUEUED` for each that can run at a time).
- A task that fails or dies is tried again on another node, ATTEMPTS times in all; Ray's own retries are off, because
  they may return to the same bad node. A node on which FAILURES tasks fail in a row is left out.
- A TCP connection shows whether the head is alive. Ray itself would wait for a minute and then end the process.
- All machines must have the same code and torch, and see the folder in which the command runs: checked in each worker.
- A worker uses the cores that Ray gave its task, not those of the machine.

A task may run twice, if a node is disconnected and returns. So an item's results must be files that are renamed into
place when they are complete, or return values.
"""

import logging
import os
import pickle
import socket
import sys
import time
import traceback
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from cgn.core.devices import CORES, limit_threads, usable_cores
from cgn.core.errors import ArtifactError, CgnError, ConfigError, WorkerError
from cgn.core.fan_out import QUEUED, Item, Opening, Result, Workers
from cgn.core.progress import say
from cgn.core.run_record import code_digest

ATTEMPTS = 3
"""Of one item."""
FAILURES = 3
"""In a row, on one node."""
PATIENCE_SECONDS = 20.0
"""For a head that does not answer; Ray ends the process after 60."""
REFRESH_SECONDS = 5.0
"""Between updates of the list of nodes."""
CORES_PER_GPU = 8
"""At most: threads that encode images for one GPU."""
KEPT = "what is finished is kept, the same command continues"
SETTINGS = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else `uv run` is run again for each worker, in a copy of the folder
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a warning in every worker
}
"""Environment variables that Ray reads when it is imported."""
LOCAL = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # its servers listen on 127.0.0.1 alone, on any system
    "RAY_worker_niceness": "0",  # as local processes have; by default 15 more
    "RAY_worker_register_timeout_seconds": "600",  # a busy machine starts no worker within 60
}
"""The same, for a cluster that the command starts on this machine."""
STARTS = 3
"""Of a local Ray: its node ends where its helpers are not up within 15 s, as on a busy machine."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """The argument that all tasks of a fan-out share."""

    key: str
    opening: list[Any]
    """A reference to the pickled opening; in a list, so that Ray does not fetch it for each task."""
    folder: str
    software: tuple[str, str]
    cpus: int
    gpus: int


@dataclass(kw_only=True)
class _Attempt:
    """An item, and the nodes where it failed."""

    item: Any
    slot: int = 0
    """Its place among the pending tasks; the key under which the task stores its node."""
    serial: int = 0
    nodes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    node: str
    result: Any = None
    error: BaseException | None = None


def on_cluster(
    opening: Opening[Item, Result], items: Sequence[Item], *, workers: Workers, name: Callable[[Item], str]
) -> Iterator[tuple[Item, Result]]:
    """As `fan_out`, on the cluster of `workers`."""
    with connected(workers) as ray:
        run = _Run(ray, opening, workers=workers, name=name)
        yield from run.results(items)


@contextmanager
def connected(workers: Workers) -> Iterator[ModuleType]:
    """Ray, connected. Raises ConfigError where it is not installed, WorkerError where no cluster answers."""
    local = workers.ray == "local"
    os.environ.update(SETTINGS | (LOCAL if local else {}))
    try:
        import ray
    except ImportError:
        raise ConfigError(
            f"--ray {workers.ray}: Ray is not installed here; run the command by `uv run --group cluster`, or leave "
            "--ray and RAY_ADDRESS out to use this machine alone"
        ) from None
    if workers.ray.rpartition(":")[2].isdecimal() and "//" not in workers.ray and not _answers(workers.ray):
        raise _no_cluster(workers.ray, "connection refused, or no such machine")  # Ray would try for minutes
    cores: dict[str, Any] = {}
    if local:  # Ray would take os.cpu_count(), more than an affinity mask or a cgroup allows
        cores = {"num_cpus": max(workers.at_most or 1, usable_cores()), "include_dashboard": False}
    for left in reversed(range(STARTS if local else 1)):
        try:
            ray.init(address=workers.ray, log_to_driver=False, logging_level=logging.ERROR, **cores)
            break
        except Exception as error:  # Ray raises a plain one for a node that could not start in time
            if left and "timed out during startup" in str(error):
                continue
            lines = str(error).strip().splitlines()
            raise _no_cluster(workers.ray, lines[0] if lines else type(error).__name__) from None
    try:
        yield ray
    finally:
        ray.shutdown()  # ends the tasks that still run; a local cluster altogether


def resources_of_worker(ray: Any, workers: Workers) -> tuple[int, int]:
    """How many cores and GPUs a task or a training's process asks for: a core, or a GPU and its share of the cores.

    Raises ConfigError where GPUs are demanded of a cluster that has none.
    """
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    if workers.accelerator == "cuda" and not gpus:
        raise ConfigError(f"accelerator is 'cuda', but the Ray cluster at {workers.ray} has no GPU: set auto or cpu")
    if not gpus or workers.accelerator == "cpu":
        return 1, 0
    return min(CORES_PER_GPU, max(1, int(resources.get("CPU", 1)) // gpus)), 1


def _no_cluster(address: str, reason: str) -> WorkerError:
    return WorkerError(
        f"--ray {address}: no Ray cluster answers there ({reason}): start one by `ray start --head`, or give --ray "
        "local"
    )


class _Run:
    """One fan-out."""

    def __init__(
        self, ray: ModuleType, opening: Opening[Any, Any], *, workers: Workers, name: Callable[[Any], str]
    ) -> None:
        self.ray, self.workers, self.name = ray, workers, name
        cpus, gpus = resources_of_worker(ray, workers)
        self.job = _Job(
            key=f"cgn-{uuid.uuid4().hex}",
            opening=[ray.put(pickle.dumps(opening))],
            folder=str(Path.cwd()),
            software=software(),
            cpus=cpus,
            gpus=gpus,
        )
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 0, "scheduling_strategy": "SPREAD"}
        self.task = ray.remote(**options)(_run)
        self.head = ray.get_runtime_context().gcs_address
        self.answered = time.monotonic()
        self.looked = float("-inf")
        self.nodes: dict[str, str] = {}
        """Those that can run a task: id -> address."""
        self.room = QUEUED
        self.failures: Counter[str] = Counter()
        self.left_out: set[str] = set()
        self.serial = 0

    def results(self, items: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        """Each item with its result."""
        coming, again = iter(items), deque[_Attempt]()
        pending: dict[Any, _Attempt] = {}
        free: list[int] = []
        while True:
            self._look()
            while len(pending) < self.room:
                attempt = again.popleft() if again else next((_Attempt(item=item) for item in coming), None)
                if attempt is None:
                    break
                attempt.slot = free.pop() if free else len(pending)
                pending[self._submit(attempt)] = attempt
            if not pending:
                return
            for reference in self._finished(pending):
                attempt = pending.pop(reference)
                free.append(attempt.slot)
                outcome = self._outcome(reference, attempt)
                if outcome.error is None:
                    self.failures[outcome.node] = 0
                    yield attempt.item, outcome.result
                else:
                    self._note_failure(attempt, outcome)
                    again.append(attempt)

    def _finished(self, pending: Mapping[Any, _Attempt]) -> list[Any]:
        """The tasks that have ended; none after a second."""
        ready, others = self.ray.wait([*pending], timeout=1.0)
        if ready and others:
            ready += self.ray.wait(others, num_returns=len(others), timeout=0)[0]
        return list(ready)

    def _submit(self, attempt: _Attempt) -> Any:
        """Queue a task, away from the nodes where it failed if there are others."""
        self.serial = attempt.serial = self.serial + 1
        task = self.task
        for wanted in (self.left_out | {*attempt.nodes}, self.left_out):
            avoided = wanted & {*self.nodes}
            if avoided and avoided < {*self.nodes}:
                task = task.options(label_selector={"ray.io/node-id": f"!in({','.join(sorted(avoided))})"})
                break
        return task.remote(self.job, attempt.slot, attempt.serial, attempt.item)

    def _outcome(self, reference: Any, attempt: _Attempt) -> _Outcome:
        try:
            outcome: _Outcome = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:  # the process or its node died, or could not begin
            lines = str(error).strip().splitlines() or [type(error).__name__]
            reason = lines[-1] if isinstance(error, self.ray.exceptions.RayTaskError) else lines[0]
            return _Outcome(node=self._node_of(attempt), error=WorkerError(reason))
        return outcome

    def _node_of(self, attempt: _Attempt) -> str:
        """The node on which an attempt began; empty if it did not begin."""
        from ray.experimental.internal_kv import _internal_kv_get

        serial, _, node = (_internal_kv_get(f"{self.job.key}-{attempt.slot}") or b"").decode().partition(" ")
        return node if serial == str(attempt.serial) else ""

    def _note_failure(self, attempt: _Attempt, outcome: _Outcome) -> None:
        """Raise WorkerError for an item that failed too often; leave out a node where too many failed in a row."""
        node, error = outcome.node, outcome.error
        where = self.nodes.get(node, "a node that is gone")
        attempt.nodes.append(node)
        if len(attempt.nodes) >= ATTEMPTS:
            tried = ", ".join(self.nodes.get(node, "a node that is gone") for node in attempt.nodes)
            raise WorkerError(
                f"{self.name(attempt.item)} failed {ATTEMPTS} times, on the Ray nodes {tried}, the last time: "
                f"{str(error).strip().rstrip('.')}. Correct this, or remove the node; {KEPT}"
            ) from error
        self.failures[node] += 1
        if self.failures[node] == FAILURES and {*self.nodes} - self.left_out - {node}:
            self.left_out.add(node)
            say(f"Ray node {where} is left out, because {FAILURES} tasks in a row failed there, the last: {error}")

    def _look(self) -> None:
        """Update the list of nodes, every few seconds. Raises WorkerError where the head, or this node, is lost."""
        now = time.monotonic()
        if now - self.looked < REFRESH_SECONDS:
            return
        self.looked = now
        if not _answers(self.head):
            if now - self.answered > PATIENCE_SECONDS:
                raise WorkerError(
                    f"the head of the Ray cluster at {self.head} has not answered for {PATIENCE_SECONDS:.0f} s: start "
                    f"the cluster again; {KEPT}"
                )
            self.looked = now - REFRESH_SECONDS + 1
            return
        self.answered = now
        alive = [node for node in self.ray.nodes() if node["Alive"]]
        if self.ray.get_runtime_context().get_node_id() not in {node["NodeID"] for node in alive}:
            raise WorkerError(f"the Ray node on which this command runs has died: start it again; {KEPT}")
        side_by_side = {node["NodeID"]: self._tasks_on(node["Resources"]) for node in alive}
        self.nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in alive if side_by_side[node["NodeID"]]}
        self.room = self.workers.at_most or max(1, QUEUED * sum(side_by_side.values()))

    def _tasks_on(self, resources: Mapping[str, float]) -> int:
        """How many tasks a node runs at a time."""
        by_cpu = int(resources.get("CPU", 0)) // self.job.cpus
        return min(by_cpu, int(resources.get("GPU", 0))) if self.job.gpus else by_cpu


def _answers(address: str) -> bool:
    """Whether something listens at "host:port"."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except OSError:
        return False
    return True


def software() -> tuple[str, str]:
    return code_digest(), f"Python {sys.version_info.major}.{sys.version_info.minor}, torch {torch.__version__}"


_opened: dict[str, Callable[[Any], Any]] = {}
"""In a worker process: key of the fan-out that it works for -> the function that computes an item."""


def _run(job: _Job, slot: int, serial: int, item: Any) -> _Outcome:
    """The task: in a worker process, compute one item."""
    import ray
    from ray.experimental.internal_kv import _internal_kv_put

    node = ray.get_runtime_context().get_node_id()
    _internal_kv_put(f"{job.key}-{slot}", f"{serial} {node}")  # read by `_node_of` if this process is killed
    try:
        if job.key not in _opened:
            _opened.clear()
            _opened[job.key] = _open(job)
        return _Outcome(node=node, result=_opened[job.key](item))
    except (CgnError, OSError) as error:
        return _Outcome(node=node, error=error)
    except Exception as error:  # as text: what cannot be pickled would be lost
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({place.filename}, line {place.lineno})"
        return _Outcome(node=node, error=RuntimeError(text))


def _open(job: _Job) -> Callable[[Any], Any]:
    """Open the fan-out. Raises ArtifactError where this machine lacks the command's folder, or has other code."""
    import ray

    os.environ[CORES] = str(job.cpus)
    limit_threads()
    machine = socket.gethostname()
    try:
        os.chdir(job.folder)
    except OSError:
        raise ArtifactError(f"{machine} does not see the folder {job.folder}: mount it on every machine") from None
    if (here := software()) != job.software:
        raise ArtifactError(
            f"{machine} has other code than the command ({here[1]}, digest {here[0][:8]}; the command: "
            f"{job.software[1]}, {job.software[0][:8]}): install the same on every machine"
        )
    opening = pickle.loads(ray.get(job.opening[0]))
    compute: Callable[[Any], Any] = opening(torch.device("cuda" if job.gpus else "cpu"))
    return compute
