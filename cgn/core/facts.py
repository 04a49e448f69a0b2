"""What a finished folder or a model file says of itself, read without tensors; that of another run is refused."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from cgn.core.errors import ArtifactError
from cgn.core.files import json_value

DIGEST = "sha256"
"""The key beside a model file's facts."""
SIGNATURES = {
    b"<": "it looks like an HTML page: a download that was refused",
    b"{": "it looks like JSON: a server's answer in place of the file",
    b"version https://git-lfs": "it is a Git LFS pointer, not the file: run git lfs pull where it comes from",
    b"\x1f\x8b": "it is compressed by gzip: unpack it first",
    b"\x89HDF": "it is an HDF5 file, of Keras for example",
    b"\x93NUMPY": "it is a NumPy array",
}


def refuse_foreign(facts: Mapping[str, Any], *, source: Path, **expected: str) -> None:
    """Raise ArtifactError when a file's or folder's facts differ from what is expected, naming both."""
    for name, value in expected.items():
        if facts.get(name) != value:
            raise ArtifactError(
                f"{source} is of {name} {facts.get(name)!r}, expected {value!r}: give what the same {name} made"
            )


def read_facts(path: Path, **expected: str) -> dict[str, Any]:
    """The facts of a model file, its tensors left on the disk. Raises ArtifactError as `load_model` does."""
    with opened(path, expected, framework="np") as (_, facts):
        return facts


@contextmanager
def opened(
    path: Path, expected: Mapping[str, str], *, framework: Literal["np", "pt"]
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """An open model file and its facts. Raises ArtifactError for another kind of file, or other facts than expected."""
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: run the stage that makes {path.parent}")
    try:
        with safe_open(path, framework=framework) as file:
            facts = json_value((file.metadata() or {})["facts"])
            if not isinstance(facts, dict):
                raise ValueError(f"its facts are a {type(facts).__name__}, not an object")
            refuse_foreign(facts, source=path, **expected)
            yield file, {name: value for name, value in facts.items() if name != DIGEST}
    except ArtifactError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ArtifactError(
            f"{path} is not a whole model file of this project ({looks_like(path)}; {error}): "
            f"remove {path.parent} and run its stage again"
        ) from None


def looks_like(path: Path) -> str:
    """What a file that cannot be read seems to be, in words."""
    try:
        start, size = first_bytes(path), path.stat().st_size
    except OSError as error:
        return error.strerror or str(error)
    if not start:
        return "the file is empty"
    for signature, what in SIGNATURES.items():
        if start.lstrip().startswith(signature):
            return what
    kind = "a pickle, " if start[:1] == b"\x80" else ""
    return f"{kind}{size:,} bytes, cut short, damaged or of another format"


def first_bytes(path: Path) -> bytes:
    """The first 512 bytes of a file."""
    with path.open("rb") as file:
        return file.read(512)
