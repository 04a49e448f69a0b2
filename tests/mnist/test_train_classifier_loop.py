"""The MNIST classifier's training: it learns, it is a function of its seed, it continues anywhere."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cgn.config.mnist import TrainClassifier
from cgn.core.checkpoints import load_model, load_state
from cgn.core.devices import fits, open_fabric
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.metrics import Fanout, Files, MetricSink, Silent
from cgn.data.shards import Sample, write_manifest, write_shard
from cgn.mnist.train_classifier import train_classifier
from cgn.training import STATE
from tests.support.configs import replace
from tests.support.trainings import column

PARAMS = TrainClassifier(
    learning_rate=1.0,
    decay_per_epoch=0.7,
    batch_size=16,
    epochs=3,
    log_updates=3,
    checkpoint_updates=4,
    accelerator="cpu",
    precision="32-true",
)
IMAGES = 100  # 7 updates an epoch, the last of 4 images


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes that differ in brightness, with noise."""
    folder = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(1)
    labels = draw.integers(0, 3, IMAGES)
    pixels = (labels.reshape(-1, 1, 1, 1) * 90 + draw.integers(0, 40, (IMAGES, 8, 8, 3))).astype(np.uint8)
    facts = [{"shape": int(label), "texture": 0, "background": 0} for label in labels]
    samples = [Sample(image=image, facts=label) for image, label in zip(pixels, facts, strict=True)]
    shard = write_shard(folder, samples, split="train", number=0, first_index=0)
    write_manifest(folder, [shard], facts={"track": "mnist", "variant": "toy", "image_size": 8})
    return folder


class Stopping(Silent):
    """A sink that ends the training at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        del values
        if step >= self.step:
            raise InterruptedError


class Ending(Silent):
    """A sink that keeps the final values."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def summary(self, values: Mapping[str, float]) -> None:
        self.values = dict(values)


def train(
    data: Path, folder: Path, *, sink: MetricSink | None = None, params: TrainClassifier = PARAMS, seed: int = 5
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights and what training.json says."""
    folder.mkdir(exist_ok=True)
    given: dict[str, Any] = {"data": data, "classifier": folder, "arm": "original"}
    train_classifier(params, seed=seed, variant="toy", **given, sink=sink or Silent())
    return load_model(folder / "model.safetensors")[0], json.loads((folder / "training.json").read_text())


def equal(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> bool:
    assert left.keys() == right.keys()
    return all(torch.equal(tensor, right[name]) for name, tensor in left.items())


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], Any, Path]:
    folder = tmp_path_factory.mktemp("unbroken")
    torch.set_num_threads(1)
    weights, results = train(data, folder / "out", sink=Files(folder / "log"))
    return weights, results, folder / "log"


def test_it_learns_and_reports_it(unbroken: tuple[Any, dict[str, float], Path]) -> None:
    _, results, log = unbroken
    assert (results["updates"], results["images"]) == (21, IMAGES)
    assert results["running_accuracy"] > 0.6  # of the last epoch while it trained; chance gives 0.33
    assert results["loss"] < 0.8
    lines = [json.loads(line) for line in (log / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6, 7, 9, 12, 14, 15, 18, 21]
    last = [line["running_accuracy"] for line in lines[-3:]]  # of 16, 48 and 36 images
    assert results["running_accuracy"] == pytest.approx(0.16 * last[0] + 0.48 * last[1] + 0.36 * last[2])
    rates = {line["step"]: line["learning_rate"] for line in lines}
    assert [rates[7], rates[14], rates[21]] == pytest.approx([1.0, 0.7, 0.49])
    assert all(line["images_per_second"] > 0 for line in lines)


def test_its_pace_is_over_all_images_of_all_epochs(data: Path, tmp_path: Path) -> None:
    ending = Ending()
    train(data, tmp_path / "out", sink=ending)
    assert ending.values["images_per_second"] * ending.values["seconds"] == pytest.approx(3 * IMAGES)


def test_equal_seeds_give_equal_weights_and_others_others(
    unbroken: tuple[dict[str, torch.Tensor], Any, Path], data: Path, tmp_path: Path
) -> None:
    assert equal(train(data, tmp_path / "again")[0], unbroken[0])
    assert not equal(train(data, tmp_path / "other", seed=6)[0], unbroken[0])


@pytest.mark.parametrize("step", [6, 7, 12, 15, 21])
def test_after_an_exception_it_continues_to_the_same_weights_and_record(
    unbroken: tuple[dict[str, torch.Tensor], Any, Path], data: Path, tmp_path: Path, step: int
) -> None:
    files, out = Files(tmp_path / "log"), tmp_path / "out"
    with pytest.raises(InterruptedError):
        train(data, out, sink=Fanout([files, Stopping(step)]))
    assert 0 < load_state(out / STATE)["update"] < step
    weights, results = train(data, out, sink=files)
    assert equal(weights, unbroken[0])
    assert results == unbroken[1]
    for name in ("step", "loss", "running_accuracy", "learning_rate"):
        assert column(files.record, name) == column(unbroken[2] / "metrics.jsonl", name)


@pytest.mark.parametrize("content", [b"", b"<html>no</html>", b"\x80\x02garbage"])
def test_a_broken_checkpoint_is_refused(data: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATE).write_bytes(content)
    with pytest.raises(
        ArtifactError, match=r"state\.pt holds no whole checkpoint.*remove it and run the same command again"
    ):
        train(data, tmp_path)


def test_no_progress_bar_floods_a_log(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(data, tmp_path)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.split(":")[0] for line in printed.err.splitlines()] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_absent_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"accelerator is 'cuda', but .* finds no CUDA GPU here: set accelerator"):
        open_fabric(accelerator="cuda")


def test_an_unknown_accelerator_or_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="accelerator is 'tpu', allowed: auto, cpu, cuda"):
        open_fabric(accelerator="tpu")
    with pytest.raises(ConfigError, match="precision is '8', allowed: 32-true, bf16-mixed"):
        open_fabric(accelerator="cpu", precision="8")


def test_a_gpu_out_of_memory_names_the_batch_size() -> None:
    with pytest.raises(ConfigError, match=r"does not hold batch_size 64 .*lower batch_size"), fits(64):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_a_gpu_that_runs_out_of_memory_in_training_says_what_to_lower(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr("cgn.nets.classifiers.Cnn.classify", full)
    with pytest.raises(ConfigError, match=r"does not hold batch_size 16 .*lower batch_size or set accelerator to cpu"):
        train(data, tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_it_learns_on_a_gpu(data: Path, tmp_path: Path) -> None:
    _, results = train(data, tmp_path, params=replace(PARAMS, accelerator="cuda"))
    assert results["running_accuracy"] > 0.6
