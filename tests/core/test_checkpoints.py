"""Weights and states: strict, safe, and plain about what is wrong."""

import argparse
import os
import pickle
import platform
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from cgn.core.checkpoints import load_model, load_state, load_strictly, load_weights, rebuilt, save_model, save_state
from cgn.core.errors import ArtifactError
from tests.support.pickles import Bomb


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
    ("content", "message"), [(b"", "empty"), (b"<html>no</html>", "HTML page"), (b"PK\x03\x04 cut", "cut short")]
)
@pytest.mark.parametrize("load", [load_model, load_weights, load_state])
def test_kinds_of_broken_files_are_distinguished(tmp_path: Path, load: object, content: bytes, message: str) -> None:
    assert callable(load)
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
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
    message = r"missing: bias; unknown: extra; of another shape: weight \(3, 5\), expected \(3, 2\)"
    with pytest.raises(ArtifactError, match=message):
        load_strictly(net, state, source="file.pth")


def renamed(prefix: str) -> dict[str, torch.Tensor]:
    """A net's state dict, the same each time, as a wrapper of the net names it."""
    return {f"{prefix}weight": torch.arange(6.0).view(3, 2), f"{prefix}bias": torch.arange(3.0)}


def assert_loads(path: Path) -> None:
    """The file's weights are those of `renamed`, under the net's own names."""
    net = nn.Linear(2, 3)
    load_strictly(net, load_weights(path), source=path.name)
    for name, tensor in renamed("").items():
        assert torch.equal(net.state_dict()[name], tensor)


WRAPPERS: dict[str, Callable[[], dict[str, Any]]] = {
    "bare": lambda: renamed(""),
    "state_dict": lambda: {"epoch": 3, "state_dict": renamed(""), "optimizer": {"state": {}}},
    "model": lambda: {"model": renamed(""), "lr": 0.1},
    "model_state_dict": lambda: {"model_state_dict": renamed(""), "loss": 0.5},
    "DataParallel": lambda: {"state_dict": renamed("module."), "best": torch.tensor(71.0)},
    "compiled and distributed": lambda: renamed("module._orig_mod."),
    "Lightning": lambda: {
        "state_dict": renamed("net."),
        "hyper_parameters": {"lr": 1},
        "pytorch-lightning_version": "2",
    },
    "average": lambda: {"model_ema": {"n_averaged": torch.tensor(9), **renamed("module.")}},
    "two deep": lambda: {"model": {"state_dict": renamed("model.")}},
}


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_is_taken_out_of_what_programs_put_around_it(tmp_path: Path, name: str, zipped: bool) -> None:
    torch.save(WRAPPERS[name](), tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
    assert_loads(tmp_path / "file.pth")


def test_an_average_next_to_the_weights_is_ignored_with_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, average = ({"weight": torch.full((1,), value)} for value in (1.0, 2.0))
    torch.save({"model_ema": average, "model": plain}, tmp_path / "both.pth")
    assert load_weights(tmp_path / "both.pth")["weight"].item() == 1
    assert "its 'model' is read, not its model_ema" in capsys.readouterr().err


def test_a_prefix_that_not_all_names_have_stays(tmp_path: Path) -> None:
    torch.save({"state_dict": {**renamed("model."), "criterion.weight": torch.zeros(1)}}, tmp_path / "more.ckpt")
    with pytest.raises(ArtifactError, match=r"missing: bias, weight; unknown: criterion\.weight, model\.bias"):
        load_strictly(nn.Linear(2, 3), load_weights(tmp_path / "more.ckpt"), source="more.ckpt")


def test_a_file_is_what_its_bytes_say_not_its_name(tmp_path: Path) -> None:
    save_file(renamed("module."), tmp_path / "named.pth")
    torch.save(renamed(""), tmp_path / "named.safetensors")
    for name in ("named.pth", "named.safetensors"):
        assert_loads(tmp_path / name)


def recursive() -> dict[str, Any]:
    """A dict that holds itself."""
    state: dict[str, Any] = {}
    state["model"] = state
    return state


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "module": (
        lambda path: torch.save(nn.Linear(2, 3), path),
        r"pickle of Python objects, torch\.nn\.modules\.linear\.Linear, .*torch\.save\(net\.state_dict\(\)",
    ),
    "older module": (
        lambda path: torch.save(nn.Linear(2, 3), path, _use_new_zipfile_serialization=False),
        r"pickle of Python objects, torch\.nn\.modules\.linear\.Linear, ",
    ),
    "namespace": (
        lambda path: torch.save({"model": renamed(""), "args": argparse.Namespace(lr=1)}, path),
        r"pickle of Python objects, argparse\.Namespace, ",
    ),
    "NumPy's number": (
        lambda path: torch.save({"model": renamed(""), "best": np.float64(1)}, path),
        r"numpy\.\S*scalar",
    ),
    "pointer": (
        lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n"),
        "Git LFS pointer",
    ),
    "answer": (lambda path: path.write_bytes(b'{"error": "quota"}'), "JSON: a server's answer"),
    "plain pickle": (
        lambda path: path.write_bytes(pickle.dumps({"weight": 1}, protocol=2)),
        "a pickle, .*another format",
    ),
    "optimizer": (lambda path: torch.save({"optimizer": {}, "epoch": 1}, path), r"but 'optimizer' \(dict\), 'epoch'"),
    "quantized": (
        lambda path: torch.save({"weight": torch.zeros(2, 2).to_sparse()}, path),
        r"but 'weight' \(torch\.float32, torch\.sparse_coo\)",
    ),
    "recursive": (lambda path: torch.save(recursive(), path), "holds no state dict of plain tensors"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_holds_no_weights_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    write, expected = FOREIGN[name]
    write(tmp_path / "file.pth")
    with pytest.raises(ArtifactError, match=expected) as caught:
        load_weights(tmp_path / "file.pth")
    speaks(str(caught.value))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_torchscript_program_is_named_in_one_line(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.ReLU()), str(tmp_path / "script.pt"))
    with pytest.raises(ArtifactError, match=r"script\.pt .*TorchScript program.*torch\.jit\.load") as caught:
        load_weights(tmp_path / "script.pt")
    speaks(str(caught.value))


def test_an_archive_of_arrays_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", weight=np.zeros(3))
    with pytest.raises(ArtifactError, match=r"a zip archive that torch\.save did not write, of weight\.npy"):
        load_weights(tmp_path / "arrays.npz")


def speaks(message: str) -> None:
    """One line in our words, which never suggest to unpickle."""
    assert "\n" not in message
    assert "\x1b" not in message
    assert "weights_only" not in message


def mutated(whole: bytes, source: random.Random) -> bytes:
    """With some bits flipped, bytes changed, removed or put in, or an end cut off; more often near the start."""
    content = bytearray(whole)
    for _ in range(source.choice((1, 1, 2, 8))):
        place = source.randrange(min(len(content), source.choice((1500, len(content))))) if content else 0
        match source.randrange(5):
            case 0 if content:
                content[place] ^= 1 << source.randrange(8)
            case 1 if content:
                content[place] = source.randrange(256)
            case 2:
                del content[place : place + source.randrange(1, 9)]
            case 3:
                content[place:place] = source.randbytes(source.randrange(1, 9))
            case _:
                del content[place:]
    return bytes(content)


def test_mutated_files_end_in_a_message_or_are_whole(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    torch.save(net.state_dict(), tmp_path / "older.pth", _use_new_zipfile_serialization=False)
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    save_model(tmp_path / "model.safetensors", net.state_dict(), facts={"track": "mnist"})
    save_state(tmp_path / "state.pt", {"update": 3, "net": net.state_dict()})
    source = random.Random(0)
    loads: dict[str, Callable[[Path], Any]] = {"model.safetensors": load_model, "state.pt": load_state}
    refused = 0
    for path in sorted(tmp_path.iterdir()):
        load = loads.get(path.name, load_weights)
        whole = path.read_bytes()
        for _ in range(200 if path.name == "older.pth" else 60):
            path.write_bytes(mutated(whole, source))
            try:
                load(path)
            except ArtifactError as error:
                speaks(str(error).encode("ascii", "backslashreplace").decode())
                refused += 1
    assert refused > 300


def test_a_flipped_bit_is_never_trained_on(tmp_path: Path) -> None:
    state, model, source = tmp_path / "state.pt", tmp_path / "model.safetensors", random.Random(1)
    tensors = {"weight": torch.linspace(0, 1, 500), "count": torch.tensor(3)}
    save_state(state, {"net": tensors, "update": 2})
    save_model(model, tensors, facts={"track": "mnist"})
    for path, load, read in (
        (state, load_state, lambda: load_state(state)["net"]["weight"]),
        (model, load_model, lambda: load_model(model)[0]["weight"]),
    ):
        whole, found = path.read_bytes(), 0
        start = whole.index(tensors["weight"].numpy().tobytes())
        for place in (start, start + 1999, *(source.randrange(len(whole)) for _ in range(40))):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << source.randrange(8)
            path.write_bytes(flipped)
            try:
                same = bool(read().equal(tensors["weight"]))  # the bit was padding
            except ArtifactError:
                same, found = True, found + 1
            assert same
        assert found > 15
        path.write_bytes(whole[:start] + b"\xff" + whole[start + 1 :])
        with pytest.raises(ArtifactError, match=rf"{path.name} .*(other bytes|not hold) .*: remove .* run "):
            load(path)


@pytest.mark.parametrize("facts", ["[1, 2]", '"text"', "null", "[" * 100_000, "1" * 5000, "{"])
def test_facts_that_are_no_object_are_refused(tmp_path: Path, facts: str) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"facts": facts})
    with pytest.raises(ArtifactError, match=r"model\.safetensors is not a whole model file"):
        load_model(tmp_path / "model.safetensors", track="mnist")


@pytest.mark.parametrize("size", [10**9, 2**70, -1, 2.5, "wide", [], {}, None])
def test_absurd_sizes_in_facts_are_refused_before_memory_is_taken(size: Any) -> None:
    with pytest.raises(ArtifactError, match=r"^file .*(does not fit Linear|does not say which net)"):
        rebuilt(lambda: nn.Linear(size, 10**6), {"weight": torch.zeros(3, 2)}, source="file", remedy="fetch it again")
    assert rebuilt(lambda: nn.Linear(2, 3), renamed(""), source="file", remedy="").weight.shape == (3, 2)


WRITERS: dict[str, Callable[[Path], object]] = {
    "state.pt": lambda path: save_state(path, {"weight": torch.ones(50_000)}),
    "model.safetensors": lambda path: save_model(path, {"weight": torch.ones(50_000)}, facts={}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_said_in_one_line_and_keeps_the_last_checkpoint(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.write_bytes(b"the last one")
    # torch writes there, safetensors replaces it
    (tmp_path / f".{name}.{platform.node()}-{os.getpid()}.tmp").symlink_to("/dev/full")

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("cgn.core.checkpoints.save_file", full)
    with pytest.raises(ArtifactError, match=rf"cannot write .*{name}: no space is left on this disk; nothing is lost"):
        WRITERS[name](path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(name, b"the last one")]


@pytest.mark.parametrize("name", WRITERS)
def test_a_limit_on_the_size_of_files_is_said_too(tmp_path: Path, name: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(ArtifactError, match=rf"cannot write .*{name}: it is larger than .*; nothing is lost"):
            WRITERS[name](tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
