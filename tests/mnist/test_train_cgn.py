"""train_cgn on the MNIST track: every choice of parameters reaches the training it names."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cgn.config.load import load
from cgn.config.mnist import Border, Discriminator, Losses, Mnist, Perceptual, TrainCgn
from cgn.core.checkpoints import load_model, load_strictly
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.metrics import Files
from cgn.core.seeding import torch_stream
from cgn.data.shards import Sample, write_manifest, write_shard
from cgn.mechanisms import Prior, factual
from cgn.mnist.generator import build_generator, soften
from cgn.mnist.train_cgn import by_class, example_rows, train_cgn
from cgn.nets.features import VggFeatures
from tests.support.configs import replace

VARIANTS = load(Path(__file__).parents[2] / "params.yaml").tracks["mnist"]
PARAMS = {name: record for name, record in VARIANTS.items() if isinstance(record, Mnist)}


def shrunk(variant: str, **losses: Any) -> TrainCgn:
    """A variant's parameters for three updates of small nets on the CPU."""
    params = PARAMS[variant].train_cgn
    no_features = Perceptual(features="none", weights=(0.0, 0.0, 0.0, 0.0))
    return replace(
        params,
        mechanisms=replace(params.mechanisms, shape_width=4, tile_width=4),
        discriminator=Discriminator(
            **{kind: min(width, 8) for kind, width in params.discriminator.model_dump().items()}
        ),
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
    train_cgn(params, seed=0, variant="colored", assets=assets or out, data=data, model=out, sink=sink)
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
    load_strictly(build_generator(**facts["net"]), tensors, source="model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.safetensors", "sheets"]


@pytest.mark.long
@pytest.mark.parametrize("kinds", [("linear",), ("conv",), ("projection",), ("linear", "projection")])
def test_every_discriminator_learns_to_distinguish(data: Path, tmp_path: Path, kinds: tuple[str, ...]) -> None:
    params = shrunk("digits", adversarial=0.0, mismatched=0.0)
    rates = replace(params.optimizer, discriminator_rate=3e-3, decay_fraction=0.0)
    jury = Discriminator(**{kind: 8 * (kind in kinds) for kind in ("linear", "conv", "projection")})
    params = replace(params, discriminator=jury, optimizer=rates, updates=60)
    losses = [line["loss/discriminator"] for line in trained(params, data=data, out=tmp_path / "model")]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_a_weight_of_zero_leaves_a_loss_out(data: Path, tmp_path: Path) -> None:
    unused = Border(weight=0.0, width=1, largest=0.0)
    lines = trained(shrunk("digits", binary=0.0, mismatched=0.0, border=unused), data=data, out=tmp_path / "model")
    assert set(lines[0]) == {"step", "time", "loss/adversarial", "loss/discriminator"}


def test_images_of_a_class_are_compared_in_groups(data: Path, tmp_path: Path) -> None:
    params = replace(shrunk("digits"), batch_size=6, images_per_class=2)
    params = replace(params, losses=replace(params.losses, energy=1.0))
    lines = trained(params, data=data, out=tmp_path / "model")
    assert all(0 < abs(line["loss/energy"]) < 2 for line in lines)
    with pytest.raises(ValueError, match=r"images_per_class is 1, allowed: 1 or more, 2 or more with losses\.energy"):
        replace(params, images_per_class=1)
    with pytest.raises(ValueError, match=r"batch_size is 6, allowed: a multiple of images_per_class, which is 4"):
        replace(params, images_per_class=4)


def test_a_class_without_images_can_not_be_grouped(tmp_path: Path) -> None:
    pixels = np.zeros((8, 32, 32, 3), dtype=np.uint8)
    samples = [Sample(image=image, facts={"shape": i, "texture": i, "background": i}) for i, image in enumerate(pixels)]
    shard = write_shard(tmp_path / "data", samples, split="train", number=0, first_index=0)
    write_manifest(tmp_path / "data", [shard], facts={"track": "mnist", "variant": "colored", "image_size": 32})
    params = replace(shrunk("digits"), images_per_class=2)
    with pytest.raises(ArtifactError, match=r"no training image of class 8, but train_cgn\.images_per_class is 2"):
        trained(params, data=tmp_path / "data", out=tmp_path / "model")


def test_groups_hold_each_class_once_a_turn() -> None:
    sizes = torch.tensor([3, 1, 5])
    order = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2, 2])
    groups = order[by_class(sizes, 12, images_per_class=2, stream=torch_stream(0, "test"))].view(6, 2)
    assert (groups[:, 0] == groups[:, 1]).all()
    assert groups[:3, 0].sort().values.tolist() == groups[3:, 0].sort().values.tolist() == [0, 1, 2]
    seen = by_class(sizes, 3000, images_per_class=2, stream=torch_stream(1, "test")).bincount(minlength=9)
    assert seen.min() > 0  # every image is drawn
    assert seen[3] == 1000  # the only one of its class


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


def test_a_finished_model_is_checked_not_trained_again(data: Path, tmp_path: Path) -> None:
    params = shrunk("digits")
    trained(params, data=data, out=tmp_path / "model")
    file, summary = tmp_path / "model" / "model.safetensors", tmp_path / "model.log" / "details.json"
    before, metrics = file.read_bytes(), summary.read_text()
    (tmp_path / "model" / "state.pt").touch()
    given: dict[str, Any] = {"seed": 0, "variant": "colored", "assets": data, "data": data, "model": tmp_path / "model"}
    train_cgn(params, **given, sink=Files(tmp_path / "model.log"))
    assert (file.read_bytes(), summary.read_text()) == (before, metrics)
    assert not (tmp_path / "model" / "state.pt").exists()
    file.write_bytes(before[:100])
    with pytest.raises(ArtifactError, match=r"model\.safetensors is not a whole model file"):
        train_cgn(params, **given, sink=Files(tmp_path / "model.log"))


def test_losses_are_a_record_of_weights() -> None:
    with pytest.raises(ValueError, match="mismatched"):
        replace(PARAMS["digits"].train_cgn.losses, mismatched=-1.0)
    assert isinstance(PARAMS["digits"].train_cgn.losses, Losses)


def test_a_sheet_shows_the_same_noise_at_every_step() -> None:
    """Else MLflow's slider over steps would show other images, not the training of these."""
    torch.manual_seed(0)
    model = build_generator(shape_width=4, tile_width=4, noise_size=5, image_size=16).eval()
    prior = Prior(noise_size=5, tile_size=16)
    early, late, other = (dict(example_rows(model, prior=prior, seed=seed)) for seed in (3, 3, 4))
    assert all(early[name].equal(late[name]) for name in early)
    assert not early["factual"].equal(other["factual"])


def test_softened_tiles_start_nearer_to_grey() -> None:
    torch.manual_seed(0)
    model = build_generator(shape_width=4, tile_width=4, noise_size=5, image_size=16)
    causes = factual(torch.arange(10), prior=Prior(noise_size=5, tile_size=16), stream=torch_stream(0, "test"))
    published = model(causes)
    soften(model, contrast=1.0)
    assert model(causes).image.equal(published.image)
    soften(model, contrast=0.2)
    soft = model(causes)
    assert soft.mask.equal(published.mask)
    for layer in ("foreground", "background"):
        assert getattr(soft, layer).abs().mean() < 0.4 * getattr(published, layer).abs().mean()
