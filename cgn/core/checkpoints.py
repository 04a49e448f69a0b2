"""Models and training states on disk: never unpickled, loaded strictly, whole or absent.

Decided here: a model is a safetensors file with the facts needed to rebuild it (track, variant, net settings) as JSON
in the header, so a checkpoint of another variant is refused by name. A training state (with its optimizers) is a torch
file read with `weights_only=True`. Both carry checksums, so that no flipped bit is trained on: a model the SHA-256 of
its tensors, a state the CRC-32 of each record, which torch writes but does not check.
"""

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from cgn.core.errors import ArtifactError
from cgn.core.facts import DIGEST, looks_like, opened
from cgn.core.files import json_value, replacing
from cgn.core.weights import Tensors, load_strictly, load_torch_file, refuse_unfit

Net = TypeVar("Net", bound=torch.nn.Module)


WRONG_FACTS = (
    ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""What building a net or a training raises when the facts that describe it are of the wrong kind or size."""


def save_model(path: Path, tensors: Tensors, *, facts: Mapping[str, Any]) -> None:
    """Write tensors and `facts` (JSON) as safetensors. Equal content gives equal bytes."""
    copies = {
        name: tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    # One key of metadata only: safetensors writes several in an order that changes from call to call.
    metadata = json.dumps({**facts, DIGEST: _digest(copies, facts=facts)}, sort_keys=True)
    with replacing(path) as temporary, _system_errors():
        save_file(copies, temporary, metadata={"facts": metadata})


def load_model(path: Path, **expected: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and facts of a model file.

    Raises ArtifactError for anything but a whole file that `save_model` wrote, and for one whose facts differ from
    `expected` (track="mnist", variant="digits"). A file without a checksum, written before there was one, is taken.
    """
    with opened(path, expected, framework="pt") as (file, facts):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        digest = json_value(file.metadata()["facts"]).get(DIGEST)
        if digest is not None and digest != _digest(tensors, facts=facts):
            raise ValueError("it does not hold what was written")
        return tensors, facts


def _digest(tensors: Tensors, *, facts: Mapping[str, Any]) -> str:
    """SHA-256 of the facts and of the tensors' names, types, shapes and numbers."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def rebuilt(make: Callable[[], Net], tensors: Tensors, *, source: str, remedy: str) -> Net:
    """The net that `make` builds from a file's facts, loaded with all of `tensors`.

    Raises ArtifactError when the facts describe no net, or another one than that of the tensors.
    """
    sketch(make, tensors, source=source, remedy=remedy)
    net = make()
    load_strictly(net, tensors, source=source)
    return net


def sketch(make: Callable[[], torch.nn.Module], tensors: Tensors, *, source: str, remedy: str) -> None:
    """Raise ArtifactError where `rebuilt` does, but on the meta device: absurd sizes in the facts take no memory."""
    try:
        with torch.device("meta"):
            net = make()
    except WRONG_FACTS as error:
        reason = f"{type(error).__name__}: {error}"
        raise ArtifactError(f"{source} does not say which net it holds ({reason}): {remedy}") from None
    refuse_unfit(net, tensors, source=source)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training state: nested dicts and lists of tensors and plain values."""
    with replacing(path) as temporary, _system_errors(), temporary.open("wb") as file:
        torch.save(dict(state), file)


def load_state(path: Path) -> dict[str, Any]:
    """Read a training state, on the CPU, without unpickling code. Raises ArtifactError when a bit of it is broken."""
    remedy = "remove it and run the same command again to start this stage anew"
    try:
        _check_records(path)
        state = load_torch_file(path)
    except ArtifactError as error:
        raise ArtifactError(f"{path} holds no whole checkpoint ({error}): {remedy}") from None
    if not isinstance(state, dict):
        raise ArtifactError(f"{path} holds no whole checkpoint but a {type(state).__name__}: {remedy}")
    return state


@contextmanager
def _system_errors() -> Iterator[None]:
    """Raise the system's own error of a failed write (a full disk), which torch and safetensors wrap."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        cause = error.__context__
        while cause is not None:
            if isinstance(cause, OSError):
                raise cause from None
            cause = cause.__context__
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from None
        raise


def _check_records(path: Path) -> None:
    """Compare each record of a torch file with its CRC-32. Raises ArtifactError saying which differs."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except Exception:  # zipfile does not document what it raises for bytes that are not an archive
        raise ArtifactError(looks_like(path)) from None
    if broken is not None:
        raise ArtifactError(f"its record {broken} has other bytes than were written")
