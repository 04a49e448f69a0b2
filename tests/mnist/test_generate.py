"""generate: shards are pure, can be repaired, and are refused for a model of another variant."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cgn.config.mnist import Generate
from cgn.core.checkpoints import load_model, save_model
from cgn.core.errors import ArtifactError
from cgn.core.files import sha256
from cgn.core.metrics import Silent
from cgn.data.shards import Sample, read_manifest, samples, verify
from cgn.mnist.generate import Renderer, generate
from cgn.mnist.generator import build_generator, model_facts
from cgn.rendering import PlannedShard

CONFIG = Generate(factual_images=70, counterfactual_images=150, images_per_mask=5, images_per_shard=50)
NET = {"shape_width": 4, "tile_width": 4, "noise_size": 6, "image_size": 16}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    net = build_generator(**NET)
    save_model(folder / "model.safetensors", net.state_dict(), facts=model_facts(variant="digits", net=NET))
    return folder


@pytest.fixture(scope="module")
def images(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generated(model, tmp_path_factory.mktemp("images"))


def generated(
    model: Path, folder: Path, *, config: Generate = CONFIG, seed: int = 0, variant: str = "digits", workers: int = 1
) -> Path:
    generate(config, seed=seed, variant=variant, model=model, images=folder, workers=workers, sink=Silent())
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(folder.iterdir())}


def test_every_split_has_its_images_in_full_shards(images: Path) -> None:
    manifest = verify(images)
    assert manifest.splits == {"counterfactual": 150, "factual": 70}
    assert [shard.images for shard in manifest.shards] == [50, 50, 50, 50, 20]
    assert manifest.facts == {"track": "mnist", "variant": "digits", "classes": 10}
    assert not (images / "notes").exists()


def test_each_image_has_its_labels_and_seed(images: Path) -> None:
    for sample in samples(images, split="factual"):
        assert sample.facts["shape"] == sample.facts["texture"] == sample.facts["background"]
    counterfactual = [sample.facts for sample in samples(images, split="counterfactual")]
    masks = {(facts["seed"], facts["mask"]): facts["shape"] for facts in counterfactual}
    assert len(masks) == 30
    assert all(masks[facts["seed"], facts["mask"]] == facts["shape"] for facts in counterfactual)
    agreeing = sum(facts["shape"] == facts["texture"] for facts in counterfactual)
    assert agreeing < 40  # one in ten by chance
    assert len({facts["seed"] for facts in counterfactual}) == 3


@pytest.mark.long
def test_workers_change_no_byte(images: Path, model: Path, tmp_path: Path) -> None:
    generated(model, tmp_path, workers=4)
    assert hashes(tmp_path) == hashes(images)


def test_the_comparison_can_fail(images: Path, model: Path, tmp_path: Path) -> None:
    generated(model, tmp_path, seed=1)
    assert not set(hashes(tmp_path).values()) & set(hashes(images).values())


def test_missing_and_truncated_shards_are_remade_and_no_others(images: Path, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    (folder / "factual-000000.tar").unlink()
    cut = folder / "counterfactual-000001.tar"
    cut.write_bytes(cut.read_bytes()[:-700])
    kept = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.tar") if p != cut}
    generated(model, folder)
    assert hashes(folder) == hashes(images)
    assert kept == {name: (folder / name).stat().st_mtime_ns for name in kept}


def test_a_stopped_run_continues_with_the_missing_shards(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = note_shards(monkeypatch, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        generated(model, tmp_path)
    assert len(rendered) == 2
    assert not (tmp_path / "manifest.json").exists()
    monkeypatch.undo()
    rendered = note_shards(monkeypatch)
    generated(model, tmp_path)
    assert len(rendered) == 3
    assert hashes(tmp_path) == hashes(images)


def note_shards(monkeypatch: pytest.MonkeyPatch, *, stop_after: int | None = None) -> list[PlannedShard]:
    """The shards that are rendered from now on; the command is interrupted after so many."""
    rendered: list[PlannedShard] = []
    render = Renderer.render

    def noted(self: Renderer, shard: PlannedShard) -> Iterator[Sample]:
        if len(rendered) == stop_after:
            raise KeyboardInterrupt
        rendered.append(shard)
        return render(self, shard)

    monkeypatch.setattr(Renderer, "render", noted)
    return rendered


def test_a_foreign_or_broken_model_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is of variant 'digits', expected 'wildlife'"):
        generated(model, tmp_path, variant="wildlife")
    file = tmp_path / "model.safetensors"
    for content, message in (
        ((model / "model.safetensors").read_bytes()[:999], "cut short"),
        (b"<!DOCTYPE html><html>", "HTML page"),
        (b"\x80\x02}q\x00.", "a pickle"),
        (b"", "empty"),
    ):
        file.write_bytes(content)
        with pytest.raises(ArtifactError, match=message):
            generated(tmp_path, tmp_path / "images")
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize(
    "net",
    [[], "wide", None, {}, NET | {"shape_width": []}, NET | {"more": 1}, NET | {"tile_width": 10**7},
     NET | {"image_size": 10**12}, NET | {"noise_size": -1}],
)  # fmt: skip
def test_facts_that_describe_no_net_are_refused(model: Path, tmp_path: Path, net: Any) -> None:
    tensors, facts = load_model(model / "model.safetensors")
    save_model(tmp_path / "model.safetensors", tensors, facts=facts | {"net": net})
    with pytest.raises(ArtifactError, match=r"model\.safetensors (does not say which net it holds|does not fit)"):
        generated(tmp_path, tmp_path / "images")


@pytest.mark.parametrize("note", ["[1]", '{"name": 3}', '{"name": []}', "[" * 100_000, "", "null"])
def test_a_broken_note_of_a_shard_only_costs_that_shard(model: Path, images: Path, tmp_path: Path, note: str) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "broken.json").write_text(note)
    generated(model, tmp_path)
    assert hashes(tmp_path) == hashes(images)


def test_the_manifest_reads_back(images: Path) -> None:
    assert {shard.name for shard in read_manifest(images).shards} == {path.name for path in images.glob("*.tar")}
