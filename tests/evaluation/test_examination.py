"""Examinations: every figure comes from the table as it was read again; broken or foreign tables are refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cgn.evaluation.intervals import Proportion
from cgn.evaluation.metrics import top
from cgn.evaluation.predict import Predicted, predict
from cgn.evaluation.predictions import TOPS, Predictions, gather, read, write

from cgn.core.errors import ArtifactError

CLASSES = 7
MEMBERS = ((0, 1), (2, 3, 4), (6,))


class Vectors:
    """N pictures of one pixel whose colours are the logits' seeds; some cannot be read."""

    def __init__(self, count: int, *, broken: tuple[int, ...] = (), textured: bool = False) -> None:
        self.names = [f"a/{place:02d}.png" for place in range(count)]
        random = np.random.default_rng(count)
        self.labels = {"shape": random.integers(0, 3, count).tolist()}
        if textured:
            self.labels["texture"] = random.integers(0, 3, count).tolist()
        self.pixels = torch.from_numpy(random.normal(size=(count, 3, 1, 1))).float()
        self.broken = broken

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, place: int) -> torch.Tensor | str:
        if place >= len(self.names):
            raise IndexError(place)
        return f"{self.names[place]} cannot be read" if place in self.broken else self.pixels[place]


class Linear(torch.nn.Module):
    """Two heads of 7 classes on one pixel."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.weights = torch.randn(2, 3, CLASSES, generator=generator)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        first, second = (images.flatten(1) @ weight for weight in self.weights)
        return {"shape": first, "texture": second}


def examined(vectors: Vectors, *, batch_size: int = 4, suite: str = "cue", workers: int = 0) -> Predicted:
    return predict(
        {"linear": Linear().eval()},
        pictures=vectors,
        suite=suite,
        condition="all",
        batch_size=batch_size,
        members=MEMBERS,
        workers=workers,
    )


@pytest.fixture
def examination() -> Predictions:
    tables = [examined(Vectors(9, textured=True)).rows, examined(Vectors(5), suite="plain").rows]
    return gather(tables, track="imagenet", variant="toy", classes=CLASSES, suites={"cue": 3, "plain": 3})


def test_rows_are_what_the_network_answered() -> None:
    vectors = Vectors(9, textured=True)
    rows = examined(vectors).rows
    answers = Linear().eval()(vectors.pixels)
    for head, logits in answers.items():
        table = rows[rows["head"] == head].reset_index(drop=True)
        probabilities = logits.double().softmax(1).numpy()
        expected = np.argsort(-probabilities, axis=1)[:, :5]
        assert table[list(TOPS)].to_numpy().tolist() == expected.tolist()
        assert table["probability"].to_numpy() == pytest.approx(probabilities.max(1), rel=1e-6)
        means = np.stack([probabilities[:, list(members)].mean(1) for members in MEMBERS], 1)
        assert table["category"].tolist() == means.argmax(1).tolist()
        assert table["image"].tolist() == vectors.names
        assert table["label"].tolist() == vectors.labels["shape"]
        assert table["texture"].tolist() == vectors.labels["texture"]


def test_batches_and_workers_change_nothing_and_no_shared_randomness_is_drawn() -> None:
    before = torch.random.get_rng_state()
    whole = examined(Vectors(9), batch_size=9).rows
    assert torch.equal(before, torch.random.get_rng_state())
    for other in (examined(Vectors(9), batch_size=2).rows, examined(Vectors(9), batch_size=2, workers=1).rows):
        exact = [name for name in whole.columns if name != "probability"]
        pd.testing.assert_frame_equal(other[exact], whole[exact])
        assert other["probability"].to_numpy() == pytest.approx(whole["probability"].to_numpy(), rel=1e-6)


def test_unreadable_pictures_are_named_and_move_no_other(examination: Predictions) -> None:
    vectors = Vectors(9, broken=(0, 4, 5, 6, 7), textured=True)  # 4 to 7 are a whole batch
    found = examined(vectors)
    assert found.unreadable == tuple(f"cue/all/{vectors.names[place]} cannot be read" for place in vectors.broken)
    whole = examined(Vectors(9, textured=True)).rows
    kept = whole[~whole["image"].isin([vectors.names[place] for place in vectors.broken])]
    exact = [name for name in kept.columns if name != "probability"]
    pd.testing.assert_frame_equal(found.rows[exact], kept[exact].reset_index(drop=True))
    told = gather(
        [found.rows],
        track="imagenet",
        variant="toy",
        classes=CLASSES,
        suites={"cue": 3},
        unreadable=found.unreadable,
    )
    assert told.facts["unreadable"] == sorted(found.unreadable)
    assert examination.facts["unreadable"] == []


def test_nothing_to_examine_is_an_error() -> None:
    with pytest.raises(
        ArtifactError, match=r"nothing to examine in cue/all: none of 2 pictures .* cue/all/a/00\.png cannot"
    ):
        examined(Vectors(2, broken=(0, 1)))
    with pytest.raises(ArtifactError, match="nothing to examine in cue/all: empty"):
        examined(Vectors(0))


def test_answers_that_are_not_finite_are_refused() -> None:
    def broken(images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"shape": torch.full((len(images), CLASSES), float("nan"))}

    with pytest.raises(ArtifactError, match="the head shape of broken answers with numbers that are not finite"):
        predict({"broken": broken}, pictures=Vectors(2), suite="cue", condition="all", batch_size=2)


def test_equal_answers_are_ranked_by_their_class_and_few_classes_are_padded() -> None:
    def three(images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"only": torch.tensor([[1.0, 2.0, 2.0]]).expand(len(images), 3)}

    rows = predict({"three": three}, pictures=Vectors(2), suite="cue", condition="all", batch_size=2).rows
    assert rows[list(TOPS)].to_numpy().tolist() == [[1, 2, 0, -1, -1]] * 2
    assert rows["category"].tolist() == [-1, -1]
    assert rows["texture"].tolist() == [-1, -1]


def test_a_network_in_training_mode_is_not_examined() -> None:
    with pytest.raises(AssertionError, match="eval mode"):
        predict({"x": Linear()}, pictures=Vectors(2), suite="cue", condition="all", batch_size=2)


def test_top_accuracy_looks_among_the_kept() -> None:
    ranks = {"label": [3, 3, 3, 3], "top_1": [3, 0, 0, 0], "top_2": [1, 3, 1, 1]}
    rows = pd.DataFrame({**ranks, "top_3": [2, 1, 2, 2], "top_4": [4, 2, 4, 4], "top_5": [5, 4, 3, 5]})
    assert [top(rows, kept=kept) for kept in (1, 2, 5)] == [Proportion(hits=hits, images=4) for hits in (1, 2, 3)]
    for kept in (0, 6):
        with pytest.raises(ValueError, match=f"top-{kept}: the five best"):
            top(rows, kept=kept)


def test_what_was_written_is_read(tmp_path: Path, examination: Predictions) -> None:
    write(examination, tmp_path / "decisions.parquet")
    again = read(tmp_path / "decisions.parquet")
    assert again.facts == examination.facts
    assert again.classifiers == ("linear",)
    pd.testing.assert_frame_equal(again.rows, examination.rows[again.rows.columns], check_dtype=False)
    assert len(again.of("cue")) == 18
    assert len(again.of("cue", head="texture", classifier="linear")) == 9
    assert again.of("cue", classifier="another").empty
    assert again.of("none").empty


def test_the_order_of_gathering_leaves_no_trace_in_the_bytes(tmp_path: Path) -> None:
    tables = [examined(Vectors(9, textured=True)).rows, examined(Vectors(5), suite="plain").rows]
    for name, ordered in {"one": tables, "other": tables[::-1]}.items():
        told = gather(ordered, track="imagenet", variant="toy", classes=CLASSES, suites={"cue": 3, "plain": 3})
        write(told, tmp_path / f"{name}.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "other.parquet").read_bytes()
    tables[0]["top_1"] = (tables[0]["top_1"] + 1) % CLASSES
    told = gather(tables, track="imagenet", variant="toy", classes=CLASSES, suites={"cue": 3, "plain": 3})
    write(told, tmp_path / "third.parquet")
    assert (tmp_path / "one.parquet").read_bytes() != (tmp_path / "third.parquet").read_bytes()


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("label", 3, "has a label outside the classes of its suite"),
        ("texture", -2, "has a label outside the classes of its suite"),
        ("top_1", -1, "has a decision outside 0 to 6"),
        ("top_5", CLASSES, "has a decision outside 0 to 6"),
        ("category", -2, "has a category under -1"),
        ("probability", 1.5, r"has a probability outside \[0,1\]"),
        ("image", "a/01.png", "holds two decisions of one head on one picture"),
        ("suite", "foreign", "does not say how many classes the labels of foreign have"),
    ],
)
def test_impossible_values_are_refused(
    tmp_path: Path, examination: Predictions, column: str, value: float | str, match: str
) -> None:
    examination.rows.loc[0, column] = value
    write(examination, tmp_path / "decisions.parquet")
    with pytest.raises(ArtifactError, match=rf"decisions\.parquet {match}.*: run the stage"):
        read(tmp_path / "decisions.parquet")


def test_a_table_without_facts_or_rows_is_refused(tmp_path: Path, examination: Predictions) -> None:
    path = tmp_path / "decisions.parquet"
    write(Predictions(rows=examination.rows, facts={"track": "imagenet", "variant": "toy"}), path)
    with pytest.raises(
        ArtifactError, match="does not say its classes, suites, unreadable, superclass_of, categories, remarks"
    ):
        read(path)
    write(Predictions(rows=examination.rows.iloc[:0], facts=examination.facts), path)
    with pytest.raises(ArtifactError, match="holds no decision"):
        read(path)


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("classes", None),
        ("classes", "ten"),
        ("suites", ["cue"]),
        ("suites", {"cue": "three"}),
        ("superclass_of", [None]),
        ("remarks", 4),
        ("unreadable", 3),
        ("categories", {}),
    ],
)
def test_facts_of_another_form_are_refused(tmp_path: Path, examination: Predictions, fact: str, value: object) -> None:
    path = tmp_path / "decisions.parquet"
    write(Predictions(rows=examination.rows, facts={**examination.facts, fact: value}), path)
    with pytest.raises(ArtifactError, match=f"says its {fact} in another form than evaluate writes: run the stage"):
        read(path)
