"""The processes of one training on a Ray cluster: one actor for each device, on any machines with free ones.

Each actor sets the environment variables that torchrun would set (ranks, address), and calls the same work as
torchrun's processes do (`cgn.core.launch`). All of them are placed at once or none is, so that two trainings never wait
for each other's devices. When one ends with an error or dies, the others are ended. All machines must see the output
folder.
"""

import os
import pickle
import socket
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cgn.core.devices import VISIBLE_SECONDS
from cgn.core.errors import ArtifactError, CgnError, ConfigError, TrainingError, WorkerError
from cgn.core.fan_out import Workers
from cgn.core.fan_out_ray import _connected, _software
from cgn.core.launch import LOST, PipeSink, Work, free_port, loss_explained
from cgn.core.metrics import MetricSink, Silent

ROOM_SECONDS = 600.0
"""How long a training waits for its devices: the cluster may be busy, or grow on demand."""
RUN_ID = "ray"


def together_on_ray(
    work: Work, *, address: str, accelerator: str, processes: int, folder: Path, sink: MetricSink
) -> None:
    """Call `work`, picklable, in as many actors; what the first one measures goes to `sink`.

    Raises what an actor raised, ConfigError for a cluster without room, TrainingError where an actor died.
    """
    token = folder / ".shared.tmp"  # a name that `building` removes
    here = Workers(devices=(torch.device("cpu"),), ray=address, accelerator=accelerator, at_most=processes)
    with _connected(here) as ray:
        gpus = accelerator == "cuda" or (accelerator == "auto" and ray.cluster_resources().get("GPU", 0) > 0)
        bundle = {"CPU": 1, "GPU": 1} if gpus else {"CPU": 1}
        group = ray.util.placement_group([bundle] * processes)
        try:
            token.touch()
            ray.get(group.ready(), timeout=ROOM_SECONDS)
            members = [_start(ray, group, bundle=bundle, number=number) for number in range(processes)]
            host, port = ray.get(members[0].address.remote())
            shared = {"MASTER_ADDR": host, "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
            given = (pickle.dumps(work), str(Path.cwd()), str(token), _software())
            running = {
                member.run.remote(*given, {**shared, "RANK": str(rank), "GROUP_RANK": str(rank)})
                for rank, member in enumerate(members)
            }
            while running:
                done, _ = ray.wait([*running], timeout=1.0)
                for name, arguments, options in ray.get(members[0].take.remote()):
                    getattr(sink, name)(*arguments, **options)
                running -= {*done}
                if errors := [error for error in ray.get(done) if error is not None]:
                    raise errors[0]
        except ray.exceptions.GetTimeoutError:
            device = "GPUs" if gpus else "cores"
            raise ConfigError(
                f"--ray {address}: the cluster had no {processes} free {device} for {ROOM_SECONDS:.0f} s: set devices "
                "lower, or free some"
            ) from None
        except ray.exceptions.RayError as error:
            raise TrainingError(f"{LOST} ({str(error).strip().splitlines()[0]})") from error
        finally:
            token.unlink(missing_ok=True)
            ray.util.remove_placement_group(group)  # ends its actors


def _start(ray: Any, group: Any, *, bundle: Mapping[str, int], number: int) -> Any:
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    place = PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=number)
    options = {"num_cpus": bundle["CPU"], "num_gpus": bundle.get("GPU", 0), "max_concurrency": 2}
    return ray.remote(**options)(_Member).options(scheduling_strategy=place).remote()


class _Member:
    """An actor: one process of the training. `take` answers while `run` computes."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def address(self) -> tuple[str, int]:
        """Host and port at which the processes of the training connect."""
        import ray

        return str(ray.util.get_node_ip_address()), free_port()  # type: ignore[no-untyped-call]

    def send(self, call: Any) -> None:
        """Keep a call of the sink until `take` returns it."""
        self.calls.append(call)

    def take(self) -> list[Any]:
        """The calls since the last time."""
        count = len(self.calls)
        taken, self.calls[:count] = self.calls[:count], []
        return taken

    def run(
        self, work: bytes, folder: str, token: str, software: tuple[str, str], variables: Mapping[str, str]
    ) -> Exception | None:
        """Call the work; the error, as a value."""
        os.environ.update({**variables, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": RUN_ID})
        try:
            _check(Path(folder), Path(token), software)
            with loss_explained():
                pickle.loads(work)(PipeSink(self) if variables["RANK"] == "0" else Silent())
        except CgnError as error:
            return error
        except Exception:
            return WorkerError(f"process {variables['RANK']} on {socket.gethostname()}: {traceback.format_exc()}")
        return None


def _check(folder: Path, token: Path, software: tuple[str, str]) -> None:
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
    if _software() != software:
        raise ArtifactError(f"{machine} has other code than the command: install the same on every machine")
