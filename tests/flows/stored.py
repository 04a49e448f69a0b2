"""What an MLflow store holds, read through its client; its warnings (database layer, type hints) are its own matter."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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
    """A run's artifacts, two levels deep."""
    with _client(uri) as client:
        top = client.list_artifacts(run.info.run_id)
        below = [found for entry in top if entry.is_dir for found in client.list_artifacts(run.info.run_id, entry.path)]
    return {entry.path for entry in [*top, *below] if not entry.is_dir}


@contextmanager
def _client(uri: str) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

        yield MlflowClient(uri)
