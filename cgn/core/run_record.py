"""What a run says of itself, in `<output>.log/run.json`, before its first step: all that defines it, and its starts.

The definition (verb, variant, seed, parameters, options, digests of inputs) is also in the output folder; work that
was begun with an equal definition and the same code is continued. Times, versions, machine and git revision are a
record only.
"""

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cgn.core.devices import machine
from cgn.core.errors import ArtifactError
from cgn.core.files import folder_digest, read_object, sha256, write_json
from cgn.core.outputs import partial_folder

PACKAGES = ("torch", "torchvision", "lightning-fabric", "webdataset", "numpy", "pillow", "safetensors")
LIBRARY = Path(__file__).parents[1]


class RunRecord:
    """The run.json of one run. Making it writes the file: the starts of a run that continues are kept."""

    def __init__(self, log: Path, definition: Mapping[str, Any]) -> None:
        self.path = log / "run.json"
        self.values: dict[str, Any] = {**definition, "starts": self._earlier_starts(definition)}
        self.values["starts"].append({"time": _now(), "git_revision": _git_revision()})
        self.values |= {"finished": None, "seconds": None, "versions": _versions(), "machine": machine()}
        write_json(self.path, self.values)

    @property
    def continues(self) -> bool:
        """Whether an earlier start of the same definition has not finished."""
        return len(self.values["starts"]) > 1

    def finish(self, *, seconds: float) -> None:
        """Note the end."""
        write_json(self.path, self.values | {"finished": _now(), "seconds": seconds})

    def _earlier_starts(self, definition: Mapping[str, Any]) -> list[Any]:
        """The starts in a run.json of the same definition that has not finished; a broken one is only a record."""
        if not self.path.is_file():
            return []
        try:
            earlier = read_object(self.path)
        except ArtifactError as error:
            print(f"{error.args[0].rpartition(': ')[0]}: the record of this run begins anew", flush=True)
            return []
        same = all(earlier.get(key) == value for key, value in definition.items()) and not earlier.get("finished")
        starts = earlier.get("starts")
        return starts if same and isinstance(starts, list) else []


def as_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """The value as it comes back from a JSON file: lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain


def input_digests(inputs: Mapping[str, Sequence[Path]]) -> dict[str, list[str]]:
    """The digest of every input. Raises ArtifactError naming the option of one that is missing or unfinished."""
    return {option: [_digest(path, option=option) for path in paths] for option, paths in inputs.items()}


def code_digest() -> str:
    """Digest of the library's source: work begun by other code is not continued."""
    digest = hashlib.sha256()
    for path in sorted(LIBRARY.rglob("*.py")):
        digest.update(f"{path.relative_to(LIBRARY).as_posix()}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


def _digest(path: Path, *, option: str) -> str:
    try:
        if path.is_dir():
            return folder_digest(path)
        if path.is_file():
            return sha256(path)
    except OSError as error:
        message = f"--{option} {error.filename or path} cannot be read: {error.strerror or error}"
        raise ArtifactError(message) from None
    state = "is unfinished: run its stage again" if partial_folder(path).is_dir() else "is missing: run its stage first"
    raise ArtifactError(f"--{option} {path} {state}")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git_revision() -> str | None:
    """The checkout's revision, with `+` when files differ from it; None outside a git checkout.

    Lock files, which runs write themselves, do not count.
    """
    changed = ["status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)*.lock"]
    try:
        revision, changes = (
            subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
            for words in (["rev-parse", "HEAD"], changed)
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return revision + ("+" if changes else "")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
