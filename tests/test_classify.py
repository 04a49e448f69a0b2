"""A trained classifier from Python: it answers to image files as evaluate does, and refuses what it cannot classify."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import cgn
from cgn.core.checkpoints import save_model
from cgn.imagenet.data.preprocessing import imagenet
from cgn.nets.classifiers import MECHANISMS, Cnn, Ensemble, network, with_mean_heads

NAMES = ["dog", "bird", "wheel"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("digits")
    facts = {"track": "mnist", "variant": "toy", "arm": "original", "classes": 10, "image_size": 16}
    save_model(folder / "model.safetensors", Cnn().state_dict(), facts=facts)
    return folder


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ensemble]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("ensemble")
    net = Ensemble(network("shufflenet_v2_x0_5", classes=1), classes=len(NAMES), batch_norm="trained")
    facts = {"track": "imagenet", "variant": "toy", "arm": "ensemble", "classes": len(NAMES), "class_names": NAMES}
    facts |= {"backbone": "shufflenet_v2_x0_5", "heads": list(MECHANISMS), "image_size": 64, "batch_norm": "trained"}
    save_model(folder / "model.safetensors", net.state_dict(), facts=facts)
    return folder, net.eval()


def photo(seed: int, *, size: tuple[int, int] = (90, 70)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def test_an_ensemble_answers_for_each_head_and_decides_by_their_mean(
    ensemble: tuple[Path, Ensemble], tmp_path: Path
) -> None:
    folder, net = ensemble
    photo(0).save(tmp_path / "photo.png")
    classifier = cgn.load_classifier(folder)
    found = classifier.classify([tmp_path / "photo.png", str(tmp_path / "photo.png"), png(photo(1))])
    assert found[0] == found[1] != found[2]
    prepare = imagenet(resize=round(64 * 256 / 224), crop=64)
    with torch.inference_mode():
        logits = with_mean_heads(net(torch.stack([prepare(photo(0)), prepare(photo(1))])))
    for said, place in ((found[0], 0), (found[2], 1)):
        assert list(said.heads) == ["avg", *MECHANISMS, "shape_texture"]
        assert said.name == NAMES[int(logits["avg"][place].argmax())]
        for head, classes in said.heads.items():
            assert list(classes.values()) == sorted(classes.values(), reverse=True)
            expected = logits[head][place].double().softmax(0).tolist()
            assert [classes[name] for name in NAMES] == pytest.approx(expected, abs=1e-6)
    assert found[0].probability == found[0].heads["avg"][found[0].name]


def test_more_images_than_a_batch_keep_their_order(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = cgn.load_classifier(digits)
    files = [png(photo(seed, size=(16, 16))) for seed in range(5)]
    whole = classifier.classify(files)
    monkeypatch.setattr("cgn.classify.BATCH_SIZE", 2)
    assert [one.name for one in classifier.classify(files)] == [one.name for one in whole]
    assert [sum(one.heads["label"].values()) for one in whole] == pytest.approx([1.0] * 5)
    assert classifier.classify([]) == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"nothing", r"image 1 cannot be read: it is not an image of a known format"),
        (png(photo(0, size=(16, 16)))[:-40], r"image 1 cannot be read: "),
        (png(photo(0)), r"image 1 has 90x70 pixels, the classifier takes 16x16"),
        ("missing.png", r"missing.png cannot be read: No such file"),
    ],
)
def test_an_image_that_cannot_be_classified_is_named(digits: Path, image: Any, message: str) -> None:
    with pytest.raises(cgn.ArtifactError, match=message):
        cgn.load_classifier(digits).classify([png(photo(0, size=(16, 16))), image])


def test_weights_that_answer_with_no_numbers_are_refused(tmp_path: Path) -> None:
    net = Cnn()
    net.cls[0].bias.data.fill_(float("nan"))  # type: ignore[operator]
    facts = {"track": "mnist", "variant": "toy", "arm": "original", "classes": 10, "image_size": 16}
    save_model(tmp_path / "model.safetensors", net.state_dict(), facts=facts)
    with pytest.raises(cgn.ArtifactError, match="numbers that are not finite"):
        cgn.load_classifier(tmp_path).classify([png(photo(0, size=(16, 16)))])


def test_a_generator_is_no_classifier(tmp_path: Path) -> None:
    save_model(tmp_path / "model.safetensors", {"a": torch.zeros(1)}, facts={"track": "mnist", "variant": "toy"})
    with pytest.raises(cgn.ArtifactError, match="is not a classifier: give a folder that train_classifier wrote"):
        cgn.load_classifier(tmp_path)
    with pytest.raises(cgn.ArtifactError, match="is missing"):
        cgn.load_classifier(tmp_path / "nothing")
