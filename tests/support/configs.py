"""Configs for tests: the paper's defaults with changes, validated like those of params.yaml."""

import dataclasses
from typing import Any, TypeVar

from pydantic import BaseModel

from cgn.config.mnist import Mnist

Record = TypeVar("Record")


def replace(record: Record, **changes: Any) -> Record:
    """A model or dataclass with other values in some fields. A model is validated: ValidationError is a ValueError."""
    if isinstance(record, BaseModel):
        return type(record).model_validate({**dict(record), **changes})
    return dataclasses.replace(record, **changes)  # type: ignore[type-var]


def mnist(look: str, **changes: Any) -> Mnist:
    """The paper's variant of a look, with changes by verb as params.yaml would state them."""
    values: dict[str, Any] = {
        verb: {} for verb in ("fetch", "generate", "train_classifier", "evaluate", "gate", "report")
    }
    values |= {"seed": 0, "prepare": {"digits": "mnist", "look": look}}
    values |= {"train_cgn": {"losses": {"perceptual": {"features": "vgg16"}}}}
    return Mnist.model_validate(_merged(values, changes))


def _merged(values: Any, changes: Any) -> Any:
    if not isinstance(values, dict) or not isinstance(changes, dict):
        return changes
    return values | {key: _merged(values.get(key), change) for key, change in changes.items()}
