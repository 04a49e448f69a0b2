"""The published files as they are: loaded strictly under their own keys, and every wrong file refused by name."""

import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from cgn.core.errors import ArtifactError
from cgn.download.sources import BIGGAN_DEEP_256, U2NET, VGG16
from cgn.imagenet import generator
from cgn.imagenet.pretrained import load_pretrained
from cgn.nets.biggan import BigGan
from cgn.nets.features import VggFeatures
from cgn.nets.u2net import U2Net
from tests.support.pickles import Bomb
from tests.support.toy_nets import BIGGAN_CONFIG, BLOCKS, WIDTHS

FILES: dict[str, Callable[[], nn.Module]] = {
    BIGGAN_DEEP_256.name: lambda: BigGan(BIGGAN_CONFIG),
    U2NET.name: lambda: U2Net(WIDTHS),
    VGG16.name: lambda: VggFeatures(BLOCKS),
}


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Toys under the public files' names, with what else these hold."""
    monkeypatch.setattr(generator, "BIGGAN_DEEP_256", BIGGAN_CONFIG)
    monkeypatch.setattr(generator, "U2NET", WIDTHS)
    monkeypatch.setattr(generator, "VggFeatures", partial(VggFeatures, BLOCKS))
    torch.manual_seed(3)
    for name, make in FILES.items():
        state = make().state_dict()
        if name == VGG16.name:
            state |= {"classifier.0.weight": torch.zeros(2), "features.24.bias": torch.zeros(2)}
        torch.save(state, tmp_path / name)
    return tmp_path


def test_public_files_fill_the_nets(published: Path) -> None:
    nets = load_pretrained(published, nets="published")
    held = torch.load(published / BIGGAN_DEEP_256.name, weights_only=True)
    assert all(tensor.equal(held[name]) for name, tensor in nets.biggan.state_dict().items())
    for net in (nets.biggan, nets.saliency, nets.features):
        assert not net.training
        assert not any(parameter.requires_grad for parameter in net.parameters())
    assert len(nets.features(torch.zeros(1, 3, 32, 32))) == 4


@pytest.mark.parametrize("name", sorted(FILES))
def test_other_keys_and_shapes_are_named(published: Path, name: str) -> None:
    state = torch.load(published / name, weights_only=True)
    first = next(key for key in state if key.endswith(("weight", "weight_orig")))
    torch.save({key: tensor for key, tensor in state.items() if key != first}, published / name)
    with pytest.raises(ArtifactError, match=rf"{name} does not fit \w+: missing: {first}"):
        load_pretrained(published, nets="published")
    torch.save(state | {first: torch.zeros(2, 2)}, published / name)
    with pytest.raises(ArtifactError, match=rf"{name} does not fit \w+: of another shape: {first} \(2, 2\), expected"):
        load_pretrained(published, nets="published")
    if name != VGG16.name:  # of VGG-16 a part is taken
        torch.save(state | {"extra": torch.zeros(1)}, published / name)
        with pytest.raises(ArtifactError, match=rf"{name} does not fit \w+: unknown: extra"):
            load_pretrained(published, nets="published")


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_is_no_state_dict_is_refused_and_not_run(published: Path, name: str) -> None:
    path, whole = published / name, (published / name).read_bytes()
    harm = published / "harm"
    for content, message in (
        (b"<!DOCTYPE html><html>sign in</html>", "HTML page"),
        (whole[: len(whole) // 2], "cut short"),
        (b"", "empty"),
        (pickle.dumps(Bomb(harm), protocol=2), "pickle"),
    ):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=rf"{name} .*{message}"):
            load_pretrained(published, nets="published")
    torch.save({"weight": Bomb(harm)}, path)
    with pytest.raises(ArtifactError, match=name):
        load_pretrained(published, nets="published")
    path.unlink()
    with pytest.raises(ArtifactError, match=rf"{name} is missing"):
        load_pretrained(published, nets="published")
    assert not harm.exists()
