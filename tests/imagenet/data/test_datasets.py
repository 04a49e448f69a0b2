"""Datasets: the same images as a stream of the shards, which shards are refused, and what is cached."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cgn.core.errors import ArtifactError
from cgn.data.shards import Sample, samples, write_manifest, write_shard
from cgn.imagenet.data import datasets
from cgn.imagenet.data.datasets import CachedDataset, FolderDataset, ShardDataset, open_shards
from cgn.imagenet.data.image_folders import class_folders

MECHANISMS = ("shape", "texture", "background")
GOOD = {"shape": 1, "texture": 0, "background": 2}


def shards(folder: Path, facts: Sequence[Mapping[str, object]], *, per_shard: int = 2) -> Path:
    """Noise of 6x5 pixels, a sample for each of `facts`."""
    folder.mkdir()
    random = np.random.default_rng(0)
    entries = []
    for number, first in enumerate(range(0, len(facts), per_shard)):
        held = [
            Sample(image=random.integers(0, 256, (5, 6, 3), dtype=np.uint8), facts=labels)  # type: ignore[arg-type]
            for labels in facts[first : first + per_shard]
        ]
        entries.append(write_shard(folder, held, split="counterfactual", number=number, first_index=first))
    write_manifest(folder, entries, facts={})
    return folder


def opened(folder: Path) -> ShardDataset:
    return open_shards(folder, split="counterfactual", classes=3, mechanisms=MECHANISMS)


def test_members_found_by_their_place_are_those_of_the_stream(tmp_path: Path) -> None:
    facts = [{"shape": i % 3, "texture": 1, "background": (i + 1) % 3, "seed": 9} for i in range(5)]
    dataset = opened(shards(tmp_path / "images", facts))
    streamed = list(samples(tmp_path / "images", split="counterfactual"))
    assert len(dataset) == len(streamed) == 5
    for place in (4, 0, 2, 3, 1):
        assert np.array_equal(np.asarray(dataset.image(place)), streamed[place].image)
        assert {name: int(values[place]) for name, values in dataset.labels.items()} == {
            name: facts[place][name] for name in MECHANISMS
        }


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"shape": 1, "texture": 0}, r"counterfactual-000001\.tar, sample 00000003 has no .* label 'background'"),
        (GOOD | {"texture": 3}, r"000001\.tar, sample 00000003 has the texture label 3, allowed: 0 to 2"),
        (GOOD | {"shape": -1}, r"000001\.tar, sample 00000003 has the shape label -1, allowed: 0 to 2"),
        (GOOD | {"shape": "dog"}, r"000001\.tar, sample 00000003 has no whole number as label 'shape'"),
    ],
)
def test_a_sample_without_good_labels_is_named(tmp_path: Path, facts: Mapping[str, object], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        opened(shards(tmp_path / "images", [GOOD, GOOD, GOOD, facts]))


def test_a_missing_split_is_named(tmp_path: Path) -> None:
    shards(tmp_path / "images", [GOOD])
    with pytest.raises(ArtifactError, match="has no images in a split 'factual'; it has: counterfactual"):
        open_shards(tmp_path / "images", split="factual", classes=3, mechanisms=MECHANISMS)


def test_a_shard_that_is_gone_cut_short_or_overwritten_is_named(tmp_path: Path) -> None:
    path = shards(tmp_path / "images", [GOOD] * 4) / "counterfactual-000001.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    with pytest.raises(ArtifactError, match=r"000001\.tar has 1,000 bytes, its manifest says"):
        opened(tmp_path / "images")
    path.write_bytes(b"\xff" * len(whole))
    with pytest.raises(ArtifactError, match=r"000001\.tar is broken"):
        opened(tmp_path / "images")
    path.write_bytes(whole.replace(b'"shape"', b"'shape'"))
    with pytest.raises(ArtifactError, match=r"000001\.tar is broken \(Expecting property name"):
        opened(tmp_path / "images")
    path.unlink()
    with pytest.raises(ArtifactError, match=r"000001\.tar is missing: remove .*images and run the stage that makes it"):
        opened(tmp_path / "images")


def test_a_shard_that_lacks_samples_or_halves_of_them_is_named(tmp_path: Path) -> None:
    folder = shards(tmp_path / "images", [GOOD] * 4)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][1]["images"] = 3
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"000001\.tar holds 2 samples, its manifest says 3"):
        opened(folder)
    path = folder / "counterfactual-000000.tar"
    path.write_bytes(_renamed(path.read_bytes(), b"00000001.json", b"00000000.jton"))
    with pytest.raises(ArtifactError, match=r"000000\.tar, sample 00000001 lacks its \.png or its \.json"):
        opened(folder)


def _renamed(tar: bytes, old: bytes, new: bytes) -> bytes:
    """Another name of the same sum of bytes, so that the header's checksum still holds."""
    assert sum(old) == sum(new)
    return tar.replace(old, new)


def test_a_broken_image_in_a_shard_is_an_error(tmp_path: Path) -> None:
    dataset = opened(shards(tmp_path / "images", [GOOD]))
    path = tmp_path / "images" / "counterfactual-000000.tar"
    path.write_bytes(path.read_bytes().replace(b"IDAT", b"IDAX"))
    with pytest.raises(ArtifactError, match=r"000000\.tar, byte 1,536, is not an image \(.*\): remove"):
        dataset.image(0)


def test_an_image_of_too_many_pixels_in_a_shard_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = opened(shards(tmp_path / "images", [GOOD]))
    monkeypatch.setattr("cgn.data.decoding.MAX_PIXELS", 1)
    with pytest.raises(
        ArtifactError, match=r"000000\.tar, byte 1,536, is not an image \(it has .* pixels, allowed: 1\)"
    ):
        dataset.image(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, size in (("cat/1.png", (8, 6)), ("dog/1.png", (5, 5)), ("dog/2.png", (7, 7))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", size, "red").save(tmp_path / name)
    (tmp_path / "dog/1.png").write_bytes((tmp_path / "dog/2.png").read_bytes()[:40])
    return tmp_path


def test_class_folders_give_labels_and_sentences_for_what_cannot_be_read(folder: Path) -> None:
    dataset = FolderDataset(class_folders(folder, classes=("cat", "dog")))
    assert torch.equal(dataset.labels["shape"], torch.tensor([0, 1, 1]))
    first = dataset.image(0)
    assert isinstance(first, Image.Image)
    assert first.size == (8, 6)
    broken = dataset.image(1)
    assert isinstance(broken, str)
    assert broken.startswith("dog/1.png cannot be read: ")


def test_small_images_are_decoded_once_until_the_memory_is_used_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "KEPT_BYTES", 4 * 8 * 6)
    kept = CachedDataset(FolderDataset(class_folders(folder, classes=("cat", "dog"))))
    assert kept.image(0) is kept.image(0)
    assert kept.image(2) is not kept.image(2)
    assert kept.image(1) == kept.dataset.image(1)
    assert len(kept) == 3
