"""train_classifier: the arms, what they read, what they refuse, what they leave behind."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from cgn.config.mnist import TrainClassifier
from cgn.core.checkpoints import load_model, load_strictly
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.metrics import Files, MetricSink, Silent
from cgn.data.shards import Sample, write_manifest, write_shard
from cgn.mnist.arms import ARMS
from cgn.mnist.train_classifier import SOURCES, Examples, backward, initial_classifier, train_classifier
from cgn.nets.classifiers import Cnn

PARAMS = TrainClassifier(
    learning_rate=1.0,
    decay_per_epoch=0.7,
    batch_size=16,
    epochs=2,
    log_updates=2,
    checkpoint_updates=2,
    accelerator="cpu",
    precision="32-true",
)
FACTS = {"track": "mnist", "variant": "digits", "image_size": 8}


def shards(folder: Path, splits: Mapping[str, int], *, facts: Mapping[str, Any] = FACTS, top: int = 9) -> Path:
    """A folder of shards: per split (name: images) noise whose brightness tells the shape."""
    folder.mkdir()
    size = facts.get("image_size", 8)
    shards = []
    for split, count in splits.items():
        draw = np.random.default_rng(count)
        shapes = draw.integers(0, top + 1, count)
        pixels = [(draw.integers(0, 30, (size, size, 3)) + 22 * shape).astype(np.uint8) for shape in shapes]
        labels = [{"shape": int(shape), "texture": 0, "background": 0} for shape in shapes]
        samples = [Sample(image=image, facts=facts) for image, facts in zip(pixels, labels, strict=True)]
        shards.append(write_shard(folder, samples, split=split, number=0, first_index=0))
    write_manifest(folder, shards, facts=facts)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return shards(tmp_path / "prepare", {"train": 48, "test_iid": 4})


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return shards(tmp_path / "generate", {"factual": 33, "counterfactual": 70})


def train(data: Path, images: Path, out: Path, *, arm: str, seed: int = 0, sink: MetricSink | None = None) -> None:
    given: dict[str, Any] = {"data": data, "images": images, "classifier": out, "arm": arm}
    train_classifier(PARAMS, seed=seed, variant="digits", **given, sink=sink or Silent())


def test_the_arms_are_the_tracks_arms_in_its_order() -> None:
    assert list(SOURCES) == list(ARMS)


@pytest.mark.parametrize(
    ("arm", "count"), [("original", 48), ("gan", 33), ("counterfactual", 70), ("original_counterfactual", 118)]
)
def test_an_arm_leaves_a_model_and_what_training_said(data: Path, images: Path, arm: str, count: int) -> None:
    tmp_path = data.parent
    out = tmp_path / arm
    out.mkdir()
    train(data, images, out, arm=arm, sink=Files(tmp_path / "log"))
    assert sorted(path.name for path in out.iterdir()) == ["model.safetensors", "training.json"]
    tensors, facts = load_model(out / "model.safetensors")
    assert facts == FACTS | {"arm": arm, "classes": 10}
    load_strictly(Cnn(classes=10), tensors, source="model.safetensors")
    results = json.loads((out / "training.json").read_text())
    assert (results["images"], results["updates"]) == (count, 2 * -(-count // 16))
    assert results["device"] == "cpu", "what `auto` became, for whoever reads it elsewhere"
    summary = json.loads((tmp_path / "log" / "details.json").read_text())
    assert summary.keys() == {"running_accuracy", "loss", "images_per_second", "seconds"}
    assert (summary["running_accuracy"], summary["loss"]) == (results["running_accuracy"], results["loss"])


def weights(data: Path, images: Path, out: Path, *, arm: str, seed: int = 0) -> bytes:
    out.mkdir()
    train(data, images, out, arm=arm, seed=seed)
    return (out / "model.safetensors").read_bytes()


def test_an_arm_depends_on_the_seed_alone_not_on_what_ran_before(data: Path, images: Path, tmp_path: Path) -> None:
    first = weights(data, images, tmp_path / "1", arm="gan")
    torch.rand(7)
    second = weights(data, images, tmp_path / "2", arm="gan")
    assert second == first
    assert weights(data, images, tmp_path / "3", arm="gan", seed=1) != first


def test_arms_start_from_weights_of_their_own(data: Path, images: Path, tmp_path: Path) -> None:
    """Not from each other's, nor from the global stream."""
    seen: list[int] = []

    def initial(seed: int) -> Cnn:
        seen.append(seed)
        return initial_classifier(seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cgn.mnist.train_classifier.initial_classifier", initial)
        for arm in SOURCES:
            weights(data, images, tmp_path / arm, arm=arm)
    starts = [initial_classifier(seed).state_dict()["cls.0.weight"] for seed in seen]
    assert len({tuple(start.flatten().tolist()) for start in starts}) == len(SOURCES)


def test_a_finished_arm_is_checked_not_trained_again(data: Path, images: Path, tmp_path: Path) -> None:
    expected = weights(data, images, tmp_path / "out", arm="gan")
    train(data, images, tmp_path / "out", arm="gan")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == expected
    (tmp_path / "out" / "model.safetensors").write_bytes(expected[:100])
    with pytest.raises(ArtifactError, match=r"model\.safetensors is not a whole model file"):
        train(data, images, tmp_path / "out", arm="gan")


def refused(data: Path, images: Path, *, arm: str = "original_counterfactual") -> None:
    out = data.parent / "out"
    out.mkdir()
    try:
        train(data, images, out, arm=arm)
    finally:
        assert not list(out.iterdir())


def test_an_unknown_arm_lists_the_known_ones(data: Path, images: Path) -> None:
    with pytest.raises(ConfigError, match="--arm is 'cgn', allowed: original, gan, counterfactual, original_counter"):
        refused(data, images, arm="cgn")


@pytest.mark.parametrize("arm", ["original", "original_counterfactual"])
def test_images_of_another_variant_are_refused_even_if_unread(data: Path, tmp_path: Path, arm: str) -> None:
    foreign = shards(tmp_path / "wild", {"counterfactual": 16}, facts=FACTS | {"variant": "wildlife"})
    with pytest.raises(ArtifactError, match="wild is of variant 'wildlife', expected 'digits'"):
        refused(data, foreign, arm=arm)


def test_images_of_another_size_are_refused_by_the_manifests(data: Path, tmp_path: Path) -> None:
    small = shards(tmp_path / "small", {"counterfactual": 16}, facts=FACTS | {"image_size": 6})
    with pytest.raises(ArtifactError, match=r"prepare has images of 8 pixels and --images .*small has images of 6"):
        refused(data, small)


def test_images_of_another_size_are_refused_by_themselves(data: Path, tmp_path: Path) -> None:
    small = shards(tmp_path / "small", {"counterfactual": 16}, facts=FACTS | {"image_size": 6})
    manifest = json.loads((small / "manifest.json").read_text())
    del manifest["facts"]["image_size"]
    (small / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"small, split counterfactual and .*prepare, split train hold images of"):
        refused(data, small)


def test_a_label_beyond_the_classes_is_refused(data: Path, tmp_path: Path) -> None:
    strange = shards(tmp_path / "strange", {"counterfactual": 40}, top=11)
    with pytest.raises(ArtifactError, match="strange, split counterfactual has shape labels 0 to 11, allowed: 0 to 9"):
        refused(data, strange)


def test_a_missing_split_is_named(data: Path, tmp_path: Path) -> None:
    lacking = shards(tmp_path / "lacking", {"factual": 16})
    with pytest.raises(ArtifactError, match="lacking has no split 'counterfactual'; it has: factual"):
        refused(data, lacking)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_halves_of_a_batch_give_the_gradients_of_the_whole(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    stream = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 16, 16, 3), generator=stream, dtype=torch.uint8)
    batch = Examples(pixels=pixels, labels=torch.randint(10, (count,), generator=stream))
    found = {}
    for cores in ("1", "2"):
        monkeypatch.setenv("CGN_CORES", cores)
        module = initial_classifier(0).train()
        loss, log_probabilities = backward(module, batch)
        found[cores] = [loss, log_probabilities, *gradients(module)]
    for one, two in zip(found["1"], found["2"], strict=True):
        assert torch.equal(one, two), "the number of cores changes no bit"
    module = initial_classifier(0).train()
    log_probabilities = module(batch.images())
    loss = functional.nll_loss(log_probabilities, batch.labels)
    torch.autograd.backward(loss)
    torch.testing.assert_close(found["1"], [loss, log_probabilities, *gradients(module)])


def gradients(module: torch.nn.Module) -> list[torch.Tensor]:
    """Of all parameters; each must have one."""
    found = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    assert len(found) == len(list(module.parameters()))
    return found
