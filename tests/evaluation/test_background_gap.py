"""ImageNet-9's arithmetic: known answers on a made folder, exact counts, and Newcombe's published intervals."""

import numpy as np
import pytest
import torch
from PIL import Image

from cgn.evaluation.intervals import Proportion
from cgn.evaluation.metrics import Gap, background_gap, by_variation, superclass_accuracy
from cgn.evaluation.predict import predict
from cgn.evaluation.predictions import Predictions, gather
from cgn.evaluation.suites import SUPERCLASSES, superclass_of
from cgn.imagenet.data.datasets import TransformedFolder
from cgn.imagenet.data.image_folders import imagenet9

NOWHERE = 25  # a salamander: of none of the nine superclasses
RIGHT = {"original": 9, "mixed_same": 7, "mixed_rand": 4}
IMAGES = 11


@pytest.mark.parametrize(
    ("same", "random", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998), 873-890, table II, method 10
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((10, 10), (0, 10), 0.6075, 1.0000),
    ],
)
def test_the_interval_equals_the_published_examples(
    same: tuple[int, int], random: tuple[int, int], low: float, high: float
) -> None:
    gap = Gap(same=Proportion(hits=same[0], images=same[1]), random=Proportion(hits=random[0], images=random[1]))
    assert (gap.low, gap.high) == pytest.approx((low, high), abs=5e-5)
    assert gap.gap == pytest.approx(same[0] / same[1] - random[0] / random[1])


def test_a_gap_needs_both_variations() -> None:
    half = Proportion(hits=1, images=2)
    assert background_gap({"mixed_same": half, "original": half}) is None
    assert background_gap({"mixed_same": half, "mixed_rand": half}) == Gap(same=half, random=half)


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Predictions:
    """A folder in which a picture's grey level says what the network answers: the label's class, or a wrong one.

    Eleven pictures a variation, one more than a batch; RIGHT of them are answered rightly. Of the wrong ones the first
    is answered with a class of no superclass, the others with one of the next.
    """
    root = tmp_path_factory.mktemp("imagenet9")
    names, answers = list(SUPERCLASSES), []
    for variation, right in RIGHT.items():
        for place in range(IMAGES):
            label = place % 9
            wrong = NOWHERE if place == right else SUPERCLASSES[names[(label + 1) % 9]][0]
            answers.append(SUPERCLASSES[names[label]][-1] if place < right else wrong)
            path = root / variation / "val" / f"{label:02d}_{names[label]}" / f"{place:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4), len(answers) - 1).save(path)

    def network(images: torch.Tensor) -> dict[str, torch.Tensor]:
        chosen = torch.tensor(answers)[images[:, 0, 0, 0].long()]
        logits = torch.nn.functional.one_hot(chosen, 1000).float()
        return {"avg": logits, "stubborn": torch.nn.functional.one_hot(torch.full_like(chosen, 151), 1000).float()}

    tables = [
        predict(
            {"known": network},
            pictures=TransformedFolder(folder=listing, transform=_grey),
            suite="in9",
            condition=variation,
            batch_size=10,
        ).rows
        for variation, listing in imagenet9(root).present.items()
    ]
    return gather(tables, track="imagenet", variant="made", classes=1000, suites={"in9": 9})


def _grey(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()


def test_known_answers_are_counted_exactly(answered: Predictions) -> None:
    found = by_variation(answered, superclass_of=superclass_of())
    assert found["known"]["avg"] == {
        name: Proportion(hits=right, images=IMAGES) for name, right in sorted(RIGHT.items())
    }
    dogs = Proportion(hits=2, images=IMAGES)  # places 0 and 9 hold dogs
    assert found["known"]["stubborn"] == dict.fromkeys(sorted(RIGHT), dogs)
    gap = background_gap(found["known"]["avg"])
    assert gap is not None
    assert gap.gap == pytest.approx((7 - 4) / 11)
    assert gap.low < gap.gap < gap.high


def test_a_class_of_no_superclass_is_wrong_and_stays_in_the_denominator(answered: Predictions) -> None:
    rows = answered.of("in9", head="avg")
    outside = rows[rows["top_1"] == NOWHERE]
    assert len(outside) == len(RIGHT)
    assert superclass_accuracy(outside, superclass_of=superclass_of()) == Proportion(hits=0, images=3)


def test_another_map_gives_other_counts(answered: Predictions) -> None:
    """The comparison can fail: with the superclasses shifted by one, only the wrong answers are right."""
    shifted = superclass_of()
    shifted[shifted >= 0] = (shifted[shifted >= 0] - 1) % 9
    found = by_variation(answered, superclass_of=shifted)["known"]["avg"]
    assert {name: counts.hits for name, counts in found.items()} == {
        name: IMAGES - right - 1 for name, right in RIGHT.items()
    }
