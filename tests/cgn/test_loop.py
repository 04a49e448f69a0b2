"""The training loop: resumes to the bit, stops on what is not a number, draws without moving anything."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cgn.core.checkpoints import load_state
from cgn.core.devices import fabric
from cgn.core.errors import ArtifactError, TrainingError
from cgn.core.images import sheet
from cgn.core.metrics import Files, Silent
from cgn.core.seeding import torch_stream
from cgn.training.loop import STATE, Average, Schedule, Training, batch_indices
from cgn.training.phase import Mover, Objective, Phase, adam, linear_decay

UPDATES = 12


class Stop(Exception):  # noqa: N818 (no error)
    """Stands for a kill."""


def training(*, decay: float = 0.9, stop_at: int | None = None, poison_at: int | None = None) -> Training[torch.Tensor]:
    """A net with dropout and batch norm against a critic, small enough to run in milliseconds."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
    critic = nn.Linear(4, 1)

    def draw(update: int, batch: int) -> torch.Tensor:
        assert batch == 0
        if update == stop_at:
            raise Stop
        drawn[:] = [update]
        made: torch.Tensor = net(torch.randn(6, 4, generator=torch_stream(1, update)))
        return made

    def losses(x: torch.Tensor) -> dict[str, torch.Tensor]:
        value = critic(x).square().mean()
        return {"first": value * (float("nan") if drawn == [poison_at] else 1.0), "second": x.abs().mean()}

    drawn: list[int] = []
    factor = linear_decay(updates=UPDATES, fraction=0.5)
    movers = {
        name: Mover(module=module, optimizer=adam(module, rate=0.01, betas=(0.5, 0.999)), factor=factor)
        for name, module in (("net", net), ("critic", critic))
    }
    phases = [
        Phase(name="net", losses=losses, movers=("net",)),
        Phase(name="critic", losses=lambda x: {"critic": (critic(x.detach()) - 1).square().mean()}, movers=("critic",)),
    ]
    objective = Objective(
        generator=net, movers=movers, phases=phases, draw=draw, sheet=lambda _: [("row", torch.zeros(2, 3, 8, 8))]
    )
    return Training(
        fabric=fabric(accelerator="cpu"),
        objective=objective,
        average=Average(net, decay=decay),
        seed=3,
        schedule=Schedule(updates=UPDATES, log=1, checkpoint=5, sheet=4),
    )


def weights(run: Training[torch.Tensor]) -> list[torch.Tensor]:
    modules = [run.average.module, *(mover.module for mover in run.objective.movers.values())]
    return [tensor.clone() for module in modules for tensor in module.state_dict().values()]


@pytest.mark.parametrize("decay", [0.0, 0.9])
@pytest.mark.parametrize("stop_at", [3, 5, 11])
def test_a_stopped_run_continues_to_the_same_weights_and_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], decay: float, stop_at: int
) -> None:
    whole = training(decay=decay)
    whole.run(tmp_path / "whole", sink=Files(tmp_path / "whole.log"))
    with pytest.raises(Stop):
        training(decay=decay, stop_at=stop_at).run(tmp_path / "cut", sink=Files(tmp_path / "cut.log"))
    continued = training(decay=decay)
    capsys.readouterr()
    continued.run(tmp_path / "cut", sink=Files(tmp_path / "cut.log"))
    continues = f"continues after update {stop_at // 5 * 5} of {UPDATES}, from {tmp_path / 'cut' / STATE}"
    assert (continues in capsys.readouterr().err) == (stop_at >= 5)
    assert all(a.equal(b) for a, b in zip(weights(whole), weights(continued), strict=True))
    records = [(tmp_path / f"{name}.log" / "metrics.jsonl").read_text().splitlines() for name in ("whole", "cut")]
    without_time = [
        [{k: v for k, v in json.loads(line).items() if k != "time"} for line in record] for record in records
    ]
    assert without_time[0] == without_time[1]
    assert len(without_time[0]) == UPDATES


def test_the_batches_of_a_long_update_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[tuple[str, int]] = []

    class Counter:
        def update(self, n: int = 1, /) -> None:
            counted.append(("batch", n))

    @contextmanager
    def progress(**options: Any) -> Iterator[Counter]:
        counted.append((options["unit"], options["total"]))
        yield Counter()

    monkeypatch.setattr("cgn.training.loop.progress", progress)
    run = training()
    several = replace(
        run.objective,
        phases=run.objective.phases[:1],
        batches_per_update=4,
        draw=lambda _, batch: run.objective.generator(torch.randn(6, 4) + batch),
    )
    replace(run, objective=several, schedule=replace(run.schedule, updates=2)).run(tmp_path, sink=Silent())
    assert counted == [("batches (4 an update)", 8), *[("batch", 1)] * 8]


def test_the_comparison_can_fail(tmp_path: Path) -> None:
    whole, other = training(), training()
    whole.run(tmp_path / "a", sink=Silent())
    for mover in other.objective.movers.values():
        mover.optimizer.param_groups[0]["initial_lr"] = 0.02
    other.run(tmp_path / "b", sink=Silent())
    assert not all(a.equal(b) for a, b in zip(weights(whole), weights(other), strict=True))


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    run = training(poison_at=7)
    with pytest.raises(TrainingError, match=r"loss/first is nan at update 8.*last good checkpoint is kept"):
        run.run(tmp_path, sink=Silent())
    assert load_state(tmp_path / STATE)["update"] == 5
    assert all(tensor.isfinite().all() for tensor in weights(run))


def test_a_broken_or_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    run = training()
    run.save(tmp_path, update=5)
    state = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(state[: len(state) // 2])
    with pytest.raises(
        ArtifactError, match=r"state\.pt holds no whole checkpoint .*remove it and run the same command again"
    ):
        training().run(tmp_path, sink=Silent())
    torch.save({"update": 5, "average": {}}, tmp_path / STATE)
    with pytest.raises(ArtifactError, match="of another training"):
        training().run(tmp_path, sink=Silent())


def test_only_the_modules_of_a_phase_move() -> None:
    run = training()
    before = weights(run)
    mover = run.objective.movers["critic"]
    for phase in run.objective.phases:
        with run._only(phase):
            frozen = [p.requires_grad for p in mover.module.parameters()]
            assert all(frozen) == (phase.name == "critic")
    assert all(p.requires_grad for p in mover.module.parameters())
    assert all(a.equal(b) for a, b in zip(before, weights(run), strict=True))


def test_drawing_a_sheet_moves_nothing(tmp_path: Path) -> None:
    run = training()
    before = weights(run)
    path = run._draw_sheet(tmp_path, update=4)
    assert path == tmp_path / "sheets" / "000004.png"
    assert path.is_file()
    assert run.average.module.training
    assert all(a.equal(b) for a, b in zip(before, weights(run), strict=True))


def test_an_epoch_takes_every_image_once() -> None:
    taken = torch.cat([batch_indices(update, count=23, batch_size=5, seed=1) for update in range(4)])
    assert len(set(taken.tolist())) == 20
    assert not batch_indices(4, count=23, batch_size=5, seed=1).equal(taken[:5])
    assert batch_indices(2, count=23, batch_size=5, seed=1).equal(taken[10:15])


def test_the_rate_falls_to_zero_over_the_last_part() -> None:
    factor = linear_decay(updates=10, fraction=0.4)
    assert [round(factor(update), 3) for update in range(10)] == [1, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert linear_decay(updates=10, fraction=0.0)(9) == 1


@pytest.mark.parametrize(("pixels", "tile"), [(16, 64), (64, 64), (128, 128), (256, 256), (512, 256)])
def test_a_sheet_shows_images_at_their_own_size_within_limits(pixels: int, tile: int) -> None:
    images = torch.zeros(2, 3, pixels, pixels)
    assert sheet([("image", images), ("mask", images[:, :1])]).height == 2 * (tile + 3) + 3
