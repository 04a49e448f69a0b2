"""A trained generator as MLflow loads and serves it: labels -> images. MLflow keeps this file with the weights.

The input has a column `shape` of class numbers and, if wanted, `texture`, `background` and `seed` (0). A row with
`shape` alone draws a factual image; a label that is left out is that of the shape. The answer for each row is a PNG
file as base64. Equal rows give equal images, whatever else the request asks for.
"""

import base64
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

import cgn

LABELS = ("shape", "texture", "background")


class Generator(PythonModel):
    """Loads model.safetensors by the library; nothing is unpickled."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the networks."""
        self.generator = cgn.load_generator(Path(context.artifacts["model"]).parent)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Raises MlflowException, which a server answers with status 400, for a class that the generator lacks."""
        del context, params
        return [self._drawn(row) for row in model_input.to_dict("records")]

    def _drawn(self, row: dict[Any, Any]) -> dict[str, str]:
        values = {str(name): _whole(value) for name, value in row.items() if not pd.isna(value)}
        labels = {name: values[name] for name in LABELS if name in values}
        if "shape" not in labels:
            raise MlflowException.invalid_parameter_value("a row has no shape: give each a class number")
        try:
            sample = self.generator.draw(**labels, seed=values.get("seed", 0))
        except cgn.CgnError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        return {"image": base64.b64encode(sample.pngs()[0]).decode("ascii")}


def _whole(value: Any) -> Any:
    """A whole number as an int: a column in which some rows have no value comes as floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


set_model(Generator())
