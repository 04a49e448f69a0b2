"""Supervised training: it learns, it is a function of its seed, it continues anywhere. The loop: test_invariant."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from cgn.classifiers.cnn import Cnn
from cgn.core.checkpoints import load_state
from cgn.core.devices import fabric, fits
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.metrics import Fanout, Files, MetricSink, Silent
from cgn.training.classifying import STATE, Outcome
from cgn.training.supervised import Examples, Schedule, supervised

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SCHEDULE = Schedule(
    learning_rate=1.0, decay_per_epoch=0.7, batch_size=16, epochs=3, log_updates=3, checkpoint_updates=4
)
IMAGES = 100  # 7 updates an epoch, the last of 4 images


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def cpu() -> "Fabric":
    return fabric(accelerator="cpu")


def examples() -> Examples:
    """Three classes told apart by brightness, under noise."""
    stream = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (IMAGES,), generator=stream)
    noise = torch.randint(0, 40, (IMAGES, 8, 8, 3), generator=stream)
    return Examples(pixels=(labels.view(-1, 1, 1, 1) * 90 + noise).to(torch.uint8), labels=labels)


class Stopping(Silent):
    """A sink that ends the training at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        del values
        if step >= self.step:
            raise InterruptedError


def train(
    folder: Path, fabric: "Fabric", *, sink: MetricSink | None = None, schedule: Schedule = SCHEDULE, seed: int = 5
) -> tuple[nn.Module, Outcome]:
    torch.manual_seed(3)
    classifier = Cnn(classes=3)
    training = supervised(classifier, examples=examples(), schedule=schedule, seed=seed, fabric=fabric)
    return classifier, training.run(folder, sink=sink or Silent())


def assert_equal_weights(left: nn.Module, right: nn.Module) -> None:
    assert left.state_dict().keys() == right.state_dict().keys()
    for name, tensor in left.state_dict().items():
        assert torch.equal(tensor, right.state_dict()[name]), name


@pytest.fixture(scope="module")
def unbroken(cpu: "Fabric", tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Outcome, Path]:
    folder = tmp_path_factory.mktemp("unbroken")
    torch.set_num_threads(1)
    classifier, outcome = train(folder, cpu, sink=Files(folder / "log"))
    return classifier, outcome, folder


def test_it_learns_and_says_so(unbroken: tuple[nn.Module, Outcome, Path]) -> None:
    _, outcome, folder = unbroken
    assert (outcome.updates, outcome.images) == (21, 300)
    assert outcome.measured["running_accuracy"] > 0.6  # of the last epoch while it trained; chance gives 0.33
    assert outcome.measured["loss"] < 0.8
    lines = [json.loads(line) for line in (folder / "log" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6, 7, 9, 12, 14, 15, 18, 21]
    last = [line["running_accuracy"] for line in lines[-3:]]  # of 16, 48 and 36 images
    assert outcome.measured["running_accuracy"] == pytest.approx(0.16 * last[0] + 0.48 * last[1] + 0.36 * last[2])
    rates = {line["step"]: line["learning_rate"] for line in lines}
    assert [rates[7], rates[14], rates[21]] == pytest.approx([1.0, 0.7, 0.49])
    assert all(line["images_per_second"] > 0 for line in lines)


def test_equal_seeds_give_equal_weights_and_others_others(
    unbroken: tuple[nn.Module, Outcome, Path], cpu: "Fabric", tmp_path: Path
) -> None:
    again, _ = train(tmp_path / "again", cpu)
    assert_equal_weights(again, unbroken[0])
    other, _ = train(tmp_path / "other", cpu, seed=6)
    with pytest.raises(AssertionError):
        assert_equal_weights(other, unbroken[0])


@pytest.mark.parametrize("step", [6, 7, 12, 15, 21])
def test_after_an_exception_it_continues_to_the_same_weights_and_record(
    unbroken: tuple[nn.Module, Outcome, Path], cpu: "Fabric", tmp_path: Path, step: int
) -> None:
    files = Files(tmp_path / "log")
    with pytest.raises(InterruptedError):
        train(tmp_path, cpu, sink=Fanout([files, Stopping(step)]))
    assert 0 < load_state(tmp_path / STATE)["update"] < step
    classifier, outcome = train(tmp_path, cpu, sink=files)
    assert_equal_weights(classifier, unbroken[0])
    assert outcome.measured == unbroken[1].measured
    for name in ("step", "loss", "running_accuracy", "learning_rate"):
        assert column(files.record, name) == column(unbroken[2] / "log" / "metrics.jsonl", name)


def column(record: Path, name: str) -> list[float]:
    return [json.loads(line)[name] for line in record.read_text().splitlines()]


@pytest.mark.parametrize("content", [b"", b"<html>no</html>", b"\x80\x02garbage"])
def test_a_broken_checkpoint_is_refused(cpu: "Fabric", tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATE).write_bytes(content)
    with pytest.raises(
        ArtifactError, match=r"state\.pt holds no whole checkpoint.*remove it and run the same command again"
    ):
        train(tmp_path, cpu)


def test_no_progress_bar_floods_a_log(cpu: "Fabric", tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, cpu)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.split(":")[0] for line in printed.err.splitlines()] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_absent_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"accelerator is 'cuda', but .* finds no CUDA GPU here: set accelerator"):
        fabric(accelerator="cuda")


def test_an_unknown_accelerator_or_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="accelerator is 'tpu', allowed: auto, cpu, cuda"):
        fabric(accelerator="tpu")
    with pytest.raises(ConfigError, match="precision is '8', allowed: 32-true, bf16-mixed"):
        fabric(accelerator="cpu", precision="8")


def test_a_gpu_out_of_memory_names_the_batch_size() -> None:
    with pytest.raises(ConfigError, match=r"does not hold batch_size 64 .*lower batch_size"), fits(64):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_it_learns_on_a_gpu(tmp_path: Path) -> None:
    _, outcome = train(tmp_path, fabric(accelerator="cuda"))
    assert outcome.measured["running_accuracy"] > 0.6
