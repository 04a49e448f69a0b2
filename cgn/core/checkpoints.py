"""Weights and training states on disk: never unpickled, loaded strictly, whole or absent.

Decided here: what stages hand on (models) is safetensors with the facts needed to rebuild it (track, variant, net
settings) as JSON in the header, so a checkpoint of another variant is refused by name. A training state (optimizers
too) is a torch file read with `weights_only=True`.
"""

import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from cgn.core.errors import ArtifactError
from cgn.core.files import replacing

Tensors = Mapping[str, torch.Tensor]


def save_model(path: Path, tensors: Tensors, *, facts: Mapping[str, Any]) -> None:
    """Write tensors and `facts` (JSON) as safetensors. Equal content gives equal bytes."""
    held = {
        name: tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    with replacing(path) as temporary:
        save_file(held, temporary, metadata={"facts": json.dumps(facts, sort_keys=True)})


def read_facts(path: Path, **expected: str) -> dict[str, Any]:
    """The facts of a model file, its tensors left on the disk. Raises ArtifactError as `load_model` does."""
    with _opened(path, expected) as (_, facts):
        return facts


def load_model(path: Path, **expected: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and facts of a model file.

    Raises ArtifactError for anything but a whole file that `save_model` wrote, and for one whose facts differ from
    `expected` (track="mnist", variant="digits").
    """
    with _opened(path, expected) as (file, facts):
        return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 (no mapping)


@contextmanager
def _opened(path: Path, expected: Mapping[str, str]) -> Iterator[tuple[Any, dict[str, Any]]]:
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: run the stage that makes {path.parent}")
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            refuse_foreign(facts, source=path, **expected)
            yield file, facts
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ArtifactError(
            f"{path} is not a whole model file of this project ({_looks_like(path)}; {error}): "
            f"remove {path.parent} and run its stage again"
        ) from None


def refuse_foreign(facts: Mapping[str, Any], *, source: Path, **expected: str) -> None:
    """Raise ArtifactError when a file's or folder's facts differ from what is expected, naming both."""
    for name, value in expected.items():
        if facts.get(name) != value:
            raise ArtifactError(
                f"{source} is of {name} {facts.get(name)!r}, expected {value!r}: give what the same {name} made"
            )


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from a published .pth or .safetensors file, on the CPU, without unpickling code.

    Raises ArtifactError when the file holds anything but tensors, or is cut short, or is an HTML page.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} is missing")
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except SafetensorError as error:
            raise ArtifactError(f"{path} holds no weights ({_looks_like(path)}; {error}): fetch it again") from None
    loaded = _loaded(path, what="no weights", remedy="only files of plain tensors are read; nothing is unpickled")
    if not isinstance(loaded, Mapping) or not all(isinstance(tensor, torch.Tensor) for tensor in loaded.values()):
        raise ArtifactError(f"{path} holds a {type(loaded).__name__}, not a state dict of tensors")
    return dict(loaded)


def load_strictly(module: torch.nn.Module, tensors: Tensors, *, source: str) -> None:
    """Load all of `tensors` into `module`. Raises ArtifactError naming the keys and shapes that differ."""
    wanted = module.state_dict()
    missing = sorted(wanted.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - wanted.keys())
    shapes = [
        f"{name} {tuple(tensors[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & tensors.keys())
        if tensors[name].shape != wanted[name].shape
    ]
    problems = [("missing", missing), ("unknown", unknown), ("of another shape", shapes)]
    if any(names for _, names in problems):
        told = "; ".join(f"{what}: {_few(names)}" for what, names in problems if names)
        raise ArtifactError(f"{source} does not fit {type(module).__name__}: {told}")
    module.load_state_dict(dict(tensors))


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training state: nested dicts and lists of tensors and plain values."""
    with replacing(path) as temporary:
        torch.save(dict(state), temporary)


def load_state(path: Path) -> dict[str, Any]:
    """Read a training state, on the CPU, without unpickling code. Raises ArtifactError when it is broken."""
    remedy = "remove it and run the same command again to start this stage anew"
    state = _loaded(path, what="no whole checkpoint", remedy=remedy)
    if not isinstance(state, dict):
        raise ArtifactError(f"{path} holds no whole checkpoint but a {type(state).__name__}: {remedy}")
    return state


def _loaded(path: Path, *, what: str, remedy: str) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        told = (str(error) or type(error).__name__).splitlines()[0]
        raise ArtifactError(f"{path} holds {what} ({_looks_like(path)}; {told}): {remedy}") from None


def _few(names: list[str], *, shown: int = 8) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _looks_like(path: Path) -> str:
    start = path.read_bytes()[:512]
    if not start:
        return "the file is empty"
    if start.lstrip()[:1] == b"<":
        return "it looks like an HTML page: a download that was refused"
    if start[:2] == b"\x80\x02" or start[:1] == b"\x80":
        return "it is a pickle"
    return f"{path.stat().st_size:,} bytes, cut short or of another format"
