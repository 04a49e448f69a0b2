"""Every loss equals the published code's value on the golden inputs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cgn.losses import binary_entropy, l1, saliency, size_hinge, style


@pytest.fixture(scope="module")
def golden(test_data: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(test_data / "golden" / "losses.pt", weights_only=True)
    return loaded


def maps(golden: dict[str, Any], image: torch.Tensor) -> list[torch.Tensor]:
    """Features at the two ReLUs of the golden extractor."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
    net.load_state_dict(golden["features_state_dict"])
    with torch.no_grad():
        return [net[:2](image), net[:5](image)]


def computed(golden: dict[str, Any]) -> dict[str, torch.Tensor]:
    x, target, mask = golden["x"], golden["target"], golden["mask"]
    return {
        "l1_w100": 100 * l1(x, target),
        "binary_w300": 300 * binary_entropy(mask),
        "mask_w500": 500 * size_hinge(mask),
        "mask_w500_small": 500 * size_hinge(golden["mask_small"]),
        "mask_w500_large": 500 * size_hinge(golden["mask_large"]),
        "background_w2000": 2000 * saliency(mask),
        "style_w4_w0.05": style(maps(golden, x), maps(golden, target), weights=(4, 0.05)),
    }


def test_losses_equal_the_published_values(golden: dict[str, Any]) -> None:
    values = computed(golden)
    assert values.keys() == golden["values"].keys()
    for name, value in golden["values"].items():
        torch.testing.assert_close(values[name], value, rtol=1e-5, atol=1e-6)


def test_the_comparison_can_fail(golden: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        torch.testing.assert_close(
            99 * l1(golden["x"], golden["target"]), golden["values"]["l1_w100"], rtol=1e-5, atol=1e-6
        )
