"""Rendering: shards as planned, a device for each worker, and a renderer that travels to a worker as its arguments."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from cgn import rendering
from cgn.config.mnist import Generate
from cgn.core.checkpoints import save_model
from cgn.core.errors import ConfigError
from cgn.mnist.generate import Renderer
from cgn.mnist.generator import build_generator, model_facts
from cgn.rendering import PlannedShard, encoder_threads, plan_shards, worker_devices

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
    monkeypatch.setattr(rendering, "usable_cores", lambda: 3)
    assert worker_devices("cpu") == [CPU] * 3
    assert worker_devices("cpu", workers=5) == [CPU] * 5
    assert encoder_threads([CPU] * 3) == 0


def test_workers_share_the_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "resolve_device", lambda _: "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    first, second = (torch.device("cuda", number) for number in range(2))
    assert worker_devices("auto") == [first, second]
    assert worker_devices("auto", workers=3) == [first, second, first]
    for cores, threads in ((1, 1), (6, 3), (64, 8)):
        monkeypatch.setattr(rendering, "usable_cores", lambda cores=cores: cores)
        assert encoder_threads([first, second, first]) == threads


def test_an_unknown_accelerator_is_refused() -> None:
    with pytest.raises(ConfigError, match="accelerator"):
        worker_devices("tpu")


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
