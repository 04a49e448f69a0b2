"""imagenet evaluate_network and evaluate: files of published networks, folders of ours, any module; what is refused."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import models

from cgn.__main__ import run
from cgn.config.imagenet import Evaluate, Suite
from cgn.config.load import load
from cgn.core.checkpoints import save_model
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.files import sha256, write_json
from cgn.core.metrics import MetricSink, Silent
from cgn.download.sources import SQUEEZENET
from cgn.evaluation.predictions import FILE, read_predictions
from cgn.evaluation.suites import numbers
from cgn.imagenet import evaluate_network as verb
from cgn.imagenet.classifiers import load_trained
from cgn.imagenet.data.prepared_sets import PreparedSet, PreparedSets, write_prepared_sets
from cgn.imagenet.data.preprocessing import Preparation, weights_preparation
from cgn.imagenet.evaluate import evaluate
from cgn.imagenet.evaluate_network import evaluate_models, evaluate_network, open_networks
from cgn.imagenet.evaluation.suites import open_data
from cgn.miniature.sets import CLASS_FOLDERS, write_sets
from cgn.miniature.world.scenes import CLASSES
from cgn.nets.classifiers import BASELINE, MECHANISMS, Ensemble, load_network, network
from tests.conftest import ROOT


class Pictures(Silent):
    """Keeps the names of the pictures that were written."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def picture(self, path: Path) -> None:
        assert path.is_file()
        self.names.append(path.name)


def make_in9(root: Path, *, variation: str = "original") -> None:
    for number in range(3):
        path = root / "imagenet9" / variation / "val" / "00_dog" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (224, 224), (80 * number, 0, 0)).save(path)


def published(
    tmp_path: Path,
    data: Path,
    *,
    name: str,
    files: tuple[Path, ...],
    variant: str = "mini",
    suite: Suite = "in9",
    sink: MetricSink | None = None,
    out: str = "out",
    processes: int = 0,
    ray: str = "",
) -> dict[str, Any]:
    """classifiers.json of files, evaluated on ImageNet-9 or another suite."""
    params = Evaluate(
        suites=(suite,), corruptions=(), corruption_images=None, batch_size=3, workers=0, accelerator="cpu"
    )
    evaluate_network(
        params,
        seed=0,
        variant=variant,
        sink=sink or Silent(),
        network=name,
        weights=files,
        data=data,
        decisions=tmp_path / out,
        workers=processes,
        ray=ray,
    )
    stored: dict[str, Any] = json.loads((tmp_path / out / "classifiers.json").read_text())
    return stored


def weights(path: Path, *, classes: int = 1000) -> Path:
    path.parent.mkdir(exist_ok=True)
    torch.save(network("squeezenet1_1", classes=classes).state_dict(), path)
    return path


def test_a_network_of_ones_own_is_evaluated_by_its_file_or_folder(tmp_path: Path) -> None:
    make_in9(tmp_path)
    file = weights(tmp_path / "nets" / "mine.pth")
    stored = published(tmp_path, tmp_path, name="squeezenet1_1@IMAGENET1K_V1", files=(file.parent,))
    assert stored["mine"] == {
        "network": "squeezenet1_1",
        "recipe": "IMAGENET1K_V1",
        "recipe_from": "--network",
        "preparation": {
            "resize": 256, "crop": 224, "interpolation": "bilinear", "scale": 255.0,
            "mean": [0.485, 0.456, 0.406], "deviation": [0.229, 0.224, 0.225], "transform_input": False,
        },
        "file": "mine.pth",
        "sha256": sha256(file),
    }  # fmt: skip
    stored = published(tmp_path, tmp_path, name="squeezenet1_1@squeezenet", files=(file,))
    assert stored["mine"]["recipe"] == "squeezenet"
    assert stored["mine"]["preparation"]["mean"] == [123.0, 117.0, 104.0]
    with pytest.raises(ConfigError, match="unknown preparation 'caffe'; known: IMAGENET1K_V1, imagenet, imagenet299, "):
        published(tmp_path, tmp_path, name="squeezenet1_1@caffe", files=(file,))


@pytest.mark.long
@pytest.mark.parametrize("ray", ["", pytest.param("local", marks=pytest.mark.extended)])  # then no other cluster
def test_processes_and_a_cluster_share_the_conditions_and_change_nothing(
    tmp_path: Path, ray: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ray:
        pytest.importorskip("ray", reason="Ray is in the dependency group `cluster`")
        monkeypatch.setenv("RAY_TMPDIR", tempfile.mkdtemp(prefix="ray"))  # short, because Ray's sockets are there
    for variation in ("original", "mixed_rand"):
        make_in9(tmp_path, variation=variation)
    file = weights(tmp_path / "mine.pth")
    published(tmp_path, tmp_path, name="squeezenet1_1@256/224/bilinear", files=(file,))
    published(
        tmp_path, tmp_path, name="squeezenet1_1@256/224/bilinear", files=(file,), out="shared", processes=2, ray=ray
    )
    alone, shared = (read_predictions(tmp_path / name / FILE) for name in ("out", "shared"))
    assert alone.rows.equals(shared.rows)
    assert (tmp_path / "out" / "results.json").read_text() == (tmp_path / "shared" / "results.json").read_text()


def test_a_network_of_ones_own_gets_figures_because_it_has_no_report(tmp_path: Path) -> None:
    for name in ("bear/bear1-knife1.png", "knife/knife1-bear1.png"):
        path = tmp_path / "cue_conflict" / name
        path.parent.mkdir(parents=True)
        Image.new("RGB", (224, 224), (80, 0, 0)).save(path)
    sink = Pictures()
    published(
        tmp_path, tmp_path, name="squeezenet1_1@IMAGENET1K_V1", files=(weights(tmp_path / "mine.pth"),),
        suite="cue_conflict", sink=sink,
    )  # fmt: skip
    assert sink.names == ["shape_bias-mine.png"]
    with Image.open(tmp_path / "out" / "shape_bias-mine.png") as picture:
        assert picture.height > picture.width


def test_a_network_whose_recipe_is_unknown_is_refused_with_how_to_give_it(tmp_path: Path) -> None:
    make_in9(tmp_path)
    file = weights(tmp_path / "mine.pth")
    with pytest.raises(
        ConfigError,
        match=r"--network squeezenet1_1: mine\.pth is none of the files that torchvision publishes for it, .* give "
        r"--network squeezenet1_1@IMAGENET1K_V1 \(256/224/bilinear\) .* squeezenet1_1@RESIZE/CROP/INTERPOLATION",
    ):
        published(tmp_path, tmp_path, name="squeezenet1_1", files=(file,))
    with pytest.raises(ConfigError, match=r"@IMAGENET1K_V1 \(256/224/bilinear\) or resnet50@IMAGENET1K_V2 \(232/224/b"):
        weights_preparation("resnet50", asked="", digest="0" * 64, file="resnet50_a1_in1k.safetensors")
    with pytest.raises(ConfigError, match=r"torchvision has no classification network 'resnet51'; .* resnet50"):
        published(tmp_path, tmp_path, name="resnet51", files=(file,))


def test_every_file_of_torchvision_is_shown_what_torchvision_prepares_for_it() -> None:
    """All of its networks, the files of one network distinguished by their digests."""
    pixels = np.random.default_rng(0).integers(0, 256, (270, 330, 3), dtype=np.uint8)
    picture, files = Image.fromarray(pixels), 0
    for name in models.list_models(module=models):
        for held in models.get_model_weights(name):
            if held.meta["categories"]:
                digest = held.url.rsplit("-", 1)[1].removesuffix(".pth").ljust(64, "0")
                found = weights_preparation(name, asked="", digest=digest, file="renamed.pth")
                assert (found.name, found.source) == (held.name, "the file")
                assert found.transform_input == (name in ("googlenet", "inception_v3"))
                prepared, theirs = found.preparation, held.transforms()
                assert [prepared.shorter] == theirs.resize_size
                assert [prepared.crop] == theirs.crop_size
                if files % 5 == 0 or name.startswith("efficientnet"):  # all of them take a minute of a busy core
                    assert torch.equal(prepared.transform("clean")(picture), theirs(picture)), (name, held.name)
                files += 1
    assert files > 110


@pytest.mark.parametrize(
    ("network", "asked", "expected"),
    [
        ("resnet50", "235/224/bicubic", (235, 224, "bicubic", 0.485, False)),
        ("resnet50", "256/256/nearest/0.5/0.5", (256, 256, "nearest", 0.5, False)),
        ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", (384, 384, "bicubic", 0.485, False)),
        ("efficientnet_v2_l", "IMAGENET1K_V1", (480, 480, "bicubic", 0.5, False)),
        ("googlenet", "IMAGENET1K_V1", (256, 224, "bilinear", 0.485, True)),
        ("googlenet", "256/224/bilinear", (256, 224, "bilinear", 0.485, False)),
        ("squeezenet1_0", "squeezenet", (256, 227, "bilinear", 123.0, False)),
    ],
)
def test_a_recipe_can_be_asked_for(network: str, asked: str, expected: tuple[Any, ...]) -> None:
    found = weights_preparation(network, asked=asked, digest="0" * 64, file="x.pth")
    of = found.preparation
    assert (of.shorter, of.crop, of.interpolation, of.mean[0], found.transform_input) == expected
    assert found.source == "--network"


def test_sizes_that_are_asked_for_leave_the_colours_of_a_known_file() -> None:
    found = weights_preparation(
        "efficientnet_v2_l", asked="500/480/bicubic", digest="59c71312".ljust(64, "0"), file="x.pth"
    )
    assert (found.preparation.shorter, found.preparation.mean) == (500, (0.5, 0.5, 0.5))
    found = weights_preparation("squeezenet1_0", asked="227/227/bilinear", digest=str(SQUEEZENET.sha256), file="x.pth")
    assert (found.preparation.crop, found.preparation.scale, found.preparation.mean[0]) == (227, 1.0, 123.0)
    found = weights_preparation("googlenet", asked="224/224/bilinear", digest="1378be20".ljust(64, "0"), file="x.pth")
    assert found.transform_input
    found = weights_preparation(
        "googlenet", asked="224/224/bilinear/.5/.5", digest="1378be20".ljust(64, "0"), file="x.pth"
    )
    assert not found.transform_input, "its colours are given"


@pytest.mark.parametrize(
    "asked",
    ["224/256/bilinear", "256/224", "256/224/lanczos", "0/0/bilinear", "256/224/bilinear/2/1", "256/224/bilinear/0/0",
     "256/224/bilinear/0.5", "256.0/224/bilinear", "IMAGENET1K_V9", "256/224/bilinear/0.5,0.5/0.2"],
)  # fmt: skip
def test_what_is_no_recipe_is_refused(asked: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown preparation .*; known: .*, and RESIZE/CROP/INTERPOLATION"):
        weights_preparation("resnet50", asked=asked, digest="0" * 64, file="x.pth")


@pytest.mark.parametrize(("name", "digest"), [("googlenet", "1378be20"), ("inception_v3", "0cc3c7bd")])
def test_networks_from_tensorflow_transform_their_input_with_the_published_weights_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, digest: str
) -> None:
    make_in9(tmp_path)
    torch.manual_seed(0)
    torch.save(network(name, classes=1000).state_dict(), tmp_path / "net.pth")
    collection = open_data(tmp_path, variant="mini")
    given: dict[str, Any] = {"collection": collection, "device": torch.device("cpu")}
    own = open_networks([tmp_path / "net.pth"], network=f"{name}@96/96/bilinear", **given)["net"]
    monkeypatch.setattr(verb, "sha256", lambda _: digest.ljust(64, "0"))
    published_one = open_networks([tmp_path / "net.pth"], network=name, **given)["net"]
    assert [one.module.net.transform_input for one in (own, published_one)] == [False, True]  # type: ignore[union-attr]
    assert published_one.metadata["preparation"]["transform_input"]
    images = torch.rand(1, 3, 96, 96)
    red = images[:, :1] * (0.229 / 0.5) + (0.485 - 0.5) / 0.5
    green = images[:, 1:2] * (0.224 / 0.5) + (0.456 - 0.5) / 0.5
    blue = images[:, 2:] * (0.225 / 0.5) + (0.406 - 0.5) / 0.5
    with torch.inference_mode():
        expected = own(torch.cat([red, green, blue], dim=1))["label"]
        torch.testing.assert_close(published_one(images)["label"], expected)
        assert not torch.allclose(own(images)["label"], expected)


def test_a_size_that_a_network_cannot_take_is_refused(tmp_path: Path) -> None:
    make_in9(tmp_path)
    file = weights(tmp_path / "mine.pth")
    with pytest.raises(ConfigError, match=r"squeezenet1_1@16/16/bilinear: it takes no pictures of 16 pixels \("):
        published(tmp_path, tmp_path, name="squeezenet1_1@16/16/bilinear", files=(file,))
    with torch.device("meta"):
        assert network("vit_b_16", image_size=384).state_dict()["encoder.pos_embedding"].shape[1] == 24**2 + 1
        with pytest.raises(ConfigError, match="vit_b_32 cannot be built for images of 240 pixels"):
            network("vit_b_32", image_size=240)


def test_networks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    make_in9(tmp_path)
    few, twin = weights(tmp_path / "few" / "mine.pth", classes=10), weights(tmp_path / "twin" / "mine.pth")
    with pytest.raises(ArtifactError, match=r"mine\.pth \(squeezenet1_1\) answers with 10 classes, expected 1000"):
        published(tmp_path, tmp_path, name="squeezenet1_1@256/224/bilinear", files=(few,))
    with pytest.raises(ArtifactError, match="are both called 'mine'"):
        published(tmp_path, tmp_path, name="squeezenet1_1@256/224/bilinear", files=(twin, twin))
    with pytest.raises(ConfigError, match=r"torchvision has no classification network ''; it has for example resnet50"):
        published(tmp_path, tmp_path, name="", files=(twin,))
    weights(tmp_path / "twin" / "other.pth")
    with pytest.raises(ArtifactError, match="twin holds 2 files of weights"):
        published(tmp_path, tmp_path, name="squeezenet1_1@256/224/bilinear", files=(tmp_path / "twin",))


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
    sets = {name: PreparedSet(folder=name, images=1, digest="") for name in names}
    facts = {"track": "imagenet", "variant": "miniature"}
    write_prepared_sets(PreparedSets(root=root, facts=facts, class_names=CLASS_FOLDERS, sets=sets))
    return root


def trained(folder: Path, arm: str, **facts: Any) -> Path:
    """What train_classifier leaves, but for the training."""
    heads = BASELINE if arm == "baseline" else MECHANISMS
    torch.manual_seed(len(heads))
    module = Ensemble(network("resnet18", classes=9), classes=9, heads=heads, batch_norm="trained")
    usual = {
        "track": "imagenet", "variant": "miniature", "arm": arm, "classes": 9, "class_names": list(CLASS_FOLDERS),
        "backbone": "resnet18", "heads": list(heads), "batch_norm": "trained", "image_size": 32,
    }  # fmt: skip
    save_model(folder / "model.safetensors", module.state_dict(), facts={**usual, **facts})
    write_json(folder / "definition.json", {"verb": "train_classifier", "seed": 3, "params": {"epochs": 2}})
    return folder


@pytest.mark.parametrize(
    "facts",
    [
        {"classes": 10**12}, {"classes": "nine"}, {"heads": 3}, {"heads": ["shape", "more"]}, {"backbone": []},
        {"class_names": 3}, {"class_names": []}, {"image_size": 10**9}, {"image_size": "wide"}, {"image_size": []},
    ],
)  # fmt: skip
def test_facts_that_describe_no_classifier_are_refused(tmp_path: Path, facts: dict[str, Any]) -> None:
    trained(tmp_path, "ensemble", **facts)
    with pytest.raises(ArtifactError, match=r"model\.safetensors does not (say what it is|fit)"):
        load_trained(tmp_path, variant="miniature")


def miniature_run(tmp_path: Path, data: Path, *folders: Path, suite: str = "all") -> Path:
    params = Evaluate(
        suites=("clean", "in9", "cue_conflict", "imagenet_c"),
        corruptions=(),
        corruption_images=9,
        batch_size=16,
        workers=0,
        accelerator="cpu",
    )
    evaluate(
        params,
        seed=0,
        variant="miniature",
        sink=Silent(),
        data=data,
        classifier=folders,
        decisions=tmp_path / "out",
        suite=suite,
    )
    return tmp_path / "out"


@pytest.mark.long
def test_the_miniatures_classifiers_are_evaluated_on_every_suite(tmp_path: Path, miniature: Path) -> None:
    folders = [trained(tmp_path / arm, arm) for arm in ("baseline", "ensemble")]
    out = miniature_run(tmp_path, miniature, *folders)
    found = read_predictions(out / "decisions.parquet")
    assert found.classifiers == ("baseline", "ensemble")
    assert found.heads("ensemble") == (*MECHANISMS, "avg", "shape_texture")
    heads = 1 + 5
    shown = {suite: len(found.of(suite)) / heads for suite in ("clean", "in9", "cue_conflict", "imagenet_c")}
    assert shown == {"clean": 18, "in9": 8 * 18, "cue_conflict": 81, "imagenet_c": 9 * (1 + 5 * 15)}
    results = json.loads((out / "results.json").read_text())
    assert results["remarks"] == []
    assert list(results["classifiers"]["ensemble"]["shape"]["cue_conflict"]["by_category"])[:2] == ["bird", "carnivore"]
    assert results["classifiers"]["baseline"]["label"]["imagenet_c"]["mean_error"] > 0.5
    kept = json.loads((out / "classifiers.json").read_text())["baseline"]
    assert (kept["params"], kept["preparation"]["resize"], kept["preparation"]["crop"]) == ({"epochs": 2}, 37, 32)
    assert found.facts["shown"]["classifiers"]["ensemble"]["preparation"] == kept["preparation"]
    assert not list(out.glob("*.png"))  # the report draws them
    assert tuple(found.facts["categories"]) == CLASSES
    rows = found.of("clean", classifier="ensemble", head="avg")
    assert rows["label"].value_counts().to_dict() == dict.fromkeys(range(9), 2)


def test_a_classifier_of_other_classes_is_refused(tmp_path: Path, miniature: Path) -> None:
    other = trained(tmp_path / "other", "baseline", class_names=[*CLASS_FOLDERS[1:], CLASS_FOLDERS[0]])
    with pytest.raises(ArtifactError, match=r"other knows 9 classes, .* has 9, not the same: evaluate a classifier on"):
        miniature_run(tmp_path, miniature, other)
    wide = weights(tmp_path / "wide.pth")
    with pytest.raises(ArtifactError, match=r"wide\.pth is a file: evaluate takes the folders .* run evaluate_network"):
        miniature_run(tmp_path, miniature, wide)
    with pytest.raises(ArtifactError, match=r"answers with 1000 classes, expected 9"):
        published(tmp_path, miniature, name="squeezenet1_1@256/224/bilinear", files=(wide,), variant="miniature")


def test_the_front_door_takes_a_file_and_defines_the_run_by_its_digest(tmp_path: Path) -> None:
    make_in9(tmp_path / "data")
    file = weights(tmp_path / "mine.pth")
    words = [
        "--suite",
        "in9",
        "--network",
        "squeezenet1_1@256/224/bilinear",
        "--weights",
        str(file),
        "--data",
        str(tmp_path / "data"),
    ]
    out = tmp_path / "out"
    call = run(
        ["evaluate_network", "imagenet/mini", "--params", str(ROOT / "params.yaml"), *words, "--decisions", str(out)]
    )
    defined = json.loads((out / "definition.json").read_text())
    assert defined["options"] == {"suite": "in9", "network": "squeezenet1_1@256/224/bilinear"}
    assert set(defined["inputs"]) == {"data", "weights"}
    stored = json.loads((out / "classifiers.json").read_text())["mine"]
    assert defined["inputs"]["weights"] == [stored["sha256"]]
    table = (out / "results.md").read_text()
    assert (
        "| mine | squeezenet1_1 | 256/224/bilinear, says --network | 256/224/bilinear | 0 to 1, minus 0.485, " in table
    )
    assert f" | mine.pth | {stored['sha256']} |" in table
    assert read_predictions(out / "decisions.parquet").facts["shown"]["classifiers"] == {"mine": stored}
    metrics = json.loads((call.log / "details.json").read_text())
    assert set(metrics["mine"]["label"]["in9"]) == {"original"}
    assert defined["verb"] == "evaluate_network"
    params = load(ROOT / "params.yaml").variant("imagenet/mini")
    assert defined["params"]["batch_size"] == params.evaluate.batch_size == 128


def test_evaluate_network_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    make_in9(tmp_path / "data")
    file, out = weights(tmp_path / "mine.pth"), tmp_path / "out"
    words = ["--params", str(ROOT / "params.yaml"), "--weights", str(file), "--data", str(tmp_path / "data")]
    words += ["--decisions", str(out), "--network"]
    with pytest.raises(ConfigError, match=r"torchvision has no classification network 'resnet51'"):
        run(["evaluate_network", "imagenet/mini", *words, "resnet51"])
    with pytest.raises(ConfigError, match="--suite is 'in10'; imagenet knows: all, clean"):
        run(["evaluate_network", "imagenet/mini", *words, "resnet50", "--suite", "in10"])
    with pytest.raises(ConfigError, match=r"the track mnist has no verb evaluate_network; it is a verb of imagenet"):
        run(["evaluate_network", "mnist/digits", *words, "resnet50"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "mine.pth"]


class Red(torch.nn.Module):
    """Answers with the class that the red of a picture's middle says; two heads where `heads` are asked for."""

    def __init__(self, classes: int, *, heads: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.classes, self.names = classes, heads

    def forward(self, images: torch.Tensor) -> Any:
        red = images[:, 0, images.shape[2] // 2, images.shape[3] // 2].round().long() % self.classes
        logits = 20 * torch.nn.functional.one_hot(red, self.classes).float()
        return dict.fromkeys(self.names, logits) if self.names else logits


PIXELS = Preparation(crop=224, shorter=224, scale=1.0, mean=(0.0,) * 3, deviation=(1.0,) * 3)


def test_any_module_is_evaluated_on_the_suites(tmp_path: Path) -> None:
    make_in9(tmp_path)
    models = {"plain": Red(1000).eval(), "headed": Red(1000, heads=("first", "second")).eval()}
    found, metrics = evaluate_models(models, preparation=PIXELS, data=tmp_path, suites=("in9", "stylized"))
    assert list(found.of("in9", classifier="plain")["top_1"]) == [0, 80, 160]
    assert found.heads("headed") == ("first", "second")
    assert metrics == numbers(found)
    assert metrics["plain"]["label"]["in9"]["original"]["hits"] == 1, "160 is a dog, 0 a fish, 80 a bird of no kind"
    assert f"stylized: not in {tmp_path.name}, left out" in found.facts["remarks"]
    single, _ = evaluate_models(models["plain"], preparation=PIXELS, data=tmp_path, suites=("in9",))
    assert single.classifiers == ("model",)
    assert single.rows["top_1"].equals(found.of("in9", classifier="plain").reset_index(drop=True)["top_1"])


def test_a_module_gives_what_the_command_gives_for_its_file(tmp_path: Path) -> None:
    make_in9(tmp_path)
    file = weights(tmp_path / "mine.pth")
    published(tmp_path, tmp_path, name="squeezenet1_1@256/224/bilinear", files=(file,))
    stored = read_predictions(tmp_path / "out" / "decisions.parquet")
    preparation = weights_preparation(
        "squeezenet1_1", asked="256/224/bilinear", digest="0" * 64, file="mine.pth"
    ).preparation
    model = load_network("squeezenet1_1", file)
    found, _ = evaluate_models({"mine": model}, preparation=preparation, data=tmp_path, suites=("in9",), batch_size=3)
    pd.testing.assert_frame_equal(found.rows, stored.rows)


def test_modules_that_cannot_be_evaluated_are_refused(tmp_path: Path) -> None:
    make_in9(tmp_path)
    given: dict[str, Any] = {"preparation": PIXELS, "data": tmp_path, "suites": ("in9",)}
    with pytest.raises(ConfigError, match=r"model is in training mode: call eval\(\)"):
        evaluate_models(Red(1000), **given)
    with pytest.raises(
        ConfigError, match=r"the head label of model answers an image with \(1, 9\): expected \(1, 1000\)"
    ):
        evaluate_models(Red(9).eval(), **given)
    with pytest.raises(ConfigError, match="--suite is 'in10'; imagenet knows"):
        evaluate_models(Red(1000).eval(), **{**given, "suites": ("in10",)})
