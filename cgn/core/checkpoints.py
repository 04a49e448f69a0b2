"""Models, training states and published weights on disk: never unpickled, loaded strictly, whole or absent.

A model is a safetensors file with the facts needed to rebuild it (track, variant, net settings) as JSON
in the header, so a checkpoint of another variant is refused by name. A training state (with its optimizers) is a torch
file read with `weights_only=True`. Both carry checksums, so that no flipped bit is trained on: a model the SHA-256 of
its tensors, a state the CRC-32 of each record, which torch writes but does not check.
A published file is recognised by its bytes, not by its name. Of the ways in which training programs wrap a state dict,
the usual ones are undone.
"""

import hashlib
import json
import os
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cgn.core.errors import ArtifactError, shortened
from cgn.core.facts import DIGEST, first_bytes, looks_like, opened
from cgn.core.files import json_value, replacing

Net = TypeVar("Net", bound=torch.nn.Module)
Tensors = Mapping[str, torch.Tensor]
WRAPPED = ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "module", "weights")
AVERAGED = ("state_dict_ema", "model_ema", "ema", "ema_state_dict", "ema_model")
"""Keys under which training programs keep the weights, beside optimizers and counts; averages only where alone."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""What wrappers put before every name: DataParallel, torch.compile, and the attribute of a Lightning module."""
DEPTH = 3
"""How deeply a state dict may be nested."""
COUNT = "n_averaged"
"""The counter that torch's AveragedModel adds to a state dict."""
SAVE_TENSORS = "torch.save(net.state_dict(), 'weights.pth')"
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


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from a published .pth or .safetensors file, on the CPU, without unpickling code.

    What training programs wrap around it is removed (`WRAPPED`, `PREFIXES`). Raises ArtifactError when the file has no
    state dict of plain tensors, is cut short, or is of another kind, and says which.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} is missing")
    if _is_safetensors(path):
        try:
            return _unprefixed(load_file(path))
        except (SafetensorError, OSError) as error:
            raise ArtifactError(f"{path} holds no weights ({looks_like(path)}; {error}): fetch it again") from None
    try:
        loaded = load_torch_file(path)
    except ArtifactError as error:
        raise ArtifactError(f"{path} holds no weights ({error})") from None
    return _unprefixed(_state_dict(loaded, path=path))


def _is_safetensors(path: Path) -> bool:
    """By its first bytes; by its suffix where these are neither safetensors' nor torch's."""
    try:
        start = first_bytes(path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror or error}") from None
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return True
    return path.suffix == ".safetensors" and start[:2] not in (b"PK", b"\x80\x02")


def _state_dict(loaded: Any, *, path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a file's content, unwrapped. Raises ArtifactError when the content has none."""
    found = loaded
    for _ in range(DEPTH):
        kept = found if isinstance(found, Mapping) else {}
        inside = [name for name in (*WRAPPED, *AVERAGED) if isinstance(kept.get(name), Mapping)]
        if len(inside) > 1:
            print(f"{path}: its {inside[0]!r} is read, not its {', '.join(inside[1:])}", file=sys.stderr, flush=True)
        found = kept[inside[0]] if inside else found
    if not isinstance(found, Mapping):
        raise ArtifactError(
            f"{path} holds a {type(found).__name__}, not a state dict of tensors: save it by {SAVE_TENSORS}"
        )
    wrong = [f"{name!r} ({_described(value)})" for name, value in found.items() if not _is_plain(name, value)]
    if wrong or not found:
        raise ArtifactError(
            f"{path} holds no state dict of plain tensors, but {shortened(wrong) or 'nothing'}: it may be under one of "
            f"the keys {', '.join((*WRAPPED, *AVERAGED))}; save it by {SAVE_TENSORS}"
        )
    return dict(found)


def _is_plain(name: object, value: object) -> bool:
    if not (isinstance(name, str) and isinstance(value, torch.Tensor)):
        return False
    dense = value.layout == torch.strided and value.device.type == "cpu"
    return dense and not (value.is_quantized or value.is_complex())


def _described(value: object) -> str:
    return f"{value.dtype}, {value.layout}" if isinstance(value, torch.Tensor) else type(value).__name__


def _unprefixed(tensors: Tensors) -> dict[str, torch.Tensor]:
    """The same tensors under the bare network's names: without the `PREFIXES` that all names have."""
    kept = {name: tensor for name, tensor in tensors.items() if name != COUNT}
    while kept and (prefix := next((known for known in PREFIXES if all(n.startswith(known) for n in kept)), None)):
        kept = {name.removeprefix(prefix): tensor for name, tensor in kept.items()}
    return kept


def load_strictly(module: torch.nn.Module, tensors: Tensors, *, source: str) -> None:
    """Load all of `tensors` into `module`. Raises ArtifactError naming the keys and shapes that differ."""
    refuse_unfit(module, tensors, source=source)
    try:
        module.load_state_dict(dict(tensors))
    except (RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ArtifactError(f"{source} does not fit {type(module).__name__}: {reason}") from None


def refuse_unfit(module: torch.nn.Module, tensors: Tensors, *, source: str) -> None:
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
        reasons = "; ".join(f"{what}: {shortened(names)}" for what, names in problems if names)
        raise ArtifactError(f"{source} does not fit {type(module).__name__}: {reasons}")


def load_torch_file(path: Path) -> Any:
    """A torch file's content, read without unpickling code. Raises ArtifactError saying what the file is instead."""
    _refuse_archives(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle's protocol; what cannot be read is refused anyway
            with path.open("rb") as file:  # given a name, torch would decide by its suffix
                return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch does not document what it raises for bytes that it did not write
        if named := re.search(r"(?:GLOBAL|class) ([A-Za-z_][\w.]*)", str(error), re.ASCII):
            raise ArtifactError(
                f"it is a pickle of Python objects, {named[1]}, not of tensors alone; it is not unpickled, since that "
                f"would run its code: where the file comes from, save the tensors by {SAVE_TENSORS}"
            ) from None
        raise ArtifactError(looks_like(path)) from None


def _refuse_archives(path: Path) -> None:
    """Raise ArtifactError for a zip archive without a pickle of tensors, saying what it is."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = archive.infolist()
    except Exception:  # not an archive: torch's older format, or something that it will refuse
        return
    names = [file.filename for file in files]
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise ArtifactError(
            "it is a TorchScript program, not a file of weights: where it comes from, save the tensors by "
            "torch.save(torch.jit.load('program.pt').state_dict(), 'weights.pth')"
        )
    if not any(name.endswith("data.pkl") for name in names):
        raise ArtifactError(
            f"it is a zip archive that torch.save did not write, of {shortened(names, shown=3) or 'nothing'}"
        )
    if any(file.compress_type != zipfile.ZIP_STORED for file in files):
        raise ArtifactError("it is a compressed archive, which torch.save does not write")


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
