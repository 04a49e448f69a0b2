"""The invariant classifiers' updates: by hand, their seed, their continuation, their processes, their end at a NaN."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import nn
from torch.nn import functional

from cgn.core.checkpoints import load_state
from cgn.core.devices import open_fabric
from cgn.core.errors import ArtifactError, TrainingError
from cgn.core.launch import together
from cgn.core.metrics import Fanout, Files, MetricSink, Silent
from cgn.imagenet.data.mixing import MixedBatch, Mixture
from cgn.imagenet.data.preprocessing import normalized
from cgn.imagenet.train_classifier import epoch_ends, fit
from cgn.nets.classifiers import BASELINE, MECHANISMS, Ensemble
from cgn.training import STATE, Training
from tests.support.configs import replace
from tests.support.trainings import CLASSIFIER, column

CONFIG = replace(
    CLASSIFIER,
    learning_rate=0.05,
    momentum=0.9,
    weight_decay=1e-3,
    decay_factor=0.1,
    decay_epochs=2,
    epochs=3,
    batch_size=8,
    log_updates=3,
    checkpoint_updates=4,
    workers=0,
)
PICTURES = 44  # 5.5 batches an epoch: epochs begin at updates 0, 6 and 11
CLASSES = 3


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Source:
    """Colours tell the labels: red the shape, green the texture, blue the background."""

    mechanisms: tuple[str, ...] = MECHANISMS
    rank: int = 0
    ranks: int = 1
    updates: int = epoch_ends(CONFIG, pictures=PICTURES)[-1]
    broken: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.updates

    def __getitem__(self, update: int) -> MixedBatch:
        stream = torch.Generator().manual_seed(update)
        real = torch.randint(0, CLASSES, (8,), generator=stream)
        drawn = torch.randint(0, CLASSES, (3, 6), generator=stream)
        colours = torch.cat([real.expand(3, 8), drawn], 1) if self.mechanisms else real.expand(3, 8)
        noise = torch.randint(0, 60, (colours.shape[1], 3, 16, 16), generator=stream)
        pixels = (noise + 90 * colours.T[..., None, None]).to(torch.uint8)
        mine = slice(self.rank, None, self.ranks)
        labels = {name: drawn[row][mine] for row, name in enumerate(MECHANISMS)} if self.mechanisms else {}
        sentences = (self.broken[update],) if update in self.broken else ()
        mixed = torch.cat([pixels[:8][mine], pixels[8:][mine]])
        return MixedBatch(pixels=mixed, label=real[mine], labels=labels, unreadable=sentences)


class Small(nn.Module):
    """A backbone with a batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.rest = nn.Sequential(nn.Dropout(0.1), nn.Linear(8, CLASSES))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.rest(self.layers(images))
        return answer


def ensemble(heads: tuple[str, ...] = MECHANISMS, *, norm: str = "trained") -> Ensemble:
    torch.manual_seed(3)
    return Ensemble(Small(), classes=CLASSES, heads=heads, batch_norm=norm)  # type: ignore[arg-type]


def fitted(
    module: nn.Module,
    folder: Path,
    *,
    source: Source | None = None,
    sink: MetricSink | None = None,
    seed: int = 5,
    precision: str = "32-true",
    devices: int = 1,
) -> Training:
    return fit(
        CONFIG,
        cast(Ensemble, module),
        cast(Mixture, source or Source()),
        pictures=PICTURES,
        seed=seed,
        folder=folder,
        fabric=open_fabric(accelerator="cpu", precision=precision, devices=devices),
        sink=sink or Silent(),
    )


def train(folder: Path, *, sink: MetricSink | None = None, seed: int = 5) -> tuple[Ensemble, Training]:
    module = ensemble()
    return module, fitted(module, folder, seed=seed, sink=sink)


def assert_equal_weights(left: nn.Module, right: nn.Module) -> None:
    assert left.state_dict().keys() == right.state_dict().keys()
    for name, tensor in left.state_dict().items():
        assert torch.equal(tensor, right.state_dict()[name]), name


class Stopping(Silent):
    """A sink that ends the training at a step: by an exception, or by SIGKILL to its own process."""

    def __init__(self, step: int, *, kill: bool = False) -> None:
        self.step, self.kill = step, kill

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        del values
        if step < self.step:
            return
        if self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        raise InterruptedError


@pytest.mark.parametrize("mechanisms", [MECHANISMS, ()])
def test_its_steps_are_the_papers_written_by_hand(tmp_path: Path, mechanisms: tuple[str, ...]) -> None:
    """Two forward passes, a loss each, one SGD step with momentum and decay; batch norm frozen, no dropout."""
    heads = mechanisms or BASELINE
    module, copy = ensemble(heads, norm="frozen"), ensemble(heads, norm="frozen")
    for one in (module, copy):
        one.backbone.rest[0].p = 0.0  # type: ignore[union-attr, index]
    source = Source(mechanisms=mechanisms, updates=3)
    fitted(module, tmp_path, source=source)
    velocity = {name: torch.zeros_like(weight) for name, weight in copy.named_parameters()}
    for update in range(3):
        batch = source[update]
        images = normalized(batch.pixels)
        real = copy(images[:8])
        loss = functional.cross_entropy(sum(real.values()) / len(heads), batch.label)
        if mechanisms:
            mixed = copy(images[8:])
            loss = loss + sum(functional.cross_entropy(mixed[head], batch.labels[head]) for head in heads)
        copy.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for name, weight in copy.named_parameters():
                assert weight.grad is not None
                velocity[name] = 0.9 * velocity[name] + weight.grad + 1e-3 * weight
                weight.sub_(0.05 * velocity[name])
    for name, tensor in copy.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], tensor, atol=1e-6, rtol=1e-5, msg=name)
    assert not torch.allclose(copy.heads[heads[0]].weight, ensemble(heads).heads[heads[0]].weight, atol=1e-3)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ensemble, Training, Path]:
    folder = tmp_path_factory.mktemp("unbroken")
    torch.set_num_threads(1)
    module, training = train(folder, sink=Files(folder / "log"))
    return module, training, folder


NAMES = [f"{what}/{name}" for what in ("loss", "accuracy") for name in ("real", *MECHANISMS)]


def test_it_learns_and_reports_each_head(unbroken: tuple[Ensemble, Training, Path]) -> None:
    _, training, folder = unbroken
    assert (training.update, training.means.images) == (17, 17 * 14)
    lines = [json.loads(line) for line in (folder / "log" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6, 9, 11, 12, 15, 17]
    assert list(training.means.epoch()) == NAMES
    assert all(set(NAMES) <= line.keys() for line in lines)
    assert lines[-1]["loss/shape"] < lines[0]["loss/shape"] - 0.1
    assert all(0 <= line["accuracy/texture"] <= 1 for line in lines)
    assert all(line["images_per_second"] > 0 for line in lines)
    last = [line for line in lines if line["step"] > 11]  # 1, 3 and 2 updates
    mean = sum(line["loss/real"] * weight for line, weight in zip(last, (1, 3, 2), strict=True)) / 6
    assert training.means.epoch()["loss/real"] == pytest.approx(mean)


def test_the_rate_falls_with_the_epochs(unbroken: tuple[Ensemble, Training, Path]) -> None:
    lines = [json.loads(line) for line in (unbroken[2] / "log" / "metrics.jsonl").read_text().splitlines()]
    rates = {line["step"]: line["learning_rate"] for line in lines}
    assert [rates[step] for step in (3, 11, 12, 17)] == pytest.approx([0.05, 0.05, 0.005, 0.005])


def test_equal_seeds_give_equal_weights(unbroken: tuple[Ensemble, Training, Path], tmp_path: Path) -> None:
    assert_equal_weights(train(tmp_path / "again")[0], unbroken[0])
    with pytest.raises(AssertionError):
        assert_equal_weights(train(tmp_path / "other", seed=6)[0], unbroken[0])  # of the dropout


@pytest.mark.parametrize("step", [6, 9, 12, 15])
def test_in_an_epoch_or_at_its_end_it_continues_to_the_same_weights_and_record(
    unbroken: tuple[Ensemble, Training, Path], tmp_path: Path, step: int
) -> None:
    files = Files(tmp_path / "log")
    with pytest.raises(InterruptedError):
        train(tmp_path, sink=Fanout([files, Stopping(step)]))
    assert 0 < load_state(tmp_path / STATE)["update"] < step
    module, training = train(tmp_path, sink=files)
    assert_equal_weights(module, unbroken[0])
    assert training.means.epoch() == unbroken[1].means.epoch()
    for name in ("step", "loss/real", "accuracy/background", "learning_rate"):
        assert column(files.record, name) == column(unbroken[2] / "log" / "metrics.jsonl", name)


@pytest.mark.long
def test_after_kill_9_it_continues_to_the_same_weights(
    unbroken: tuple[Ensemble, Training, Path], tmp_path: Path
) -> None:
    code = (
        "import runpy, sys, pathlib; import torch; torch.set_num_threads(1)\n"
        "here = runpy.run_path(sys.argv[1])\n"
        "here['train'](pathlib.Path(sys.argv[2]), sink=here['Stopping'](10, kill=True))\n"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, __file__, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    killed = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert load_state(tmp_path / STATE)["update"] == 8
    assert_equal_weights(train(tmp_path)[0], unbroken[0])


def test_a_finished_training_is_not_repeated(unbroken: tuple[Ensemble, Training, Path]) -> None:
    module, training = train(unbroken[2], sink=Stopping(0))
    assert_equal_weights(module, unbroken[0])
    for ended in (training, unbroken[1]):
        assert ended.update == 17
        assert ended.means.images == 17 * 14
    assert training.means.epoch() == unbroken[1].means.epoch()
    saved = load_state(unbroken[2] / STATE)
    assert training.pace == {"images_per_second": 17 * 14 / saved["seconds"], "seconds": saved["seconds"]}


def test_unreadable_pictures_are_reported_also_by_a_resumed_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Source(broken={1: "b.png cannot be read", 5: "a.png cannot be read", 9: "b.png cannot be read"})
    with pytest.raises(InterruptedError):
        fitted(ensemble(), tmp_path, source=source, sink=Stopping(9))
    training = fitted(ensemble(), tmp_path, source=source)
    assert tuple(training.means.unreadable) == ("a.png cannot be read", "b.png cannot be read")
    printed = [line for line in capsys.readouterr().err.splitlines() if "used instead" in line]
    assert printed == [f"{name}.png cannot be read; the next image is used instead" for name in "ba"]


class Poisoned(nn.Module):
    """Answers turn into NaN at the `call`-th call."""

    def __init__(self, *, call: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(CLASSES))
        self.call = call

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        self.call -= 1
        noise = float("nan") if self.call == 0 else 0.0
        return {head: self.weight + images.mean(dim=(1, 2, 3)).view(-1, 1) + noise for head in MECHANISMS}


def test_a_nan_stops_it_at_the_update_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="loss/real is nan at update 11: stopped; the last good checkpoint is kept"):
        fitted(Poisoned(call=11), tmp_path)
    kept = load_state(tmp_path / STATE)
    assert kept["update"] == 8
    assert bool(torch.isfinite(kept["modules"]["classifier"]["weight"]).all())


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    torch.save({"update": 3}, tmp_path / STATE)
    with pytest.raises(ArtifactError, match=r"state\.pt is of another training.*remove it"):
        train(tmp_path)


def test_in_bfloat16_the_weights_stay_single(tmp_path: Path) -> None:
    module = ensemble()
    seen: list[torch.dtype] = []
    module.heads["shape"].register_forward_hook(lambda *call: seen.append(call[2].dtype))
    training = fitted(module, tmp_path, precision="bf16-mixed", source=Source(updates=2))
    assert set(seen) == {torch.bfloat16}
    assert {weight.dtype for weight in module.parameters()} == {torch.float32}
    assert training.means.epoch()["loss/real"] < 2


def test_a_last_epoch_of_no_full_batch_is_rounded_up() -> None:
    assert epoch_ends(CONFIG, pictures=PICTURES) == [6, 11, 17]
    assert epoch_ends(CONFIG, pictures=3) == [1, 1, 2]


def in_two(sink: MetricSink, *, folder: Path, broken: Mapping[int, str]) -> None:
    """What each of two processes does."""
    torch.set_num_threads(1)
    module = ensemble(norm="frozen")
    module.backbone.rest[0].p = 0.0  # type: ignore[union-attr, index]
    rank = int(os.environ["LOCAL_RANK"])
    source = Source(rank=rank, ranks=2, updates=9, broken=broken if rank else {})
    training = fitted(module, folder, source=source, sink=sink, devices=2)
    torch.save({"weights": module.state_dict(), "unreadable": list(training.means.unreadable)}, folder / f"{rank}.pt")


@pytest.mark.long
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    alone = ensemble(norm="frozen")
    alone.backbone.rest[0].p = 0.0  # type: ignore[union-attr, index]
    files = Files(tmp_path / "alone")
    fitted(alone, tmp_path / "one", source=Source(updates=9), sink=files)
    both = Files(tmp_path / "both")
    together(partial(in_two, folder=tmp_path, broken={2: "c.png cannot be read"}), processes=2, sink=both)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for name, tensor in alone.state_dict().items():
        assert torch.equal(first["weights"][name], second["weights"][name])
        torch.testing.assert_close(first["weights"][name], tensor, atol=1e-5, rtol=1e-4, msg=name)
    assert first["unreadable"] == ["c.png cannot be read"]
    assert column(both.record, "step") == column(files.record, "step")
    assert column(both.record, "loss/shape") == pytest.approx(column(files.record, "loss/shape"), rel=1e-4)


def poisoned_in_two(sink: MetricSink, *, folder: Path) -> None:
    torch.set_num_threads(1)
    rank = int(os.environ["LOCAL_RANK"])
    fitted(Poisoned(call=5 if rank else -1), folder, source=Source(rank=rank, ranks=2), sink=sink, devices=2)


@pytest.mark.long
def test_a_nan_on_one_of_two_stops_both(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="loss/real is nan at update 5"):
        together(partial(poisoned_in_two, folder=tmp_path), processes=2, sink=Silent())
