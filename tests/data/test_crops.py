"""Random resized crops: the boxes that numbers stand for, and the pixels that torchvision would make of them."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from cgn.core.seeding import torch_stream
from cgn.data.crops import NUMBERS, TRIES, boxes, crops, draw


def picture(width: int, height: int) -> Image.Image:
    random = np.random.default_rng(width)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(("width", "height"), [(64, 64), (500, 375), (40, 90)])
def test_boxes_cover_the_asked_area_at_the_asked_ratios(width: int, height: int) -> None:
    numbers = draw(4000, stream=torch_stream(0, "crops"))
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
    numbers = draw(20000, stream=torch_stream(1, "crops"))
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


def test_a_picture_of_one_pixel_is_shown_whole() -> None:
    numbers = draw(50, stream=torch_stream(0, "one"))
    assert crops([picture(1, 1)] * 50, numbers, size=4, smallest=0.08).shape == (50, 3, 4, 4)


def test_pixels_are_torchvisions() -> None:
    pictures = [picture(90, 60), picture(33, 70), picture(64, 64)]
    numbers = draw(3, stream=torch_stream(3, "pixels"))
    numbers[:, -1] = torch.tensor([0.2, 0.7, 0.7])
    sizes = torch.tensor([one.size for one in pictures])
    made = crops(pictures, numbers, size=32, smallest=0.3)
    for place, (left, top, right, bottom) in enumerate(boxes(numbers, sizes=sizes, smallest=0.3).tolist()):
        cut = functional.resized_crop(pictures[place], top, left, bottom - top, right - left, [32, 32])
        expected = functional.pil_to_tensor(functional.hflip(cut) if place == 0 else cut)
        assert torch.equal(made[place], expected), place
    assert not torch.equal(made[0], made[0].flip(2))
