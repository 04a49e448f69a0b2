"""The authors' MNIST generators load through the rename table and give the outputs they gave.

How equal they can be: the first linear map of the ten golden images is one matrix product, which a library computes in
blocks of eight rows and a rest of two, and the last normalisation of the mask net magnifies the rounding of the rest a
thousandfold. The golden run summed the rest's products in an order of its own, which shows in its masks: four
running sums. Summed in that order, the masks of all ten images are the golden ones to the bit on a processor with
AVX-512, and all tiles are within 2.5e-7. As the installed library sums them, the last two masks are up to 2.4e-6 away;
the same weights in float64 are 3.5e-6 away: the golden run's own rounding.
"""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from cgn.core.checkpoints import load_strictly, load_weights
from cgn.core.errors import ArtifactError
from cgn.mechanisms import Cause, Generator
from cgn.mnist.generator import build_generator, from_published
from cgn.nets.discriminators import ConvDiscriminator, LinearDiscriminator

VARIANTS = ("colored", "double_colored")
EQUAL = 1e-6
BLOCK = 8
"""Of the ten images, those whose first linear map is rounded alike everywhere."""
LANES = 4
"""Numbers in 16 bytes."""
ROUNDING = 4e-6
"""Of the golden masks themselves."""
ELSEWHERE = 1e-5
"""Float32 on processors with other kernels."""


def published(test_data: Path, variant: str) -> Generator:
    path = test_data / "mnist_cgn_weights" / f"{variant}.pth"
    model = build_generator(shape_width=32, tile_width=32, noise_size=32, image_size=32)
    load_strictly(model, from_published(load_weights(path)), source=str(path))
    return model.eval()


def summed_as_recorded(layer: nn.Linear, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
    """The map with the rest's rows as the golden run summed them: multiplied and added apart, in four running sums.

    Values before a row's first 16-byte boundary go into the first sum; the remaining ones are added at the end.
    """
    (x,) = inputs
    rows = [output[:BLOCK]]
    for row in range(BLOCK, len(x)):
        products = x[row] * layer.weight
        count = x.shape[1]
        head = -row * count % LANES
        tail = count - (count - head) % LANES
        sums = [products[:, :head].sum(1), *torch.zeros(LANES - 1, len(products))]
        for place in range(head, tail):
            sums[(place - head) % LANES] = sums[(place - head) % LANES] + products[:, place]
        total = (sums[0] + sums[2]) + (sums[1] + sums[3])
        for place in range(tail, count):
            total = total + products[:, place]
        rows.append((total + layer.bias)[None])
    return torch.cat(rows)


def differences(
    test_data: Path, *, weights: str, golden: str, dtype: torch.dtype, recorded: bool = False
) -> dict[str, torch.Tensor]:
    """The largest absolute difference of each output, image by image; `recorded`: summed as in the golden run."""
    expected = torch.load(test_data / "golden" / f"mnist_cgn_{golden}.pt", weights_only=True)
    model = published(test_data, weights).to(dtype)
    for role in (model.shape, model.texture, model.background) if recorded else ():
        role.get_submodule("net.start").register_forward_hook(summed_as_recorded)
    noise, label = expected["u"].to(dtype), expected["labels"]
    with torch.no_grad():
        images = {
            "mask": model.shape(Cause(noise=noise, label=label)),
            "texture_tile": model.texture.get_submodule("net")(noise, label),
            "background_tile": model.background.get_submodule("net")(noise, label),
        }
    return {name: (images[name] - expected[name]).abs().amax((1, 2, 3)) for name in images}


@pytest.mark.parametrize("variant", VARIANTS)
def test_published_weights_give_the_golden_outputs(test_data: Path, variant: str) -> None:
    exact = differences(test_data, weights=variant, golden=variant, dtype=torch.float64)
    single = differences(test_data, weights=variant, golden=variant, dtype=torch.float32)
    recorded = differences(test_data, weights=variant, golden=variant, dtype=torch.float32, recorded=True)
    for kind, found in (("float64", exact), ("float32", single), ("float32, summed as recorded", recorded)):
        print(f"\n{variant}, {kind}: { ({name: f'{value.max():.1e}' for name, value in found.items()}) }")
    mask = exact.pop("mask")
    assert mask.max() <= ROUNDING
    assert all(tile.max() <= EQUAL for tile in exact.values())
    alike = torch.backends.cpu.get_cpu_capability() == "AVX512"
    mask = single.pop("mask")
    assert mask[:BLOCK].max() <= (EQUAL if alike else ELSEWHERE)
    assert mask[BLOCK:].max() <= (ROUNDING if alike else ELSEWHERE)
    assert all(tile.max() <= (EQUAL if alike else ELSEWHERE) for tile in single.values())
    assert all(output.max() <= (EQUAL if alike else ELSEWHERE) for output in recorded.values())


def test_the_comparison_can_fail(test_data: Path) -> None:
    other = differences(test_data, weights="double_colored", golden="colored", dtype=torch.float64)
    assert all(value.min() > 1000 * EQUAL for value in other.values())


def test_the_rename_table_covers_the_published_manifest(test_data: Path) -> None:
    manifest = json.loads((test_data / "golden" / "state_dict_manifests.json").read_text())["mnist_cgn"]
    renamed = from_published({name: torch.empty(shape) for name, shape in manifest.items()})
    ours = build_generator(shape_width=32, tile_width=32, noise_size=32, image_size=32).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in renamed.items()} == {
        n: tuple(t.shape) for n, t in ours.items()
    }
    assert len(renamed) == len(manifest) + 2  # their one embedding is in three places


def test_a_missing_published_key_is_named(test_data: Path) -> None:
    state = load_weights(test_data / "mnist_cgn_weights" / "colored.pth")
    del state["f_text1.3.weight"]
    with pytest.raises(ArtifactError, match=r"missing: texture\.net\.layers\.0\.weight"):
        load_strictly(
            build_generator(shape_width=32, tile_width=32, noise_size=32, image_size=32),
            from_published(state),
            source="colored.pth",
        )


@pytest.mark.parametrize(
    ("key", "module"),
    [
        ("mnist_disc_linear", LinearDiscriminator(classes=10, width=512, image_size=32)),
        ("mnist_disc_conv", ConvDiscriminator(classes=10, width=32)),
    ],
)
def test_discriminators_have_the_published_keys(test_data: Path, key: str, module: torch.nn.Module) -> None:
    manifest = json.loads((test_data / "golden" / "state_dict_manifests.json").read_text())[key]
    assert {name: list(tensor.shape) for name, tensor in module.state_dict().items()} == manifest
