"""imagenet evaluate: known answers of a scripted network on made folders, and what is said of folders that are odd."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from cgn.config.imagenet import Evaluate
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.metrics import Silent
from cgn.corruptions import corrupt
from cgn.evaluation.predict import decide
from cgn.evaluation.predictions import Predictions, read_predictions
from cgn.evaluation.suite_tables import tables
from cgn.evaluation.suites import CATEGORIES, SUPERCLASSES, numbers, summary
from cgn.imagenet import evaluate as verb
from cgn.imagenet.classifiers import Classifier
from cgn.imagenet.data.prepared_sets import (
    PreparedSet,
    PreparedSets,
    SetName,
    external_set,
    inspect_folder,
    write_prepared_sets,
)
from cgn.imagenet.data.preprocessing import PREPARATIONS, Preparation, imagenet, squeezenet
from cgn.imagenet.data.wnids import wnids
from cgn.imagenet.evaluate import check, evaluate
from cgn.imagenet.evaluation import corrupting
from cgn.nets.classifiers import MECHANISMS
from tests.support import sample_predictions as made

PIXELS = Preparation(crop=8, shorter=8, scale=1.0, mean=(0.0, 0.0, 0.0), deviation=(1.0, 1.0, 1.0))
NOWHERE = 25
"""A salamander: of none of the nine superclasses."""
DOG, BIRD = SUPERCLASSES["dog"][0], SUPERCLASSES["bird"][0]
FOLDERS = ("00_dog", "01_bird")


class Scripted(nn.Module):
    """A picture's red and green say what the shape head answers, its blue what the others answer."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.classes, self.seen = classes, 0

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen += len(images)
        red, green, blue = images[:, :, 4, 4].long().unbind(1)
        answers = {"shape": red + 256 * green, "texture": blue, "background": blue}
        return {head: 20 * nn.functional.one_hot(a % self.classes, self.classes).float() for head, a in answers.items()}


class Recorder(Silent):
    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.logged: list[int] = []
        self.pictures: list[str] = []

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        assert values
        self.logged.append(step)

    def summary(self, values: Mapping[str, float]) -> None:
        self.values |= values

    def picture(self, path: Path) -> None:
        assert path.is_file()
        self.pictures.append(path.name)


def save(path: Path, *, shape: int, other: int = 0, size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (shape % 256, shape // 256, other)).save(path)
    return path


def make_in9(root: Path, right: Mapping[str, int], *, images: int = 5) -> None:
    """`images` dogs a variation: `right` decided as dogs by the shape head, the next one nowhere, the others birds."""
    for variation, hits in right.items():
        for number in range(images):
            answer = DOG if number < hits else NOWHERE if number == hits else BIRD
            save(root / "imagenet9" / variation / "val" / "00_dog" / f"{number}.png", shape=answer, other=BIRD)


def make_cues(root: Path) -> None:
    """Four conflicts and one without: the shape head decides by shape twice, by texture once, for neither once."""
    airplane, bear, knife, truck = 404, 294, 499, 555
    for name, answer in {
        "bear/bear1-knife1.png": bear,
        "bear/bear2-truck1.png": truck,
        "truck/truck1-bear1.png": truck,
        "truck/truck2-knife2.png": airplane,
        "knife/knife1-knife2.png": knife,
    }.items():
        save(root / "cue_conflict" / name, shape=answer, other=0)


def evaluated(
    tmp_path: Path,
    data: Path,
    *,
    suite: str = "all",
    sink: Silent | None = None,
    assets: Path | None = None,
    processes: int = 0,
    **given: Any,
) -> dict[str, Any]:
    """results.json of the scripted network, that `open_classifiers` was patched to give."""
    usual = {"suites": ("clean", "in9", "cue_conflict", "stylized"), "corruptions": (), "corruption_images": None}
    evaluate(
        Evaluate(**{**usual, "batch_size": 3, "workers": 0, "accelerator": "cpu", **given}),
        seed=0,
        variant="mini",
        sink=sink or Silent(),
        data=data,
        classifier=(tmp_path / "scripted",),
        decisions=tmp_path / "out",
        suite=suite,
        assets=assets,
        workers=processes,
    )
    found: dict[str, Any] = json.loads((tmp_path / "out" / "results.json").read_text())
    return found


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """Every classifier is the scripted network."""
    made = Scripted().eval()
    classifiers = {"known": Classifier(name="known", module=made, preparation=PIXELS, metadata={"seed": 3})}
    monkeypatch.setattr(verb, "open_classifiers", lambda *_, **__: classifiers)
    return made


def test_known_answers_are_counted_exactly(tmp_path: Path) -> None:
    right = {"original": 5, "mixed_same": 4, "mixed_rand": 1, "only_fg": 0}
    make_in9(tmp_path, right)
    make_cues(tmp_path)
    save(tmp_path / "val" / wnids()[7] / "a.png", shape=7)
    save(tmp_path / "val" / wnids()[8] / "b.png", shape=7, other=8)
    sink = Recorder()
    found = evaluated(tmp_path, tmp_path, sink=sink)["classifiers"]["known"]
    assert set(found) == {*MECHANISMS, "avg", "shape_texture"}
    shape = found["shape"]["in9"]
    assert {name: (shape[name]["hits"], shape[name]["images"]) for name in right} == {
        n: (k, 5) for n, k in right.items()
    }
    assert shape["bg_gap"]["value"] == pytest.approx(0.6)
    assert shape["bg_gap"]["low"] < 0.6 < shape["bg_gap"]["high"]
    assert found["texture"]["in9"]["original"]["hits"] == 0
    assert found["avg"]["in9"]["original"]["hits"] == 0  # two of three say bird
    cues = found["shape"]["cue_conflict"]
    assert (cues["shape"], cues["texture"], cues["conflicts"]) == (2, 1, 4)
    assert cues["shape_bias"]["value"] == pytest.approx(2 / 3)
    bear = cues["by_category"]["bear"]
    assert {name: bear[name] for name in ("shape", "texture", "decided", "conflicts")} == {
        "shape": 1, "texture": 1, "decided": 2, "conflicts": 2,
    }  # fmt: skip
    assert (cues["decided"], cues["shape_accuracy"]["value"], cues["chance"]) == (3, 0.5, 1 / 16)
    assert cues["undecided"] == "no better than chance on clean pictures: top-1 50.0 % (9.5 to 90.5), chance 50.0 %"
    assert (found["shape"]["clean"]["top_1"]["hits"], found["shape"]["clean"]["top_1"]["images"]) == (1, 2)
    assert sink.values["known/shape/in9/bg_gap"] == pytest.approx(0.6)
    assert sink.values["known/shape/clean/top_1"] == 0.5
    assert "known/texture/cue_conflict/shape_bias" not in sink.values  # decided for neither cue
    assert "known/shape/cue_conflict/shape_bias" not in sink.values  # undecided
    cue = {name.rpartition("/")[2]: value for name, value in sink.values.items() if name.startswith("known/shape/cue")}
    assert {name: cue[name] for name in ("decided", "conflicts", "undecided", "shape_accuracy", "chance")} == {
        "decided": 3, "conflicts": 4, "undecided": 1, "shape_accuracy": 0.5, "chance": 1 / 16,
    }  # fmt: skip
    assert cue["shape_bias_low"] < 2 / 3 < cue["shape_bias_high"]
    table = (tmp_path / "out" / "results.md").read_text()
    assert "| known | shape | 100.0 % (56.6 to 100.0) | 80.0 %" in table
    assert "| known | shape | undecided (20.8 to 93.9) | 2 | 1 | 3 | 4 | 50.0 % (15.0 to 85.0) | 6.2 % |" in table
    assert "- shape bias of known, shape: no better than chance on clean pictures" in table
    assert "- in9: no variation only_bg_t of 8" in table
    assert sink.pictures == []  # the report draws them
    assert sink.logged == [2, 22, 27]


def test_the_summary_quotes_a_shape_bias_with_its_grounds_and_an_undecided_one_not_at_all() -> None:
    found = summary(numbers(made.predictions()))
    for classifier, head in made.HEADS:
        cues = {
            name.rpartition("/")[2]: value
            for name, value in found.items()
            if name.startswith(f"{classifier}/{head}/cue_conflict/")
        }
        (shape, texture), doubtful = made.CUES[classifier, head], (classifier, head) in made.UNDECIDED
        assert cues.pop("shape_bias", None) == (None if doubtful else shape / (shape + texture))
        assert cues.pop("shape_bias_low") < shape / (shape + texture) + 1e-9
        assert cues.pop("shape_bias_high") > shape / (shape + texture)
        assert cues == {
            "decided": shape + texture,
            "conflicts": 10,
            "shape_accuracy": shape / 10,
            "chance": pytest.approx(1 / 9),
            "undecided": doubtful,
        }


def test_all_numbers_follow_from_the_stored_decisions(tmp_path: Path) -> None:
    make_in9(tmp_path, {"mixed_same": 4, "mixed_rand": 1})
    make_cues(tmp_path)
    found = evaluated(tmp_path, tmp_path)
    again = read_predictions(tmp_path / "out" / "decisions.parquet")
    assert json.loads(json.dumps(numbers(again))) == found["classifiers"]
    assert tables(numbers(again)) in (tmp_path / "out" / "results.md").read_text()
    assert again.facts["remarks"] == found["remarks"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "classifiers.json",
        "decisions.parquet",
        "results.json",
        "results.md",
    ]
    assert json.loads((tmp_path / "out" / "classifiers.json").read_text()) == {"known": {"seed": 3}}


def test_what_a_suite_lacks_is_named_and_no_reason_to_stop(tmp_path: Path) -> None:
    make_in9(tmp_path, {"original": 2, "mixed_same": 4})
    (tmp_path / "imagenet9" / "original" / "val" / "notes.txt").write_text("x")
    found = evaluated(tmp_path, tmp_path, suites=("in9", "stylized"))
    remarks = "\n".join(found["remarks"])
    assert "bg_gap" not in found["classifiers"]["known"]["shape"]["in9"]
    assert "in9: no variation mixed_rand of 8" in found["remarks"]
    assert f"stylized: not in {tmp_path.name}, left out" in found["remarks"]
    assert "in9/original: left out notes.txt: not in a class folder" in remarks
    assert "in9/original: 8 classes have no folder: 01_, 02_, 03_ ..." in found["remarks"]


def test_many_strays_are_counted_by_reason(tmp_path: Path) -> None:
    make_in9(tmp_path, {"original": 2})
    for number in range(30):
        (tmp_path / "imagenet9" / "original" / "val" / f"{number:02d}.txt").write_text("x")
    remarks = evaluated(tmp_path, tmp_path, suite="in9")["remarks"]
    (left,) = [remark for remark in remarks if "left out" in remark]
    assert left.startswith("in9/original: left out 00.txt, 01.txt, 02.txt, 03.txt, 04.txt and 25 more: not in a class")


def test_linked_class_folders_are_evaluated_whole(tmp_path: Path) -> None:
    """One real folder of a class and two linked ones, one of which is empty."""
    save(tmp_path / "data" / "val" / wnids()[1] / "a.png", shape=1)
    for place in (2, 3):
        save(tmp_path / "store" / wnids()[place] / "b.png", shape=place)
    (tmp_path / "store" / wnids()[4]).mkdir()
    for place in (2, 3, 4):
        (tmp_path / "data" / "val" / wnids()[place]).symlink_to(tmp_path / "store" / wnids()[place])
    found = evaluated(tmp_path, tmp_path / "data", suite="clean")
    assert found["classifiers"]["known"]["shape"]["clean"]["top_1"]["images"] == 3
    assert f"clean/clean: 1 classes have a folder without a picture: {wnids()[4]}" in found["remarks"]


@pytest.mark.parametrize("suite", ["clean", "stylized", "imagenet_c"])
def test_a_folder_that_changed_since_prepare_is_not_evaluated(tmp_path: Path, suite: str, scripted: Scripted) -> None:
    sets: dict[str, PreparedSet] = {}
    names: dict[str, SetName] = {"clean": "val", "stylized": "stylized", "imagenet_c": "imagenet_c"}
    name = names[suite]
    within = tmp_path / "mine" / name
    for home in [f"fog/{severity}" for severity in range(1, 6)] if suite == "imagenet_c" else [""]:
        for number in range(2):
            path = save(within / home / wnids()[1] / f"{number}.png", shape=1)
    data = tmp_path / "data"
    contents = inspect_folder(within, name, classes=wnids())
    sets[name] = external_set(contents, root=data, name=name)
    facts = {"track": "imagenet", "variant": "mini"}
    write_prepared_sets(PreparedSets(root=data, facts=facts, class_names=wnids(), sets=sets))
    assert evaluated(tmp_path, data, suite=suite, corruptions=("fog",))
    seen = scripted.seen
    path.unlink()
    with pytest.raises(ArtifactError, match=rf"{name} has changed since prepare: 1 removed \(.*/1\.png\); run prepare"):
        evaluated(tmp_path, data, suite=suite, corruptions=("fog",))
    assert scripted.seen == seen


def test_pictures_of_names_that_are_not_utf_8_are_evaluated(tmp_path: Path) -> None:
    home = tmp_path / "val" / wnids()[7]
    save(home / "a.png", shape=7).rename(os.fsdecode(os.fsencode(home) + b"/caf\xe9.png"))
    save(home / "b.png", shape=7).rename(home / "two\nlines.png")
    Path(os.fsdecode(os.fsencode(home) + b"/broken\xff.png")).write_bytes(b"x")
    Path(os.fsdecode(os.fsencode(home) + b"/note\xff.txt")).write_bytes(b"x")
    found = evaluated(tmp_path, tmp_path, suite="clean")
    rows = read_predictions(tmp_path / "out" / "decisions.parquet").of("clean", head="shape")
    assert sorted(rows["image"]) == [rf"{wnids()[7]}/caf\xe9.png", rf"{wnids()[7]}/two\x0alines.png"]
    assert found["unreadable"][0].startswith(rf"clean/clean/{wnids()[7]}/broken\xff.png cannot be read")
    assert rf"{wnids()[7]}/note\xff.txt" in (tmp_path / "out" / "results.md").read_text(encoding="utf-8")


def test_nothing_to_evaluate_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        ArtifactError, match=r"holds neither a manifest\.json of prepare nor a folder of the name train"
    ):
        evaluated(tmp_path, tmp_path)
    (tmp_path / "imagenet9").mkdir()
    with pytest.raises(ArtifactError, match="has no variation of ImageNet-9"):
        evaluated(tmp_path, tmp_path)
    with pytest.raises(ArtifactError, match=r"no set 'stylized', only imagenet9"):
        evaluated(tmp_path, tmp_path, suite="stylized")
    with pytest.raises(ArtifactError, match="has the pictures of no suite of cue_conflict"):
        evaluated(tmp_path, tmp_path, suites=("cue_conflict",))
    (tmp_path / "imagenet9" / "original" / "val" / "00_dog").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="holds no image in a class folder"):
        evaluated(tmp_path, tmp_path)


def test_an_unknown_suite_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="--suite is 'in10'; imagenet knows: all, clean, in9, cue_conflict, stylized, imagenet_c"
    ):
        evaluated(tmp_path, tmp_path, suite="in10")


def test_an_unknown_corruption_lists_the_known_ones() -> None:
    params = Evaluate(
        suites=("in9",), corruptions=("fog", "hail"), corruption_images=None, batch_size=1, workers=0, accelerator="cpu"
    )
    with pytest.raises(ConfigError, match=r"imagenet\.mini\.evaluate\.corruptions has hail; known: gaussian_noise"):
        check(params, variant="mini", suite="all")
    with pytest.raises(ConfigError, match=r"imagenet\.mini\.evaluate\.corruptions has hail; known: gaussian_noise"):
        evaluate(params, seed=0, variant="mini", sink=Silent(), data=Path(), classifier=(), decisions=Path())


def test_odd_pictures_are_decided_and_broken_ones_named(tmp_path: Path) -> None:
    folder = tmp_path / "val" / wnids()[200]
    save(folder / "plain.png", shape=200)
    Image.new("L", (8, 8), 200).save(folder / "grey.png")
    Image.new("CMYK", (8, 8), (55, 255, 255, 0)).save(folder / "cmyk.tif")
    Image.fromarray(np.full((8, 8), 200 * 257, dtype=np.uint16)).save(folder / "deep.png")
    Image.new("RGB", (1, 1), (200, 0, 0)).save(folder / "tiny.png")
    whole = save(folder / "whole.png", shape=200, size=64).read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "page.jpg").write_text("<html>not found</html>")
    found = evaluated(tmp_path, tmp_path, suite="clean")
    assert [why.partition(" cannot be read")[0] for why in found["unreadable"]] == [
        f"clean/clean/{wnids()[200]}/{name}" for name in ("cut.png", "page.jpg")
    ]
    rows = read_predictions(tmp_path / "out" / "decisions.parquet").of("clean", head="shape")
    decided = {Path(name).name: top for name, top in zip(rows["image"], rows["top_1"], strict=True)}
    grey = (200 + 256 * 200) % 1000
    assert decided == {
        "plain.png": 200, "grey.png": grey, "cmyk.tif": 200, "deep.png": grey, "tiny.png": 200, "whole.png": 200,
    }  # fmt: skip
    assert found["classifiers"]["known"]["shape"]["clean"]["top_1"]["images"] == 6


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Seven of two classes, larger than what is corrupted."""
    random = np.random.default_rng(0)
    for number in range(7):
        path = tmp_path / "data" / "val" / wnids()[number % 2 * 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (240, 300, 3), dtype=np.uint8)).save(path)
    return tmp_path / "data"


def test_corrupted_pictures_are_the_clean_ones_corrupted(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[str, list[torch.Tensor]] = {}

    def seen(classifiers: Any, images: torch.Tensor, *, shown: Any, members: Any) -> Any:
        for image, name in zip(images, shown["images"], strict=True):
            kept.setdefault(f"{shown['condition']} {name}", []).append(image)
        return decide(classifiers, images, shown=shown, members=members)

    kept = shown
    monkeypatch.setattr(corrupting, "decide", seen)
    found = evaluated(
        tmp_path, photographs, suite="imagenet_c", corruptions=("gaussian_noise", "contrast"), corruption_images=4
    )
    assert len(shown) == 4 * (1 + 2 * 5)
    assert {name.partition(" ")[2] for name in shown} == {
        f"{wnids()[0]}/0.png", f"{wnids()[0]}/2.png", f"{wnids()[3]}/1.png", f"{wnids()[3]}/3.png",
    }  # fmt: skip
    with Image.open(photographs / "val" / wnids()[3] / "1.png") as picture:
        middle = imagenet()(picture)
    pixels = (middle * torch.tensor([0.229, 0.224, 0.225])[:, None, None] * 255).add(
        torch.tensor([0.485, 0.456, 0.406])[:, None, None] * 255
    )
    place = 4  # among all seven: 0, 2, 4, 6 of the first class, then 1
    made = corrupt(pixels.round().to(torch.uint8)[None], name="gaussian_noise", severity=3, numbers=[place], seed=0)
    (image,) = shown[f"gaussian_noise/3 {wnids()[3]}/1.png"]
    assert torch.equal(image, PIXELS.batch(made, view="whole")[0])
    errors = found["classifiers"]["known"]["shape"]["imagenet_c"]
    assert list(errors["corruptions"]) == ["contrast", "gaussian_noise"]
    assert errors["corruptions"]["contrast"]["severities"][0]["images"] == errors["clean_error"]["images"] == 4
    assert "mce" not in errors


def test_corrupted_pictures_are_made_once_for_all_classifiers(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counted(images: torch.Tensor, **given: Any) -> torch.Tensor:
        calls.append(len(images))
        return corrupt(images, **given)

    monkeypatch.setattr(corrupting, "corrupt", counted)
    classifiers = {
        name: Classifier(name=name, module=Scripted().eval(), preparation=replace(PIXELS, shorter=9 + number))
        for number, name in enumerate(("one", "two", "three"))
    }
    monkeypatch.setattr(verb, "open_classifiers", lambda *_, **__: classifiers)
    sink = Recorder()
    found = evaluated(tmp_path, photographs, suite="imagenet_c", corruptions=("contrast",), sink=sink)
    assert "one/shape/imagenet_c/errors/contrast" in sink.values
    assert not any("error" in name.split("/") for name in sink.values)  # `dvc metrics show` takes it for a failure
    assert sum(calls) == 7 * 5
    assert set(found["classifiers"]) == {"one", "two", "three"}


@pytest.mark.long
def test_batches_and_blocks_change_no_decision(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"suite": "imagenet_c", "corruptions": ("shot_noise", "jpeg_compression")}
    evaluated(tmp_path, photographs, **given)  # type: ignore[arg-type]
    first = read_predictions(tmp_path / "out" / "decisions.parquet").rows
    monkeypatch.setattr(corrupting, "IMAGES_PER_BLOCK", 2)
    evaluated(tmp_path, photographs, **given, batch_size=100)  # type: ignore[arg-type]
    assert read_predictions(tmp_path / "out" / "decisions.parquet").rows.equals(first)


def test_frost_needs_its_photographs(tmp_path: Path, photographs: Path) -> None:
    with pytest.raises(ArtifactError, match=r"data has no photographs of frost .*: fetch the benchmark frost"):
        evaluated(tmp_path, photographs, suite="imagenet_c", corruptions=())
    for number in range(1, 6):
        save(tmp_path / "assets" / "frost" / f"frost{number}.png", shape=200, size=300)
    given: dict[str, Any] = {"suite": "imagenet_c", "corruptions": ("frost",), "corruption_images": 2}
    found = evaluated(tmp_path, photographs, **given, assets=tmp_path / "assets")
    (tmp_path / "assets" / "frost").rename(photographs / "frost")
    assert evaluated(tmp_path, photographs, **given) == found
    assert list(found["classifiers"]["known"]["shape"]["imagenet_c"]["corruptions"]) == ["frost"]


def test_prebuilt_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    for severity in range(1, 6):
        for number in range(4):
            answer = 7 if number >= severity - 1 else 8
            save(
                tmp_path / "imagenet_c" / "weather" / "fog" / str(severity) / wnids()[7] / f"{number}.png", shape=answer
            )
    save(tmp_path / "val" / wnids()[7] / "0.png", shape=7)
    found = evaluated(tmp_path, tmp_path, suites=("clean", "imagenet_c"))
    errors = found["classifiers"]["known"]["shape"]["imagenet_c"]
    assert [severity["value"] for severity in errors["corruptions"]["fog"]["severities"]] == [0, 0.25, 0.5, 0.75, 1]
    assert errors["clean_error"]["images"] == 1
    table = (tmp_path / "out" / "results.md").read_text()
    assert "| fog | 0.0 % | 25.0 % | 50.0 % | 75.0 % | 100.0 % | 50.0 % | 61.0 % | 130.0 % |" in table
    assert "clean error 0.0 % (0.0 to 79.3), 4 images each." in table
    assert "imagenet_c: no corruption snow" in found["remarks"]
    assert sum("have no folder" in remark for remark in found["remarks"]) == 2  # once a suite
    (tmp_path / "imagenet_c" / "weather" / "snow" / "1").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="snow lacks the severities 2, 3, 4, 5"):
        evaluated(tmp_path, tmp_path, suite="imagenet_c")


@pytest.mark.long
def test_processes_that_share_the_conditions_change_no_byte(tmp_path: Path, photographs: Path) -> None:
    make_in9(photographs, {"original": 2, "mixed_rand": 1})
    given: dict[str, Any] = {"suites": ("in9", "imagenet_c"), "corruptions": ("fog", "contrast")}
    sinks = Recorder(), Recorder()
    alone = evaluated(tmp_path, photographs, **given, sink=sinks[0])
    decisions = (tmp_path / "out" / "decisions.parquet").read_bytes()
    shutil.rmtree(tmp_path / "out")
    assert evaluated(tmp_path, photographs, **given, processes=2, sink=sinks[1]) == alone
    assert (tmp_path / "out" / "decisions.parquet").read_bytes() == decisions
    assert sinks[0].logged == sinks[1].logged


@pytest.mark.long
def test_an_interrupted_evaluation_repeats_nothing(
    tmp_path: Path, photographs: Path, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_in9(photographs, {"original": 2})
    given: dict[str, Any] = {"suites": ("in9", "imagenet_c"), "corruptions": ("fog", "contrast")}

    def stopped(images: torch.Tensor, **given: Any) -> torch.Tensor:
        if given["name"] == "contrast" and given["severity"] == 4:
            raise KeyboardInterrupt
        return corrupt(images, **given)

    monkeypatch.setattr(corrupting, "corrupt", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluated(tmp_path, photographs, **given)
    assert scripted.seen == 5 + 7 * (1 + 5 + 3)
    monkeypatch.setattr(corrupting, "corrupt", corrupt)
    scripted.seen = 0
    continued = evaluated(tmp_path, photographs, **given)
    assert scripted.seen == 7 * 5
    assert not (tmp_path / "out" / "pieces").exists()
    bytes_of = (tmp_path / "out" / "decisions.parquet").read_bytes()
    assert evaluated(tmp_path, photographs, **given) == continued
    assert (tmp_path / "out" / "decisions.parquet").read_bytes() == bytes_of


@pytest.mark.parametrize("view", ["clean", "whole", "middle"])
def test_a_batch_is_prepared_as_its_pictures_are(view: Any) -> None:
    random = np.random.default_rng(0)
    for name, same in (("imagenet", imagenet), ("squeezenet", squeezenet)):
        preparation = PREPARATIONS[name]
        size = preparation.crop if view != "clean" else 300
        pixels = random.integers(0, 256, (2, size, size, 3), dtype=np.uint8)
        batch = preparation.batch(torch.from_numpy(pixels).permute(0, 3, 1, 2), view=view)
        each = [preparation.transform(view)(Image.fromarray(picture)) for picture in pixels]
        assert torch.equal(batch, torch.stack(each))
        assert torch.equal(each[0], same(resize=256 if view == "clean" else None)(Image.fromarray(pixels[0])))


@pytest.mark.parametrize(
    ("stored", "crop", "expected"),
    [
        (256, 224, ("middle", 224)),
        (224, 224, ("whole", 224)),
        (300, 240, ("middle", 240)),
        (224, 299, ("enlarged", 299)),
        (64, 224, ("enlarged", 224)),
    ],
)
def test_prebuilt_corruptions_are_cropped_not_shrunk(stored: int, crop: int, expected: tuple[str, int]) -> None:
    """The benchmark's own script: CenterCrop(224), and no resize."""
    preparation = Preparation(crop=crop, shorter=crop + 32, scale=1.0, mean=(0.0,) * 3, deviation=(1.0,) * 3)
    pixels = np.random.default_rng(0).integers(0, 256, (stored, stored, 3), dtype=np.uint8)
    picture, start = Image.fromarray(pixels), round((stored - crop) / 2)
    wanted = pixels[start : start + crop, start : start + crop]
    if expected[0] == "enlarged":
        wanted = np.array(picture.resize((crop, crop), Image.Resampling.BILINEAR))
    shown = preparation.transform("middle")(picture)
    assert shown.shape == (3, expected[1], expected[1])
    assert torch.equal(shown, torch.from_numpy(wanted).permute(2, 0, 1).float())


def corrupted(root: Path, *, size: int, classes: int = 1, images: int = 2) -> None:
    """Fog and contrast; the pixel that decides is right, and its neighbours would spoil it."""
    for home in ("weather/fog", "contrast"):
        for severity in range(1, 6):
            for number in range(classes * images):
                label = number % classes
                path = root / home / str(severity) / wnids()[label] / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture = Image.new("RGB", (size, size), (250, 0, 0))
                picture.putpixel((size // 2, size // 2), (label, 0, 0))
                picture.save(path)


def test_how_pictures_were_shown_stands_beside_every_result(tmp_path: Path) -> None:
    corrupted(tmp_path / "imagenet_c", size=12)
    make_in9(tmp_path, {"original": 2})
    found = evaluated(tmp_path, tmp_path, suites=("in9", "imagenet_c"))
    errors = found["classifiers"]["known"]["shape"]["imagenet_c"]["corruptions"]
    assert [errors[name]["mean_error"] for name in ("fog", "contrast")] == [0, 0], "12 pixels shrunk to 8 are blurred"
    assert found["shown"]["corrupted_by"] == "user"
    assert found["shown"]["suites"]["imagenet_c"].startswith(
        "stored squares: the middle, as large as the network's crop"
    )
    assert found["shown"]["suites"]["imagenet_c"].endswith("the first of these pictures has 12 x 12 pixels")
    assert found["shown"]["suites"]["in9"].startswith("stored squares: the whole picture")
    assert read_predictions(tmp_path / "out" / "decisions.parquet").facts["shown"] == found["shown"]
    table = (tmp_path / "out" / "results.md").read_text()
    assert f"- imagenet_c: {found['shown']['suites']['imagenet_c']}" in table


def test_a_collection_says_who_made_its_corrupted_pictures(tmp_path: Path, photographs: Path) -> None:
    corrupted(tmp_path / "own" / "imagenet_c", size=8)
    for folder, source in (("imagenet_c", "fetch"), (str(tmp_path / "own" / "imagenet_c"), "user")):
        sets = {"imagenet_c": PreparedSet(folder=folder, images=20, digest="")}
        facts = {"track": "imagenet", "variant": "mini"}
        write_prepared_sets(PreparedSets(root=tmp_path / "own", facts=facts, class_names=wnids(), sets=sets))
        found = evaluated(tmp_path, tmp_path / "own", suite="imagenet_c", corruptions=("fog", "contrast"))
        assert found["shown"]["corrupted_by"] == source
    found = evaluated(tmp_path, photographs, suite="imagenet_c", corruptions=("contrast",), corruption_images=2)
    assert found["shown"]["corrupted_by"] == "here"
    assert found["shown"]["suites"]["imagenet_c"].startswith(
        "the middle 224 pixels of photographs, corrupted here; then"
    )


def test_images_are_counted_under_every_corruption_and_severity(tmp_path: Path) -> None:
    corrupted(tmp_path / "imagenet_c", size=8, images=3)
    evaluated(tmp_path, tmp_path, suite="imagenet_c")
    assert "3 images each." in (tmp_path / "out" / "results.md").read_text()
    (tmp_path / "imagenet_c" / "contrast" / "4" / wnids()[0] / "1.png").unlink()
    evaluated(tmp_path, tmp_path, suite="imagenet_c")
    assert "2 to 3 images each." in (tmp_path / "out" / "results.md").read_text()
    (tmp_path / "imagenet_c" / "weather" / "fog" / "1" / wnids()[0] / "1.png").write_bytes(b"<html>")
    (tmp_path / "imagenet_c" / "weather" / "fog" / "1" / wnids()[0] / "2.png").write_bytes(b"<html>")
    evaluated(tmp_path, tmp_path, suite="imagenet_c")
    assert "1 to 3 images each." in (tmp_path / "out" / "results.md").read_text()


def test_means_of_corruptions_say_over_which_they_are() -> None:
    whole = made.predictions(suites=["imagenet_c"])
    fog = whole.rows[whole.rows["condition"].str.startswith("fog/")]
    more = fog.assign(condition=fog["condition"].str.replace("fog", "speckle_noise"))
    kept = Predictions(rows=pd.concat([whole.rows, more], ignore_index=True), facts=whole.facts)
    table = tables(numbers(kept))
    assert "| speckle noise |" in table
    assert re.search(
        r"mean error over the fifteen [\d.]+ %, mCE over the fifteen [\d.]+ %, relative mCE over the", table
    )


@pytest.mark.long
def test_a_cue_conflict_set_that_lacks_categories_is_remarked_upon(tmp_path: Path) -> None:
    make_cues(tmp_path)
    remarks = evaluated(tmp_path, tmp_path, suite="cue_conflict")["remarks"]
    lacking = [name for name in CATEGORIES if name not in ("bear", "truck")]
    assert (
        f"cue_conflict: no conflict has the shape of {', '.join(lacking)}: the shape bias is over 2 of 16 shapes, "
        "every decision among all 16 categories"
    ) in remarks
    assert any("no conflict has the texture of airplane, bicycle" in remark for remark in remarks)
    for first in CATEGORIES:
        for second in CATEGORIES:
            if first != "clock" and second != "oven":
                save(tmp_path / "cue_conflict" / first / f"{first}1-{second}1.png", shape=0)
    save(tmp_path / "cue_conflict" / "clock" / "clock1-clock1.png", shape=0)
    remarks = evaluated(tmp_path, tmp_path, suite="cue_conflict")["remarks"]
    assert [remark.partition(":")[2].partition(":")[0].strip() for remark in remarks] == [
        "no conflict has the shape of clock",
        "no conflict has the texture of oven",
    ]
    save(tmp_path / "cue_conflict" / "clock" / "clock1-oven1.png", shape=0)
    assert evaluated(tmp_path, tmp_path, suite="cue_conflict")["remarks"] == []


@pytest.mark.parametrize("suite", ["clean", "stylized"])
def test_a_subset_of_classes_says_among_how_many_was_decided(tmp_path: Path, suite: str) -> None:
    for label in (3, 8, 9):
        save(tmp_path / {"clean": "val"}.get(suite, suite) / wnids()[label] / "a.png", shape=label)
    remarks = evaluated(tmp_path, tmp_path, suite=suite)["remarks"]
    assert f"{suite}: pictures of 3 of the 1,000 classes; every decision is among all 1,000" in remarks
    assert f"- {suite}: pictures of 3 of the 1,000" in (tmp_path / "out" / "results.md").read_text()


@pytest.mark.long
def test_subsets_of_corruptions_and_superclasses_say_so_too(tmp_path: Path, photographs: Path) -> None:
    given: dict[str, Any] = {"suite": "imagenet_c", "corruptions": ("contrast",)}
    for images, classes in ((1, 1), (4, 2)):
        remarks = evaluated(tmp_path, photographs, **given, corruption_images=images)["remarks"]
        assert f"imagenet_c: pictures of {classes} of the 1,000 classes; every decision is among all 1,000" in remarks
    corrupted(tmp_path / "imagenet_c", size=8, classes=3)
    remarks = evaluated(tmp_path, tmp_path, suite="imagenet_c")["remarks"]
    assert "imagenet_c: pictures of 3 of the 1,000 classes; every decision is among all 1,000" in remarks
    make_in9(tmp_path, {"original": 2})
    remarks = evaluated(tmp_path, tmp_path, suite="in9")["remarks"]
    assert "in9: pictures of 1 of the 9 superclasses; every decision is among all 1,000 classes" in remarks
