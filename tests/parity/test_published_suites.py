"""Figures that others published, or that were measured apart, come out of the tables: shape bias and clean accuracy.

The SqueezeNet is a real one: torchvision's squeezenet1_0 with the weights of its authors' compressed release.
"""

import re
from pathlib import Path

import pandas as pd
import pytest
import torch

from cgn.__main__ import run
from cgn.core.files import read_json
from cgn.evaluation.metrics import ShapeBias, by_shape, shape_bias, top
from cgn.evaluation.predict import predict
from cgn.evaluation.predictions import Predictions, gather, read_predictions, write_predictions
from cgn.evaluation.suites import CATEGORIES
from cgn.imagenet.data.datasets import TransformedFolder
from cgn.imagenet.data.image_folders import STIMULUS, ImageFolder, class_folders, cue_conflict
from cgn.imagenet.data.preprocessing import Transform, squeezenet
from cgn.imagenet.data.wnids import wnids
from cgn.nets.classifiers import SingleHead, load_network
from tests.conftest import ROOT

PUBLISHED = "style-transfer-512-nomask-experiment_{}_session-1.csv"
STORED_PIXELS = 224


def published(path: Path) -> pd.DataFrame:
    """The rows of one published file, by the names that our tables have; a decision for no category is -1."""
    found = pd.read_csv(path)
    cues = [STIMULUS.search(name) for name in found["imagename"]]
    numbers = {name: number for number, name in enumerate(CATEGORIES)}
    return pd.DataFrame(
        {
            "label": [numbers[cue[1]] for cue in cues if cue],
            "texture": [numbers[cue[2]] for cue in cues if cue],
            "category": found["object_response"].map(numbers).fillna(-1).astype(int),
        }
    )


@pytest.mark.parametrize(
    ("network", "shape", "texture", "percent"), [("resnet50", 162, 572, 22.07), ("vgg16", 84, 828, 9.21)]
)
def test_published_decisions_give_the_published_shape_bias(
    test_data: Path, network: str, shape: int, texture: int, percent: float
) -> None:
    rows = published(test_data / "cue_conflict" / "decisions" / PUBLISHED.format(network))
    found = shape_bias(rows)
    assert len(rows) == 1280
    assert found == ShapeBias(shape=shape, texture=texture, conflicts=1200)
    assert found.bias is not None
    assert 100 * found.bias.share == pytest.approx(percent, abs=0.005)
    assert found.bias.low < found.bias.share < found.bias.high
    parts = by_shape(rows, names=tuple(CATEGORIES)).values()
    assert {part.conflicts for part in parts} == {75}
    assert (sum(part.shape for part in parts), sum(part.texture for part in parts)) == (shape, texture)
    print(f"\n{network}: {100 * found.bias.share:.2f} % [{100 * found.bias.low:.2f}, {100 * found.bias.high:.2f}]")


def test_people_decide_by_shape(test_data: Path) -> None:
    folder = test_data / "cue_conflict" / "decisions"
    people = [shape_bias(published(path)).bias for path in sorted(folder.glob("*_subject-*.csv"))]
    assert len(people) == 3
    assert all(bias is not None and bias.share > 0.9 for bias in people)


def decided(
    test_data: Path, tmp_path: Path, dataset: ImageFolder, *, suite: str, classes: int, transform: Transform
) -> Predictions:
    """SqueezeNet's decisions, from the file that they were written to."""
    weights = test_data / "squeezenet" / "squeezenet1_0_deepcompression_rgb.pth"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that no figure depends on how many cores sum
    found = predict(
        {"squeezenet1_0": SingleHead(load_network("squeezenet1_0", weights), head="label").eval()},
        pictures=TransformedFolder(folder=dataset, transform=transform),
        suite=suite,
        condition="all",
        batch_size=32,
        members=tuple(CATEGORIES.values()),
    )
    torch.set_num_threads(threads)
    assert found.unreadable == ()
    stored = gather([found.rows], track="imagenet", variant="published", classes=1000, suites={suite: classes})
    write_predictions(stored, tmp_path / "decisions.parquet")
    return read_predictions(tmp_path / "decisions.parquet")


@pytest.mark.long
def test_squeezenets_shape_bias_on_the_stimuli(test_data: Path, tmp_path: Path) -> None:
    dataset = cue_conflict(test_data / "cue_conflict" / "stimuli", categories=tuple(CATEGORIES))
    assert (len(dataset), dataset.strays) == (256, ())
    rows = decided(test_data, tmp_path, dataset, suite="cue_conflict", classes=16, transform=squeezenet(resize=227)).of(
        "cue_conflict"
    )
    found = shape_bias(rows)
    assert found == ShapeBias(shape=31, texture=103, conflicts=240)
    assert found.bias is not None
    assert 100 * found.bias.share == pytest.approx(23.13, abs=0.005)
    assert {re.sub(r"\d.*", "", Path(name).name) for name in rows["image"]} == set(CATEGORIES)


@pytest.mark.long
def test_squeezenets_clean_accuracy_on_the_sample(test_data: Path, tmp_path: Path) -> None:
    dataset = class_folders(test_data / "imagenet_sample", classes=wnids())
    rows = decided(test_data, tmp_path, dataset, suite="clean", classes=1000, transform=squeezenet()).of("clean")
    first, five = top(rows, kept=1), top(rows, kept=5)
    print(f"\ntop-1 {first.hits} of {first.images}, top-5 {five.hits} of {five.images}")
    assert (first.images, five.images) == (500, 500)
    # What the paper of SqueezeNet with Deep Compression states for the 50,000 validation images is in the interval.
    assert first.low < 0.575 < first.high
    assert five.low < 0.803 < five.high
    shifted = rows.assign(label=(rows["label"] + 2) % 1000)
    assert top(shifted, kept=1).share < 0.1


@pytest.mark.long
@pytest.mark.parametrize(("suite", "folder"), [("cue_conflict", "cue_conflict/stimuli"), ("clean", "imagenet_sample")])
def test_the_whole_verb_gives_the_same_numbers(test_data: Path, tmp_path: Path, suite: str, folder: str) -> None:
    """By the command line, from a folder that links to the pictures, with the file of weights known by its digest."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / {"clean": "val"}.get(suite, suite)).symlink_to(test_data / folder)
    words = ["--suite", suite, "--network", "squeezenet1_0", "--weights", str(test_data / "squeezenet")]
    words += ["--params", str(ROOT / "params.yaml"), "--data", str(tmp_path / "data")]
    run(["evaluate_network", "imagenet/mini", *words, "--decisions", str(tmp_path / "out")])
    results = read_json(tmp_path / "out" / "results.json")["classifiers"]["squeezenet1_0_deepcompression_rgb"]["label"]
    if suite == "clean":
        first, five = results["clean"]["top_1"], results["clean"]["top_5"]
        print(f"\ntop-1 {100 * first['value']:.1f} %, top-5 {100 * five['value']:.1f} % of {first['images']}")
        assert first["images"] == 500
        assert first["low"] < 0.575 < first["high"]
        assert five["low"] < 0.803 < five["high"]
    else:
        found = results["cue_conflict"]
        assert (found["shape"], found["texture"], found["conflicts"]) == (31, 103, 240)
        assert 100 * found["shape_bias"]["value"] == pytest.approx(23.13, abs=0.005)
