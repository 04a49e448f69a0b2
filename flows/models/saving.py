"""A trained network as a folder that MLflow loads: weights, code (models-from-code), signature, example, requirements.

The code is `classifier.py` or `generator.py` of this package; it uses the library's public API. Nothing is pickled, and
nothing is loaded or installed to write it.
"""

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

CLASSIFIER, GENERATOR = "classifier", "generator"
OPTIONAL = ("texture", "background", "seed")
HEADER_BYTES = 8  # of a safetensors file: the size of its JSON header


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A model.safetensors: what its header says, and the SHA-256 of its bytes."""

    file: Path
    facts: Mapping[str, Any]
    sha256: str

    @property
    def kind(self) -> str:
        """What it is a network of: "classifier" or "generator"."""
        return CLASSIFIER if "arm" in self.facts else GENERATOR

    @property
    def registered_name(self) -> str:
        """Of its registered model, such as cgn-mnist-digits-classifier."""
        return f"cgn-{self.facts['track']}-{self.facts['variant']}-{self.kind}"

    @property
    def name(self) -> str:
        """In lists of models, such as mnist-digits-counterfactual."""
        return f"{self.facts['track']}-{self.facts['variant']}-{self.facts.get('arm', GENERATOR)}"


def read_weights(file: Path) -> Weights:
    """Raises ValueError or KeyError for a file that no training of ours wrote."""
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(HEADER_BYTES), "little")
        if size > file.stat().st_size:
            raise ValueError(f"{file} is no safetensors file")
        facts = json.loads(json.loads(opened.read(size))["__metadata__"]["facts"])
        opened.seek(0)
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return Weights(file=file, facts={key: value for key, value in facts.items() if key != "sha256"}, sha256=digest)


def save(weights: Weights, folder: Path, *, versions: Mapping[str, str], model: Any = None) -> None:
    """Write a new folder. `versions` are run.json's; `model` (MLflow's) receives the description."""
    import pandas as pd
    from mlflow import pyfunc

    os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")  # it would add uv.lock to every model
    pyfunc.save_model(
        folder,
        mlflow_model=model,
        python_model=Path(__file__).with_name(f"{weights.kind}.py"),
        artifacts={"model": str(weights.file)},
        signature=_signature(weights.kind),
        input_example=pd.DataFrame([_example(weights)]),
        pip_requirements=_requirements(versions),
    )


def _requirements(versions: Mapping[str, str]) -> list[str]:
    """What a process that loads the model has installed: this project, and the versions of the training."""
    pinned = {name: text.partition("+")[0] for name, text in versions.items() if name != "python"}
    return [f"cgn=={version('cgn')}", *(f"{name}=={text}" for name, text in sorted(pinned.items()))]


def _signature(kind: str) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, Map, ParamSchema, ParamSpec, Schema, TensorSpec

    if kind == CLASSIFIER:
        answers: list[ColSpec | TensorSpec] = [
            ColSpec("string", "class"),
            ColSpec("double", "probability"),
            ColSpec(Map(Map("double")), "heads"),
        ]
        top = ParamSchema([ParamSpec("top", "long", 10)])
        return ModelSignature(inputs=Schema([ColSpec("binary", "image")]), outputs=Schema(answers), params=top)
    number = AnyType()  # type: ignore[no-untyped-call]  # as a "long", 3.5 would silently become 3
    labels: list[ColSpec | TensorSpec] = [
        ColSpec(number, "shape"),
        *(ColSpec(number, name, required=False) for name in OPTIONAL),
    ]
    return ModelSignature(inputs=Schema(labels), outputs=Schema([ColSpec("string", "image")]))


def _example(weights: Weights) -> dict[str, Any]:
    """One row of the input: a grey image, because no image of the data set shall leave with the model; or labels."""
    if weights.kind == GENERATOR:
        return {"shape": 0, "texture": 1, "background": 2, "seed": 0}
    from PIL import Image

    size, file = int(weights.facts["image_size"]), io.BytesIO()
    Image.new("RGB", (size, size), (128, 128, 128)).save(file, format="PNG")
    return {"image": file.getvalue()}
