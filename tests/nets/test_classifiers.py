"""torchvision's networks by name, the ensemble's heads, and the small CNN with its published keys and function."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

from cgn.core.checkpoints import load_strictly, load_weights
from cgn.core.errors import ArtifactError, ConfigError
from cgn.evaluation.metrics import shape_bias
from cgn.evaluation.predict import predict
from cgn.imagenet.data.datasets import TransformedFolder
from cgn.imagenet.data.image_folders import cue_conflict
from cgn.imagenet.data.preprocessing import imagenet
from cgn.losses import head_cross_entropies, mean_logits_cross_entropy
from cgn.nets.classifiers import (
    BASELINE,
    MECHANISMS,
    Cnn,
    Ensemble,
    SingleHead,
    load_network,
    network,
    output_layer,
    with_mean_heads,
    without_output,
)

FAMILIES = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t",
    "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet50", "shufflenet_v2_x0_5",
    "squeezenet1_0", "swin_t", "vgg11_bn", "vit_b_16", "wide_resnet50_2",
)  # fmt: skip
CLASSES = 6


def logits(seed: int = 0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {head: torch.randn(4, CLASSES, generator=random) for head in MECHANISMS}


def saved(folder: Path, name: str, *, classes: int = 10) -> Path:
    torch.save(network(name, classes=classes).state_dict(), folder / f"{name}.pth")
    return folder / f"{name}.pth"


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_taken_apart_at_its_last_layer(name: str) -> None:
    with torch.device("cpu" if name.startswith("regnet") else "meta"):  # RegNet reads its widths off a tensor
        net = network(name, classes=123).to("meta")
    with torch.device("meta"):
        _, layer = output_layer(net)
        assert (layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels) == 123
        backbone, features = without_output(net)
        size = 299 if name == "inception_v3" else 224
        found = backbone.train()(torch.zeros(2, 3, size, size))
    assert found.shape == (2, features)


def test_an_unknown_network_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no classification network 'resnet5O'.*resnet50"):
        network("resnet5O")
    with pytest.raises(ConfigError, match="no classification network 'fcn_resnet50'"):
        network("fcn_resnet50")


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small"])
def test_weights_load_strictly(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, name)
    net = load_network(name, path, classes=10)
    assert not net.training
    for key, tensor in torch.load(path, weights_only=True).items():
        assert torch.equal(net.state_dict()[key], tensor), key


def test_densenets_published_spelling_is_read(tmp_path: Path) -> None:
    state = network("densenet121", classes=10).state_dict()
    old = {key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): tensor for key, tensor in state.items()}
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "old.pth")
    net = load_network("densenet121", tmp_path / "old.pth", classes=10)
    assert all(torch.equal(tensor, state[key]) for key, tensor in net.state_dict().items())


def test_another_number_of_classes_or_network_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, "resnet18")
    with pytest.raises(ArtifactError, match=r"resnet18\.pth \(resnet18\) answers with 10 classes, expected 1000: give"):
        load_network("resnet18", path)
    with pytest.raises(ArtifactError, match=r"resnet18\.pth does not fit ResNet: missing: layer1\.2\.bn1\.bias"):
        load_network("resnet34", path, classes=10)
    with pytest.raises(ArtifactError, match=r"squeezenet.*does not fit AlexNet"):
        load_network("alexnet", saved(tmp_path, "squeezenet1_1"), classes=10)
    with pytest.raises(ArtifactError, match=r"none\.pth is missing"):
        load_network("resnet18", tmp_path / "none.pth")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    torch.save(network("squeezenet1_1", classes=10), tmp_path / "whole.pth")
    with pytest.raises(ArtifactError, match=r"whole\.pth holds no weights .* it is not unpickled"):
        load_network("squeezenet1_1", tmp_path / "whole.pth", classes=10)


def test_copied_heads_answer_what_the_network_answered() -> None:
    net = network("resnet18", classes=10).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = SingleHead(net, head="label")(images)["label"]
        ensemble = Ensemble(net, classes=10, start="copied").eval()
        answers = with_mean_heads(ensemble(images))
    assert list(answers) == [*MECHANISMS, "avg", "shape_texture"]
    for answer in answers.values():
        torch.testing.assert_close(answer, expected)


def test_drawn_heads_differ_and_share_one_backbone() -> None:
    ensemble = Ensemble(network("resnet18", classes=10), classes=CLASSES).eval()
    with torch.no_grad():
        answers = ensemble(torch.randn(2, 3, 32, 32))
    assert {tuple(answer.shape) for answer in answers.values()} == {(2, CLASSES)}
    assert not torch.allclose(answers["shape"], answers["texture"])
    own = sum(tensor.numel() for head in ensemble.heads.values() for tensor in head.parameters())
    assert own == 3 * CLASSES * (512 + 1)
    bare, _ = without_output(network("resnet18"))
    assert sum(tensor.numel() for tensor in ensemble.backbone.parameters()) == sum(
        tensor.numel() for tensor in bare.parameters()
    )


def test_the_baseline_has_one_head_and_no_means() -> None:
    baseline = Ensemble(network("squeezenet1_1", classes=10), classes=10, heads=BASELINE, start="copied").eval()
    with torch.no_grad():
        assert list(with_mean_heads(baseline(torch.zeros(1, 3, 64, 64)))) == ["label"]


def test_heads_of_other_classes_cannot_be_copied() -> None:
    with pytest.raises(ValueError, match="heads of 6 classes cannot start from a last layer of 10: start them drawn"):
        Ensemble(network("resnet18", classes=10), classes=6, start="copied")


@pytest.mark.parametrize("batch_norm", ["frozen", "trained"])
def test_frozen_batch_norm_keeps_its_statistics_and_learns_its_scale(batch_norm: str) -> None:
    ensemble = Ensemble(network("resnet18"), classes=CLASSES, batch_norm=batch_norm)  # type: ignore[arg-type]
    ensemble.eval().train()
    norms = [module for module in ensemble.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
    mean_logits_cross_entropy(ensemble(torch.randn(4, 3, 32, 32)), torch.zeros(4, dtype=torch.int64)).backward()  # type: ignore[no-untyped-call]
    kept = [torch.equal(norm.running_mean, was) for norm, was in zip(norms, before, strict=True)]  # type: ignore[arg-type]
    assert len(kept) == 20
    assert set(kept) == {batch_norm == "frozen"}
    assert all(norm.weight.grad is not None for norm in norms)
    assert ensemble.training


def test_predictions_are_means_of_logits() -> None:
    answers = logits()
    found = with_mean_heads(answers)
    torch.testing.assert_close(found["avg"], (answers["shape"] + answers["texture"] + answers["background"]) / 3)
    torch.testing.assert_close(found["shape_texture"], (answers["shape"] + answers["texture"]) / 2)
    assert all(found[head] is answers[head] for head in MECHANISMS)


def entropy(answer: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Cross entropy by its definition."""
    chosen = answer[torch.arange(len(label)), label]
    return (answer.exp().sum(1).log() - chosen).mean()


def summed(answers: Mapping[str, torch.Tensor], labels: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The loss of counterfactuals: the heads' cross entropies, added up."""
    return torch.stack(list(head_cross_entropies(answers, labels).values())).sum()


def test_real_pictures_ask_the_mean_of_the_logits() -> None:
    answers, label = logits(), torch.tensor([0, 5, 2, 2])
    torch.testing.assert_close(
        mean_logits_cross_entropy(answers, label), entropy(with_mean_heads(answers)["avg"], label)
    )
    apart = torch.stack([entropy(answer, label) for answer in answers.values()]).mean()
    assert abs(mean_logits_cross_entropy(answers, label) - apart) > 0.05
    single = {"label": answers["shape"]}
    torch.testing.assert_close(mean_logits_cross_entropy(single, label), entropy(answers["shape"], label))


def test_counterfactuals_ask_each_head_for_its_own_label() -> None:
    answers = logits()
    random = torch.Generator().manual_seed(3)
    labels = {head: torch.randint(0, CLASSES, (4,), generator=random) for head in MECHANISMS}
    expected = sum(entropy(answers[head], labels[head]) for head in MECHANISMS)
    torch.testing.assert_close(summed(answers, labels), expected)
    exchanged = labels | {"shape": labels["texture"], "texture": labels["shape"]}
    assert abs(summed(answers, exchanged) - expected) > 0.05
    with pytest.raises(ValueError, match="no labels for the heads background; there are: shape, texture"):
        head_cross_entropies(answers, {head: labels[head] for head in ("shape", "texture")})


@pytest.mark.parametrize("loss", [mean_logits_cross_entropy, lambda answers, label: summed(answers, {"shape": label})])
def test_perfect_answers_cost_nothing(loss: Callable[..., torch.Tensor]) -> None:
    label = torch.tensor([1, 4])
    sure = {"shape": 100 * nn.functional.one_hot(label, CLASSES).float()}
    assert float(loss(sure, label)) == pytest.approx(0, abs=1e-6)


def test_three_heads_and_two_means_are_evaluated(tmp_path: Path) -> None:
    """From a folder of stimuli to the shape bias of every head, with a backbone that was never trained."""
    random = np.random.default_rng(0)
    for name in ("cat/cat1-dog1.png", "cat/cat2-oven1.png", "dog/dog1-cat1.png", "oven/oven1-oven2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(tmp_path / name)
    ensemble = Ensemble(network("squeezenet1_1", classes=CLASSES), classes=CLASSES).eval()
    rows = predict(
        {"ensemble": lambda images: with_mean_heads(ensemble(images))},
        pictures=TransformedFolder(
            folder=cue_conflict(tmp_path, categories=("cat", "dog", "oven")),
            transform=imagenet(resize=64, crop=64),
        ),
        suite="cue_conflict",
        condition="all",
        batch_size=3,
        members=((0, 1), (2, 3), (4, 5)),
    ).rows
    assert len(rows) == 4 * 5
    counts = {str(head): shape_bias(table) for head, table in rows.groupby("head")}
    assert set(counts) == {*MECHANISMS, "avg", "shape_texture"}
    assert {found.conflicts for found in counts.values()} == {3}


def plain(cnn: Cnn) -> nn.Sequential:
    """The published order of layers, on the very parameters and statistics of `cnn`."""
    norm, convolve, pool, _, *rest = cnn.model.children()
    return nn.Sequential(norm, convolve, nn.ReLU(), pool, *rest, nn.AvgPool2d(7), nn.Flatten(), cnn.cls)


@pytest.fixture
def cnn() -> Cnn:
    torch.manual_seed(0)
    net = Cnn()
    norm = net.model[0]
    assert isinstance(norm, nn.BatchNorm2d)
    for layer in net.modules():  # so that the answers depend on the images, and a lost scale or shift would show
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    nn.init.normal_(norm.weight, mean=1.0, std=0.3)
    nn.init.normal_(norm.bias, std=0.3)
    return net


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
    results = {}
    start = {name: tensor.clone() for name, tensor in cnn.state_dict().items()}
    for name, module in (("ours", cnn), ("published", plain(cnn))):
        cnn.load_state_dict(start)
        module.train(mode == "train")
        answers = module(images)
        gradients = torch.autograd.grad(nn.functional.nll_loss(answers, labels), list(cnn.parameters()))
        statistics = [buffer.clone() for buffer in cnn.buffers()]
        results[name] = [answers.detach(), *gradients, *statistics]
    assert len(results["ours"]) == 1 + len(list(cnn.parameters())) + 3
    for ours, published in zip(results["ours"], results["published"], strict=True):
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


def test_shufflenet_keeps_channels_last_and_every_bit_of_torchvisions() -> None:
    def trained(net: nn.Module) -> tuple[list[bool], list[torch.Tensor]]:
        """Whether each block keeps channels last; weights, gradients, and the output for plain images in eval mode."""
        kept: list[bool] = []
        net.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        for block in net.get_submodule("stage3").children():
            block.register_forward_hook(
                lambda _net, _inputs, maps: kept.append(maps.is_contiguous(memory_format=torch.channels_last))
            )
        images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        net(images.contiguous(memory_format=torch.channels_last)).square().sum().backward()
        gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
        return kept, [*net.state_dict().values(), *gradients, net.eval()(images)]

    torch.manual_seed(0)
    kept, ours = trained(network("shufflenet_v2_x0_5", classes=CLASSES))
    torch.manual_seed(0)
    lost, theirs = trained(models.get_model("shufflenet_v2_x0_5", weights=None, num_classes=CLASSES))
    assert all(kept)
    assert not any(lost)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
