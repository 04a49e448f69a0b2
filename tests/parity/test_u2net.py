"""U2-Net: the published keys, and with the real small weights the authors' masks of 17 photographs."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from cgn.core.checkpoints import load_strictly, load_weights
from cgn.core.errors import ArtifactError
from cgn.mechanisms import Cause, Shape
from cgn.nets.u2net import U2NET, U2NETP, U2Net, Widths, fold, segmenter

SIZE = 320
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
DEVIATION = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
WEIGHTS = Path("u2netp", "u2netp_from_fp16_bnfolded.pth")
SMALL = Widths(down=((2, 4),) * 6, up=((2, 4),) * 5)


@pytest.fixture(scope="module")
def net(test_data: Path) -> U2Net:
    net = U2Net(U2NETP)
    load_strictly(net, load_weights(test_data / WEIGHTS), source=str(WEIGHTS))
    return net.eval()


def prepared(photo: Image.Image) -> torch.Tensor:
    """A photograph as the authors' test code feeds it: 320x320, over its maximum, ImageNet's mean and deviation."""
    small = photo.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    image = torch.from_numpy(np.array(small)).permute(2, 0, 1).float()
    return ((image / image.max() - MEAN) / DEVIATION)[None]


def stretched(saliency: torch.Tensor) -> torch.Tensor:
    """From 0 to 1 whatever the net found, as the authors save their masks."""
    low, high = saliency.min(), saliency.max()
    return (saliency - low) / (high - low)


def intersection_over_union(one: torch.Tensor, other: torch.Tensor) -> float:
    """Of the parts of two masks above one half."""
    a, b = one > 0.5, other > 0.5
    return ((a & b).sum() / (a | b).sum()).item()


def reference(test_data: Path) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Each photograph, prepared, and the authors' U2-NetP mask of it at its full size, (1,1,H,W) in [0,1]."""
    folder = test_data / "saliency_reference"
    for path in sorted((folder / "images").iterdir()):
        with Image.open(path) as photo, Image.open(folder / "u2netp_masks" / f"{path.stem}.png") as mask:
            yield prepared(photo), torch.from_numpy(np.array(mask.convert("L")))[None, None] / 255


@pytest.mark.long
def test_masks_agree_with_the_authors(test_data: Path, net: U2Net) -> None:
    found, mirrored = [], []
    for image, expected in reference(test_data):
        with torch.no_grad():
            mask = stretched(net(image))
        size = expected.shape[2:]
        found.append(intersection_over_union(functional.interpolate(mask, size, mode="bilinear"), expected))
        mirrored.append(intersection_over_union(functional.interpolate(mask.flip(3), size, mode="bilinear"), expected))
    print(f"\nmean IoU {np.mean(found):.4f}, least {min(found):.4f}; of mirrored masks {np.mean(mirrored):.4f}")
    assert len(found) == 17
    assert np.mean(found) >= 0.97
    assert np.mean(mirrored) < 0.9  # the comparison can fail


@pytest.mark.parametrize(("key", "widths"), [("u2net", U2NET), ("u2netp", U2NETP)])
def test_the_keys_are_the_published_ones(test_data: Path, key: str, widths: Widths) -> None:
    manifest = json.loads((test_data / "golden" / "state_dict_manifests.json").read_text())[key]
    with torch.device("meta"):
        state = U2Net(widths).state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == manifest
    assert len(manifest) == 798


@pytest.mark.parametrize("size", [(32, 32), (45, 71), (256, 256)])
def test_a_mask_has_the_images_size(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        mask = U2Net(SMALL).eval()(torch.randn(2, 3, *size))
    assert mask.shape == (2, 1, *size)
    assert 0 <= mask.min() <= mask.max() <= 1


class Drawn(nn.Module):
    """In the place of f_shape's generator: pictures in [-1,1] that can be trained."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.picture = nn.Parameter(torch.randn(2, 3, 32, 32))

    def forward(self, noise: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        del noise, label
        return self.picture.tanh()


def test_f_shape_neither_trains_nor_saves_the_net_that_segments_for_it(net: U2Net) -> None:
    shape = Shape(Drawn(), segment=segmenter(net.train())).train()
    assert set(shape.state_dict()) == {"net.picture"}
    assert not net.training
    mask = shape(Cause(noise=torch.zeros(2, 8), label=torch.zeros(2, dtype=torch.long)))
    assert mask.shape == (2, 1, 32, 32)
    mask.mean().backward()
    assert all(parameter.grad is None for parameter in net.parameters())
    picture = shape.get_parameter("net.picture")
    assert picture.grad is not None
    assert picture.grad.abs().sum() > 0


def test_pictures_go_in_as_they_are(net: U2Net) -> None:
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        assert segmenter(net)(picture).equal(net(picture))


def test_weights_of_the_other_size_are_refused(test_data: Path) -> None:
    message = (
        r"u2netp\.pth does not fit U2Net: of another shape: side3\.weight \(1, 64, 3, 3\), expected \(1, 128, 3, 3\)"
    )
    with pytest.raises(ArtifactError, match=message):
        load_strictly(U2Net(U2NET), load_weights(test_data / WEIGHTS), source="u2netp.pth")


def test_keys_of_another_net_are_refused(test_data: Path) -> None:
    other = load_weights(test_data / "squeezenet" / "squeezenet1_0_deepcompression_rgb.pth")
    with pytest.raises(ArtifactError, match=r"does not fit U2Net: missing: outconv\.bias.* unknown: classifier"):
        load_strictly(U2Net(SMALL), other, source="squeezenet.pth")


def test_a_file_that_is_cut_short_is_an_error(test_data: Path, tmp_path: Path) -> None:
    content = (test_data / WEIGHTS).read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match=r"cut\.pth holds no weights .*cut short"):
        load_weights(tmp_path / "cut.pth")


def test_folding_leaves_the_masks_as_they_are(net: U2Net, test_data: Path) -> None:
    torch.manual_seed(0)
    loud = U2Net(SMALL)
    for layer in loud.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 2.0)
            nn.init.normal_(layer.bias)
            layer.running_mean = torch.randn(layer.num_features)
            layer.running_var = torch.rand(layer.num_features) + 0.5
    picture = torch.rand(2, 3, 64, 64) * 2 - 1
    photo, _ = next(reference(test_data))
    for whole, image in ((loud.eval(), picture), (net, photo)):
        before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
        folded = fold(whole)
        with torch.no_grad():
            expected = whole(image)
            torch.testing.assert_close(folded(image), expected, atol=1e-4, rtol=0)
        assert expected.std() > 1e-3
        assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
        assert not any(parameter.requires_grad for parameter in folded.parameters())
        assert all(tensor.equal(before[name]) for name, tensor in whole.state_dict().items())
