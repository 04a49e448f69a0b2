"""Rendering: shards as planned, a device for each worker, and a renderer that travels to a worker as its arguments."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from cgn import rendering
from cgn.config.mnist import Generate
from cgn.core import fan_out
from cgn.core.checkpoints import save_model
from cgn.core.errors import ConfigError
from cgn.core.fan_out import choose_workers
from cgn.data.shards import Sample
from cgn.mnist.generate import Renderer
from cgn.mnist.generator import build_generator, model_facts
from cgn.rendering import PlannedShard, encoder_threads, plan_shards

CPU = torch.device("cpu")


def test_splits_are_cut_into_full_shards_and_a_rest() -> None:
    planned = plan_shards({"factual": 5, "counterfactual": 4}, images_per_shard=2)
    assert [(shard.split, shard.number, shard.images, shard.first_index) for shard in planned] == [
        ("factual", 0, 2, 0),
        ("factual", 1, 2, 2),
        ("factual", 2, 1, 4),
        ("counterfactual", 0, 2, 0),
        ("counterfactual", 1, 2, 2),
    ]


def test_on_a_cpu_there_is_a_worker_a_core_or_as_many_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan_out, "usable_cores", lambda: 3)
    assert choose_workers("cpu").devices == (CPU,) * 3
    assert choose_workers("cpu", workers=5).devices == (CPU,) * 5
    assert encoder_threads(CPU) == 0


def test_workers_share_the_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan_out, "resolve_device", lambda _: "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    first, second = (torch.device("cuda", number) for number in range(2))
    assert choose_workers("auto").devices == (first, second)
    assert choose_workers("auto", workers=3).devices == (first, second, first)
    for cores, threads in ((1, 1), (6, 6), (64, 8)):
        monkeypatch.setattr(rendering, "usable_cores", lambda cores=cores: cores)
        assert encoder_threads(second) == threads


def test_an_unknown_accelerator_is_refused() -> None:
    with pytest.raises(ConfigError, match="accelerator"):
        choose_workers("tpu")


def test_a_renderer_is_pickled_as_its_arguments(tmp_path: Path) -> None:
    """A worker process opens the model itself: no weights travel."""
    net = {"shape_width": 4, "tile_width": 4, "noise_size": 6, "image_size": 16}
    tensors = build_generator(**net).state_dict()
    save_model(tmp_path / "model.safetensors", tensors, facts=model_facts(variant="toy", net=net))
    config = Generate(factual_images=3, counterfactual_images=5, images_per_mask=5, images_per_shard=5)
    renderer = Renderer(config, model=tmp_path, seed=4, variant="toy")
    content = pickle.dumps(renderer)
    assert len(content) < 1000 < (tmp_path / "model.safetensors").stat().st_size
    shard = PlannedShard(split="counterfactual", number=1, images=5, first_index=0)
    for one, other in zip(renderer.render(shard), pickle.loads(content).render(shard), strict=True):
        assert one.facts == other.facts
        assert np.array_equal(one.image, other.image)


def test_a_negative_number_of_workers_is_refused() -> None:
    with pytest.raises(ConfigError, match="workers is -1, allowed: 0 or more"):
        choose_workers("cpu", workers=-1)


class Sleeper:
    """A renderer that notes its process and never finishes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def to(self, device: torch.device) -> None:
        del device
        (self.folder / f"{os.getpid()}.pid").touch()

    def render(self, shard: PlannedShard) -> Iterator[Sample]:
        del shard
        time.sleep(60)
        yield from ()


def render_for_ever(folder: Path) -> None:
    shards = plan_shards({"factual": 2}, images_per_shard=1)
    opening = partial(rendering._open, renderer=Sleeper(folder), folder=folder, store=None)
    list(fan_out.fan_out(opening, shards, workers=choose_workers("cpu", workers=2)))


def test_no_worker_outlives_a_killed_command(tmp_path: Path) -> None:
    words = f"import pathlib, tests.test_rendering as t; t.render_for_ever(pathlib.Path({str(tmp_path)!r}))"
    parent = subprocess.Popen([sys.executable, "-c", words], cwd=Path(__file__).parents[1], stderr=subprocess.DEVNULL)
    workers: list[int] = []
    end = time.monotonic() + 60
    while len(workers) < 2 and time.monotonic() < end:
        time.sleep(0.1)
        workers = [int(path.stem) for path in tmp_path.glob("*.pid")]
    parent.kill()
    parent.wait()
    assert len(workers) == 2
    end = time.monotonic() + 10
    while (left := [pid for pid in workers if _runs(pid)]) and time.monotonic() < end:
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def _runs(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
