"""What the benchmarks measure against computes what the published code computes: its outputs, from the same weights."""

from pathlib import Path

import pytest
import torch

from cgn.core.checkpoints import load_strictly
from cgn.core.seeding import torch_stream
from cgn.nets.biggan import BigGan, BigGanConfig
from tests.benchmarks.published_biggan import PublishedBigGan, noisy_state

SMALL = BigGanConfig(
    noise_size=4,
    embedding_size=4,
    classes=3,
    width=8,
    blocks=((True, 4, 4), (False, 4, 2), (True, 2, 1)),
    attention_at=1,
)


def test_outputs_equal_the_published_ones(test_data: Path) -> None:
    golden = torch.load(test_data / "golden" / "biggan_deep_small.pt", weights_only=True)
    config = golden["config"]
    table = BigGanConfig(
        noise_size=config["z_dim"],
        embedding_size=config["class_embed_dim"],
        classes=config["num_classes"],
        width=config["channel_width"],
        blocks=tuple((doubling, channels, out) for doubling, channels, out in config["layers"]),
        attention_at=config["attention_layer_position"],
    )
    net = PublishedBigGan(table)
    load_strictly(net, golden["state_dict"], source="golden")
    net.eval()
    with torch.no_grad():
        for truncation in (1.0, 0.5, 0.4):
            images = net(golden["u"], golden["y_onehot"].float(), truncation)
            assert (images - golden["outputs"][str(truncation)]).abs().max() <= 1e-5
        assert (images - golden["outputs"]["1.0"]).abs().max() > 1e-2


@pytest.mark.parametrize("training", [True, False])
def test_random_weights_give_the_same_images_in_ours(training: bool) -> None:
    plain, ours = PublishedBigGan(SMALL), BigGan(SMALL)
    state = noisy_state(plain, stream=torch_stream(0, "weights"))
    plain.load_state_dict(state)
    load_strictly(ours, state, source="noisy")
    noise, label = torch.randn((3, 4), generator=torch_stream(0, "noise")), torch.tensor([2, 0, 1])
    with torch.no_grad():
        for _ in range(2):
            one = plain.train(training)(noise, torch.eye(3)[label], 0.5)
            other = ours.train(training)(noise, label, truncation=0.5)
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert one.std() > 0.01
