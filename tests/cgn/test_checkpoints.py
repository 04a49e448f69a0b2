"""Weights and states: strict, safe, and plain about what is wrong."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from cgn.core.checkpoints import load_model, load_state, load_strictly, load_weights, save_model, save_state
from cgn.core.errors import ArtifactError


class Bomb:
    """Its unpickling leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_model_comes_back_with_its_facts_in_equal_bytes(tmp_path: Path) -> None:
    net = nn.Linear(2, 3)
    for name in ("a", "b"):
        save_model(tmp_path / name, net.state_dict(), facts={"track": "mnist", "net": {"width": 3}})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    tensors, facts = load_model(tmp_path / "a", track="mnist")
    assert facts == {"track": "mnist", "net": {"width": 3}}
    assert tensors["weight"].equal(net.weight)
    with pytest.raises(ArtifactError, match=r"a is of track 'mnist', expected 'imagenet'"):
        load_model(tmp_path / "a", track="imagenet")


@pytest.mark.parametrize("load", [load_model, load_weights, load_state])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, load: object) -> None:
    assert callable(load)
    plain, zipped = tmp_path / "plain.pth", tmp_path / "zipped.pth"
    plain.write_bytes(pickle.dumps(Bomb(tmp_path / "harm"), protocol=2))
    torch.save({"weight": Bomb(tmp_path / "harm")}, zipped)
    for path in (plain, zipped):
        with pytest.raises(ArtifactError, match=path.name):
            load(path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("content", "told"), [(b"", "empty"), (b"<html>no</html>", "HTML page"), (b"PK\x03\x04 cut", "cut short")]
)
@pytest.mark.parametrize("load", [load_model, load_weights, load_state])
def test_broken_files_are_told_apart(tmp_path: Path, load: object, content: bytes, told: str) -> None:
    assert callable(load)
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ArtifactError, match=told):
        load(tmp_path / "file")


def test_weights_must_be_a_state_dict(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(ArtifactError, match="holds a list, not a state dict"):
        load_weights(tmp_path / "list.pth")
    save_state(tmp_path / "state.pt", {"update": 3, "nested": {"x": torch.ones(2)}})
    assert load_state(tmp_path / "state.pt")["nested"]["x"].equal(torch.ones(2))


def test_keys_and_shapes_that_differ_are_named() -> None:
    net = nn.Linear(2, 3)
    state = {"weight": torch.zeros(3, 5), "extra": torch.zeros(1)}
    told = r"missing: bias; unknown: extra; of another shape: weight \(3, 5\), expected \(3, 2\)"
    with pytest.raises(ArtifactError, match=told):
        load_strictly(net, state, source="file.pth")
