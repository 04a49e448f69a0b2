"""BigGAN-deep: the published code's outputs, its keys, its spectral norm; and folded, the same pictures."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cgn.core.checkpoints import load_strictly, load_weights
from cgn.core.errors import ArtifactError, ConfigError
from cgn.nets.biggan import BIGGAN_DEEP_256, BigGan, BigGanConfig
from cgn.nets.biggan_folded import fold
from cgn.nets.spectral import SpectralConv2d, SpectralLinear

TRUNCATIONS = ("1.0", "0.5", "0.4")
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def golden(test_data: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(test_data / "golden" / "biggan_deep_small.pt", weights_only=True)
    return loaded


def table(config: dict[str, Any]) -> BigGanConfig:
    return BigGanConfig(
        noise_size=config["z_dim"],
        embedding_size=config["class_embed_dim"],
        classes=config["num_classes"],
        width=config["channel_width"],
        blocks=tuple((doubling, channels, out) for doubling, channels, out in config["layers"]),
        attention_at=config["attention_layer_position"],
        statistics=config["n_stats"],
        epsilon=config["eps"],
    )


def published(golden: dict[str, Any]) -> BigGan:
    net = BigGan(table(golden["config"]))
    load_strictly(net, golden["state_dict"], source="golden")
    return net.eval()


@torch.no_grad()
def difference(golden: dict[str, Any], images: torch.Tensor, truncation: str) -> float:
    return float((images - golden["outputs"][truncation]).abs().max())


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_outputs_equal_the_published_ones(golden: dict[str, Any], truncation: str) -> None:
    net, label = published(golden), golden["y_onehot"].argmax(1)
    with torch.no_grad():
        images = net(golden["u"], label, truncation=float(truncation))
        folded = fold(net, truncation=float(truncation))(golden["u"], label)
    print(f"\n{truncation}: {difference(golden, images, truncation)}, folded {difference(golden, folded, truncation)}")
    assert difference(golden, images, truncation) <= TOLERANCE
    assert difference(golden, folded, truncation) <= TOLERANCE


def test_the_comparison_can_fail(golden: dict[str, Any]) -> None:
    net, label = published(golden), golden["y_onehot"].argmax(1)
    with torch.no_grad():
        images = net(golden["u"], label, truncation=0.5)
    assert difference(golden, images, "0.4") > 1000 * TOLERANCE
    assert difference(golden, images.roll(1, 0), "0.5") > 1000 * TOLERANCE


def test_the_net_of_256_px_has_the_published_keys(test_data: Path) -> None:
    manifest = json.loads((test_data / "golden" / "state_dict_manifests.json").read_text())["biggan_deep_256"]
    net = BigGan(BIGGAN_DEEP_256)
    assert {name: list(tensor.shape) for name, tensor in net.state_dict().items()} == manifest
    assert len(manifest) == 602
    assert BIGGAN_DEEP_256.image_size == 256


def test_every_truncation_of_the_grid_has_its_own_row() -> None:
    assert [BIGGAN_DEEP_256.row(step * 0.02) for step in range(51)] == list(range(51))
    assert [BIGGAN_DEEP_256.row(float(f"{step / 50:.2f}")) for step in range(51)] == list(range(51))


@pytest.mark.parametrize(
    ("truncation", "near"),
    [(0.505, "0.5 or 0.52"), (0.999, "0.98 or 1"), (1.02, "1"), (-0.02, "0"), (float("nan"), "0"), (1e-5, "0 or 0.02")],
)
def test_a_truncation_off_the_grid_is_refused(golden: dict[str, Any], truncation: float, near: str) -> None:
    net = published(golden)
    message = rf"truncation is {truncation}: .* 0, 0\.02, 0\.04, \.\.\., 1 only; nearest: {near}$"
    with pytest.raises(ConfigError, match=message):
        net(golden["u"], golden["y_onehot"].argmax(1), truncation=truncation)
    with pytest.raises(ConfigError, match=message):
        fold(net, truncation=truncation)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"blocks": ((False, 4, 2), (True, 4, 2))}, "each must take the channels"),
        ({"blocks": ()}, "each must take the channels"),
        ({"blocks": ((True, 2, 4),)}, "can drop channels, not add"),
        ({"attention_at": 2}, "attention_at is 2, allowed: 0 to 1"),
        ({"statistics": 1}, "statistics is 1, allowed: 2 or more"),
    ],
)
def test_an_impossible_config_is_refused(values: dict[str, Any], message: str) -> None:
    given = {"noise_size": 4, "embedding_size": 4, "classes": 3, "width": 4, "attention_at": 1}
    with pytest.raises(ConfigError, match=message):
        BigGanConfig(**{**given, "blocks": ((True, 4, 4), (False, 4, 2)), **values})


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_spectral_norm_is_torchs_old_one(kind: str, training: bool) -> None:
    torch.manual_seed(0)
    bare: nn.Module = nn.Conv2d(4, 6, 3, padding=1) if kind == "conv" else nn.Linear(4, 6)
    theirs = nn.utils.spectral_norm(bare, eps=1e-4)
    ours = SpectralConv2d(4, 6, 3, epsilon=1e-4) if kind == "conv" else SpectralLinear(4, 6, epsilon=1e-4)
    load_strictly(ours, theirs.state_dict(), source="torch's")
    before = ours.weight_u.clone()
    ours.train(training)
    theirs.train(training)
    x = torch.randn(3, 4, 5, 5) if kind == "conv" else torch.randn(3, 4)
    for _ in range(3):
        found, expected = ours(x), theirs(x)
        torch.testing.assert_close(found, expected)
        (gradient,) = torch.autograd.grad(found.square().sum(), [ours.weight_orig])
        (wanted,) = torch.autograd.grad(expected.square().sum(), [theirs.get_parameter("weight_orig")])
        torch.testing.assert_close(gradient, wanted)
    torch.testing.assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()))
    assert ours.weight_u.equal(before) is not training


def test_a_new_weight_has_norm_one_and_two_forwards_before_a_backward_are_fine() -> None:
    torch.manual_seed(0)
    layer = SpectralLinear(16, 24, epsilon=1e-4)
    assert torch.linalg.matrix_norm(layer.weight, ord=2).item() == pytest.approx(1, abs=0.02)
    x = torch.randn(2, 16)
    first, second = layer(x).sum(), layer(x).sum()
    assert torch.autograd.grad(first + second, [layer.weight_orig])[0].isfinite().all()


def test_training_iterates_the_spectral_norm_and_leaves_the_statistics_alone(golden: dict[str, Any]) -> None:
    net, label = published(golden), golden["y_onehot"].argmax(1)
    before = copy.deepcopy(net.state_dict())
    net.train()(golden["u"], label)
    changed = {name for name, tensor in net.state_dict().items() if not tensor.equal(before[name])}
    # A map to one channel has a u of one number, which stays 1; every other u and v takes a step.
    assert changed == {n for n, t in before.items() if n.endswith(("weight_u", "weight_v")) and t.numel() > 1}


def test_folding_does_not_change_the_net_and_shares_no_tensor_with_it(golden: dict[str, Any]) -> None:
    net, label = published(golden).train(), golden["y_onehot"].argmax(1)
    before = copy.deepcopy(net.state_dict())
    folded = fold(net, truncation=0.5)
    assert net.training
    assert all(tensor.equal(before[name]) for name, tensor in net.state_dict().items())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert difference(golden, folded(golden["u"], label), "0.5") <= TOLERANCE


def test_a_net_can_be_copied_after_a_step_of_training(golden: dict[str, Any]) -> None:
    net, label = published(golden), golden["y_onehot"].argmax(1)
    net.train()(golden["u"], label).sum().backward()
    twin = copy.deepcopy(net).eval()
    with torch.no_grad():
        assert twin(golden["u"], label).equal(net.eval()(golden["u"], label))


def test_half_precision_leaves_the_norm_in_single(golden: dict[str, Any]) -> None:
    layer = published(golden).generator.gen_z
    assert isinstance(layer, SpectralLinear)
    expected = layer.weight
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.weight.equal(expected)
        assert layer(torch.zeros(1, 32)).dtype == torch.bfloat16


def test_what_does_not_fit_is_named(golden: dict[str, Any], tmp_path: Path) -> None:
    state = dict(golden["state_dict"])
    state["generator.renamed"] = state.pop("generator.bn.bias")
    state["generator.gen_z.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "biggan.bin")
    message = (
        r"biggan\.bin does not fit BigGan: missing: generator\.bn\.bias; unknown: generator\.renamed; "
        r"of another shape: generator\.gen_z\.bias \(3,\), expected \(2048,\)"
    )
    with pytest.raises(ArtifactError, match=message):
        load_strictly(
            BigGan(table(golden["config"])), load_weights(tmp_path / "biggan.bin"), source=str(tmp_path / "biggan.bin")
        )


def test_a_file_that_is_cut_short_is_an_error(golden: dict[str, Any], tmp_path: Path) -> None:
    torch.save(golden["state_dict"], tmp_path / "whole.bin")
    content = (tmp_path / "whole.bin").read_bytes()
    (tmp_path / "cut.bin").write_bytes(content[: len(content) // 2])
    assert len(load_weights(tmp_path / "whole.bin")) == 314
    with pytest.raises(ArtifactError, match=r"cut\.bin holds no weights .*cut short"):
        load_weights(tmp_path / "cut.bin")


def test_shares_of_classes_mix_their_embeddings(golden: dict[str, Any]) -> None:
    net, label = published(golden), golden["y_onehot"].argmax(1)
    folded = fold(net, truncation=0.5)
    with torch.no_grad():
        expected = folded(golden["u"], label)
        assert folded(golden["u"], golden["y_onehot"].float()).equal(expected)
        torch.testing.assert_close(
            net(golden["u"], golden["y_onehot"].float(), truncation=0.5), expected, atol=1e-5, rtol=0
        )
        between = folded(golden["u"], (golden["y_onehot"] + golden["y_onehot"].roll(1, 0)).float() / 2)
    assert (between - expected).abs().max() > 1e-2


def test_half_precision_draws_nearly_the_same(golden: dict[str, Any]) -> None:
    net, label = published(golden), golden["y_onehot"].argmax(1)
    with torch.no_grad():
        half = fold(net, truncation=0.5, dtype=torch.bfloat16)(golden["u"], label)
    assert half.dtype == torch.float32
    off = (half - golden["outputs"]["0.5"]).abs()
    assert 0 < off.mean() < 0.02
