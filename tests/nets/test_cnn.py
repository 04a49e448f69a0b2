"""The MNIST classifier: the published keys, the published function, and the published pool's blind edge."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from cgn.core.checkpoints import load_strictly, load_weights
from cgn.core.errors import ArtifactError
from cgn.nets.cnn import Cnn


def plain(cnn: Cnn) -> nn.Sequential:
    """The published order of layers, on the very parameters and statistics of `cnn`."""
    norm, convolve, pool, _, *rest = cnn.model.children()
    return nn.Sequential(norm, convolve, nn.ReLU(), pool, *rest, nn.AvgPool2d(7), nn.Flatten(), cnn.cls)


@pytest.fixture
def cnn() -> Cnn:
    torch.manual_seed(0)
    made = Cnn()
    norm = made.model[0]
    assert isinstance(norm, nn.BatchNorm2d)
    for layer in made.modules():  # so that the answers depend on the images, and a lost scale or shift would show
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    nn.init.normal_(norm.weight, mean=1.0, std=0.3)
    nn.init.normal_(norm.bias, std=0.3)
    return made


def test_a_published_file_loads_strictly(test_data: Path, tmp_path: Path) -> None:
    manifests = json.loads((test_data / "golden" / "state_dict_manifests.json").read_text())
    published = manifests["mnist_classifier"]
    assert {name: list(tensor.shape) for name, tensor in Cnn().state_dict().items()} == published
    file = tmp_path / "classifier.pth"
    torch.save({name: torch.full(shape, 0.25) for name, shape in published.items()}, file)
    classifier = Cnn()
    load_strictly(classifier, load_weights(file), source=str(file))
    assert float(classifier.state_dict()["model.8.weight"].mean()) == 0.25


def test_a_file_of_another_net_is_refused_by_key() -> None:
    state = Cnn().state_dict()
    del state["cls.0.bias"]
    with pytest.raises(ArtifactError, match=r"published\.pth does not fit Cnn: missing: cls\.0\.bias"):
        load_strictly(Cnn(), state, source="published.pth")


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_it_computes_the_published_function_and_gradient(cnn: Cnn, mode: str) -> None:
    images = torch.rand(5, 3, 32, 32) * 2 - 1
    labels = torch.arange(5)
    told = {}
    start = {name: tensor.clone() for name, tensor in cnn.state_dict().items()}
    for name, module in (("ours", cnn), ("published", plain(cnn))):
        cnn.load_state_dict(start)
        module.train(mode == "train")
        answers = module(images)
        gradients = torch.autograd.grad(nn.functional.nll_loss(answers, labels), list(cnn.parameters()))
        statistics = [buffer.clone() for buffer in cnn.buffers()]
        told[name] = [answers.detach(), *gradients, *statistics]
    assert len(told["ours"]) == 1 + len(list(cnn.parameters())) + 3
    for ours, published in zip(told["ours"], told["published"], strict=True):
        torch.testing.assert_close(ours, published, atol=1e-5, rtol=1e-4)


def test_the_comparison_can_fail(cnn: Cnn) -> None:
    images = torch.rand(5, 3, 32, 32) * 2 - 1
    published = plain(cnn).eval()(images)
    norm = cnn.model[0]
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        norm.bias.add_(0.01)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(cnn.eval()(images), published, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [16, 28, 32, 64])
def test_any_image_size_gives_log_probabilities(cnn: Cnn, size: int) -> None:
    answers = cnn.eval()(torch.rand(3, 3, size, size) * 2 - 1)
    assert answers.shape == (3, 10)
    torch.testing.assert_close(answers.exp().sum(dim=1), torch.ones(3))


def test_evaluating_moves_no_statistics(cnn: Cnn) -> None:
    before = {name: tensor.clone() for name, tensor in cnn.state_dict().items()}
    cnn.eval()(torch.rand(3, 3, 16, 16))
    assert all(torch.equal(tensor, before[name]) for name, tensor in cnn.state_dict().items())
