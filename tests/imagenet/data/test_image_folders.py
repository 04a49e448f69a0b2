"""Benchmark folders are listed as laid out, what does not fit is named, and an empty or missing folder is an error."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cgn.core.errors import ArtifactError
from cgn.core.files import on_disk, readable
from cgn.imagenet.data.datasets import TransformedFolder
from cgn.imagenet.data.image_folders import (
    VARIATIONS,
    ImageFolder,
    balanced_subset,
    class_folders,
    cue_conflict,
    imagenet9,
    imagenet_c,
)
from cgn.imagenet.data.preprocessing import imagenet, squeezenet
from cgn.imagenet.data.wnids import wnids

FOLDERS = (
    "00_dog", "01_bird", "02_wheeled vehicle", "03_reptile", "04_carnivore", "05_insect", "06_musical instrument",
    "07_primate", "08_fish",
)  # fmt: skip


def save(path: Path, *, colour: int = 128, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour, colour, colour)).save(path)
    return path


def test_class_folders_are_numbered_by_their_names_not_by_their_place(tmp_path: Path) -> None:
    for name in ("c/2.JPEG", "c/1.png", "a/below/3.webp"):
        save(tmp_path / name)
    dataset = class_folders(tmp_path, classes=("a", "b", "c"))
    assert dataset.names == ("a/below/3.webp", "c/1.png", "c/2.JPEG")
    assert dataset.labels == {"shape": (0, 2, 2)}
    assert (dataset.absent, dataset.strays, len(dataset)) == (("b",), (), 3)


def test_strays_are_counted_and_named_with_the_reason(tmp_path: Path) -> None:
    for name in ("a/1.png", "d/1.png", "loose.png", "a/.thumbnail.png", ".git/objects/1.png"):
        save(tmp_path / name)
    (tmp_path / "a" / "Thumbs.db").write_bytes(b"x")
    for number in range(30):
        (tmp_path / "a" / f"{number:02d}.txt").write_bytes(b"x")
    dataset = class_folders(tmp_path, classes=("a", "b"))
    assert dataset.names == ("a/1.png",)
    hidden, unnamed, foreign = dataset.strays
    assert (hidden.count, hidden.names) == (2, (".git/objects/1.png", "a/.thumbnail.png"))
    assert (unnamed.count, unnamed.names) == (31, tuple(f"a/{number:02d}.txt" for number in range(5)))
    assert str(unnamed).startswith(
        "a/00.txt, a/01.txt, a/02.txt, a/03.txt, a/04.txt and 26 more: not an image by its n"
    )
    assert str(foreign) == "d/1.png, loose.png: not in a class folder (a ... b)"


def test_linked_class_folders_and_linked_images_are_read(tmp_path: Path) -> None:
    for name in ("store/one/1.png", "store/two/2.png", "store/two/below/3.png", "data/a/0.png"):
        save(tmp_path / name)
    (tmp_path / "data" / "b").symlink_to(tmp_path / "store" / "one")
    (tmp_path / "data" / "c").symlink_to("../store/two")
    (tmp_path / "data" / "a" / "4.png").symlink_to(tmp_path / "store" / "one" / "1.png")
    dataset = class_folders(tmp_path / "data", classes=("a", "b", "c"))
    assert dataset.names == ("a/0.png", "a/4.png", "b/1.png", "c/2.png", "c/below/3.png")
    assert (dataset.absent, dataset.empty, dataset.strays) == ((), (), ())


def test_cycles_of_links_end_and_are_named(tmp_path: Path) -> None:
    save(tmp_path / "data" / "a" / "0.png")
    (tmp_path / "data" / "a" / "again").symlink_to("..")
    (tmp_path / "data" / "a" / "outside").symlink_to(tmp_path)
    (tmp_path / "data" / "a" / "self").symlink_to("self")
    dataset = class_folders(tmp_path / "data", classes=("a",))
    assert dataset.names == ("a/0.png",)
    assert [str(stray) for stray in dataset.strays] == [
        "a/again, a/outside: a link to a folder that holds it",
        "a/self: a link that leads nowhere",
    ]


def test_what_cannot_be_followed_or_is_no_file_is_named(tmp_path: Path) -> None:
    save(tmp_path / "a" / "0.png")
    (tmp_path / "b").symlink_to("unplugged")
    (tmp_path / "a" / "1.png").symlink_to("gone.png")
    (tmp_path / "c").mkdir()
    os.mkfifo(tmp_path / "a" / "2.png")
    dataset = class_folders(tmp_path, classes=("a", "b", "c"))
    assert (dataset.names, dataset.absent, dataset.empty) == (("a/0.png",), ("b",), ("c",))
    assert [str(stray) for stray in dataset.strays] == [
        "a/1.png, b: a link that leads nowhere",
        "a/2.png: neither a file nor a folder",
    ]


def test_linked_variations_stimuli_and_corruptions_are_read(tmp_path: Path) -> None:
    save(tmp_path / "store" / "val" / "00_dog" / "0.png")
    save(tmp_path / "cat" / "cat1-dog1.png")
    for severity in range(1, 6):
        save(tmp_path / "fog" / str(severity) / "a" / "1.png")
    for name, target in (("in9/original", "store"), ("cues/cat", "cat"), ("c/weather/fog", "fog")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).symlink_to(tmp_path / target)
    assert len(imagenet9(tmp_path / "in9").present["original"]) == 1
    assert len(cue_conflict(tmp_path / "cues", categories=("cat", "dog"))) == 1
    assert len(imagenet_c(tmp_path / "c", corruptions=("fog",), classes=("a",)).present) == 5


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"two\nlines.png", rb"caf\xe9.png", "caf\u00e9.png".encode()])
def test_any_file_name_is_text_and_can_be_opened(tmp_path: Path, name: bytes) -> None:
    save(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "1.png").rename(os.fsdecode(os.fsencode(tmp_path / "a") + b"/" + name))
    dataset = class_folders(tmp_path, classes=("a",))
    assert dataset.names[0].encode().decode().isprintable()
    assert os.fsencode(on_disk(dataset.names[0])) == b"a/" + name
    assert isinstance(TransformedFolder(folder=dataset, transform=squeezenet())[0], torch.Tensor)


def test_names_that_differ_are_written_differently() -> None:
    names = [os.fsdecode(name) for name in (b"\xe9", rb"\xe9", rb"\\xe9", "\u00e9".encode(), b"\x0a", rb"\x0a")]
    assert [readable(name) for name in names] == [r"\xe9", r"\\xe9", r"\\\\xe9", "\u00e9", r"\x0a", r"\\x0a"]
    assert [on_disk(readable(name)) for name in names] == names


def test_an_unreadable_image_of_an_odd_name_gives_a_sentence_that_can_be_stored(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png")
    Path(os.fsdecode(os.fsencode(tmp_path / "a") + b"/caf\xe9.png")).write_bytes(b"x")
    pictures = TransformedFolder(folder=class_folders(tmp_path, classes=("a",)), transform=squeezenet())
    sentence = pictures[1]
    assert isinstance(sentence, str)
    assert sentence.encode().startswith(rb"a/caf\xe9.png cannot be read: ")


def test_a_missing_empty_or_foreign_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nowhere is missing: give the folder"):
        class_folders(tmp_path / "nowhere", classes=("a",))
    with pytest.raises(ArtifactError, match=r"holds no image in a class folder \(a \.\.\. a\), but no file at all"):
        class_folders(tmp_path, classes=("a",))
    save(tmp_path / "b" / "1.png")
    with pytest.raises(ArtifactError, match=r"but 1 other files, such as b/1\.png"):
        class_folders(tmp_path, classes=("a",))
    with pytest.raises(ArtifactError, match=r"1\.png is a file, not a folder"):
        cue_conflict(tmp_path / "b" / "1.png", categories=("a",))
    with pytest.raises(ArtifactError, match="holds no stimulus"):
        cue_conflict(tmp_path, categories=("a",))


def test_imagenet9_lists_what_is_there_and_names_what_is_missing(tmp_path: Path) -> None:
    for number, folder in enumerate(FOLDERS):
        for variation in ("mixed_same", "mixed_rand"):
            for copy in range(number % 3 + 1):
                save(tmp_path / variation / "val" / folder / f"{copy}.JPEG")
    save(tmp_path / "mixed_rand" / "val" / "09_tree" / "0.JPEG")
    found = imagenet9(tmp_path)
    assert list(found.present) == ["mixed_same", "mixed_rand"]
    assert found.missing == tuple(name for name in VARIATIONS if not name.startswith("mixed_") or name == "mixed_next")
    same, rand = found.present.values()
    assert same.names == rand.names
    assert np.bincount(same.labels["shape"]).tolist() == [1, 2, 3] * 3
    assert (same.strays, len(rand.strays)) == ((), 1)
    assert str(rand.strays[0]).startswith("09_tree/0.JPEG: not in a class folder")


def test_imagenet9_names_an_absent_class_and_the_folder_to_give(tmp_path: Path) -> None:
    save(tmp_path / "bg_challenge" / "original" / "val" / "00_dog" / "0.JPEG")
    with pytest.raises(ArtifactError, match=r"has no variation of ImageNet-9 .*; .*bg_challenge looks like the folder"):
        imagenet9(tmp_path)
    original = imagenet9(tmp_path / "bg_challenge").present["original"]
    assert original.absent == tuple(f"{number:02d}_" for number in range(1, 9))
    (tmp_path / "bg_challenge" / "only_fg").mkdir()
    with pytest.raises(ArtifactError, match=r"only_fg/val is missing"):
        imagenet9(tmp_path / "bg_challenge")


def test_stimuli_carry_both_cues(tmp_path: Path) -> None:
    for name in ("cat/cat1-dog2.png", "cat/cat10-cat3.png", "dog/dog2-cat12.png", "dog/cat2-dog1.png"):
        save(tmp_path / name)
    save(tmp_path / "cat" / "cat1.png")
    save(tmp_path / "cat" / "cat1-cow2.png")
    dataset = cue_conflict(tmp_path, categories=("cat", "dog"))
    assert dataset.names == ("cat/cat1-dog2.png", "cat/cat10-cat3.png", "dog/dog2-cat12.png")
    assert dataset.labels == {"shape": (0, 0, 1), "texture": (1, 0, 0)}
    assert [stray.names for stray in dataset.strays] == [("cat/cat1-cow2.png", "cat/cat1.png"), ("dog/cat2-dog1.png",)]
    assert dataset.strays[-1].reason == "not in the folder of the shape that its name gives"


def test_images_are_chosen_evenly_over_the_classes() -> None:
    labels = [0] * 5 + [1] * 2 + [2] * 4 + [3] * 3
    names = tuple(map(str, range(len(labels))))
    dataset = ImageFolder(root=Path(), names=names, labels={"shape": tuple(labels)}, strays=())
    chosen = {
        images: [labels[place] for place in balanced_subset(dataset, images=images)] for images in (2, 4, 8, 9, 11, 20)
    }
    assert chosen == {
        2: [0, 2],
        4: [0, 1, 2, 3],
        8: [0, 0, 1, 1, 2, 2, 3, 3],
        9: [0, 0, 0, 1, 1, 2, 2, 3, 3],
        11: [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3],
        20: labels,
    }
    assert balanced_subset(dataset, images=8) == (0, 1, 5, 6, 7, 8, 11, 12)


def test_prebuilt_corruptions_are_in_folders_of_kinds_or_in_one_folder(tmp_path: Path) -> None:
    for severity in range(1, 6):
        save(tmp_path / "noise" / "shot_noise" / str(severity) / "b" / "1.png")
        save(tmp_path / "fog" / str(severity) / "a" / "1.png")
    found = imagenet_c(tmp_path, corruptions=("shot_noise", "fog", "snow"), classes=("a", "b"))
    assert list(found.present) == [f"{name}/{s}" for name in ("shot_noise", "fog") for s in range(1, 6)]
    assert found.present["shot_noise/3"].labels == {"shape": (1,)}
    assert found.missing == ("snow",)
    with pytest.raises(ArtifactError, match=r"has no corruption of ImageNet-C .*: snow, frost"):
        imagenet_c(tmp_path, corruptions=("snow", "frost"), classes=("a", "b"))
    (tmp_path / "snow" / "2").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="snow lacks the severities 1, 3, 4, 5: a corruption needs all five"):
        imagenet_c(tmp_path, corruptions=("snow",), classes=("a", "b"))


def test_an_unreadable_image_keeps_its_place(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png", colour=0)
    (tmp_path / "a" / "2.png").write_bytes((tmp_path / "a" / "1.png").read_bytes()[:40])
    save(tmp_path / "a" / "3.png", colour=255)
    pictures = TransformedFolder(folder=class_folders(tmp_path, classes=("a",)), transform=squeezenet())
    first, second, third = (pictures[place] for place in range(len(pictures)))
    assert isinstance(second, str)
    assert second.startswith("a/2.png cannot be read: ")
    assert isinstance(first, torch.Tensor)
    assert isinstance(third, torch.Tensor)
    torch.testing.assert_close(third - first, torch.full((3, 227, 227), 255.0))
    again = pickle.loads(pickle.dumps(pictures))[2]
    torch.testing.assert_close(again, third, rtol=0, atol=0)


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (500, 375), (224, 224)])
def test_every_size_is_cropped_to_one(size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, (255, 128, 0))
    assert imagenet()(picture).shape == (3, 224, 224)
    assert squeezenet()(picture).shape == (3, 227, 227)


def test_colours_are_normalized_as_published() -> None:
    grey = Image.new("RGB", (300, 300), (255, 0, 51))
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    torch.testing.assert_close(imagenet()(grey)[:, 0, 0], torch.tensor(expected))
    torch.testing.assert_close(squeezenet()(grey)[:, 0, 0], torch.tensor([132.0, -117.0, -53.0]))


def test_images_stored_at_the_crops_size_are_left_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    left = imagenet(resize=None)(Image.fromarray(pixels))
    scaled = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(left, (scaled - mean.view(3, 1, 1)) / deviation.view(3, 1, 1))
    assert not torch.allclose(imagenet()(Image.fromarray(pixels)), left, atol=0.1)


def test_the_shorter_side_is_resized_and_the_middle_kept() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    small = Image.fromarray(pixels).resize((426, 256), Image.Resampling.BILINEAR)
    middle = np.array(small)[14 : 14 + 227, 100 : 100 + 227]
    mean = torch.tensor([123.0, 117.0, 104.0]).view(3, 1, 1)
    expected = torch.from_numpy(middle).permute(2, 0, 1) - mean
    torch.testing.assert_close(squeezenet()(Image.fromarray(pixels)), expected, rtol=0, atol=0)


def test_the_sample_and_the_odd_originals_are_listed(test_data: Path) -> None:
    sample = class_folders(test_data / "imagenet_sample", classes=wnids())
    assert (len(sample), len(sample.absent)) == (500, 500)
    assert sample.labels["shape"] == tuple(range(0, 1000, 2))
    assert [stray.names for stray in sample.strays] == [("labels.csv",)]
    odd = TransformedFolder(folder=class_folders(test_data / "imagenet_odd", classes=wnids()), transform=imagenet())
    assert len(odd) == 82
    shapes = {
        picture.shape if isinstance(picture, torch.Tensor) else picture for picture in map(odd.__getitem__, range(82))
    }
    assert shapes == {(3, 224, 224)}
