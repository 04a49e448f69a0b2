"""The processes of one training on a Ray cluster: Ray Train's workers, one for each device, on any machines.

Ray Train places all of them at once or none, so that two trainings never wait for each other's devices. It connects
them, watches them, and ends the others when one fails. To Fabric a worker is a process of torchrun that is alone on its
machine. Ray Train gets no checkpoint, because a training resumes from its own. Where a worker was lost, all are started
again, RESTARTS times at most.
"""

import os
import pickle
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cgn.core.devices import CORES, VISIBLE_SECONDS
from cgn.core.errors import ArtifactError, CgnError, ConfigError, WorkerError
from cgn.core.fan_out import Workers
from cgn.core.fan_out_ray import connected, resources_of_worker, software
from cgn.core.launch import LOST, LostProcessError, PipeSink, Work, loss_explained
from cgn.core.metrics import MetricSink, Silent
from cgn.core.progress import say

ROOM_SECONDS = 600.0
"""How long a training waits for its devices: the cluster may be busy, or grow on demand."""
RESTARTS = 3
"""Of one training, after a lost worker or machine."""
TRAIN_SETTINGS = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # the paths of a command are relative to its own folder
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a machine that is taken away is a lost one
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "TRAIN_ENABLE_SHARE_CUDA_VISIBLE_DEVICES": "0",  # a worker sees its own GPU alone
}
"""Environment variables that Ray Train reads."""


def together_on_ray(
    work: Work, *, address: str, accelerator: str, processes: int, folder: Path, sink: MetricSink
) -> None:
    """Call `work`, picklable, in as many workers; what the first one measures goes to `sink`.

    Raises what a worker raised, ConfigError for a cluster without room, TrainingError where workers were lost again and
    again.
    """
    here = Workers(devices=(torch.device("cpu"),), ray=address, accelerator=accelerator, at_most=processes)
    token = folder / ".shared.tmp"  # a name that `building` removes
    os.environ.update(TRAIN_SETTINGS | {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(ROOM_SECONDS)})
    with connected(here) as ray:
        cpus, gpus = resources_of_worker(ray, here)
        given = (pickle.dumps(work), Path.cwd(), token, software(), cpus)
        restarts = 0
        try:
            token.touch()
            while True:
                error = _fit(ray, given, processes=processes, resources={"CPU": cpus, "GPU": gpus}, sink=sink)
                if error is None:
                    return
                reason = _reason(error, room=f"{processes} free {'GPUs' if gpus else 'cores'}", address=address)
                restarts += 1
                if not isinstance(reason, LostProcessError) or restarts > RESTARTS:
                    raise reason from error
                say("a process of the training was lost: all start again from the last checkpoint")
        except ray.exceptions.RayError as error:  # of what was measured: this machine's Ray, or the head, is lost
            raise LostProcessError(f"{LOST} ({_first_line(error)})") from error
        finally:
            token.unlink(missing_ok=True)


def _fit(
    ray: Any, given: tuple[Any, ...], *, processes: int, resources: dict[str, int], sink: MetricSink
) -> Exception | None:
    """Train once, and pass on what is measured meanwhile; how it failed."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer
    from ray.util.queue import Queue

    class Trainer(TorchTrainer):
        """Without an actor that outlives a killed command, for ever where Ray's dashboard is off."""

        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()  # type: ignore[misc]  # the old class has none
            return [one for one in callbacks if type(one).__name__ != "PlacementGroupCleanerCallback"]

    node = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}  # its loss ends the command in any case
    calls = Queue(actor_options={"num_cpus": 0, "label_selector": node})
    once = FailureConfig(max_failures=0, controller_failure_limit=0)  # type: ignore[call-arg]  # nor these
    with tempfile.TemporaryDirectory(prefix="cgn-ray-") as empty:
        trainer = Trainer(
            partial(_worker, *given, calls=calls),
            scaling_config=ScalingConfig(
                num_workers=processes, use_gpu=resources["GPU"] > 0, resources_per_worker=resources
            ),
            run_config=RunConfig(storage_path=empty, failure_config=once),
        )
        outcome: Future[Any] = Future()
        threading.Thread(target=_resolve, args=(outcome, trainer.fit), daemon=True).start()
        ended = False
        while not ended:
            ended = bool(wait([outcome], timeout=1.0).done)
            for name, arguments, options in calls.get_nowait_batch(calls.qsize()):
                getattr(sink, name)(*arguments, **options)
    calls.shutdown(force=True)
    error = outcome.exception()
    if not isinstance(error, TrainingFailedError | ray.exceptions.RayError | None):
        raise error
    return error


def _resolve(outcome: "Future[Any]", function: Callable[[], Any]) -> None:
    """In a thread: the main one passes on what is measured, and Ray Train would take over its Ctrl-C."""
    try:
        outcome.set_result(function())
    except BaseException as error:
        outcome.set_exception(error)


def _reason(error: Exception, *, room: str, address: str) -> CgnError:
    """Why a training failed: the first error of a worker that is not about the loss of another."""
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    if isinstance(getattr(error, "controller_failure", None), WorkerGroupStartupTimeoutError):
        return ConfigError(
            f"--ray {address}: the cluster had no {room} for {ROOM_SECONDS:.0f} s: set devices lower, or free some"
        )
    failures = getattr(error, "worker_failures", {}).values()
    own = [one for one in failures if isinstance(one, CgnError) and not isinstance(one, LostProcessError)]
    lost = next((one for one in failures if not isinstance(one, CgnError)), error)
    return own[0] if own else LostProcessError(f"{LOST} ({_first_line(lost)})")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _worker(work: bytes, folder: Path, token: Path, expected: tuple[str, str], cores: int, *, calls: Any) -> None:
    """In a process of the training: call the work."""
    rank = os.environ["RANK"]
    os.environ.update({"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": rank, "TORCHELASTIC_RUN_ID": "ray"})
    os.environ[CORES] = str(cores)
    try:
        _check(folder, token, expected)
        with loss_explained():
            pickle.loads(work)(PipeSink(calls.put) if rank == "0" else Silent())
    except CgnError:
        raise
    except Exception:
        raise WorkerError(f"process {rank} on {socket.gethostname()}: {traceback.format_exc()}") from None


def _check(folder: Path, token: Path, expected: tuple[str, str]) -> None:
    """Go to the command's folder. Raises ArtifactError where this machine lacks it or the output, or has other code."""
    machine = socket.gethostname()
    deadline = time.monotonic() + VISIBLE_SECONDS
    while not token.exists() and folder.is_dir() and time.monotonic() < deadline:
        time.sleep(1)
    if not token.exists():
        raise ArtifactError(
            f"{machine} does not see the output {token.parent}: put it on a file system that all machines share"
        )
    os.chdir(folder)
    if software() != expected:
        raise ArtifactError(f"{machine} has other code than the command: install the same on every machine")
