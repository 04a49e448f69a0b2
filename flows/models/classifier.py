"""A trained classifier as MLflow loads and serves it: image files -> classes. MLflow keeps this file with the weights.

The input has a column `image`: PNG, JPEG or other image files as bytes, which JSON carries as base64. The answer for
each image is its class with its probability, and for each head the most probable classes: as many as the parameter
`top` says.
"""

import base64
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

import cgn

TOP = 10


class Classifier(PythonModel):
    """Loads model.safetensors by the library; nothing is unpickled."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the network."""
        self.classifier = cgn.load_classifier(Path(context.artifacts["model"]).parent)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Raises MlflowException, which a server answers with status 400, for an image that cannot be classified."""
        del context
        top = max(1, int((params or {}).get("top", TOP)))
        try:
            predictions = self.classifier.classify([_bytes(image) for image in model_input["image"]])
        except cgn.CgnError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        return [
            {
                "class": prediction.name,
                "probability": prediction.probability,
                "heads": {head: dict(list(classes.items())[:top]) for head, classes in prediction.heads.items()},
            }
            for prediction in predictions
        ]


def _bytes(image: Any) -> bytes:
    """The file, also from base64: MLflow decodes it in some forms of a request only. No image file is valid base64."""
    if not isinstance(image, bytes | str):
        raise MlflowException.invalid_parameter_value(f"an image is of type {type(image).__name__}: give its bytes")
    data = image.encode() if isinstance(image, str) else image
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        return data


set_model(Classifier())
