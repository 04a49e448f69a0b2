"""The training object: resumes to the bit, stops on what is not finite, draws without moving anything."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cgn.core.checkpoints import load_state
from cgn.core.devices import open_fabric
from cgn.core.errors import ArtifactError, TrainingError
from cgn.core.images import sheet
from cgn.core.metrics import Files, MetricSink, Silent
from cgn.core.seeding import torch_stream
from cgn.optimization import EMA, adam, evaluating, frozen, linear_decay
from cgn.training import STATE, Training, batch_indices
from tests.support.trainings import Stop

UPDATES = 12


class Duel:
    """A net with dropout and batch norm against a critic, small enough to run in milliseconds."""

    def __init__(self, *, decay: float = 0.9, rate: float = 0.01) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
        self.critic = nn.Linear(4, 1)
        self.ema = EMA(self.net, decay=decay)
        self.modules: dict[str, nn.Module] = {"net": self.net, "critic": self.critic, "ema": self.ema.module}
        self.rate = rate

    def training(self, folder: Path, sink: MetricSink | None = None, **changed: Any) -> Training:
        betas = (0.5, 0.999)
        given: dict[str, Any] = {"updates": UPDATES, "log_every": 1, "checkpoint_every": 5, "sheet_every": 4}
        return Training(
            folder,
            fabric=open_fabric(accelerator="cpu"),
            sink=sink or Silent(),
            seed=3,
            modules=self.modules,
            optimizers={
                "net": adam(self.net, rate=self.rate, betas=betas),
                "critic": adam(self.critic, rate=self.rate, betas=betas),
            },
            **(given | changed),
        )

    def train(
        self, folder: Path, sink: MetricSink | None = None, *, stop_at: int | None = None, poison_at: int | None = None
    ) -> None:
        training = self.training(folder, sink)
        if training.starts:
            training.sheet([("row", torch.zeros(2, 3, 8, 8))], start=True)
        for update in training:
            if update == stop_at:
                raise Stop
            factor = linear_decay(update, updates=UPDATES, fraction=0.5)
            output = self.net(torch.randn(6, 4, generator=torch_stream(1, update)))
            with frozen(self.critic):
                value = self.critic(output).square().mean() * (float("nan") if update == poison_at else 1.0)
                training.backward({"first": value, "second": output.abs().mean()})
            training.step("net", rate_factor=factor)
            training.backward({"critic": (self.critic(output.detach()) - 1).square().mean()})
            training.step("critic", rate_factor=factor)
            self.ema.follow(update)
            if training.sheet_due:
                training.sheet([("row", torch.zeros(2, 3, 8, 8))])

    def weights(self) -> list[torch.Tensor]:
        return [tensor.clone() for module in self.modules.values() for tensor in module.state_dict().values()]


def equal(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(a.equal(b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("decay", [0.0, 0.9])
@pytest.mark.parametrize("stop_at", [3, 5, 11])
def test_a_stopped_run_continues_to_the_same_weights_and_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], decay: float, stop_at: int
) -> None:
    whole = Duel(decay=decay)
    whole.train(tmp_path / "whole", Files(tmp_path / "whole.log"))
    with pytest.raises(Stop):
        Duel(decay=decay).train(tmp_path / "cut", Files(tmp_path / "cut.log"), stop_at=stop_at)
    untrained = (tmp_path / "cut" / "sheets" / "000000.png").stat().st_mtime_ns
    continued = Duel(decay=decay)
    capsys.readouterr()
    continued.train(tmp_path / "cut", Files(tmp_path / "cut.log"))
    continues = f"continues after update {stop_at // 5 * 5} of {UPDATES}, from {tmp_path / 'cut' / STATE}"
    assert (continues in capsys.readouterr().err) == (stop_at >= 5)
    assert equal(whole.weights(), continued.weights())
    records = [(tmp_path / f"{name}.log" / "metrics.jsonl").read_text().splitlines() for name in ("whole", "cut")]
    without_time = [
        [{k: v for k, v in json.loads(line).items() if k != "time"} for line in record] for record in records
    ]
    assert without_time[0] == without_time[1]
    assert len(without_time[0]) == UPDATES
    sheets = [sorted(path.name for path in (tmp_path / name / "sheets").iterdir()) for name in ("whole", "cut")]
    assert sheets == [["000000.png", "000004.png", "000008.png", "000012.png"]] * 2
    drawn_again = (tmp_path / "cut" / "sheets" / "000000.png").stat().st_mtime_ns != untrained
    assert drawn_again == (stop_at < 5), "only a run without a checkpoint starts again"


def test_a_run_that_ended_before_its_network_was_saved_keeps_its_last_values(tmp_path: Path) -> None:
    Duel().train(tmp_path, Files(tmp_path / "log"))
    again = Duel()
    training = again.training(tmp_path, Files(tmp_path / "log"))
    assert list(training) == []
    (*_, last) = (tmp_path / "log" / "metrics.jsonl").read_text().splitlines()
    assert {"step": UPDATES, **training.values} == {k: v for k, v in json.loads(last).items() if k != "time"}


def test_the_batches_of_a_long_update_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[tuple[str, int]] = []

    class Counter:
        def update(self, n: int = 1, /) -> None:
            counted.append(("batch", n))

    @contextmanager
    def progress(**options: Any) -> Iterator[Counter]:
        counted.append((options["unit"], options["total"]))
        yield Counter()

    monkeypatch.setattr("cgn.training.progress", progress)
    for batches, unit in ((4, "batches (4 an update)"), (1, "updates")):
        counted.clear()
        duel = Duel()
        training = duel.training(tmp_path / str(batches), updates=2, batches_per_update=batches)
        for _ in training:
            for batch in training.batches():
                training.backward({"net": duel.net(torch.randn(6, 4) + batch).mean()})
            training.step("net", rate_factor=1.0)
        assert counted == [(unit, 2 * batches), *[("batch", 1)] * 2 * batches]


def test_gradients_of_an_updates_batches_are_summed_and_their_losses_averaged(tmp_path: Path) -> None:
    duel = Duel()
    training = duel.training(tmp_path, updates=1, batches_per_update=3)
    before = duel.critic.bias.detach().clone()
    for _ in training:
        for batch in training.batches():
            training.backward({"critic": (batch + 1.0) * duel.critic.bias.sum()})
        assert duel.critic.bias.grad is not None
        assert duel.critic.bias.grad.item() == 6.0
        training.step("critic", rate_factor=1.0)
        assert duel.critic.bias.grad is None
    assert training.values == {"loss/critic": pytest.approx(2 * before.item())}
    assert not duel.critic.bias.equal(before)


def test_each_update_and_batch_has_its_own_noise(tmp_path: Path) -> None:
    duel = Duel()
    training = duel.training(tmp_path, updates=2, batches_per_update=2)
    drawn = []
    for _ in training:
        for _batch in training.batches():
            drawn.append(torch.rand(1).item())
            training.backward({"critic": duel.critic.bias.sum()})
        training.step("critic", rate_factor=1.0)
    assert len(set(drawn)) == 4


def test_the_comparison_can_fail(tmp_path: Path) -> None:
    whole, other = Duel(), Duel(rate=0.02)
    whole.train(tmp_path / "a")
    other.train(tmp_path / "b")
    assert not equal(whole.weights(), other.weights())


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    duel = Duel()
    with pytest.raises(TrainingError, match=r"loss/first is nan at update 8.*last good checkpoint is kept"):
        duel.train(tmp_path, poison_at=7)
    assert load_state(tmp_path / STATE)["update"] == 5
    assert all(tensor.isfinite().all() for tensor in duel.weights())


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    duel = Duel()
    training = duel.training(tmp_path)
    training.update = 4
    with torch.no_grad():
        duel.critic.weight[0, 1] = float("inf")
    with pytest.raises(TrainingError, match=r"critic\.weight is inf at update 4"):
        training.save()
    assert not (tmp_path / STATE).exists()


def test_a_broken_or_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    Duel().training(tmp_path).save()
    state = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(state[: len(state) // 2])
    with pytest.raises(
        ArtifactError, match=r"state\.pt holds no whole checkpoint .*remove it and run the same command again"
    ):
        Duel().train(tmp_path)
    torch.save({"update": 5, "modules": {}}, tmp_path / STATE)
    with pytest.raises(ArtifactError, match=r"of another training.*remove it and run the same command again"):
        Duel().train(tmp_path)


def test_a_frozen_module_does_not_move_and_others_do(tmp_path: Path) -> None:
    duel = Duel()
    before = duel.critic.weight.detach().clone()
    training = duel.training(tmp_path, updates=1)
    for _ in training:
        with frozen(duel.critic):
            assert not any(parameter.requires_grad for parameter in duel.critic.parameters())
            training.backward({"net": duel.critic(duel.net(torch.randn(6, 4))).mean()})
        assert all(parameter.grad is None for parameter in duel.critic.parameters())
        training.step("net", "critic", rate_factor=1.0)
    assert all(parameter.requires_grad for parameter in duel.critic.parameters())
    assert duel.critic.weight.equal(before)
    assert not equal(list(duel.net.parameters()), list(Duel().net.parameters()))


def test_drawing_a_sheet_moves_nothing(tmp_path: Path) -> None:
    duel = Duel()
    before = duel.weights()
    training = duel.training(tmp_path)
    with evaluating(duel.ema.module, fabric=open_fabric(accelerator="cpu")) as net:
        assert not net.training
        rows = [("row", net(torch.randn(6, 4)).view(6, 1, 2, 2))]
        assert not rows[0][1].requires_grad
    training.update = 3
    assert training.sheet_due
    training.sheet(rows)
    assert (tmp_path / "sheets" / "000004.png").is_file()
    assert duel.ema.module.training
    assert equal(before, duel.weights())


def test_an_epoch_takes_every_image_once() -> None:
    taken = torch.cat([batch_indices(update, count=23, batch_size=5, seed=1) for update in range(4)])
    assert len(set(taken.tolist())) == 20
    assert not batch_indices(4, count=23, batch_size=5, seed=1).equal(taken[:5])
    assert batch_indices(2, count=23, batch_size=5, seed=1).equal(taken[10:15])


def test_the_rate_falls_to_zero_over_the_last_part() -> None:
    factors = [round(linear_decay(update, updates=10, fraction=0.4), 3) for update in range(10)]
    assert factors == [1, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert linear_decay(9, updates=10, fraction=0.0) == 1


@pytest.mark.parametrize(("pixels", "tile"), [(16, 64), (64, 64), (128, 128), (256, 256), (512, 256)])
def test_a_sheet_shows_images_at_their_own_size_within_limits(pixels: int, tile: int) -> None:
    images = torch.zeros(2, 3, pixels, pixels)
    assert sheet([("image", images), ("mask", images[:, :1])]).height == 2 * (tile + 3) + 3


def test_one_loss_that_is_no_number_stops_every_optimizer_of_the_step(tmp_path: Path) -> None:
    duel = Duel()
    training = duel.training(tmp_path)
    next(iter(training))
    training.backward({"first": duel.net(torch.ones(6, 4)).square().mean()})
    training.backward({"second": duel.critic(torch.ones(6, 4)).square().mean() * float("nan")})
    before = [tensor.clone() for tensor in duel.net.parameters()]
    with pytest.raises(TrainingError, match="loss/second is nan at update 1"):
        training.step("net", "critic", rate_factor=1.0)
    assert equal(before, list(duel.net.parameters()))
