"""train_cgn on the ImageNet track: its losses, its model file, one process and two, interruption, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cgn.config.imagenet import Losses, TrainCgn
from cgn.config.load import load
from cgn.core.errors import ArtifactError, ConfigError, TrainingError
from cgn.core.metrics import Files, Silent
from cgn.core.seeding import torch_stream
from cgn.imagenet import train_cgn as verb
from cgn.imagenet.generator import load_generator
from cgn.imagenet.pretrained import load_pretrained
from cgn.imagenet.train_cgn import Batch, Nets, batch_losses, build_nets, cgan_images, draw_batch, train_cgn
from cgn.mechanisms import Prior, factual
from tests.support.configs import replace
from tests.support.toy_nets import BIGGAN_CONFIG, KINDS, PARAMS, shrunk, write_nets

LOSSES = {"l1", "perceptual", "binary", "mask_size", "texture", "background"}


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nets(tmp_path_factory.mktemp("assets"))


def without(*names: str) -> Losses:
    """The miniature's weights, some of them 0."""
    losses = PARAMS["miniature"].train_cgn.losses
    zeros: dict[str, Any] = {name: (0.0,) * 4 if name in ("perceptual", "texture") else 0.0 for name in names}
    if "mask_size" in names:
        zeros["mask_size"] = replace(losses.mask_size, weight=0.0)
    return replace(losses, **zeros)


def trained(params: TrainCgn, *, assets: Path, out: Path) -> list[dict[str, float]]:
    """The record, line by line."""
    out.mkdir(exist_ok=True)
    sink = Files(out.with_suffix(".log"))
    # One thread: these nets are too small for two.
    train_cgn(params, seed=0, variant="toy", assets=assets, model=out, sink=sink)
    return [json.loads(line) for line in sink.record.read_text().splitlines()]


def built(params: TrainCgn, *, assets: Path) -> Nets:
    return build_nets(params, assets, device=torch.device("cpu"))


def drawn(params: TrainCgn, nets: Nets, update: int = 0, number: int = 0) -> Batch:
    return draw_batch(params, nets, update, number, seed=0)


@pytest.mark.long
def test_every_loss_is_logged_and_moves_its_mechanism(assets: Path, tmp_path: Path) -> None:
    lines = trained(shrunk(ema_decay=0.0), assets=assets, out=tmp_path / "model")
    iou = {"iou/own", "iou/others", "iou/nearest", "mask/mean"}
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    names = [set(line) - {"step", "time"} for line in lines]
    logged = {f"loss/{name}" for name in LOSSES}
    assert names == [iou, logged, logged | iou, logged, logged | iou]
    tensors, start = load_file(tmp_path / "model" / "model.safetensors"), load_file(assets / "biggan.safetensors")
    for role in ("shape", "texture", "background"):
        moved = [name for name, tensor in start.items() if not tensor.equal(tensors[f"{role}.net.{name}"])]
        assert {"embeddings.weight", "generator.conv_to_rgb.weight_orig", "generator.gen_z.weight_u"} <= set(moved)
        assert not [name for name in moved if "running" in name]
    summary = json.loads((tmp_path / "model.log" / "metrics.json").read_text())
    assert summary["start"]["iou"]["own"] == lines[0]["iou/own"]
    assert summary["iou"]["own"] == lines[-1]["iou/own"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.safetensors", "sheets"]


def test_the_model_draws_without_the_assets(assets: Path, tmp_path: Path) -> None:
    trained(shrunk(), assets=assets, out=tmp_path / "model")
    model = load_generator(tmp_path / "model", variant="toy")
    saliency = load_file(assets / "segmenter.safetensors")
    assert all(tensor.equal(saliency[name]) for name, tensor in model.saliency.state_dict().items())
    prior = Prior(noise_size=BIGGAN_CONFIG.noise_size, truncation=0.5)
    picture = model.generator(factual(torch.arange(3), prior=prior, stream=torch_stream(0, "test")))
    assert picture.image.shape == (3, 3, 32, 32)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_weight_of_zero_leaves_a_loss_out(assets: Path, name: str) -> None:
    params = shrunk(losses=without(name))
    nets = built(params, assets=assets)
    losses = batch_losses(params, nets, drawn(params, nets))
    assert set(losses) == LOSSES - {name}
    assert all(loss.isfinite() and loss >= 0 for loss in losses.values())


def test_nets_that_no_loss_needs_are_not_called(assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = shrunk(losses=without("l1", "perceptual", "texture"))
    nets = built(params, assets=assets)
    for net in (nets.cgan, nets.features):
        monkeypatch.setattr(net, "forward", None)
    batch = drawn(params, nets)
    assert set(batch_losses(params, nets, batch)) == {"binary", "mask_size", "background"}
    with pytest.raises(ValueError, match="above 0 where every other weight is 0"):
        without(*LOSSES)


def test_losses_are_the_weighted_equations(assets: Path) -> None:
    """By hand, from the parts of one batch."""
    params = shrunk()
    nets = built(params, assets=assets)
    batch = drawn(params, nets, 3, 1)
    losses = batch_losses(params, nets, batch)
    picture, weights, target = batch.picture, params.losses, cgan_images(nets, batch.causes)
    x = picture.mask * picture.foreground + (1 - picture.mask) * picture.background
    torch.testing.assert_close(losses["l1"], weights.l1 * (x - target).abs().mean())
    m = picture.mask.double()
    entropy = -(m * m.log2() + (1 - m) * (1 - m).log2()).mean()
    torch.testing.assert_close(losses["binary"].double(), weights.binary * entropy, rtol=1e-4, atol=1e-4)
    size = picture.mask.mean((1, 2, 3))
    hinge = (weights.mask_size.smallest - size).clamp(min=0) + (size - weights.mask_size.largest).clamp(min=0)
    torch.testing.assert_close(losses["mask_size"], weights.mask_size.weight * hinge.mean())
    segment = nets.generator.shape.segment
    assert callable(segment)
    torch.testing.assert_close(losses["background"], weights.background * segment(picture.background).mean())


def test_the_mechanisms_start_as_the_cgan(assets: Path) -> None:
    params = shrunk()
    nets = built(params, assets=assets)
    batch, other = drawn(params, nets), drawn(params, nets, 0, 1)
    target = cgan_images(nets, batch.causes)
    torch.testing.assert_close(batch.picture.foreground, target, atol=1e-5, rtol=0)
    torch.testing.assert_close(batch.picture.image, target, atol=1e-5, rtol=0)
    assert not cgan_images(nets, other.causes).equal(target)
    assert cgan_images(nets, drawn(params, nets).causes).equal(target)


def test_a_batch_has_several_classes(assets: Path) -> None:
    """Pictures of one class and noise would be equal; these differ, and so do the labels."""
    params = shrunk(batch_size=12)
    nets = built(params, assets=assets)
    seen: list[torch.Tensor] = []
    handle = nets.generator.shape.register_forward_pre_hook(lambda _, given: seen.append(given[0].label))
    drawn(params, nets)
    handle.remove()
    assert len(set(seen[0].tolist())) >= 4


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_two_processes_give_the_weights_of_one(assets: Path, tmp_path: Path) -> None:
    params = shrunk(batches_per_update=5, ema_decay=0.5)
    one = trained(params, assets=assets, out=tmp_path / "one")
    two = trained(replace(params, devices=2), assets=assets, out=tmp_path / "two")
    start = load_file(assets / "biggan.safetensors")
    ours, theirs = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=2e-6)
    name = "generator.conv_to_rgb.weight_orig"
    assert (ours[f"texture.net.{name}"] - start[name]).abs().max() > 1e-4, "a tolerance that sees the training"
    assert [line["step"] for line in two] == [line["step"] for line in one]
    for line, other in zip(one, two, strict=True):
        assert {k: v for k, v in other.items() if k != "time"} == pytest.approx(
            {k: v for k, v in line.items() if k != "time"}, rel=1e-3, abs=1e-3
        )
    assert sorted(path.name for path in (tmp_path / "two" / "sheets").iterdir()) == [
        "000000.png",
        "000002.png",
        "000004.png",
    ]


def test_an_interrupted_run_continues_to_the_bit(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = shrunk(updates=5, ema_decay=0.5)
    whole = trained(params, assets=assets, out=tmp_path / "whole")

    def stopped(config: TrainCgn, nets: Nets, update: int, number: int, *, seed: int) -> Batch:
        if (update, number) == (3, 1):
            raise KeyboardInterrupt
        return draw_batch(config, nets, update, number, seed=seed)

    monkeypatch.setattr(verb, "draw_batch", stopped)
    with pytest.raises(KeyboardInterrupt):
        trained(params, assets=assets, out=tmp_path / "cut")
    assert (tmp_path / "cut" / "state.pt").is_file()
    monkeypatch.undo()
    continued = trained(params, assets=assets, out=tmp_path / "cut")
    assert [{**line, "time": 0} for line in continued] == [{**line, "time": 0} for line in whole]
    for path in sorted((tmp_path / "whole").rglob("*.*")):
        assert (tmp_path / "cut" / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()


def test_recomputed_blocks_change_nothing(assets: Path, tmp_path: Path) -> None:
    for checkpointing in ("none", "blocks"):
        params = shrunk(checkpointing=checkpointing, updates=2)
        trained(params, assets=assets, out=tmp_path / checkpointing)
    ours, theirs = weights(tmp_path / "none"), weights(tmp_path / "blocks")
    assert all(tensor.equal(theirs[name]) for name, tensor in ours.items())


def test_half_precision_keeps_masks_and_losses_whole(assets: Path, tmp_path: Path) -> None:
    lines = trained(shrunk(precision="bf16-mixed"), assets=assets, out=tmp_path / "half")
    single = trained(shrunk(), assets=assets, out=tmp_path / "single")
    for name in ("loss/l1", "loss/binary", "loss/background"):
        assert lines[1][name] == pytest.approx(single[1][name], rel=0.05, abs=0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        params = shrunk(precision="bf16-mixed")
        nets = built(params, assets=assets)
        batch = drawn(params, nets)
        assert batch.picture.mask.dtype == cgan_images(nets, batch.causes).dtype == torch.float32
        assert all(loss.dtype == torch.float32 for loss in batch_losses(params, nets, batch).values())


def test_a_loss_that_is_no_number_stops(assets: Path, tmp_path: Path) -> None:
    params = shrunk()
    rates = params.rates.model_copy(update={"background": float("inf")})  # not checked, as a model refuses it
    params = replace(params, rates=rates)
    with pytest.raises(TrainingError, match=r"loss/\w+ is nan at update 2.*last good checkpoint is kept"):
        trained(params, assets=assets, out=tmp_path / "model")


def test_a_gpu_that_runs_out_of_memory_says_what_to_lower(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(verb, "draw_batch", full)
    message = r"does not hold batch_size 2 .*lower train_cgn\.batch_size .*train_cgn\.checkpointing to blocks"
    with pytest.raises(ConfigError, match=message):
        trained(shrunk(), assets=assets, out=tmp_path / "model")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused(assets: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="finds no CUDA GPU here"):
        trained(shrunk(accelerator="cuda", devices=2), assets=assets, out=tmp_path / "model")


def test_a_truncation_off_the_grid_is_refused_by_its_key(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "params.yaml").read_text()
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("nets: miniature", "nets: miniature\n      truncation: 0.505"))
    message = r"imagenet\.miniature\.train_cgn\.truncation is 0\.505, allowed: 0\.02, 0\.04, \.\.\., 1"
    with pytest.raises(ConfigError, match=message):
        load(path)
    with pytest.raises(ValueError, match="devices is 3, allowed: 1 to 2"):
        shrunk(devices=3)


def broken(assets: Path, out: Path, *, kind: str, content: bytes) -> Path:
    """The assets with one file replaced."""
    for path in assets.iterdir():
        (out / path.name).write_bytes(content if path.stem == kind else path.read_bytes())
    return out


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize(("content", "message"), [(b"<html>", "HTML page"), (b"", "empty"), (b"\x80\x02cbuiltins", "")])
def test_a_file_that_is_no_weights_is_named(
    assets: Path, tmp_path: Path, kind: str, content: bytes, message: str
) -> None:
    with pytest.raises(ArtifactError, match=rf"{kind}\.safetensors .*{message}"):
        built(shrunk(), assets=broken(assets, tmp_path, kind=kind, content=content))


def test_a_file_of_another_net_is_refused(assets: Path, tmp_path: Path) -> None:
    swapped = broken(assets, tmp_path, kind="biggan", content=(assets / "features.safetensors").read_bytes())
    with pytest.raises(ArtifactError, match=r"biggan\.safetensors is of kind 'features', expected 'biggan'"):
        built(shrunk(), assets=swapped)


def test_only_the_miniature_has_true_silhouettes(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of published nets no mask is measured: there are no silhouettes to compare with."""
    monkeypatch.setattr(verb, "load_pretrained", lambda folder, **_: load_pretrained(folder, nets="miniature"))
    lines = trained(shrunk(nets="published"), assets=assets, out=tmp_path / "model")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(set(line) == {"step", "time", *(f"loss/{name}" for name in LOSSES)} for line in lines)
    assert json.loads((tmp_path / "model.log" / "metrics.json").read_text()).keys() == {"loss"}


def test_a_finished_model_is_checked_not_trained_again(assets: Path, tmp_path: Path) -> None:
    trained(shrunk(updates=1), assets=assets, out=tmp_path / "model")
    file, summary = tmp_path / "model" / "model.safetensors", tmp_path / "model.log" / "details.json"
    before, metrics = file.read_bytes(), summary.read_text()
    trained(shrunk(updates=1), assets=assets, out=tmp_path / "model")
    assert (file.read_bytes(), summary.read_text()) == (before, metrics)


def test_silent_runs_need_no_record(assets: Path, tmp_path: Path) -> None:
    train_cgn(shrunk(updates=1), seed=0, variant="toy", assets=assets, model=tmp_path, sink=Silent())
    assert (tmp_path / "model.safetensors").is_file()
