"""imagenet generate: pure shards, parts on request, interpolations that begin and end in plain images, clear errors."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from cgn.config.imagenet import Generate, Interpolation
from cgn.core.checkpoints import save_model
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.files import sha256
from cgn.core.images import from_bytes, to_bytes
from cgn.core.metrics import Silent
from cgn.core.outputs import partial_folder
from cgn.core.seeding import derive, torch_stream
from cgn.data.shards import LABELS, read_manifest, samples, verify
from cgn.download.sources import CGN_IMAGENET
from cgn.imagenet.generate import FoldedGenerator, Renderer, generate, interpolated
from cgn.imagenet.generator import (
    Model,
    biggan_of,
    build_generator,
    from_published,
    load_generator,
    load_published,
    model_facts,
    saliency_tensors,
)
from cgn.mechanisms import Generator, Prior, WholeImage, compose, factual
from cgn.nets.biggan import BIGGAN_DEEP_256, BigGan, BigGanConfig
from cgn.nets.u2net import U2NET, U2Net, Widths, sized_to_corners
from cgn.rendering import PlannedShard
from tests.benchmarks.published_biggan import PublishedBigGan, noisy_state
from tests.support.configs import replace

ROOT = Path(__file__).parents[2]
BIGGAN_CONFIG = BigGanConfig(
    noise_size=8,
    embedding_size=8,
    classes=5,
    width=4,
    blocks=((True, 4, 4), (True, 4, 4), (True, 4, 2), (True, 2, 1)),
    attention_at=1,
)
WIDTHS = Widths(down=((2, 4),) * 6, up=((2, 4),) * 5)
SHAPE = Interpolation(mechanism="shape", first=1, last=3, frames=4)
ALL = Interpolation(mechanism="all", first=0, last=4, frames=5)
CONFIG = Generate(
    weights="trained",
    factual_images=10,
    counterfactual_images=40,
    truncation=0.5,
    classes=None,
    parts=(),
    interpolations=(),
    images_per_shard=20,
    batch_size=8,
    accelerator="cpu",
    precision="32-true",
)
PRIOR = Prior(noise_size=8, truncation=0.5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mechanisms of random weights that differ, loud enough for images and masks to differ too."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    saliency = U2Net(WIDTHS)
    for layer in saliency.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    generator = build_generator(BigGan(BIGGAN_CONFIG), saliency=saliency)
    for role in (generator.shape, generator.texture, generator.background):
        nn.init.normal_(biggan_of(role).embeddings.weight, std=3.0)
    facts = model_facts(variant="toy", table=BIGGAN_CONFIG, widths=WIDTHS)
    save_model(folder / "model.safetensors", {**generator.state_dict(), **saliency_tensors(saliency)}, facts=facts)
    return folder


@pytest.fixture(scope="module")
def images(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generated(model, tmp_path_factory.mktemp("images"), interpolations=(SHAPE, ALL))


def generated(
    model: Path | None,
    folder: Path,
    *,
    assets: Path | None = None,
    seed: int = 0,
    variant: str = "toy",
    workers: int = 1,
    **changed: Any,
) -> Path:
    """Images as `CONFIG` says, but for what is changed."""
    paths: dict[str, Any] = {"model": model, "assets": assets, "images": folder}
    generate(replace(CONFIG, **changed), seed=seed, variant=variant, **paths, workers=workers, sink=Silent())
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def opened(model: Path) -> Model:
    return load_generator(model, variant="toy")


def test_shards_hold_the_images_labels_and_seeds(images: Path) -> None:
    manifest = verify(images)
    assert manifest.splits == {"counterfactual": 40, "factual": 10}
    assert [shard.images for shard in manifest.shards] == [20, 20, 10]
    assert manifest.facts == {
        "track": "imagenet",
        "variant": "toy",
        "weights": "trained",
        "classes": 5,
        "truncation": 0.5,
    }
    free = [sample.facts for sample in samples(images, split="counterfactual")]
    for role in LABELS:
        assert {facts[role] for facts in free} == set(range(5))
    assert 0 < sum(facts["shape"] == facts["texture"] for facts in free) < 20  # one in five by chance
    assert [facts["place"] for facts in free] == [*range(20), *range(20)]
    assert {facts["seed"] for facts in free} == {derive(0, "generate", "counterfactual", number) for number in (0, 1)}
    assert {facts["truncation"] for facts in free} == {0.5}
    for sample in samples(images, split="factual"):
        assert len({sample.facts[role] for role in LABELS}) == 1
        assert sample.image.shape == (64, 64, 3)


def test_images_differ_and_are_not_stretched(images: Path) -> None:
    pixels = np.stack([sample.image for sample in samples(images, split="counterfactual")])
    assert len(np.unique(pixels.reshape(40, -1), axis=0)) == 40
    assert len({(image.min(), image.max()) for image in pixels}) > 20


@pytest.mark.long
@pytest.mark.parametrize("workers", [3])
def test_workers_change_no_byte(images: Path, model: Path, tmp_path: Path, workers: int) -> None:
    generated(model, tmp_path, interpolations=(SHAPE, ALL), workers=workers)
    assert hashes(tmp_path) == hashes(images)


@pytest.mark.long
def test_encoders_change_no_byte(images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cgn.rendering.encoder_threads", lambda _: 3)
    generated(model, tmp_path, interpolations=(SHAPE, ALL))
    assert hashes(tmp_path) == hashes(images)


@pytest.mark.long
def test_the_comparison_can_fail(images: Path, model: Path, tmp_path: Path) -> None:
    generated(model, tmp_path, seed=1, interpolations=(SHAPE, ALL))
    assert not set(hashes(tmp_path).values()) & set(hashes(images).values())


def test_a_shard_depends_on_nothing_but_model_seed_split_and_number(images: Path, model: Path) -> None:
    config = replace(CONFIG, counterfactual_images=1000)
    renderer = Renderer(config, source=model, seed=0, variant="toy")
    again = list(renderer.render(PlannedShard(split="counterfactual", number=1, images=3, first_index=20)))
    kept = list(samples(images, split="counterfactual"))[20:23]
    assert [sample.facts for sample in again] == [sample.facts for sample in kept]
    assert all(np.array_equal(one.image, other.image) for one, other in zip(again, kept, strict=True))


@pytest.mark.long
def test_a_missing_and_a_cut_shard_are_written_again(images: Path, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    (folder / "factual-000000.tar").unlink()
    cut = folder / "counterfactual-000001.tar"
    cut.write_bytes(cut.read_bytes()[:-700])
    generated(model, folder, interpolations=(SHAPE, ALL))
    assert hashes(folder) == hashes(images)


@pytest.mark.long
def test_parts_are_written_on_request_and_make_up_the_image(images: Path, model: Path, tmp_path: Path) -> None:
    asked = ("mask", "premask", "foreground", "background")
    generated(model, tmp_path, parts=asked)
    plain = list(samples(images, split="counterfactual"))
    with_parts = list(samples(tmp_path, split="counterfactual", parts=asked))
    for sample, other in zip(with_parts, plain, strict=True):
        assert np.array_equal(sample.image, other.image)
        mask = torch.from_numpy(sample.parts["mask"])[None, None] / 255
        foreground, background = (from_bytes(sample.parts[name][None]) for name in ("foreground", "background"))
        again = to_bytes(compose(mask, foreground, background))[0]
        assert np.abs(again.astype(int) - sample.image).max() <= 2
        assert sample.parts["premask"].shape == (64, 64, 3)
    assert not np.array_equal(with_parts[0].parts["foreground"], with_parts[0].parts["background"])
    assert next(samples(tmp_path, split="factual")).parts == {}
    with pytest.raises(ArtifactError, match=r"sample 00000000 has no \.mask\.png"):
        next(samples(images, split="factual", parts=["mask"]))


def test_labels_come_from_the_classes_asked_for(model: Path, tmp_path: Path) -> None:
    generated(model, tmp_path, factual_images=0, classes=(1, 4))
    assert read_manifest(tmp_path).splits == {"counterfactual": 40}
    found = [tuple(sample.facts[role] for role in LABELS) for sample in samples(tmp_path, split="counterfactual")]
    assert len(set(found)) == 8
    assert {label for labels in found for label in labels} == {1, 4}


@torch.no_grad()
def test_images_are_those_of_the_nets_unfolded(images: Path, model: Path) -> None:
    """The same draws through the nets as they were trained."""
    net = opened(model).generator
    stream = torch_stream(derive(0, "generate", "factual", 0))
    label = torch.randint(5, (8,), generator=stream)
    causes = factual(label, prior=PRIOR, stream=stream)
    premask = biggan_of(net.shape)(causes.shape.noise, label, truncation=0.5)
    assert net.shape.segment is not None
    foreground, background = (
        biggan_of(role)(causes.shape.noise, label, truncation=0.5) for role in (net.texture, net.background)
    )
    expected = to_bytes(compose(net.shape.mask(premask), foreground, background))  # type: ignore[operator]
    for sample, image in zip(samples(images, split="factual"), expected, strict=False):
        assert np.abs(sample.image.astype(int) - image).max() <= 1


@torch.no_grad()
@pytest.mark.parametrize("way", [SHAPE, ALL])
def test_an_interpolation_ends_in_plain_images(model: Path, way: Interpolation) -> None:
    net = opened(model).generator.eval()
    causes = interpolated(way, classes=5, prior=PRIOR, seed=0)
    frames = net(causes)
    for place, label in ((0, way.first), (-1, way.last)):
        noise = causes.shape.noise[:1]
        plain = net(factual(torch.tensor([label]), prior=Fixed(noise), stream=torch.Generator()))
        torch.testing.assert_close(frames.mask[[place]], plain.mask)
        same = torch.isclose(frames.image[[place]], plain.image, atol=1e-5).all()
        assert same or (way.mechanism != "all" and place == -1)
    assert not torch.isclose(frames.mask[0], frames.mask[-1], atol=1e-3).all()
    moved = [
        not torch.isclose(layer[0], layer[-1], atol=1e-3).all() for layer in (frames.foreground, frames.background)
    ]
    assert moved == [way.mechanism == "all"] * 2


class Fixed(Prior):
    """Gives the noise it was given."""

    def __init__(self, noise: torch.Tensor) -> None:
        super().__init__(noise_size=noise.shape[1])
        object.__setattr__(self, "given", noise)

    def noise(self, count: int, stream: torch.Generator) -> torch.Tensor:
        del count, stream
        given: torch.Tensor = self.__dict__["given"]
        return given


def test_interpolations_are_sheets_and_films(images: Path) -> None:
    found = sorted(path.name for path in (images / "interpolations").iterdir())
    assert found == [f"{name}.{kind}" for name in ("all-0-4", "shape-1-3") for kind in ("gif", "mp4", "png")]
    with Image.open(images / "interpolations" / "all-0-4.gif") as film:
        assert film.n_frames == 5  # type: ignore[attr-defined]
        assert film.size == (256, 256)
    for name in ("examples.png", "parts.png", "interpolations/all-0-4.png"):
        with Image.open(images / name) as picture:
            assert picture.size[0] > 300


def test_a_film_plays(images: Path) -> None:
    import av

    with av.open(str(images / "interpolations" / "shape-1-3.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 4
    assert frames[0].shape == (256, 256, 3)


@pytest.mark.long
def test_half_precision_draws_nearly_the_same(images: Path, model: Path, tmp_path: Path) -> None:
    generated(model, tmp_path, precision="bf16-mixed")
    pairs = zip(samples(tmp_path, split="factual"), samples(images, split="factual"), strict=True)
    off = [np.abs(half.image.astype(int) - single.image).mean() for half, single in pairs]
    assert 0 < np.mean(off) < 4  # grey levels


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"truncation": 0.505}, r"^imagenet\.toy\.generate\.truncation is 0\.505: .* nearest: 0\.5 or 0\.52$"),
        ({"classes": (0, 5)}, r"^imagenet\.toy\.generate\.classes: there is no class 5; the model's are 0 to 4$"),
        (
            {"interpolations": (SHAPE, Interpolation(mechanism="all", first=0, last=9, frames=2))},
            r"^imagenet\.toy\.generate\.interpolations\[1\]\.last: there is no class 9; the model's are 0 to 4$",
        ),
    ],
)
def test_what_the_model_cannot_draw_is_refused(model: Path, tmp_path: Path, changed: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generated(model, tmp_path / "images", **changed)
    assert not (tmp_path / "images").exists()


def test_a_foreign_model_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is of variant 'toy', expected 'full'"):
        generated(model, tmp_path, variant="full")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_asked_for_and_absent_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="finds no CUDA GPU here"):
        generated(model, tmp_path / "images", accelerator="cuda")
    assert not (tmp_path / "images").exists()


def test_a_gpu_that_is_too_small_names_the_batch_size(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = Renderer(CONFIG, source=model, seed=0, variant="toy")

    def full(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FoldedGenerator, "__call__", full)
    with pytest.raises(ConfigError, match=r"does not hold batch_size 8 .*lower batch_size"):
        next(renderer.render(PlannedShard(split="factual", number=0, images=1, first_index=0)))


def test_an_unknown_interpolation_is_refused_by_its_key(tmp_path: Path) -> None:
    from cgn.config.load import load

    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    way = {"mechanism": "colour", "first": 0, "last": 1, "frames": 3}
    tree["imagenet"]["miniature"]["generate"]["interpolations"] = [way]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    message = (
        r"imagenet\.miniature\.generate\.interpolations\[0\]\.mechanism is 'colour' \(str\), "
        "allowed: shape, texture, background, all"
    )
    with pytest.raises(ConfigError, match=message):
        load(tmp_path / "params.yaml")


@pytest.mark.long
def test_a_killed_run_continues_to_the_same_bytes(model: Path, tmp_path: Path) -> None:
    """Real processes, kill -9 once two shards are done."""
    params = tree_of(counterfactual_images=400, images_per_shard=20, interpolations=[{"mechanism": "all"}])
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    named = tmp_path / "model"
    shutil.copytree(model, named)
    rename(named / "model.safetensors", variant="miniature")
    subprocess.run(command(tmp_path, "whole"), cwd=ROOT, check=True)
    process = subprocess.Popen(command(tmp_path, "images"), cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
    partial, deadline = partial_folder(tmp_path / "images"), time.monotonic() + 120
    while len(list(partial.glob("notes/*.json"))) < 2:
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in partial.glob("*.tar")}
    subprocess.run(command(tmp_path, "images"), cwd=ROOT, check=True)
    assert hashes(tmp_path / "images") == hashes(tmp_path / "whole")
    assert sum((tmp_path / "images" / name).stat().st_mtime_ns == at for name, at in kept.items()) >= 2


def command(world: Path, out: str) -> list[str]:
    options = ["--params", str(world / "params.yaml"), "--model", str(world / "model"), "--images", str(world / out)]
    return [sys.executable, "-m", "cgn", "generate", "imagenet/miniature", *options, "--workers", "2"]


def tree_of(*, interpolations: list[dict[str, Any]], **changed: Any) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    ways = [{"first": 0, "last": 1, "frames": 3, **way} for way in interpolations]
    tree["imagenet"]["miniature"]["generate"] |= {**changed, "interpolations": ways, "batch_size": 20}
    return tree


def rename(file: Path, *, variant: str) -> None:
    from cgn.core.checkpoints import load_model

    tensors, facts = load_model(file)
    save_model(file, tensors, facts=facts | {"variant": variant})


class PublishedCgn(nn.Module):
    """The published module's children under their names; it draws as the published code does."""

    def __init__(self) -> None:
        super().__init__()
        self.biggan_GT = PublishedBigGan(BIGGAN_CONFIG)
        self.f_shape = PublishedBigGan(BIGGAN_CONFIG)
        self.f_text = PublishedBigGan(BIGGAN_CONFIG)
        self.f_bg = PublishedBigGan(BIGGAN_CONFIG)
        self.u2net = U2Net(WIDTHS, resize=sized_to_corners)

    def forward(self, noise: torch.Tensor, labels: torch.Tensor, truncation: float) -> torch.Tensor:
        """(B,Z) noise times truncation for all three nets and (B,3) labels -> composites."""
        hot = torch.eye(BIGGAN_CONFIG.classes)[labels]
        premask, foreground, background = (
            net(noise, hot[:, place], truncation) for place, net in enumerate((self.f_shape, self.f_text, self.f_bg))
        )
        mask = self.u2net(premask).clamp(1e-4, 1 - 1e-4)
        image: torch.Tensor = mask * foreground + (1 - mask) * background
        return image


@pytest.fixture(scope="module")
def published() -> PublishedCgn:
    torch.manual_seed(0)
    network = PublishedCgn()
    for number, name in enumerate(("biggan_GT", "f_shape", "f_text", "f_bg")):
        net = network.get_submodule(name)
        net.load_state_dict(noisy_state(PublishedBigGan(BIGGAN_CONFIG), stream=torch_stream(number, "weights")))
    for layer in network.u2net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return network.eval()


def fetched(folder: Path, state: dict[str, torch.Tensor]) -> Path:
    folder.mkdir()
    torch.save(state, folder / CGN_IMAGENET.name)
    return folder


def opened_published(folder: Path) -> Model:
    return load_published(folder / CGN_IMAGENET.name, variant="toy", table=BIGGAN_CONFIG, widths=WIDTHS)


@pytest.fixture
def small_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """generate loads files of the published names but of this test's sizes."""
    small = partial(load_published, table=BIGGAN_CONFIG, widths=WIDTHS)
    monkeypatch.setattr("cgn.imagenet.generate.load_published", small)


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_authors_network_draws_what_the_published_code_draws(
    published: PublishedCgn, tmp_path: Path, prefix: str
) -> None:
    state = {prefix + name: tensor for name, tensor in published.state_dict().items()}
    net = opened_published(fetched(tmp_path / "assets", state)).generator
    labels = torch.tensor([[0, 1, 2], [3, 3, 3], [4, 0, 1], [2, 4, 0]])
    noise = Prior(noise_size=8, truncation=0.5).noise(4, torch_stream(0, "noise"))
    expected = published(noise, labels, 0.5)
    shape, texture, background = (
        biggan_of(role)(noise, labels[:, place], truncation=0.5)
        for place, role in enumerate((net.shape, net.texture, net.background))
    )
    image = compose(net.shape.mask(shape), texture, background)  # type: ignore[operator]
    torch.testing.assert_close(image, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(compose(net.shape.mask(shape), background, texture), expected, atol=1e-2)  # type: ignore[operator]
    other = U2Net(WIDTHS).eval()
    other.load_state_dict(published.u2net.state_dict())
    assert not torch.allclose(other(shape).clamp(1e-4, 1 - 1e-4), net.shape.mask(shape), atol=1e-3)  # type: ignore[operator]


@pytest.mark.long
@pytest.mark.usefixtures("small_published")
def test_shards_are_drawn_from_the_authors_weights(published: PublishedCgn, model: Path, tmp_path: Path) -> None:
    assets = fetched(tmp_path / "assets", published.state_dict())
    for name, other in (("alone", None), ("with_model", model)):
        (tmp_path / name).mkdir()
        generated(other, tmp_path / name, assets=assets, weights="authors")
    assert hashes(tmp_path / "alone") == hashes(tmp_path / "with_model")
    manifest = verify(tmp_path / "alone")
    assert manifest.facts["weights"] == "authors"
    stream = torch_stream(derive(0, "generate", "factual", 0))
    label = torch.randint(5, (8,), generator=stream)
    causes = factual(label, prior=PRIOR, stream=stream)
    with torch.no_grad():
        expected = to_bytes(published(causes.shape.noise, label[:, None].expand(-1, 3), 0.5))
    for sample, image in zip(samples(tmp_path / "alone", split="factual"), expected, strict=False):
        assert np.abs(sample.image.astype(int) - image).max() <= 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("f_text.embeddings.weight"), r"missing: texture\.net\.embeddings\.weight"),
        (lambda state: state.pop("u2net.outconv.bias"), r"missing: outconv\.bias"),
        (lambda state: state.update({"f_sky.bias": torch.ones(1)}), r"unknown: f_sky\.bias"),
        (lambda state: state.update({"f_bg.generator.x": torch.ones(1)}), r"unknown: background\.net\.generator\.x"),
        (lambda state: state.update({"module.f_bg.embeddings.weight": torch.ones(1)}), r"unknown: module\.f_bg"),
        (lambda state: state.update({"f_shape.embeddings.weight": torch.ones(8, 6)}), r"of another shape: shape\.net"),
    ],
)
def test_weights_that_are_not_exactly_the_authors_are_refused(
    published: PublishedCgn, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    state = dict(published.state_dict())
    change(state)
    assets = fetched(tmp_path / "assets", state)
    with pytest.raises(ArtifactError, match=rf"cgn\.pth does not fit .*{message}"):
        opened_published(assets)


def test_the_authors_weights_suffice_without_their_cgan(published: PublishedCgn, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in published.state_dict().items() if not name.startswith("biggan_GT.")}
    opened = opened_published(fetched(tmp_path / "assets", state))
    drawn = biggan_of(opened.generator.texture).state_dict()
    theirs = {name.removeprefix("f_text."): tensor for name, tensor in state.items() if name.startswith("f_text.")}
    assert all(torch.equal(drawn[name], tensor) for name, tensor in theirs.items())
    assert theirs


def test_every_published_key_of_full_size_has_its_place(test_data: Path) -> None:
    shapes = json.loads((test_data / "golden" / "state_dict_manifests.json").read_text())
    nets = {**dict.fromkeys(("biggan_GT", "f_shape", "f_text", "f_bg"), "biggan_deep_256"), "u2net": "u2net"}
    state = {
        f"{net}.{key}": torch.empty(shape, device="meta")
        for net, kind in nets.items()
        for key, shape in shapes[kind].items()
    }
    assert len(state) == 4 * 602 + 798
    with torch.device("meta"):
        saliency, copies = U2Net(U2NET), [WholeImage(BigGan(BIGGAN_DEEP_256)) for _ in LABELS]
        ours = Generator(**dict(zip(LABELS, copies, strict=True)))
    expected = {**ours.state_dict(), **saliency_tensors(saliency)}
    assert {name: tensor.shape for name, tensor in from_published(state).items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }


@pytest.mark.parametrize(("weights", "lacking"), [("authors", "assets"), ("trained", "model")])
def test_a_source_that_is_not_given_is_named(model: Path, tmp_path: Path, weights: Any, lacking: str) -> None:
    (tmp_path / "images").mkdir()
    given = (None, model) if lacking == "model" else (model, None)
    with pytest.raises(ConfigError, match=rf"generate needs --{lacking} here: give the folder that"):
        generated(given[0], tmp_path / "images", assets=given[1], weights=weights)


def test_a_file_that_fetch_did_not_get_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"cgn\.pth is missing"):
        generated(None, tmp_path / "images", assets=tmp_path, weights="authors")


@pytest.mark.parametrize(
    ("variant", "extras", "accepted"),
    [("mini", ["authors_cgn"], True), ("mini", ["frost"], False), ("miniature", ["authors_cgn"], False)],
)
def test_the_authors_weights_need_their_file_and_the_published_classes(
    tmp_path: Path, variant: str, extras: list[str], accepted: bool
) -> None:
    from cgn.config.load import load

    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["imagenet"][variant]["generate"]["weights"] = "authors"
    tree["imagenet"][variant]["fetch"]["extras"] = extras
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    if accepted:
        load(tmp_path / "params.yaml")
        return
    with pytest.raises(
        ConfigError, match=rf"imagenet\.{variant}\.generate\.weights is 'authors', allowed: trained; .*"
    ):
        load(tmp_path / "params.yaml")
