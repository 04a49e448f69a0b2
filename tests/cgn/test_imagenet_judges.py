"""imagenet evaluate, who is examined: files of published networks, folders of ours, the miniature; what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cgn.__main__ import run
from cgn.classifiers.backbones import load_network, network
from cgn.classifiers.ensemble import BASELINE, MECHANISMS, Ensemble
from cgn.config.imagenet.evaluate import Evaluate
from cgn.core.checkpoints import save_model
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.files import write_json
from cgn.core.metrics import Silent
from cgn.data.collection import Collection, PictureSet, write_collection
from cgn.data.miniature.scenes import CLASSES
from cgn.data.miniature.sets import CLASS_FOLDERS, write_sets
from cgn.evaluation.examination import read
from cgn.stages.evaluate import evaluate
from cgn.tracks.imagenet.evaluate import parts as cell
from tests.conftest import ROOT


def make_in9(root: Path) -> None:
    for number in range(3):
        path = root / "imagenet9" / "original" / "val" / "00_dog" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (224, 224), (80 * number, 0, 0)).save(path)


def published(
    tmp_path: Path, data: Path, *, name: str, files: tuple[Path, ...], variant: str = "mini"
) -> dict[str, Any]:
    """classifiers.json of files, examined on ImageNet-9."""
    params = Evaluate(
        suites=("in9",), corruptions=(), corruption_images=None, batch_size=3, workers=0, accelerator="cpu"
    )
    made = cell(params, seed=0, variant=variant)
    evaluate(made, data=data, classifier=files, decisions=tmp_path / "out", network=name, sink=Silent())
    told: dict[str, Any] = json.loads((tmp_path / "out" / "classifiers.json").read_text())
    return told


def weights(path: Path, *, classes: int = 1000) -> Path:
    path.parent.mkdir(exist_ok=True)
    torch.save(network("squeezenet1_1", classes=classes).state_dict(), path)
    return path


def test_a_network_of_ones_own_is_examined_by_its_file_or_folder(tmp_path: Path) -> None:
    make_in9(tmp_path)
    file = weights(tmp_path / "nets" / "mine.pth")
    told = published(tmp_path, tmp_path, name="squeezenet1_1", files=(file.parent,))
    assert {**told["mine"], "sha256": ""} == {
        "network": "squeezenet1_1", "preparation": "imagenet", "file": "mine.pth", "sha256": "",
    }  # fmt: skip
    told = published(tmp_path, tmp_path, name="squeezenet1_1@squeezenet", files=(file,))
    assert told["mine"]["preparation"] == "squeezenet"
    with pytest.raises(ConfigError, match="unknown preparation 'caffe'; known: imagenet, imagenet299, squeezenet"):
        published(tmp_path, tmp_path, name="squeezenet1_1@caffe", files=(file,))


def test_networks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    make_in9(tmp_path)
    few, twin = weights(tmp_path / "few" / "mine.pth", classes=10), weights(tmp_path / "twin" / "mine.pth")
    with pytest.raises(ArtifactError, match=r"mine\.pth \(squeezenet1_1\) answers with 10 classes, expected 1000"):
        published(tmp_path, tmp_path, name="squeezenet1_1", files=(few,))
    with pytest.raises(ArtifactError, match="are both called 'mine'"):
        published(tmp_path, tmp_path, name="squeezenet1_1", files=(twin, twin))
    with pytest.raises(ArtifactError, match=r"mine\.pth is a file: say of which published network by --network"):
        published(tmp_path, tmp_path, name="", files=(twin,))
    weights(tmp_path / "twin" / "other.pth")
    with pytest.raises(ArtifactError, match="twin holds 2 files of weights"):
        published(tmp_path, tmp_path, name="squeezenet1_1", files=(tmp_path / "twin",))


def test_a_file_of_safetensors_and_one_without_counters_load_as_well(tmp_path: Path) -> None:
    """As timm's files are, and torchvision's of before there were counters in BatchNorm."""
    state = network("resnet18").state_dict()
    save_file(state, tmp_path / "timm.safetensors")
    torch.save({key: value for key, value in state.items() if "num_batches" not in key}, tmp_path / "old.pth")
    for name in ("timm.safetensors", "old.pth"):
        loaded = load_network("resnet18", tmp_path / name).state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in state.items())
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "timm.safetensors").read_bytes()[:1000])
    with pytest.raises(ArtifactError, match=r"cut\.safetensors holds no weights"):
        load_network("resnet18", tmp_path / "cut.safetensors")


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small collection of the miniature's sets at 64 pixels."""
    root = tmp_path_factory.mktemp("miniature")
    write_sets(root, seed=0, image_size=64, train_per_class=1, val_per_class=2, per_variation=2, per_pair=1)
    (root / "frost").mkdir()
    for number in range(1, 7):
        Image.effect_noise((90, 80), 60 + number).convert("RGB").save(root / "frost" / f"frost{number}.png")
    names = ("val", "imagenet9", "cue_conflict", "frost")
    sets = {name: PictureSet(folder=name, images=1, digest="") for name in names}
    facts = {"track": "imagenet", "variant": "miniature"}
    write_collection(Collection(root=root, facts=facts, class_names=CLASS_FOLDERS, sets=sets))
    return root


def trained(folder: Path, arm: str, **facts: Any) -> Path:
    """What train_classifier leaves, but for the training."""
    heads = BASELINE if arm == "baseline" else MECHANISMS
    torch.manual_seed(len(heads))
    module = Ensemble(network("resnet18", classes=9), classes=9, heads=heads, batch_norm="trained")
    told = {
        "track": "imagenet", "variant": "miniature", "arm": arm, "classes": 9, "class_names": list(CLASS_FOLDERS),
        "backbone": "resnet18", "heads": list(heads), "batch_norm": "trained", "image_size": 32,
    }  # fmt: skip
    save_model(folder / "model.safetensors", module.state_dict(), facts={**told, **facts})
    write_json(folder / "definition.json", {"verb": "train_classifier", "seed": 3, "params": {"epochs": 2}})
    return folder


def miniature_run(tmp_path: Path, data: Path, *folders: Path, suite: str = "all") -> Path:
    params = Evaluate(
        suites=("clean", "in9", "cue_conflict", "imagenet_c"),
        corruptions=(),
        corruption_images=9,
        batch_size=16,
        workers=0,
        accelerator="cpu",
    )
    made = cell(params, seed=0, variant="miniature")
    evaluate(made, data=data, classifier=folders, decisions=tmp_path / "out", suite=suite, sink=Silent())
    return tmp_path / "out"


def test_the_miniatures_classifiers_are_examined_on_every_suite(tmp_path: Path, miniature: Path) -> None:
    folders = [trained(tmp_path / arm, arm) for arm in ("baseline", "ensemble")]
    out = miniature_run(tmp_path, miniature, *folders)
    found = read(out / "decisions.parquet")
    assert found.classifiers == ("baseline", "ensemble")
    assert found.heads("ensemble") == (*MECHANISMS, "avg", "shape_texture")
    heads = 1 + 5
    shown = {suite: len(found.of(suite)) / heads for suite in ("clean", "in9", "cue_conflict", "imagenet_c")}
    assert shown == {"clean": 18, "in9": 8 * 18, "cue_conflict": 81, "imagenet_c": 9 * (1 + 5 * 15)}
    told = json.loads((out / "results.json").read_text())
    assert told["remarks"] == []
    assert list(told["classifiers"]["ensemble"]["shape"]["cue_conflict"]["by_category"])[:2] == ["bird", "carnivore"]
    assert told["classifiers"]["baseline"]["label"]["imagenet_c"]["mean_error"] > 0.5
    assert json.loads((out / "classifiers.json").read_text())["baseline"]["params"] == {"epochs": 2}
    pictures = {path.name for path in out.glob("*.png")}
    assert pictures == {
        f"{kind}-{arm}.png" for kind in ("shape_bias", "corruptions") for arm in ("baseline", "ensemble")
    }
    assert tuple(found.facts["categories"]) == CLASSES
    rows = found.of("clean", classifier="ensemble", head="avg")
    assert rows["label"].value_counts().to_dict() == dict.fromkeys(range(9), 2)


def test_a_classifier_of_other_classes_is_refused(tmp_path: Path, miniature: Path) -> None:
    other = trained(tmp_path / "other", "baseline", class_names=[*CLASS_FOLDERS[1:], CLASS_FOLDERS[0]])
    with pytest.raises(ArtifactError, match=r"other knows 9 classes, .* has 9, not the same: examine a classifier on"):
        miniature_run(tmp_path, miniature, other)
    wide = weights(tmp_path / "wide.pth")
    with pytest.raises(ArtifactError, match=r"answers with 1000 classes, expected 9"):
        published(tmp_path, miniature, name="squeezenet1_1", files=(wide,), variant="miniature")


def test_the_front_door_takes_a_file_and_defines_the_run_by_its_digest(tmp_path: Path) -> None:
    make_in9(tmp_path / "data")
    file = weights(tmp_path / "mine.pth")
    words = [
        "--suite",
        "in9",
        "--network",
        "squeezenet1_1",
        "--classifier",
        str(file),
        "--data",
        str(tmp_path / "data"),
    ]
    out = tmp_path / "out"
    call = run(["evaluate", "imagenet/mini", "--params", str(ROOT / "params.yaml"), *words, "--decisions", str(out)])
    defined = json.loads((out / "definition.json").read_text())
    assert defined["options"] == {"suite": "in9", "network": "squeezenet1_1"}
    assert set(defined["inputs"]) == {"data", "classifier"}
    told = json.loads((out / "classifiers.json").read_text())["mine"]
    assert defined["inputs"]["classifier"] == [told["sha256"]]
    metrics = json.loads((call.log / "details.json").read_text())
    assert set(metrics["mine"]["label"]["in9"]) == {"original"}
