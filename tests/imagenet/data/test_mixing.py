"""Random crops, and the batches of real images and counterfactuals: pure functions of seed and update."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from cgn.core.errors import ArtifactError
from cgn.core.seeding import torch_stream
from cgn.imagenet.data.mixing import NUMBERS, TRIES, MixedBatch, Mixture, Stream, boxes, crops, draw_rows, mixed_batches


def picture(width: int, height: int) -> Image.Image:
    random = np.random.default_rng(width)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(("width", "height"), [(64, 64), (500, 375), (40, 90)])
def test_boxes_cover_the_asked_area_at_the_asked_ratios(width: int, height: int) -> None:
    numbers = draw_rows(4000, stream=torch_stream(0, "crops"))
    left, top, right, bottom = (
        boxes(numbers, sizes=torch.tensor([[width, height]]).expand(4000, 2), smallest=0.25).double().unbind(1)
    )
    assert float(left.min()) == float(top.min()) == 0  # the borders are reached, and not crossed
    assert (float(right.max()), float(bottom.max())) == (width, height)
    wide, high = right - left, bottom - top
    share, ratio = wide * high / (width * height), wide / high
    slack = 2 / min(width, height)  # sides are whole pixels
    assert 0.25 - slack < float(share.min()) < 0.27
    assert float(share.max()) <= 1
    assert 0.75 * (1 - slack) < float(ratio.min()) < 0.8
    assert 1.25 < float(ratio.max()) < 4 / 3 * (1 + slack)


def test_areas_and_places_are_even() -> None:
    numbers = draw_rows(20000, stream=torch_stream(1, "crops"))
    box = boxes(numbers, sizes=torch.full((20000, 2), 1000), smallest=0.1).double()
    wide, high = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
    small = wide * high < 0.3e6  # large ones may not fit at the first try
    assert float((wide * high)[small].mean()) / 1e6 == pytest.approx(0.2, abs=0.004)
    assert float((box[:, 0] / (1000 - wide))[small].mean()) == pytest.approx(0.5, abs=0.02)


def test_what_does_not_fit_becomes_the_largest_central_crop() -> None:
    numbers = torch.zeros(2, NUMBERS, dtype=torch.float64)
    numbers[:, : 2 * TRIES] = 0.999999  # all of the area, as wide as allowed
    box = boxes(numbers, sizes=torch.tensor([[400, 100], [100, 400]]), smallest=0.9)
    assert box.tolist() == [[133, 0, 266, 100], [0, 133, 100, 266]]


def test_an_image_of_one_pixel_is_shown_whole() -> None:
    numbers = draw_rows(50, stream=torch_stream(0, "one"))
    assert crops([picture(1, 1)] * 50, numbers, size=4, smallest=0.08).shape == (50, 3, 4, 4)


def test_pixels_are_torchvisions() -> None:
    pictures = [picture(90, 60), picture(33, 70), picture(64, 64)]
    numbers = draw_rows(3, stream=torch_stream(3, "pixels"))
    numbers[:, -1] = torch.tensor([0.2, 0.7, 0.7])
    sizes = torch.tensor([one.size for one in pictures])
    cropped = crops(pictures, numbers, size=32, smallest=0.3)
    for place, (left, top, right, bottom) in enumerate(boxes(numbers, sizes=sizes, smallest=0.3).tolist()):
        cut = functional.resized_crop(pictures[place], top, left, bottom - top, right - left, [32, 32])
        expected = functional.pil_to_tensor(functional.hflip(cut) if place == 0 else cut)
        assert torch.equal(cropped[place], expected), place
    assert not torch.equal(cropped[0], cropped[0].flip(2))


REAL, MADE = 10, 7


class Grey:
    """Grey images whose brightness is their index; some cannot be read."""

    def __init__(self, count: int, *, broken: frozenset[int] = frozenset()) -> None:
        self.count, self.broken = count, broken
        place = torch.arange(count)
        self.labels = {"shape": place, "texture": 2 * place, "background": 3 * place}

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> Image.Image | str:
        if index in self.broken:
            return f"{index}.png cannot be read"
        return Image.fromarray(np.full((9, 8, 3), index, dtype=np.uint8))


class Gone(Grey):
    def image(self, index: int) -> Image.Image | str:
        raise ArtifactError(f"shard of image {index} is broken")


def mixture(real: Grey | None = None, counterfactual: Grey | None = None, *, rank: int = 0, ranks: int = 1) -> Mixture:
    return Mixture(
        real=Stream(name="real", dataset=real or Grey(REAL), per_update=4),
        counterfactual=Stream(name="counterfactual", dataset=counterfactual or Grey(MADE), per_update=2),
        seed=3,
        image_size=5,
        smallest_crop=0.5,
        updates=20,
        rank=rank,
        ranks=ranks,
    )


def batches_of(source: Mixture, *, start: int = 0, workers: int = 0) -> list[MixedBatch]:
    return list(mixed_batches(source, start=start, workers=workers, device="cpu"))


def assert_equal(left: list[MixedBatch], right: list[MixedBatch]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert torch.equal(one.pixels, other.pixels)
        assert torch.equal(one.label, other.label)
        assert one.labels.keys() == other.labels.keys()
        assert all(torch.equal(values, other.labels[name]) for name, values in one.labels.items())


def test_an_epoch_is_a_pass_through_the_real_images_and_counterfactuals_go_on_endlessly() -> None:
    found = batches_of(mixture())
    assert {tuple(batch.pixels.shape) for batch in found} == {(6, 3, 5, 5)}
    real = torch.cat([batch.label for batch in found]).tolist()
    counterfactual = torch.cat([batch.labels["shape"] for batch in found]).tolist()
    passes = [real[first : first + REAL] for first in range(0, 80, REAL)]
    assert all(sorted(one) == list(range(REAL)) for one in passes)
    assert len({tuple(one) for one in passes}) == 8  # each in another order
    for first in range(0, 35, MADE):
        assert sorted(counterfactual[first : first + MADE]) == list(range(MADE))


def test_images_keep_their_labels() -> None:
    for batch in batches_of(mixture()):
        assert torch.equal(batch.pixels[:4, 0, 0, 0].long(), batch.label)
        assert torch.equal(batch.pixels[4:, 0, 0, 0].long(), batch.labels["shape"])
        assert torch.equal(2 * batch.labels["shape"], batch.labels["texture"])
        assert torch.equal(3 * batch.labels["shape"], batch.labels["background"])


@pytest.mark.parametrize("start", [0, 7])
def test_any_number_of_workers_gives_the_same_batches(start: int) -> None:
    alone = batches_of(mixture())[start:]
    assert_equal(batches_of(mixture(), start=start, workers=2), alone)
    with pytest.raises(AssertionError):
        assert_equal(batches_of(mixture(), start=1), alone[: 20 - 1])
    assert torch.equal(batches_of(mixture(), start=start)[0].pixels, alone[0].pixels)


def test_ranks_share_the_same_batches_equally() -> None:
    whole, parts = batches_of(mixture()), [batches_of(mixture(rank=rank, ranks=2)) for rank in range(2)]
    assert [len(part) for part in parts] == [20, 20]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert len(first.label) == len(second.label) == 2
        pixels = torch.stack([first.pixels[:2], second.pixels[:2]], 1).flatten(0, 1)
        assert torch.equal(pixels, batch.pixels[:4])
        labels = torch.stack([first.labels["texture"], second.labels["texture"]], 1).flatten()
        assert torch.equal(labels, batch.labels["texture"])


def test_the_baseline_has_real_images_only_and_the_same_ones() -> None:
    both = mixture()
    alone = Mixture(**{**vars(both), "counterfactual": None})
    for one, other in zip(batches_of(alone), batches_of(both), strict=True):
        assert torch.equal(one.pixels, other.pixels[:4])
        assert not one.labels


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_reported_and_replaced_by_the_next(workers: int) -> None:
    found = batches_of(mixture(Grey(REAL, broken=frozenset({3, 9}))), workers=workers)
    seen = Counter(torch.cat([batch.label for batch in found]).tolist())
    assert seen == Counter({place: 16 if place in (4, 0) else 8 for place in range(REAL) if place not in (3, 9)})
    sentences = Counter(sentence for batch in found for sentence in batch.unreadable)
    assert sentences == {"3.png cannot be read": 8, "9.png cannot be read": 8}
    for batch in found:
        assert torch.equal(batch.pixels[:4, 0, 0, 0].long(), batch.label)


def test_a_folder_of_unreadable_images_is_an_error() -> None:
    with pytest.raises(ArtifactError, match=r"10 images in a row cannot be read, the first: \d\.png cannot be read"):
        batches_of(mixture(Grey(REAL, broken=frozenset(range(REAL)))))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_worker_s_error_comes_without_its_traceback(workers: int) -> None:
    with pytest.raises(ArtifactError, match=r"^shard of image \d is broken$"):
        batches_of(mixture(counterfactual=Gone(MADE)), workers=workers)


def test_reading_moves_no_global_stream() -> None:
    state = torch.get_rng_state()
    mixture()[3]
    assert torch.equal(torch.get_rng_state(), state)
