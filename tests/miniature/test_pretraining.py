"""The miniature's pretraining: a few updates of tiny nets, uninterrupted and resumed, the report, the command."""

import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cgn.core.checkpoints import load_model
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.files import read_json
from cgn.miniature.nets import load_biggan, load_features, load_segmenter, save_features
from cgn.miniature.pretraining import biggan, features, segmenter
from cgn.miniature.pretraining.__main__ import NETS, main, pretrain
from cgn.miniature.pretraining.config import PretrainingConfig, load_config
from cgn.miniature.pretraining.report import difference_from_shipped
from cgn.miniature.shipped import FEATURES, SHIPPED
from tests.support.trainings import PRETRAINING, Stop

PARAMS = Path(__file__).parents[2] / "results" / "imagenet" / "pretraining" / "params.yaml"
LOAD: dict[str, Callable[[Path], torch.nn.Module]] = {
    "biggan": load_biggan,
    "segmenter": load_segmenter,
    "features": load_features,
}


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pretraining's own parameters with tiny nets and few updates."""
    values = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    for name, tiny in PRETRAINING.items():
        values[name] |= tiny
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tiny(params: Path) -> PretrainingConfig:
    return load_config(params)


@pytest.mark.long
@pytest.mark.parametrize("name", NETS)
def test_a_killed_training_ends_like_an_uninterrupted_one(
    name: str, tiny: PretrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pretrain(name, tiny, nets=tmp_path / "whole")
    with monkeypatch.context() as patched:
        _stopped_at(3, patched)
        with pytest.raises(Stop):
            pretrain(name, tiny, nets=tmp_path / "killed")
    assert not (tmp_path / "killed" / whole.name).exists()
    resumed = pretrain(name, tiny, nets=tmp_path / "killed")
    assert resumed.read_bytes() == whole.read_bytes()
    other = pretrain(name, replace(tiny, seed=2), nets=tmp_path / "other")
    assert other.read_bytes() != whole.read_bytes()
    assert all(tensor.isfinite().all() for tensor in LOAD[name](whole).state_dict().values())


def test_a_finished_net_is_not_trained_again(
    tiny: PretrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pretrain("features", tiny, nets=tmp_path)
    _stopped_at(0, monkeypatch)
    assert pretrain("features", tiny, nets=tmp_path) == path
    path.unlink()  # as DVC does where code has changed
    with pytest.raises(Stop):
        pretrain("features", tiny, nets=tmp_path)


def test_a_training_with_another_config_begins_anew(
    tiny: PretrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faster = replace(tiny, features=replace(tiny.features, rate=0.1))
    expected = pretrain("features", faster, nets=tmp_path / "alone")
    with monkeypatch.context() as patched:
        _stopped_at(3, patched)
        with pytest.raises(Stop):
            pretrain("features", tiny, nets=tmp_path)
    assert pretrain("features", faster, nets=tmp_path).read_bytes() == expected.read_bytes()


@pytest.mark.long
def test_the_command_trains_all_and_reports(params: Path, tiny: PretrainingConfig, tmp_path: Path) -> None:
    assert main(["all", "--params", str(params), "--nets", str(tmp_path), "--report", str(tmp_path / "report")]) == 0
    report = read_json(tmp_path / "report" / "report.json")
    assert set(report) == set(NETS)
    for name, part in report.items():
        assert part["seed"] == 0
        assert part["updates"] == 4
        assert part["file"]["bytes"] == (tmp_path / part["file"]["name"]).stat().st_size
        assert part["config"]["images"] == getattr(tiny, name).images
        assert part["metrics"]
    assert all(f"**{name}**" in (tmp_path / "report" / "report.md").read_text() for name in NETS)
    sheets = {path.name for path in (tmp_path / "report").glob("*.png")}
    assert sheets == {"segmenter.png", *(f"biggan-{name}.png" for name in ("1", "0.5", "1-saliency", "0.5-saliency"))}


def test_a_wrong_parameter_is_refused_with_its_key(
    params: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, value, message in (
        ("updates", 0, "biggan.updates is 0, allowed: 1 or more"),
        ("updates", "x", "biggan.updates is 'x'"),
        ("update", 3, "biggan.update is unknown .did you mean updates"),
        ("images_per_class", 5, "biggan.images_per_class is 5, allowed: 1 to 4"),
        ("precision", "half", "biggan.precision is 'half', allowed: 32-true, bf16-mixed"),
    ):
        values = yaml.safe_load(params.read_text(encoding="utf-8"))
        values["biggan"][key] = value
        (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        with pytest.raises(ConfigError, match=message):
            load_config(tmp_path / "wrong.yaml")
    assert main(["features", "--params", str(tmp_path / "none.yaml"), "--nets", str(tmp_path)]) == 1
    assert "none.yaml is missing" in capsys.readouterr().err


def test_another_nets_file_is_refused(tiny: PretrainingConfig, tmp_path: Path) -> None:
    path = pretrain("features", tiny, nets=tmp_path)
    with pytest.raises(ArtifactError, match="is of kind 'features', expected 'biggan'"):
        load_biggan(path)


def test_the_parameters_are_those_of_the_shipped_nets() -> None:
    config = load_config(PARAMS)
    nets = {"biggan": asdict(config.biggan.net), "segmenter": asdict(config.segmenter.net)}
    nets["features"] = {"blocks": config.features.blocks}
    for file in SHIPPED:
        name = file.path.stem
        _, facts = load_model(file.path)
        assert _lists(nets[name]) == facts["net"]
        numbers = [int(number) for number in re.findall(r"\d+", facts["made_by"])]
        assert numbers == [config.seed, getattr(config, name).updates]


def test_a_reproduced_net_is_recognized(tmp_path: Path) -> None:
    net, blocks = load_features(FEATURES.verified()), load_config(PARAMS).features.blocks
    path = tmp_path / "features.safetensors"
    save_features(path, net, blocks=blocks, made_by="a test")
    assert difference_from_shipped(path) == 0
    with torch.no_grad():
        next(net.parameters())[0] += 0.5
    save_features(path, net, blocks=blocks, made_by="a test")
    assert difference_from_shipped(path) == pytest.approx(0.5, abs=1e-3)


def test_the_weight_of_the_difference_grows_from_the_first_to_the_last() -> None:
    config = replace(load_config(PARAMS).biggan, difference=40, last_difference=150, growth_from=2_000, updates=6_000)
    weights = [biggan.difference_weight(config, update) for update in (0, 2_000, 4_000, 6_000)]
    assert weights == [40, 40, 95, 150]


def _stopped_at(stop: int, patch: pytest.MonkeyPatch) -> None:
    """Every training is killed as it draws the batch of this update."""
    for module in (biggan, features, segmenter):
        draw = module.batch_indices

        def drawn(update: int, *, draw: Any = draw, **arguments: Any) -> torch.Tensor:
            if update == stop:
                raise Stop
            indices: torch.Tensor = draw(update, **arguments)
            return indices

        patch.setattr(module, "batch_indices", drawn)


def _lists(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    if isinstance(value, dict):
        return {key: _lists(part) for key, part in value.items()}
    return [_lists(part) for part in value] if isinstance(value, list | tuple) else value
