"""prepare: three splits, the label or chance deciding, and the same bytes for the same seed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cgn.config.mnist import Jitter, Prepare
from cgn.core.errors import ArtifactError
from cgn.core.metrics import Silent
from cgn.data.shards import load_split, read_manifest, samples, verify
from cgn.download.sources import BACKGROUND_TEXTURES, MNIST_IMAGES, MNIST_LABELS, OBJECT_TEXTURES
from cgn.mnist.colorings import BACKGROUND_COLORS, OBJECT_COLORS
from cgn.mnist.prepare import load_digits, prepare
from tests.support.configs import replace

SMALL = Prepare(
    digits="scikit-learn",
    look="double_colored",
    image_size=16,
    train_images=60,
    color_deviation=0.01,
    jitter=Jitter(copies=2, rotation_degrees=10.0, scale=0.1, shift=0.06),
    images_per_shard=50,
)


def prepared(folder: Path, params: Prepare = SMALL, *, seed: int = 0, assets: Path = Path("unused")) -> Path:
    folder.mkdir(parents=True)
    prepare(params, seed=seed, variant="toy", assets=assets, data=folder, sink=Silent())
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("prepare") / "data")


def test_the_manifest_says_what_there_is(folder: Path) -> None:
    manifest = verify(folder)
    assert manifest.splits == {"test_iid": 500, "test_random": 500, "train": 120}
    assert [shard.images for shard in manifest.shards if shard.split == "train"] == [50, 50, 20]
    expected = {"track": "mnist", "variant": "toy", "look": "double_colored", "image_size": 16, "classes": 10}
    assert expected.items() <= manifest.facts.items()


def test_the_label_decides_in_training_and_in_the_plain_test(folder: Path) -> None:
    for split in ("train", "test_iid"):
        labels = load_split(folder, split=split).labels
        assert (labels["shape"] == labels["texture"]).all()
        assert (labels["shape"] == labels["background"]).all()


def test_chance_decides_in_the_randomised_test(folder: Path) -> None:
    labels = {name: column.numpy() for name, column in load_split(folder, split="test_random").labels.items()}
    assert (labels["shape"] == load_split(folder, split="test_iid").labels["shape"].numpy()).all()
    for one, other in (("shape", "texture"), ("shape", "background"), ("texture", "background")):
        assert (labels[one] == labels[other]).mean() == pytest.approx(0.1, abs=0.05)
    assert np.bincount(labels["texture"], minlength=10).min() > 25
    assert np.bincount(labels["background"], minlength=10).min() > 25


def test_images_have_the_colours_of_their_labels(folder: Path) -> None:
    for split in ("train", "test_random"):
        for sample in list(samples(folder, split=split))[:100]:
            corner = np.array(BACKGROUND_COLORS[int(sample.facts["background"])])
            assert np.abs(sample.image[0, 0].astype(int) - corner).max() < 0.06 * 255
            far = np.abs(sample.image.astype(int) - corner).sum(axis=2)
            stroke = sample.image[np.unravel_index(far.argmax(), far.shape)].astype(int)
            if sample.facts["texture"] != (int(sample.facts["background"]) + 6) % 10:
                assert np.abs(stroke - np.array(OBJECT_COLORS[int(sample.facts["texture"])])).max() < 0.06 * 255


def test_only_training_digits_are_copied_each_copy_another(folder: Path) -> None:
    train = list(samples(folder, split="train"))
    assert [sample.facts["digit"] for sample in train] == [*range(60), *range(60)]
    assert all(not np.array_equal(one.image, other.image) for one, other in zip(train[:60], train[60:], strict=True))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(folder: Path, tmp_path: Path) -> None:
    again = prepared(tmp_path / "again")
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    assert all((folder / name).read_bytes() == (again / name).read_bytes() for name in names)
    other = read_manifest(prepared(tmp_path / "other", seed=1))
    assert not {shard.sha256 for shard in other.shards} & {shard.sha256 for shard in read_manifest(folder).shards}


def test_the_test_digits_do_not_depend_on_the_seed(folder: Path, tmp_path: Path) -> None:
    other = prepared(tmp_path / "other", seed=1)
    assert (
        load_split(other, split="test_iid").labels["shape"].equal(load_split(folder, split="test_iid").labels["shape"])
    )


def test_the_sheet_has_a_row_a_split_and_a_column_a_class(folder: Path) -> None:
    with Image.open(folder / "examples.png") as sheet:
        assert sheet.height == 3 * 67 + 3
        assert sheet.width > 10 * 67
        # No tile of one colour: an image in which nothing can be seen is no example.
        pixels = np.asarray(sheet)[:, -10 * 67 :]
    for row in range(3):
        for column in range(10):
            tile = pixels[3 + row * 67 :, column * 67 :][:64, :64]
            assert np.ptp(tile, axis=(0, 1)).max() > 24


def test_a_class_that_training_lacks_is_left_white(tmp_path: Path) -> None:
    data = prepared(tmp_path / "data", replace(SMALL, train_images=3, jitter=None))
    present = set(load_split(data, split="train").labels["shape"].tolist())
    with Image.open(data / "examples.png") as sheet:
        pixels = np.asarray(sheet)[:, -10 * 67 :]
    white = {column for column in range(10) if (pixels[3:67, column * 67 :][:, :64] == 255).all()}
    assert white == set(range(10)) - present


def test_colored_has_the_label_as_background_and_a_random_colour(tmp_path: Path) -> None:
    data = prepared(tmp_path / "data", replace(SMALL, look="colored", jitter=None))
    labels = load_split(data, split="test_random").labels
    assert (labels["background"] == labels["shape"]).all()
    assert (labels["texture"] == labels["shape"]).float().mean() < 0.2
    assert (load_split(data, split="test_random").pixels[:, 0, 0] == 0).all()


@pytest.mark.parametrize("look", ["colored", "double_colored", "wildlife"])
def test_real_mnist_in_every_look(test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: str) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    wanted = {asset.name for asset in (MNIST_IMAGES, MNIST_LABELS, *OBJECT_TEXTURES, *BACKGROUND_TEXTURES)}
    for path in test_data.rglob("*"):
        if path.name in wanted:
            (assets / path.name).symlink_to(path)
    params = replace(SMALL, digits="mnist", look=look, image_size=32, jitter=None, train_images=100)
    # A hundred of the 10,000 test digits are enough here.
    digits = load_digits(params, assets)
    test = replace(digits.test, images=digits.test.images[:100], labels=digits.test.labels[:100])
    monkeypatch.setattr("cgn.mnist.prepare.load_digits", lambda *_: replace(digits, test=test))
    images = load_split(prepared(tmp_path / "data", params, assets=assets), split="test_random")
    assert images.pixels.shape == (100, 32, 32, 3)
    assert images.pixels.float().std() > 20


def test_missing_assets_and_a_full_disk_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=f"{MNIST_IMAGES.name} is missing: run fetch"):
        prepared(tmp_path / "a", replace(SMALL, digits="mnist"), assets=tmp_path)
    with pytest.raises(ArtifactError, match=f"{OBJECT_TEXTURES[0].name} is missing: run fetch"):
        prepared(tmp_path / "b", replace(SMALL, look="wildlife"), assets=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"not a folder|in the way"):
        prepare(SMALL, seed=0, variant="toy", assets=tmp_path, data=tmp_path / "file" / "data", sink=Silent())
