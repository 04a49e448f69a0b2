"""Counterfactual Generative Networks (Sauer & Geiger, ICLR 2021): the Python API, described in `cgn.api`.

Nothing is loaded until a name is used: `import cgn` needs no torch.
"""

import importlib
from typing import Any

__all__ = [
    "ArtifactError",
    "CgnError",
    "ConfigError",
    "CounterfactualGenerator",
    "Prediction",
    "Sample",
    "TrainedClassifier",
    "evaluate_models",
    "load_classifier",
    "load_generator",
    "read_shards",
    "save_sheet",
    "write_shards",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'cgn' has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(importlib.import_module("cgn.api"), name)


def __dir__() -> list[str]:
    return __all__
