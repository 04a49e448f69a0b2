"""The ImageNet track's arms through the stage: what they read, leave behind and refuse, on one device and on two."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cgn.config.imagenet import TrainClassifier
from cgn.core.checkpoints import save_model
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.metrics import Files, MetricSink, Silent
from cgn.data.shards import Sample, write_manifest, write_shard
from cgn.imagenet.classifiers import load_trained
from cgn.imagenet.data.prepared_sets import PreparedSet, PreparedSets, internal_set, write_prepared_sets
from cgn.imagenet.train_classifier import initial_ensemble, train_classifier
from cgn.nets.classifiers import MECHANISMS, network
from tests.support.configs import replace
from tests.support.trainings import CLASSIFIER

NAMES = ("n01", "n02", "n03")
FACTS = {"track": "imagenet", "variant": "miniature"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A collection whose nine training pictures are of three classes, one is truncated; there is also a text file."""
    for label, name in enumerate(NAMES):
        for number in range(3):
            path = tmp_path / "prepare" / "train" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 18), (80 * label, 0, 60 * number)).save(path)
    path.write_bytes(path.read_bytes()[:50])
    path.with_name("note.txt").write_text("not a picture")
    return collected(tmp_path / "prepare")


def collected(root: Path, *, names: tuple[str, ...] = NAMES, variant: str = "miniature") -> Path:
    held = {"train": PreparedSet(folder="train", images=9, digest="0")}
    write_prepared_sets(PreparedSets(root=root, facts=FACTS | {"variant": variant}, class_names=names, sets=held))
    return root


def shards(folder: Path, *, split: str = "counterfactual", variant: str = "miniature", top: int = 2) -> Path:
    """One shard of eight pictures."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    labels = [{name: int(random.integers(0, top + 1)) for name in MECHANISMS} for _ in range(7)]
    labels.append(dict.fromkeys(MECHANISMS, top))
    noise = random.integers(0, 256, (8, 12, 12, 3), dtype=np.uint8)
    samples = [Sample(image=image, facts=facts) for image, facts in zip(noise, labels, strict=True)]
    write_manifest(
        folder,
        [write_shard(folder, samples, split=split, number=0, first_index=0)],
        facts=FACTS | {"variant": variant},
    )
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return shards(tmp_path / "generate")


def train(
    out: Path, params: TrainClassifier = CLASSIFIER, *, seed: int = 0, sink: MetricSink | None = None, **given: Any
) -> None:
    train_classifier(params, seed=seed, variant="miniature", classifier=out, **given, sink=sink or Silent())


def trained(
    out: Path, *, arm: str, data: Path, images: Path | None = None, params: TrainClassifier = CLASSIFIER
) -> bytes:
    out.mkdir()
    train(out, params, data=data, images=images, arm=arm, sink=Files(out.parent / "log"))
    return (out / "model.safetensors").read_bytes()


def test_the_ensemble_leaves_a_classifier_that_can_be_opened(data: Path, images: Path, tmp_path: Path) -> None:
    trained(tmp_path / "out", arm="ensemble", data=data, images=images)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.safetensors", "training.json"]
    net, facts = load_trained(tmp_path / "out", variant="miniature")
    assert facts == {
        **FACTS,
        "arm": "ensemble",
        "backbone": "shufflenet_v2_x0_5",
        "batch_norm": "trained",
        "class_names": list(NAMES),
        "classes": 3,
        "heads": list(MECHANISMS),
        "image_size": 16,
    }
    assert not net.training
    answers = net(torch.zeros(2, 3, 16, 16))
    assert {head: tuple(answer.shape) for head, answer in answers.items()} == dict.fromkeys(MECHANISMS, (2, 3))
    results = json.loads((tmp_path / "out" / "training.json").read_text())
    assert (results["images"], results["updates"]) == ({"real": 9, "counterfactual": 8}, 5)
    assert results["left_out"] == ["n03/note.txt: not an image by its name (.bmp, .gif, .jpeg, .jpg, .pgm, .png, .ppm, "
                                ".tif, .tiff, .webp)"]  # fmt: skip
    assert [sentence.split(":")[0] for sentence in results["unreadable"]] == ["n03/2.png cannot be read"]
    summary = json.loads((tmp_path / "log" / "details.json").read_text())
    assert summary["loss"].keys() == summary["accuracy"].keys() == {"real", *MECHANISMS}
    assert summary["loss"]["shape"] == results["loss/shape"]
    assert summary["images_per_second"] > 0


def test_the_baseline_neither_needs_nor_depends_on_counterfactuals(data: Path, images: Path, tmp_path: Path) -> None:
    alone = trained(tmp_path / "alone", arm="baseline", data=data)
    assert list(load_trained(tmp_path / "alone", variant="miniature")[0].heads) == ["label"]
    assert json.loads((tmp_path / "log" / "metrics.json").read_text())["accuracy"].keys() == {"real"}
    assert trained(tmp_path / "with_images", arm="baseline", data=data, images=images) == alone


@pytest.mark.long
def test_workers_change_nothing(data: Path, images: Path, tmp_path: Path) -> None:
    alone = trained(tmp_path / "alone", arm="ensemble", data=data, images=images)
    helped = replace(CLASSIFIER, workers=2)
    assert trained(tmp_path / "helped", arm="ensemble", data=data, images=images, params=helped) == alone
    (tmp_path / "other").mkdir()
    train(tmp_path / "other", seed=1, data=data, images=images, arm="ensemble")
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != alone


def test_real_pictures_may_be_in_shards(tmp_path: Path, images: Path) -> None:
    shards(tmp_path / "prepare" / "train", split="train")
    trained(tmp_path / "out", arm="ensemble", data=collected(tmp_path / "prepare"), images=images)
    results = json.loads((tmp_path / "out" / "training.json").read_text())
    assert results["images"] == {"real": 8, "counterfactual": 8}


class Interrupted(Files):
    """Stops the training after its first checkpoint."""

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        super().log(values, step=step)
        if step == 4:
            raise KeyboardInterrupt


def prepared(root: Path) -> Path:
    """The nine pictures as prepare records them."""
    held = {"train": internal_set(root, "train")}
    write_prepared_sets(PreparedSets(root=root, facts=FACTS, class_names=NAMES, sets=held))
    return root


def continued(data: Path, out: Path) -> None:
    train(out, data=data, arm="baseline")


def test_pictures_removed_between_a_kill_and_the_resume_are_named(data: Path, tmp_path: Path) -> None:
    prepared(data)
    (tmp_path / "out").mkdir()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "out", data=data, arm="baseline", sink=Interrupted(tmp_path / "log"))
    assert (tmp_path / "out" / "state.pt").is_file()
    moved = [path.rename(tmp_path / path.name) for path in sorted((data / "train" / "n01").iterdir())[:2]]
    with pytest.raises(
        ArtifactError, match=r"changed since prepare: 2 removed \(n01/0\.png, n01/1\.png\); run prepare"
    ):
        continued(data, tmp_path / "out")
    for path in moved:
        path.rename(data / "train" / "n01" / path.name)
    continued(data, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_picture_added_or_replaced_since_prepare_stops_a_training_before_it_begins(
    data: Path, tmp_path: Path
) -> None:
    prepared(data)
    Image.new("RGB", (20, 18)).save(data / "train" / "n02" / "9.png")
    (tmp_path / "out").mkdir()
    with pytest.raises(ArtifactError, match=r"changed since prepare: 1 added \(n02/9\.png\)"):
        continued(data, tmp_path / "out")
    (data / "train" / "n02" / "9.png").rename(data / "train" / "n02" / "0.png")
    with pytest.raises(ArtifactError, match=r"changed since prepare: 1 of another size \(n02/0\.png\)"):
        continued(data, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_pictures_of_names_that_are_not_utf_8_train(data: Path, tmp_path: Path) -> None:
    broken = data / "train" / "n03" / "2.png"
    broken.rename(os.fsdecode(os.fsencode(broken.parent) + b"/caf\xe9.png"))
    trained(tmp_path / "out", arm="baseline", data=prepared(data))
    results = json.loads((tmp_path / "out" / "training.json").read_text(encoding="utf-8"))
    assert [sentence.split(":")[0] for sentence in results["unreadable"]] == [r"n03/caf\xe9.png cannot be read"]
    assert results["images"]["real"] == 9


@pytest.mark.long
def test_two_devices_share_one_shard_and_end_together(data: Path, images: Path, tmp_path: Path) -> None:
    """Fewer shards than ranks, and an epoch that is no multiple of the batch."""
    trained(tmp_path / "out", arm="ensemble", data=data, images=images, params=replace(CLASSIFIER, devices=2))
    results = json.loads((tmp_path / "out" / "training.json").read_text())
    assert results["updates"] == 5
    assert [sentence.split(":")[0] for sentence in results["unreadable"]] == ["n03/2.png cannot be read"]
    assert json.loads((tmp_path / "log" / "metrics.json").read_text())["loss"].keys() == {"real", *MECHANISMS}


def pretrained(folder: Path, *, classes: int = 1000) -> Path:
    folder.mkdir()
    torch.manual_seed(8)
    state = network("resnet50", classes=classes).state_dict()
    torch.save(state, folder / "resnet50-0676ba61.pth")
    return folder


def test_a_pretrained_backbone_gives_its_last_layer_to_heads_of_as_many_classes(tmp_path: Path) -> None:
    assets = pretrained(tmp_path / "fetch")
    weights = torch.load(assets / "resnet50-0676ba61.pth", weights_only=True)
    params = replace(CLASSIFIER, backbone="resnet50", pretrained="resnet50-0676ba61", batch_norm="frozen")
    drawn = initial_ensemble(params, arm="baseline", classes=3, assets=assets, seed=0).state_dict()
    assert torch.equal(drawn["backbone.layer4.2.conv3.weight"], weights["layer4.2.conv3.weight"])
    assert drawn["heads.label.weight"].shape == (3, 2048)
    copied = initial_ensemble(params, arm="baseline", classes=1000, assets=assets, seed=0).state_dict()
    assert torch.equal(copied["heads.label.weight"], weights["fc.weight"])


def test_a_finished_arm_is_checked_not_trained_again(data: Path, images: Path, tmp_path: Path) -> None:
    weights = trained(tmp_path / "out", arm="ensemble", data=data, images=images)
    (tmp_path / "out" / "state.pt").touch()
    train(tmp_path / "out", data=data, images=images, arm="ensemble")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == weights
    assert not (tmp_path / "out" / "state.pt").exists()
    with pytest.raises(ArtifactError, match="is of arm 'ensemble', expected 'baseline'"):
        train(tmp_path / "out", data=data, arm="baseline")


def refused(
    data: Path, *, arm: str = "ensemble", images: Path | None = None, params: TrainClassifier = CLASSIFIER
) -> None:
    out = data.parent / "out"
    out.mkdir()
    try:
        train(out, params, data=data, images=images, arm=arm)
    finally:
        assert not list(out.iterdir())


def test_an_unknown_arm_lists_the_known_ones(data: Path) -> None:
    with pytest.raises(ConfigError, match="--arm is 'cgn', allowed: baseline, ensemble"):
        refused(data, arm="cgn")


def test_an_ensemble_without_counterfactuals_is_refused(data: Path) -> None:
    with pytest.raises(ConfigError, match="arm 'ensemble' of imagenet/miniature needs --images: give that folder"):
        refused(data)


def test_a_pretrained_backbone_without_its_folder_or_file_is_refused(data: Path, tmp_path: Path) -> None:
    params = replace(CLASSIFIER, backbone="resnet50", pretrained="resnet50-0676ba61")
    with pytest.raises(ConfigError, match="arm 'baseline' of imagenet/miniature needs --assets"):
        refused(data, arm="baseline", params=params)
    (tmp_path / "fetch").mkdir()
    (tmp_path / "out").rmdir()
    with pytest.raises(ArtifactError, match=r"resnet50-0676ba61\.pth is missing"):
        train(tmp_path, params, data=data, assets=tmp_path / "fetch", arm="baseline")


def test_counterfactuals_of_another_variant_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="full is of variant 'full', expected 'miniature'"):
        refused(data, images=shards(tmp_path / "full", variant="full"))


def test_pictures_of_another_variant_are_refused(data: Path, images: Path) -> None:
    with pytest.raises(ArtifactError, match="prepare is of variant 'mini', expected 'miniature'"):
        refused(collected(data, variant="mini"), images=images)


def test_counterfactuals_of_more_classes_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"000000\.tar, sample 0000000\d has the \w+ label [34], allowed: 0 to 2"):
        refused(data, images=shards(tmp_path / "more", top=4))


def test_an_unknown_backbone_is_refused(data: Path) -> None:
    with pytest.raises(ConfigError, match=r"no classification network 'resnet5O'.*resnet50"):
        refused(data, arm="baseline", params=replace(CLASSIFIER, backbone="resnet5O"))


def test_a_file_that_does_not_say_what_it_is_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "model.safetensors", {}, facts=FACTS)
    with pytest.raises(ArtifactError, match=r"does not say what it is \('classes'\).*run train_classifier again"):
        load_trained(tmp_path, variant="miniature")


def test_numbers_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size is 4, allowed: a multiple of devices, which is 3"):
        replace(CLASSIFIER, devices=3)
    with pytest.raises(ValueError, match="pretrained is 'resnet50-0676ba61', allowed: none, or a file of the"):
        replace(CLASSIFIER, pretrained="resnet50-0676ba61")
    assert replace(CLASSIFIER, devices=2).counterfactuals_per_update == 6
    assert replace(CLASSIFIER, devices=2, counterfactuals_per_real=0.1).counterfactuals_per_update == 2
