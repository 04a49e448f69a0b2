"""What an MLflow store holds, read through its client; its warnings (database layer, type hints) are its own matter."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.flows.conftest import Project


def store(project: Project) -> str:
    """The store that is used where nothing else is said."""
    return f"sqlite:///{project.folder}/mlflow.db"


def runs(uri: str) -> dict[str, Any]:
    """The newest run of each name; a pipeline's run is the one without a parent."""
    with _client(uri) as client:
        experiment = client.get_experiment_by_name("cgn")
        found = client.search_runs([experiment.experiment_id]) if experiment else []
    return {run.info.run_name: run for run in reversed(found)}


def history(uri: str, run: Any, name: str) -> list[tuple[int, float]]:
    """A metric's values by step."""
    with _client(uri) as client:
        return sorted((metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name))


def files(uri: str, run: Any) -> set[str]:
    """A run's artifacts, two levels deep, without logged images."""
    with _client(uri) as client:
        top = client.list_artifacts(run.info.run_id)
        below = [found for entry in top if entry.is_dir for found in client.list_artifacts(run.info.run_id, entry.path)]
    return {entry.path for entry in [*top, *below] if not entry.is_dir and not entry.path.startswith("images/")}


def images(uri: str, run: Any) -> list[tuple[str, int]]:
    """The key and step of each logged image; each must have a small copy, which the page's grid shows."""
    with _client(uri) as client:
        names = sorted(Path(entry.path).name for entry in client.list_artifacts(run.info.run_id, "images"))
    whole = [name for name in names if name.endswith(".png")]
    assert sorted(names) == sorted([*whole, *(name.replace(".png", "+compressed.webp") for name in whole)])
    return sorted((key, int(step)) for key, _, step, *_ in (name.split("+") for name in whole))


def datasets(uri: str, run: Any) -> list[tuple[str, str, str]]:
    """The name, digest and context of each dataset of a run."""
    with _client(uri) as client:
        inputs = client.get_run(run.info.run_id).inputs.dataset_inputs
    return sorted((given.dataset.name, given.dataset.digest, given.tags[0].value) for given in inputs)


@contextmanager
def _client(uri: str) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

        yield MlflowClient(uri)
