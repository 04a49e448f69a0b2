"""Prediction: rows are what the networks answer, whatever the batches; what cannot be read is named."""

import threading

import numpy as np
import pandas as pd
import pytest
import torch

from cgn.core import parallel
from cgn.core.errors import ArtifactError
from cgn.evaluation.predict import Predicted, predict
from cgn.evaluation.predictions import TOPS, gather

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


def predicted(vectors: Vectors, *, batch_size: int = 4, suite: str = "cue", workers: int = 0) -> Predicted:
    return predict(
        {"linear": Linear().eval()},
        pictures=vectors,
        suite=suite,
        condition="all",
        batch_size=batch_size,
        members=MEMBERS,
        workers=workers,
    )


class Threaded(Linear):
    """Answers when both of a pair have been asked, which needs two threads."""

    def __init__(self, meeting: threading.Barrier) -> None:
        super().__init__()
        self.meeting = meeting

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        self.meeting.wait(timeout=30)
        return super().forward(images)


def test_networks_run_side_by_side_and_rows_are_those_of_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = threading.Barrier(2)
    rows = {}
    for cores, networks in (
        (1, {"a": Linear().eval(), "b": Linear().eval()}),
        (2, {"a": Threaded(meeting).eval(), "b": Threaded(meeting).eval()}),
    ):
        monkeypatch.setattr(parallel, "usable_cores", lambda cores=cores: cores)
        found = predict(networks, pictures=Vectors(9), suite="cue", condition="all", batch_size=2, members=MEMBERS)
        rows[cores] = found.rows
    pd.testing.assert_frame_equal(rows[1], rows[2], check_exact=True)


def test_rows_are_what_the_network_answered() -> None:
    vectors = Vectors(9, textured=True)
    rows = predicted(vectors).rows
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
    whole = predicted(Vectors(9), batch_size=9).rows
    assert torch.equal(before, torch.random.get_rng_state())
    for other in (predicted(Vectors(9), batch_size=2).rows, predicted(Vectors(9), batch_size=2, workers=1).rows):
        exact = [name for name in whole.columns if name != "probability"]
        pd.testing.assert_frame_equal(other[exact], whole[exact])
        assert other["probability"].to_numpy() == pytest.approx(whole["probability"].to_numpy(), rel=1e-6)


def test_unreadable_pictures_are_named_and_move_no_other() -> None:
    vectors = Vectors(9, broken=(0, 4, 5, 6, 7), textured=True)  # 4 to 7 are a whole batch
    found = predicted(vectors)
    assert found.unreadable == tuple(f"cue/all/{vectors.names[place]} cannot be read" for place in vectors.broken)
    whole = predicted(Vectors(9, textured=True)).rows
    kept = whole[~whole["image"].isin([vectors.names[place] for place in vectors.broken])]
    exact = [name for name in kept.columns if name != "probability"]
    pd.testing.assert_frame_equal(found.rows[exact], kept[exact].reset_index(drop=True))
    gathered = gather(
        [found.rows],
        track="imagenet",
        variant="toy",
        classes=CLASSES,
        suites={"cue": 3},
        unreadable=found.unreadable,
    )
    assert gathered.facts["unreadable"] == sorted(found.unreadable)


def test_nothing_to_evaluate_is_an_error() -> None:
    with pytest.raises(
        ArtifactError, match=r"nothing to evaluate in cue/all: none of 2 pictures .* cue/all/a/00\.png cannot"
    ):
        predicted(Vectors(2, broken=(0, 1)))
    with pytest.raises(ArtifactError, match="nothing to evaluate in cue/all: empty"):
        predicted(Vectors(0))


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


def test_a_network_in_training_mode_is_not_predicted() -> None:
    with pytest.raises(AssertionError, match="eval mode"):
        predict({"x": Linear()}, pictures=Vectors(2), suite="cue", condition="all", batch_size=2)
