"""A checkout whose whole pipeline ran through real servers: Prefect's with its pages, a worker, and MLflow's."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.flows.conftest import ROOT, Project, answers, environment, free_port, until
from tests.flows.platform import Platform, started

SMALL: dict[str, dict[str, Any]] = {
    "mnist.digits.prepare": {"train_images": 100, "jitter": None},
    "mnist.digits.train_cgn": {"updates": 20, "intervals": {"log": 5, "checkpoint": 20, "sheet": 10}},
    "mnist.digits.generate": {"factual_images": 100, "counterfactual_images": 100, "images_per_shard": 100},
    "mnist.digits.train_classifier": {"epochs": 1, "log_updates": 1},
    "mnist.digits.gate": {"accuracy": 0.0, "gain": None},
    "imagenet.miniature.prepare.world": {"train_per_class": 8, "val_per_class": 4, "per_variation": 4, "per_pair": 1},
    "imagenet.miniature.train_cgn": {
        "updates": 2,
        "batch_size": 9,
        "intervals": {"log": 1, "checkpoint": 2, "sheet": 2},
    },
    "imagenet.miniature.generate": {"counterfactual_images": 36, "images_per_shard": 36, "interpolations": []},
    "imagenet.miniature.train_classifier": {"epochs": 1, "log_updates": 1},
    "imagenet.miniature.evaluate": {"corruption_images": 9, "corruptions": ["contrast"]},
    "imagenet.miniature.report": {"examples": 2},
}
"""Changes of params.yaml, by section, with which every stage takes seconds. One gate passes, the other one refuses."""
PREFECT = ("prefect", "server", "start", "--host", "127.0.0.1", "--port")
MLFLOW = ("mlflow", "ui", "--workers", "1", "--host", "127.0.0.1", "--port")


@dataclass(frozen=True, kw_only=True)
class Served:
    """The servers' pages, the project, and the id of its run of `cgn-full`."""

    platform: Platform
    prefect: str
    mlflow: str
    run: str

    @property
    def project(self) -> Project:
        return self.platform.project

    def artifact(self, key: str) -> str:
        """The address in Prefect of the run's newest artifact of a key."""
        wanted = {"key": {"any_": [key]}, "flow_run_id": {"any_": [self.run]}}
        found = self.platform.post("artifacts/filter", {"artifacts": wanted, "sort": "CREATED_DESC"})
        assert found, f"{key} is not among {sorted(self.platform.artifacts(self.run))}"
        return f"{self.prefect}/artifacts/artifact/{found[0]['id']}"


def make_checkout(folder: Path, *, changes: Mapping[str, Mapping[str, Any]]) -> Project:
    """What Git has of this checkout, with its edits and other parameters, as a repository of its own."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    for key, values in changes.items():
        section = params
        for name in key.split("."):
            section = section[name]
        section.update(values)
    yaml.dump(params, folder / "params.yaml")
    project = Project(folder=folder, environment=environment(folder))
    with (folder / ".gitignore").open("a", encoding="utf-8") as ignored:
        ignored.write("/running.log\n/.prefect\n")
    project.run("git", "init", "-q")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "cgn")
    return project


@contextmanager
def served(
    folder: Path,
    *,
    changes: Mapping[str, Mapping[str, Any]] = SMALL,
    ports: tuple[int, int] | None = None,
    seconds: float = 3600,
) -> Iterator[Served]:
    """Run `cgn-full` in a new checkout, and keep the servers (Prefect's and MLflow's port) until the end."""
    here, there = ports or (free_port(), free_port())
    project = make_checkout(folder, changes=changes)
    pages = {"PREFECT_UI_STATIC_DIRECTORY": str(folder / ".prefect/pages"), "LOGNAME": "cgn"}
    uri = f"http://127.0.0.1:{there}"
    project = replace(project, environment=project.environment | pages)
    with project.running(
        *MLFLOW, str(there), "--backend-store-uri", "sqlite:///mlflow.db", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"
    ):
        project = replace(project, environment=project.environment | {"MLFLOW_TRACKING_URI": uri})
        with started(project, server=PREFECT, port=here) as platform:
            until(lambda: answers(f"{uri}/health"), what="MLflow's server")
            run = platform.typed("cgn-full")
            assert platform.ended(run, seconds=seconds) == "Completed", platform.log(run)
            until(lambda: not list(folder.glob("runs/untracked/*/*/stage.json")), what="tracking")
            yield Served(platform=platform, prefect=platform.api.removesuffix("/api"), mlflow=uri, run=run)
