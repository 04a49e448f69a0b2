"""The miniature world: pure functions of seed and index, parts that move alone, shapes that differ, exact formats."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cgn.core.images import Bytes, from_bytes, to_bytes
from cgn.core.seeding import derive
from cgn.miniature import sets
from cgn.miniature.sets import (
    CLASS_FOLDERS,
    VARIATIONS,
    WORDNET,
    bounding_boxes,
    exchanged,
    tiled,
    variations,
    write_sets,
)
from cgn.miniature.world.mask_agreement import best_iou
from cgn.miniature.world.primitives import Rng, box, capsule, circle, ellipse, hashed, polygon, value_noise
from cgn.miniature.world.scenes import CLASSES, Scene, grid, scene, silhouette_bank, silhouettes

LABELS = np.repeat(np.arange(9), 3)
INDEX = np.arange(len(LABELS))


@pytest.fixture(scope="module")
def factual() -> Scene:
    return scene(LABELS, LABELS, LABELS, index=INDEX, seed=5, image_size=64)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_sets(folder, seed=5, image_size=32, train_per_class=4, val_per_class=2, per_variation=3, per_pair=2)
    return folder


def pixels(path: Path) -> Bytes:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_numbers_are_uniform_and_depend_on_seed_stream_and_index() -> None:
    rng = Rng(np.arange(20_000), seed=1, stream="a")
    first, second = rng.uniform(-1, 1).ravel(), rng.uniform(-1, 1).ravel()
    assert np.histogram(first, bins=10, range=(-1, 1))[0].min() > 1_850
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.03
    assert np.array_equal(Rng(np.array([7]), seed=1, stream="a").uniform(-1, 1).ravel(), first[7:8])
    for other in (Rng(np.array([7]), seed=2, stream="a"), Rng(np.array([7]), seed=1, stream="b")):
        assert other.uniform(-1, 1).item() != first[7]


def test_noise_is_continuous_and_interpolates_the_lattice() -> None:
    key = np.array([[[9]]], dtype=np.uint32)
    x = np.arange(-4, 4, dtype=np.float32)[None, None]
    assert np.allclose(value_noise(x, np.full_like(x, 2), key), hashed(x, 2.0, key))
    fine = np.linspace(-3, 3, 3_001, dtype=np.float32)[None, None]
    assert np.abs(np.diff(value_noise(fine, fine, key))).max() < 0.01


def test_distances_are_those_of_the_figures() -> None:
    points = grid(1, 64)
    x, y = points
    assert np.allclose(circle(points, (0.1, 0.2), 0.3), np.hypot(x - 0.1, y - 0.2) - 0.3, atol=1e-6)
    assert np.allclose(
        capsule(points, (-0.5, 0.0), (0.5, 0.0), (0.2, 0.2))[..., 32], np.abs(y[..., 32]) - 0.2, atol=1e-6
    )
    areas = {
        math.pi * 0.5 * 0.3: ellipse(points, (0.0, 0.0), (0.5, 0.3), 0.4),
        0.5 * 1.0 * 0.8: polygon(points, [(0.0, -0.4), (0.5, 0.4), (-0.5, 0.4)]),
        1.0 * 0.6: box(points, (0.1, 0.1), (0.5, 0.3)),
    }
    for area, distance in areas.items():
        assert (distance < 0).mean() * 4 == pytest.approx(area, abs=0.02)


def test_an_image_is_the_same_alone_and_in_a_batch(factual: Scene) -> None:
    for place in (0, 13, 26):
        one = np.array([LABELS[place]])
        alone = scene(one, one, one, index=np.array([place]), seed=5, image_size=64)
        assert np.array_equal(to_bytes(alone.image)[0], to_bytes(factual.image)[place])
        torch.testing.assert_close(alone.mask[0], factual.mask[place])


def test_another_seed_or_index_is_another_image(factual: Scene) -> None:
    other = scene(LABELS, LABELS, LABELS, index=INDEX, seed=6, image_size=64)
    moved = scene(LABELS, LABELS, LABELS, index=INDEX + 1000, seed=5, image_size=64)
    for drawn in (other, moved):
        for part in ("mask", "foreground", "background"):
            change = (getattr(drawn, part) - getattr(factual, part)).abs().amax((1, 2, 3))
            assert change.min() > 0.1


def test_changing_one_label_changes_one_part(factual: Scene) -> None:
    swapped = (LABELS + 4) % 9
    textured = scene(LABELS, swapped, LABELS, index=INDEX, seed=5, image_size=64)
    assert textured.mask.equal(factual.mask)
    assert textured.background.equal(factual.background)
    assert (textured.foreground - factual.foreground).abs().mean((1, 2, 3)).min() > 0.1
    moved = scene(LABELS, LABELS, swapped, index=INDEX, seed=5, image_size=64)
    assert moved.mask.equal(factual.mask)
    assert moved.foreground.equal(factual.foreground)
    assert (moved.background - factual.background).abs().mean((1, 2, 3)).min() > 0.1


@pytest.mark.parametrize("size", [16, 32])
def test_small_images_are_averages_of_large_ones(factual: Scene, size: int) -> None:
    small = scene(LABELS, LABELS, LABELS, index=INDEX, seed=5, image_size=size)
    for part in ("mask", "foreground", "background"):
        large = torch.nn.functional.avg_pool2d(getattr(factual, part), 64 // size)
        torch.testing.assert_close(getattr(small, part), large, atol=1e-5, rtol=0)


@pytest.mark.long
def test_parts_stay_in_range_and_objects_in_the_image() -> None:
    labels = np.repeat(np.arange(9), 100)
    masks = silhouettes(labels, seed=9, index=np.arange(900), image_size=64)
    assert masks.min() == 0
    assert masks.max() == 1
    areas = masks.mean((1, 2, 3))
    assert areas.min() > 0.1  # the paper's size loss calls smaller ones empty
    assert areas.max() < 0.45
    rim = torch.cat([masks[..., 0], masks[..., -1], masks[..., 0, :], masks[..., -1, :]], -1)
    assert (rim.amax((1, 2)) > 0.5).float().mean() < 0.05
    drawn = scene(labels, labels, labels, seed=9, index=np.arange(900), image_size=32)
    assert drawn.image.abs().max() <= 1
    assert drawn.mask.equal(silhouettes(labels, seed=9, index=np.arange(900), image_size=32))


def test_silhouettes_of_the_classes_are_distinct() -> None:
    bank = silhouette_bank(seed=3, per_class=100, image_size=32)
    labels = torch.arange(9).repeat_interleave(40)
    masks = silhouettes(labels.numpy(), seed=3, index=np.arange(360), image_size=32)
    decided = best_iou(masks, bank=bank).argmax(1)
    accuracy = (decided == labels).float().view(9, 40).mean(1)
    assert accuracy.mean() >= 0.95
    assert accuracy.min() >= 0.8


@pytest.mark.parametrize("part", ["foreground", "background"])
def test_textures_and_backgrounds_differ_in_their_colors(part: str) -> None:
    """Nearest mean of a coarse color histogram: enough for a classifier that ignores shape."""
    labels = np.repeat(np.arange(9), 30)
    drawn = getattr(scene((labels + 3) % 9, labels, labels, seed=4, index=np.arange(270), image_size=32), part)
    bins = ((drawn + 1) * 2).long().clamp(max=3)
    code = bins[:, 0] * 16 + bins[:, 1] * 4 + bins[:, 2]
    histograms = torch.nn.functional.one_hot(code.flatten(1), 64).float().mean(1).view(9, 30, 64)
    means, tested = histograms[:, :15].mean(1), histograms[:, 15:].flatten(0, 1)
    decided = torch.cdist(tested, means).argmin(1)
    assert (decided == torch.arange(9).repeat_interleave(15)).float().mean() > 0.95


def test_wrong_arguments_are_refused() -> None:
    one = np.array([0])
    with pytest.raises(ValueError, match="image_size 48"):
        scene(one, one, one, seed=0, index=one, image_size=48)
    with pytest.raises(ValueError, match="labels from 9 to 9: allowed are 0 to 8"):
        scene(one, one + 9, one, seed=0, index=one, image_size=32)
    with pytest.raises(ValueError, match="1 labels for 2 images"):
        scene(one, one, one, seed=0, index=np.arange(2), image_size=32)


def test_variations_are_what_their_names_say(factual: Scene) -> None:
    varied = variations(factual, LABELS, seed=5)
    assert tuple(varied) == VARIATIONS
    mask, inside = factual.mask, (factual.mask == 1).expand(-1, 3, -1, -1)
    outside = (mask == 0).expand(-1, 3, -1, -1)
    images = {name: variation.images for name, variation in varied.items()}
    assert images["original"].equal(factual.image)
    composed = mask * factual.foreground + (1 - mask) * factual.background
    torch.testing.assert_close(images["original"], composed)
    assert images["only_fg"][inside].equal(factual.foreground[inside])
    assert (images["only_fg"] > -1).any(1, keepdim=True).equal(mask > 0)
    assert images["no_fg"][outside].equal(factual.background[outside])
    assert (images["no_fg"][inside] == -1).all()
    boxed = bounding_boxes(mask).expand(-1, 3, -1, -1)
    assert boxed[~outside].all()
    assert (images["only_bg_b"][boxed] == -1).all()
    for name in ("only_bg_b", "only_bg_t"):
        assert images[name][~boxed].equal(factual.image[~boxed])
    assert (images["only_bg_t"][boxed] != factual.image[boxed]).float().mean() > 0.9
    for name in ("mixed_same", "mixed_rand", "mixed_next"):
        assert images[name][inside].equal(factual.foreground[inside])
        partners = torch.from_numpy(varied[name].background_of)
        assert images[name][outside].equal(factual.background[partners][outside])


def test_backgrounds_come_from_other_images_of_the_right_class() -> None:
    labels = np.repeat(np.arange(9), 50)
    partners = exchanged(labels, seed=1)
    kinds = {name: labels[partner] for name, partner in partners.items()}
    assert np.array_equal(kinds["mixed_same"], labels)
    assert np.array_equal(kinds["mixed_next"], (labels + 1) % 9)
    assert np.bincount(kinds["mixed_rand"], minlength=9).min() > 25
    assert all((partner != np.arange(450)).all() for partner in partners.values())
    with pytest.raises(ValueError, match="expected two or more of each of 9 classes"):
        exchanged(np.arange(9), seed=1)


def test_boxes_and_tiles_of_a_known_image() -> None:
    mask = torch.zeros(1, 1, 6, 6)
    mask[0, 0, 1, 4], mask[0, 0, 3, 3] = 0.2, 1
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[1:4, 3:5] = True
    boxed = bounding_boxes(mask)
    assert boxed[0, 0].equal(expected)
    image = torch.arange(36.0).view(1, 1, 6, 6).expand(1, 3, 6, 6)
    # The widest strip is the three columns on the left.
    assert tiled(image, boxed)[0, 0].equal(image[0, 0, :, :3].repeat(1, 2))
    assert (tiled(image, torch.ones(1, 1, 6, 6, dtype=torch.bool)) == -1).all()


@pytest.mark.parametrize(("split", "per_class"), [("train", 4), ("val", 2)])
def test_splits_are_image_folders_with_true_masks(written: Path, split: str, per_class: int) -> None:
    from torchvision.datasets import ImageFolder

    found = ImageFolder(written / split)
    assert tuple(found.classes) == CLASS_FOLDERS
    assert np.bincount(found.targets).tolist() == [per_class] * 9
    masks = ImageFolder(written / "masks" / split)
    assert [Path(path).name for path, _ in masks.samples] == [Path(path).name for path, _ in found.samples]
    labels = np.array(found.targets)
    drawn = scene(labels, labels, labels, seed=derive(5, split), index=np.arange(len(labels)), image_size=32)
    images = from_bytes(np.stack([pixels(Path(path)) for path, _ in found.samples]))
    stored = np.stack([pixels(Path(path)) for path, _ in masks.samples])
    m = torch.from_numpy(stored)[:, None].float() / 255
    assert (m - drawn.mask).abs().max() <= 0.5 / 255 + 1e-6
    composed = m * drawn.foreground + (1 - m) * drawn.background
    # Half a grey level each from the image's and from the mask's rounding.
    assert (images - composed).abs().max() <= 1 / 127.5 + 1e-5


def test_training_and_validation_share_no_image(written: Path) -> None:
    train, val = ({path.read_bytes() for path in (written / split).rglob("*.png")} for split in ("train", "val"))
    assert len(train) == 36
    assert not train & val


def test_imagenet9_has_the_published_folders_and_names(written: Path) -> None:
    root = written / "imagenet9"
    assert {path.name for path in root.iterdir()} == {*VARIATIONS, "fg_mask"}
    classes = zip(CLASS_FOLDERS, WORDNET, strict=True)
    stems = {f"{folder}/{wordnet}_{number:05d}" for folder, wordnet in classes for number in range(3)}
    for name in {*VARIATIONS, "fg_mask"}:
        files = list((root / name / "val").rglob("*.*"))
        assert len(files) == 27
        if not name.startswith("mixed_"):
            found = {path.relative_to(root / name / "val").with_suffix("").as_posix() for path in files}
            assert found == stems
            continue
        for path in files:
            fore, back = path.stem.removeprefix("fg_").split("_bg_")
            assert f"{path.parent.name}/{fore}" in stems
            label, behind = WORDNET.index(fore.split("_")[0]), WORDNET.index(back.split("_")[0])
            assert CLASS_FOLDERS[label] == path.parent.name
            assert name != "mixed_same" or behind == label
            assert name != "mixed_next" or behind == (label + 1) % 9
    stem = f"{CLASS_FOLDERS[3]}/{WORDNET[3]}_00001"
    mask = np.load(root / "fg_mask" / "val" / f"{stem}.npy")
    assert (mask.dtype, mask.shape) == (np.bool_, (32, 32))
    assert (pixels(root / "no_fg" / "val" / f"{stem}.png")[mask].max(-1) < 128).all()
    assert (pixels(root / "only_fg" / "val" / f"{stem}.png")[mask].max(-1) > 0).all()


def test_cue_conflict_has_the_published_names_and_one_shape_keeps_its_silhouette(written: Path) -> None:
    root = written / "cue_conflict"
    expected = {f"{s}/{s}{k}-{t}{k}.png" for s in CLASSES for t in CLASSES for k in (1, 2)}
    assert {path.relative_to(root).as_posix() for path in root.rglob("*.png")} == expected
    shape, texture = np.indices((9, 9)).reshape(2, 81)
    behind = sets._neither(shape, texture, seed=5)
    assert not ((behind == shape) | (behind == texture)).any()
    assert len(np.unique(behind)) == 9
    # Two dogs of one number differ inside the dog everywhere, their texture being another.
    mask = silhouettes(np.array([0]), seed=derive(5, "cue_conflict"), index=np.array([0]), image_size=32)
    first, second = (pixels(root / "dog" / f"dog1-{t}1.png").astype(int) for t in ("insect", "fish"))
    inside = mask[0, 0].numpy() == 1
    assert (np.abs(first - second)[inside].max(-1) > 8).mean() > 0.8


def test_the_same_seed_writes_the_same_bytes_and_replaces_older_files(written: Path, tmp_path: Path) -> None:
    stale = tmp_path / "val" / "00_dog" / "old.png"
    stale.parent.mkdir(parents=True)
    stale.touch()
    write_sets(tmp_path, seed=5, image_size=32, train_per_class=4, val_per_class=2, per_variation=3, per_pair=2)
    ours, theirs = (
        {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path, written)
    )
    assert ours == theirs
    assert not list(tmp_path.rglob("*.partial"))


def test_a_failure_keeps_the_older_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets.write_split(tmp_path, "val", seed=5, image_size=32, per_class=1)
    before = sorted((tmp_path / "val").rglob("*.png"))

    def broken(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sets, "_save", broken)
    with pytest.raises(KeyboardInterrupt):
        sets.write_split(tmp_path, "val", seed=6, image_size=32, per_class=2)
    assert sorted((tmp_path / "val").rglob("*.png")) == before
