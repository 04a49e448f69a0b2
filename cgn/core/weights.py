"""Weights from published files: read without unpickling code, unwrapped, and loaded strictly into a net.

A published file is recognised by its bytes, not by its name. Of the ways in which training programs wrap a state dict,
the usual ones are undone.
"""

import re
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from cgn.core.errors import ArtifactError, shortened
from cgn.core.facts import first_bytes, looks_like

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
    """By its bytes; a file that is neither this nor torch's is taken for what its name says."""
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
