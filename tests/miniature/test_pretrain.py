"""The miniature's pretraining: a few updates of tiny nets, whole and resumed, and the report on them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cgn.miniature.pretraining import biggan as adversarial
from cgn.miniature.pretraining import features as supervised
from cgn.miniature.pretraining import report as report
from cgn.miniature.pretraining.__main__ import RECIPES, Recipe, main, pretrain
from cgn.miniature.pretraining.config import Adversarial, Features, Segmenter

from cgn.core.errors import ArtifactError
from cgn.core.files import read_json
from cgn.miniature import nets
from cgn.nets.biggan import BigGanConfig
from cgn.nets.u2net import Widths

TABLE = BigGanConfig(
    noise_size=32,
    embedding_size=4,
    classes=9,
    width=8,
    blocks=((True, 2, 2), (True, 2, 1), (True, 1, 1)),
    attention_at=1,
    statistics=3,
)
OFTEN: dict[str, Any] = {"updates": 4, "log_updates": 1, "checkpoint_updates": 2, "sheet_updates": 4}
TINY: dict[str, Recipe] = {
    "biggan": Adversarial(
        table=TABLE,
        discriminator_width=4,
        images=36,
        images_per_class=2,
        precision="32-true",
        compiler="eager",
        statistics_batches=2,
        statistics_batch_size=18,
        **OFTEN,
    ),
    "segmenter": Segmenter(widths=Widths(down=((2, 4),) * 6, up=((2, 4),) * 5), images=36, batch_size=6, **OFTEN),
    "features": Features(blocks=((4,), (4,), (6,), (6,)), images=120, batch_size=6, precision="32-true", **OFTEN),
}
LOAD: dict[str, Callable[[Path], torch.nn.Module]] = {
    "biggan": nets.load_biggan,
    "segmenter": nets.load_segmenter,
    "features": nets.load_features,
}


class Stop(Exception):  # noqa: N818 (no error)
    """Stands for a kill."""


@pytest.mark.parametrize("name", list(TINY))
def test_a_killed_training_ends_like_an_unbroken_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pretrain(name, TINY[name], tmp_path / "whole", seed=1)
    with monkeypatch.context() as patched:
        _stopped_at(3, patched)
        with pytest.raises(Stop):
            pretrain(name, TINY[name], tmp_path / "killed", seed=1)
    assert not (tmp_path / "killed" / whole.name).exists()
    resumed = pretrain(name, TINY[name], tmp_path / "killed", seed=1)
    assert resumed.read_bytes() == whole.read_bytes()
    other = pretrain(name, TINY[name], tmp_path / "other", seed=2)
    assert other.read_bytes() != whole.read_bytes()
    assert all(tensor.isfinite().all() for tensor in LOAD[name](whole).state_dict().values())


def test_a_finished_net_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pretrain("features", TINY["features"], tmp_path, seed=1)
    _stopped_at(0, monkeypatch)
    assert pretrain("features", TINY["features"], tmp_path, seed=1) == path
    with pytest.raises(Stop):
        pretrain("features", replace(TINY["features"], updates=5), tmp_path / "longer", seed=1)


def test_the_command_trains_all_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cgn.miniature.pretraining.report.PER_CLASS", 2)
    monkeypatch.setattr("cgn.miniature.pretraining.report.READOUT_IMAGES", 60)
    monkeypatch.setattr(report, "TRUNCATIONS", (1.0, 0.5))
    for name, recipe in TINY.items():
        monkeypatch.setitem(RECIPES, name, recipe)
    assert main(["--out", str(tmp_path), "--seed", "3"]) == 0
    told = read_json(tmp_path / "report.json")
    assert set(told) == set(TINY)
    for name, part in told.items():
        assert part["seed"] == 3
        assert part["updates"] == TINY[name].updates
        assert part["file"]["bytes"] == (tmp_path / part["file"]["name"]).stat().st_size
        assert part["figures"]
    assert all(f"**{name}**" in (tmp_path / "report.md").read_text() for name in TINY)
    assert {path.name for path in tmp_path.glob("*.png")} >= {"segmenter.png", "biggan-1.png", "biggan-0.5.png"}


def test_another_nets_file_is_refused(tmp_path: Path) -> None:
    path = pretrain("features", TINY["features"], tmp_path, seed=1)
    with pytest.raises(ArtifactError, match="is of kind 'features', expected 'biggan'"):
        nets.load_biggan(path)


def _stopped_at(stop: int, patch: pytest.MonkeyPatch) -> None:
    """Every training is killed as it draws the batch of this update."""
    for module in (adversarial, supervised):
        draw = module.batch_indices

        def drawn(update: int, *, draw: Any = draw, **given: Any) -> torch.Tensor:
            if update == stop:
                raise Stop
            indices: torch.Tensor = draw(update, **given)
            return indices

        patch.setattr(module, "batch_indices", drawn)


def test_the_weight_of_the_difference_grows_from_the_first_to_the_last() -> None:
    recipe = Adversarial(difference=40, last_difference=150, growth_from=2_000, updates=6_000)
    told = [adversarial.difference_weight(recipe, update) for update in (0, 2_000, 4_000, 6_000)]
    assert told == [40, 40, 95, 150]
