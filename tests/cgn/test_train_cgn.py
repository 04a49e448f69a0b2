"""train_cgn on the MNIST track: every choice of parameters reaches the training it names."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from cgn.config.load import load
from cgn.config.mnist.train_cgn import Border, Losses, Perceptual, TrainCgn
from cgn.config.schema import Mnist
from cgn.core.checkpoints import load_model, load_strictly
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.metrics import Files
from cgn.core.seeding import torch_stream
from cgn.data.shards import Sample, write_manifest, write_shard
from cgn.mechanisms.causes import Prior, factual
from cgn.nets.vgg import VggFeatures
from cgn.stages.train_cgn import train_cgn
from cgn.tracks.mnist.mechanisms import generator, soften
from cgn.tracks.mnist.train_cgn import parts

VARIANTS = load(Path(__file__).parents[2] / "params.yaml").tracks["mnist"]
PARAMS = {name: record for name, record in VARIANTS.items() if isinstance(record, Mnist)}


def shrunk(variant: str, **losses: Any) -> TrainCgn:
    """A variant's parameters for three updates of small nets on the CPU."""
    params = PARAMS[variant].train_cgn
    no_features = Perceptual(features="none", weights=(0.0, 0.0, 0.0, 0.0))
    return replace(
        params,
        mechanisms=replace(params.mechanisms, shape_width=4, tile_width=4),
        discriminator=replace(params.discriminator, width=8),
        losses=replace(params.losses, **({"perceptual": no_features} | losses)),
        batch_size=4,
        updates=3,
        intervals=replace(params.intervals, log=1),
        accelerator="cpu",
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    pixels = torch.randint(256, (20, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    labels = [{"shape": i % 10, "texture": i % 10, "background": i % 10} for i in range(20)]
    samples = [Sample(image=image, facts=facts) for image, facts in zip(pixels, labels, strict=True)]
    shard = write_shard(folder, samples, split="train", number=0, first_index=0)
    write_manifest(folder, [shard], facts={"track": "mnist", "variant": "colored", "image_size": 32})
    return folder


def trained(params: TrainCgn, *, data: Path, out: Path, assets: Path | None = None) -> list[dict[str, float]]:
    """The logged losses, update by update."""
    out.mkdir()
    sink = Files(out.with_suffix(".log"))
    train_cgn(parts(params, seed=0, variant="colored"), assets=assets or out, data=data, model=out, sink=sink)
    return [json.loads(line) for line in sink.record.read_text().splitlines()]


@pytest.mark.parametrize("variant", ["digits", "colored", "double_colored", "wildlife"])
def test_every_variant_trains(data: Path, tmp_path: Path, variant: str) -> None:
    params = shrunk(variant)
    lines = trained(params, data=data, out=tmp_path / "model")
    expected = {"loss/adversarial", "loss/binary", "loss/discriminator"}
    expected |= {"loss/mismatched"} if params.losses.mismatched else set()
    expected |= {"loss/mask_size"} if params.losses.mask_size.weight else set()
    expected |= {"loss/border"} if params.losses.border.weight else set()
    assert [set(line) - {"step", "time"} for line in lines] == [expected] * 3
    tensors, facts = load_model(tmp_path / "model" / "model.safetensors", track="mnist", variant="colored")
    load_strictly(generator(**facts["net"]), tensors, source="model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.safetensors", "sheets"]


@pytest.mark.parametrize("kind", ["linear", "conv", "projection"])
def test_every_discriminator_learns_to_tell(
    data: Path, tmp_path: Path, kind: Literal["linear", "conv", "projection"]
) -> None:
    params = shrunk("digits", adversarial=0.0, mismatched=0.0)
    rates = replace(params.optimizer, discriminator_rate=3e-3, decay_fraction=0.0)
    params = replace(params, discriminator=replace(params.discriminator, kind=kind), optimizer=rates, updates=60)
    losses = [line["loss/discriminator"] for line in trained(params, data=data, out=tmp_path / "model")]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_a_weight_of_zero_leaves_a_loss_out(data: Path, tmp_path: Path) -> None:
    unused = Border(weight=0.0, width=1, largest=0.0)
    lines = trained(shrunk("digits", binary=0.0, mismatched=0.0, border=unused), data=data, out=tmp_path / "model")
    assert set(lines[0]) == {"step", "time", "loss/adversarial", "loss/discriminator"}


def test_vgg_features_of_a_file_reach_the_loss(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    assets = tmp_path / "assets"
    assets.mkdir()
    state = VggFeatures().state_dict() | {"classifier.0.weight": torch.zeros(2), "features.24.weight": torch.zeros(2)}
    torch.save(state, assets / "vgg16-397923af.pth")
    params = shrunk("colored", perceptual=PARAMS["colored"].train_cgn.losses.perceptual)
    assert params.losses.perceptual.features == "vgg16"
    lines = trained(params, data=data, out=tmp_path / "model", assets=assets)
    assert lines[0]["loss/perceptual"] > 0
    del state["features.0.weight"]
    torch.save(state, assets / "vgg16-397923af.pth")
    with pytest.raises(
        ArtifactError, match=r"vgg16-397923af\.pth does not fit VggFeatures: missing: features\.0\.weight"
    ):
        trained(params, data=data, out=tmp_path / "other", assets=assets)


def test_squeezenet_features_of_the_real_file_reach_the_loss(test_data: Path, data: Path, tmp_path: Path) -> None:
    perceptual = Perceptual(features="squeezenet", weights=(0.05, 0.1, 0.01, 0.0))
    params = shrunk("colored", perceptual=perceptual)
    lines = trained(params, data=data, out=tmp_path / "model", assets=test_data / "squeezenet")
    assert lines[0]["loss/perceptual"] > 0


def test_a_batch_larger_than_the_data_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train_cgn\.batch_size is 64, but .* has 20 images"):
        trained(replace(shrunk("digits"), batch_size=64), data=data, out=tmp_path / "model")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="finds no CUDA GPU here"):
        trained(replace(shrunk("digits"), accelerator="cuda"), data=data, out=tmp_path / "model")


def test_losses_are_a_record_of_weights() -> None:
    with pytest.raises(ValueError, match="mismatched"):
        replace(PARAMS["digits"].train_cgn.losses, mismatched=-1.0)
    assert isinstance(PARAMS["digits"].train_cgn.losses, Losses)


def test_softened_tiles_start_nearer_to_grey() -> None:
    torch.manual_seed(0)
    model = generator(shape_width=4, tile_width=4, noise_size=5, image_size=16)
    causes = factual(torch.arange(10), prior=Prior(noise_size=5, tile_size=16), stream=torch_stream(0, "test"))
    published = model(causes)
    soften(model, contrast=1.0)
    assert model(causes).image.equal(published.image)
    soften(model, contrast=0.2)
    soft = model(causes)
    assert soft.mask.equal(published.mask)
    for layer in ("foreground", "background"):
        assert getattr(soft, layer).abs().mean() < 0.4 * getattr(published, layer).abs().mean()
