"""Mixed batches: every picture once a pass, the same batches for any number of workers and ranks, nothing dropped."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from cgn.core.errors import ArtifactError
from cgn.data.mixing import Batch, Mixture, Stream, batches

REAL, MADE = 10, 7


class Told:
    """A pool of grey pictures whose brightness is their place; some cannot be read."""

    def __init__(self, count: int, *, broken: frozenset[int] = frozenset()) -> None:
        self.count, self.broken = count, broken
        place = torch.arange(count)
        self.labels = {"shape": place, "texture": 2 * place, "background": 3 * place}

    def __len__(self) -> int:
        return self.count

    def picture(self, place: int) -> Image.Image | str:
        if place in self.broken:
            return f"{place}.png cannot be read"
        return Image.fromarray(np.full((9, 8, 3), place, dtype=np.uint8))


class Gone(Told):
    def picture(self, place: int) -> Image.Image | str:
        raise ArtifactError(f"shard of picture {place} is broken")


def mixture(real: Told | None = None, made: Told | None = None, *, rank: int = 0, ranks: int = 1) -> Mixture:
    return Mixture(
        real=Stream(name="real", pool=real or Told(REAL), per_update=4),
        counterfactual=Stream(name="counterfactual", pool=made or Told(MADE), per_update=2),
        seed=3,
        image_size=5,
        smallest_crop=0.5,
        updates=20,
        rank=rank,
        ranks=ranks,
    )


def made(source: Mixture, *, start: int = 0, workers: int = 0) -> list[Batch]:
    return list(batches(source, start=start, workers=workers, device="cpu"))


def assert_equal(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert torch.equal(one.pixels, other.pixels)
        assert torch.equal(one.label, other.label)
        assert one.labels.keys() == other.labels.keys()
        assert all(torch.equal(values, other.labels[name]) for name, values in one.labels.items())


def test_an_epoch_is_a_pass_through_the_real_pictures_and_counterfactuals_go_on_endlessly() -> None:
    found = made(mixture())
    assert {tuple(batch.pixels.shape) for batch in found} == {(6, 3, 5, 5)}
    real = torch.cat([batch.label for batch in found]).tolist()
    counterfactual = torch.cat([batch.labels["shape"] for batch in found]).tolist()
    passes = [real[first : first + REAL] for first in range(0, 80, REAL)]
    assert all(sorted(one) == list(range(REAL)) for one in passes)
    assert len({tuple(one) for one in passes}) == 8  # each in another order
    for first in range(0, 35, MADE):
        assert sorted(counterfactual[first : first + MADE]) == list(range(MADE))


def test_pictures_keep_their_labels() -> None:
    for batch in made(mixture()):
        assert torch.equal(batch.pixels[:4, 0, 0, 0].long(), batch.label)
        assert torch.equal(batch.pixels[4:, 0, 0, 0].long(), batch.labels["shape"])
        assert torch.equal(2 * batch.labels["shape"], batch.labels["texture"])
        assert torch.equal(3 * batch.labels["shape"], batch.labels["background"])


@pytest.mark.parametrize("start", [0, 7])
def test_any_number_of_workers_makes_the_same_batches(start: int) -> None:
    alone = made(mixture())[start:]
    assert_equal(made(mixture(), start=start, workers=2), alone)
    with pytest.raises(AssertionError):
        assert_equal(made(mixture(), start=1), alone[: 20 - 1])
    assert torch.equal(made(mixture(), start=start)[0].pixels, alone[0].pixels)


def test_ranks_share_the_same_batches_equally() -> None:
    whole, parts = made(mixture()), [made(mixture(rank=rank, ranks=2)) for rank in range(2)]
    assert [len(part) for part in parts] == [20, 20]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert len(first.label) == len(second.label) == 2
        pixels = torch.stack([first.pixels[:2], second.pixels[:2]], 1).flatten(0, 1)
        assert torch.equal(pixels, batch.pixels[:4])
        labels = torch.stack([first.labels["texture"], second.labels["texture"]], 1).flatten()
        assert torch.equal(labels, batch.labels["texture"])


def test_the_baseline_has_real_pictures_only_and_the_same_ones() -> None:
    both = mixture()
    alone = Mixture(**{**vars(both), "counterfactual": None})
    for one, other in zip(made(alone), made(both), strict=True):
        assert torch.equal(one.pixels, other.pixels[:4])
        assert not one.labels


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read_is_told_and_the_next_stands_in(workers: int) -> None:
    found = made(mixture(Told(REAL, broken=frozenset({3, 9}))), workers=workers)
    seen = Counter(torch.cat([batch.label for batch in found]).tolist())
    assert seen == Counter({place: 16 if place in (4, 0) else 8 for place in range(REAL) if place not in (3, 9)})
    told = Counter(sentence for batch in found for sentence in batch.unreadable)
    assert told == {"3.png cannot be read": 8, "9.png cannot be read": 8}
    for batch in found:
        assert torch.equal(batch.pixels[:4, 0, 0, 0].long(), batch.label)


def test_a_folder_of_unreadable_pictures_is_an_error() -> None:
    with pytest.raises(ArtifactError, match=r"10 pictures in a row cannot be read, the first: \d\.png cannot be read"):
        made(mixture(Told(REAL, broken=frozenset(range(REAL)))))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_worker_s_error_comes_without_its_traceback(workers: int) -> None:
    with pytest.raises(ArtifactError, match=r"^shard of picture \d is broken$"):
        made(mixture(made=Gone(MADE)), workers=workers)


def test_reading_moves_no_global_stream() -> None:
    state = torch.get_rng_state()
    mixture()[3]
    assert torch.equal(torch.get_rng_state(), state)
