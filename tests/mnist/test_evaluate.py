"""evaluate: what it stores is what the classifiers say, derived numbers agree with it, foreigners are refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cgn.__main__ import parse
from cgn.config.mnist import Evaluate
from cgn.core.checkpoints import save_model
from cgn.core.errors import ArtifactError
from cgn.core.files import write_json
from cgn.core.metrics import MetricSink, Silent
from cgn.data.shards import Sample, write_manifest, write_shard
from cgn.evaluation.metrics import accuracies, followed
from cgn.evaluation.predictions import read_predictions
from cgn.mnist.evaluate import evaluate
from cgn.nets import classifiers

FACTS = {"track": "mnist", "variant": "digits", "classes": 10, "image_size": 16}
READS = {"original": (0.0, 0.0, 1.0), "gan": (0.0, 1.0, 0.0), "counterfactual": (1.0, 0.0, 0.0)}
STEP = 25
"""Grey levels between two labels; red is the shape, green the texture, blue the background."""


class Reader(nn.Module):
    """Reads the label that one colour channel holds."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = nn.Parameter(torch.zeros(3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B,3,H,W) in [-1,1] -> (B,10) log-probabilities."""
        label = ((images.mean(dim=(2, 3)) + 1) * 127.5 / STEP * self.channels).sum(dim=1)
        return (-((torch.arange(10) - label[:, None]) ** 2)).log_softmax(dim=1)


class Recorder(Silent):
    """Keeps what a verb measures."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.pictures: list[str] = []

    def summary(self, values: Mapping[str, float]) -> None:
        self.values |= values

    def picture(self, path: Path) -> None:
        assert path.is_file()
        self.pictures.append(path.name)


def make_data(folder: Path, *, facts: Mapping[str, Any] = FACTS) -> Path:
    random = np.random.default_rng(0)
    shards = []
    for split, images in (("train", 33), ("test_iid", 20), ("test_random", 60)):
        labels = random.integers(0, 10, (images, 3))
        if split != "test_random":
            labels[:] = labels[:, :1]
        made = [
            Sample(
                image=np.full((16, 16, 3), STEP * row, dtype=np.uint8),
                facts=dict(zip(("shape", "texture", "background"), row.tolist(), strict=True)),
            )
            for row in labels
        ]
        shards.append(write_shard(folder, made, split=split, number=0, first_index=0))
    write_manifest(folder, shards, facts=facts)
    return folder


def make_classifier(folder: Path, module: nn.Module, *, arm: str, **facts: object) -> Path:
    save_model(folder / "model.safetensors", module.state_dict(), facts={**FACTS, "arm": arm, **facts})
    write_json(folder / "training.json", {"running_accuracy": 0.75, "images": 33, "updates": 5})
    write_json(folder / "definition.json", {"verb": "train_classifier", "seed": 3, "params": {"epochs": 2}})
    return folder


def reader(channels: tuple[float, ...]) -> Reader:
    made = Reader()
    made.load_state_dict({"channels": torch.tensor(channels)})
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def readers(tmp_path: Path) -> tuple[Path, ...]:
    return tuple(make_classifier(tmp_path / arm, reader(channels), arm=arm) for arm, channels in READS.items())


@pytest.fixture
def of_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classifiers are readers, not the paper's networks."""
    monkeypatch.setattr(classifiers, "Cnn", lambda **_: Reader())


def run(
    data: Path, classifier: tuple[Path, ...], out: Path, *, batch_size: int = 7, sink: MetricSink | None = None
) -> None:
    params = Evaluate(batch_size=batch_size)
    evaluate(params, seed=0, variant="digits", sink=sink or Silent(), data=data, classifier=classifier, decisions=out)


@pytest.mark.usefixtures("of_readers")
def test_decisions_are_what_the_classifiers_say(tmp_path: Path, data: Path, readers: tuple[Path, ...]) -> None:
    sink = Recorder()
    run(data, readers, tmp_path / "out", sink=sink)
    decisions = read_predictions(tmp_path / "out" / "decisions.parquet")
    assert {name: decisions.facts[name] for name in ("track", "variant", "classes", "suites")} == {
        "track": "mnist", "variant": "digits", "classes": 10, "suites": {"splits": 10},
    }  # fmt: skip
    assert len(decisions.rows) == 3 * (33 + 20 + 60)
    for arm, cue in (("original", "background"), ("gan", "texture"), ("counterfactual", "shape")):
        for condition in ("train", "test_iid", "test_random"):
            assert (
                followed(decisions.of(classifier=arm, condition=condition))
                .get(cue, followed(decisions.rows)["shape"])
                .hits
            )
        shares = followed(decisions.of(classifier=arm, condition="test_random"))
        assert shares[cue].share == 1
        assert max(share.share for name, share in shares.items() if name != cue) < 0.5
    assert sink.values["accuracy/counterfactual/test_random"] == 1
    assert sink.pictures == []  # the report draws them


@pytest.mark.usefixtures("of_readers")
def test_accuracies_can_be_computed_again_from_the_decisions(
    tmp_path: Path, data: Path, readers: tuple[Path, ...]
) -> None:
    sink = Recorder()
    run(data, readers, tmp_path / "out", sink=sink)
    stored = json.loads((tmp_path / "out" / "accuracy.json").read_text())
    again = accuracies(read_predictions(tmp_path / "out" / "decisions.parquet"))
    assert set(stored) == set(again) == set(READS)
    for arm, measured in again.items():
        assert stored[arm].pop("training") == {"running_accuracy": 0.75, "images": 33, "updates": 5}
        names = {"train": "original_training_set"}
        assert stored[arm] == {
            names.get(condition, condition): {"accuracy": p.share, "low": p.low, "high": p.high, "images": p.images}
            for condition, p in measured.items()
        }
        for condition, p in measured.items():
            assert sink.values[f"accuracy/{arm}/{names.get(condition, condition)}"] == p.share
    classifiers = json.loads((tmp_path / "out" / "classifiers.json").read_text())
    assert classifiers["gan"] == {"params": {"epochs": 2}, "seed": 3}


@pytest.mark.usefixtures("of_readers")
def test_bytes_depend_neither_on_the_batch_nor_on_the_order(
    tmp_path: Path, data: Path, readers: tuple[Path, ...]
) -> None:
    run(data, readers, tmp_path / "one")
    run(data, readers[::-1], tmp_path / "other")
    run(data, readers, tmp_path / "wide", batch_size=1000)
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {"decisions.parquet", "accuracy.json", "classifiers.json"}
    for name in names:
        written = {(tmp_path / run / name).read_bytes() for run in ("one", "other", "wide")}
        assert len(written) == 1, name


def test_the_papers_classifier_is_built(tmp_path: Path, data: Path) -> None:
    torch.manual_seed(0)
    folder = make_classifier(tmp_path / "original", classifiers.Cnn(classes=10), arm="original")
    run(data, (folder,), tmp_path / "out")
    rows = read_predictions(tmp_path / "out" / "decisions.parquet").rows
    assert rows["probability"].between(0.1, 1).all()


@pytest.mark.parametrize(
    ("facts", "match"),
    [
        ({"variant": "colored"}, r"is of variant 'colored', expected 'digits'"),
        ({"track": "imagenet"}, r"is of track 'imagenet', expected 'mnist'"),
        ({"arm": "stylized"}, r"the arm 'stylized'; known: original, gan, counterfactual, original_counterfactual"),
        ({"classes": 5}, r"has classes 5 and image_size 16: expected 10"),
        ({"image_size": 32}, r"trained at 32 pixels, the images of train are 16x16"),
    ],
)
@pytest.mark.usefixtures("of_readers")
def test_a_foreign_classifier_is_refused(tmp_path: Path, data: Path, facts: dict[str, object], match: str) -> None:
    folder = make_classifier(tmp_path / "gan", Reader(), **{"arm": "gan", **facts})  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match=match):
        run(data, (folder,), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_foreign_data_are_refused(tmp_path: Path, readers: tuple[Path, ...]) -> None:
    data = make_data(tmp_path / "colored", facts={**FACTS, "variant": "colored"})
    with pytest.raises(ArtifactError, match=r"colored is of variant 'colored', expected 'digits'"):
        run(data, readers, tmp_path / "out")


@pytest.mark.usefixtures("of_readers")
def test_two_classifiers_of_one_arm_are_refused(tmp_path: Path, data: Path) -> None:
    folders = tuple(make_classifier(tmp_path / name, Reader(), arm="gan") for name in ("first", "second"))
    with pytest.raises(ArtifactError, match=r"second and .*first are both the arm 'gan'"):
        run(data, folders, tmp_path / "out")


def test_weights_of_another_net_are_refused_by_key(tmp_path: Path, data: Path) -> None:
    folder = make_classifier(tmp_path / "gan", Reader(), arm="gan")
    with pytest.raises(ArtifactError, match=r"does not fit Cnn: missing: .*; unknown: channels"):
        run(data, (folder,), tmp_path / "out")


@pytest.mark.usefixtures("of_readers")
def test_answers_that_are_no_numbers_are_refused(tmp_path: Path, data: Path) -> None:
    folder = make_classifier(tmp_path / "gan", reader((float("nan"), 0.0, 0.0)), arm="gan")
    with pytest.raises(ArtifactError, match="the classifier gan answers with numbers that are not finite"):
        run(data, (folder,), tmp_path / "out")


@pytest.mark.usefixtures("of_readers")
def test_the_five_best_classes_are_stored_best_first(tmp_path: Path, data: Path, readers: tuple[Path, ...]) -> None:
    run(data, readers, tmp_path / "out")
    rows = read_predictions(tmp_path / "out" / "decisions.parquet").of(
        classifier="counterfactual", condition="test_random"
    )
    assert (rows["top_1"] == rows["label"]).all()
    assert set((rows["top_2"] - rows["label"]).abs()) == {1}
    assert set((rows["top_5"] - rows["label"]).abs()) <= {2, 3, 4}
    assert set(rows["suite"]) == {"splits"}
    assert list(rows["image"]) == [f"{number:06d}" for number in range(60)]


@pytest.mark.parametrize("option", ["--network", "--assets", "--suite"])
def test_there_are_no_options_of_another_track(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["evaluate", "mnist/digits", "--data", "x", "--classifier", "x", "--decisions", "y", option, "z"])
    assert f"unrecognized arguments: {option} z" in capsys.readouterr().err
