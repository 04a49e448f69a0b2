"""What the uploader notes of a stage while it runs and when it ends, because it may be gone later.

DVC's hashes of inputs and outputs, which of them are datasets, changed parameters, how the machine was used, and that a
stage was killed. All is written into the run's folder, and sent from there (`flows.tracked_run`).
"""

import json
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows import untracked
from flows.processes import is_alive
from flows.untracked import END, STAGE, read_text, write_json

PARAMS = "params.yaml"
DATASETS = {"data": "", "images": " images", "decisions": " decisions", "assets": " assets"}
"""Roles of inputs and outputs that are datasets in MLflow, and what their names have after the variant's.

Fetched assets are one only where there is no other: beside prepared images they are pretrained networks.
"""
TRAINING, PREPARATION = ("train_cgn", "train_classifier"), ("prepare", "generate")
"""Verbs by what the datasets are for that they read; those of the others are for evaluation."""
SAMPLE_SECONDS, LONG_SAMPLE_SECONDS, LONG_AFTER = 2.0, 10.0, 60.0
"""Between two samples of the machine, at first and once a run is older than LONG_AFTER."""
DAMAGE = (AssertionError, AttributeError, KeyError, RecursionError, TypeError, ValueError)
"""What a damaged file raises."""


def observe(run: Path) -> bool:
    """Note what may be gone later. Returns whether the stage has ended; then all that is to be sent exists.

    Damaged files are refused when sent.
    """
    with suppress(OSError, *DAMAGE):
        stage = read_json(run / STAGE)
        facts, here = stage["facts"], Path(stage["cwd"])
        if not (run / untracked.INPUTS).exists():
            hashes = {role: dvc_hashes(here, paths) for role, paths in facts["inputs"].items()}
            verb = facts.get("verb")
            context = "training" if verb in TRAINING else "preparation" if verb in PREPARATION else "evaluation"
            noted: dict[str, Any] = {
                "tags": {f"dvc.input.{role}": " ".join(found.values()) for role, found in hashes.items()},
                "datasets": datasets(facts, hashes, context=context),
                "changed": changed_parameters(here, above=f"{facts.get('track')}.{facts.get('variant')}."),
            }
            write_json(run / untracked.INPUTS, noted)
        if not is_alive(stage["process"]) and not (run / END).exists():
            write_json(run / END, {"time": time.time(), "status": "KILLED", "message": "the stage died"})
        if not (run / untracked.OUTPUT).exists() and read_json(run / END)["status"] == "FINISHED":
            made = dvc_hashes(here, [stage["out"]])
            noted = {"tags": {"dvc.output": " ".join(made.values())}}
            noted["datasets"] = datasets(facts, {facts.get("output", ""): made}, context="output")
            write_json(run / untracked.OUTPUT, noted)
    return (run / END).exists()


def datasets(
    facts: Mapping[str, Any], hashes: Mapping[str, Mapping[str, str]], *, context: str
) -> list[dict[str, str]]:
    """The datasets of a stage for MLflow: `name` is the variant's, `digest` is DVC's hash.

    `hashes`: DVC's hashes by path, by the role of the path.
    """
    variant = "/".join(filter(None, map(facts.get, ("track", "variant"))))
    roles = [role for role in DATASETS if hashes.get(role)]
    return [
        {"name": f"{variant}{DATASETS[role]}", "digest": digest, "path": path, "context": context}
        for role in (roles if roles[:1] == ["assets"] else [role for role in roles if role != "assets"])
        for path, digest in hashes[role].items()
    ]


def dvc_hashes(here: Path, paths: Sequence[str]) -> dict[str, str]:
    """DVC's hashes of files and folders, from its own cache of hashes where they are in there.

    One that cannot be had is left out: the folder of an experiment may be gone already.
    """
    from dvc.fs import localfs  # type: ignore[import-untyped]
    from dvc.repo import Repo  # type: ignore[import-untyped]
    from dvc_data.hashfile.build import build

    found = {}
    with suppress(Exception), Repo(str(here)) as repo:
        for path in [path for path in paths if (here / path).exists()]:
            _, _, content = build(repo.cache.local, str((here / path).resolve()), localfs, "md5", dry_run=True)
            found[path] = str(content.hash_info.value)
    return found


def changed_parameters(here: Path, *, above: str) -> dict[str, str]:
    """Parameters below a dotted key that differ from those of the revision that git has checked out, by DVC.

    Empty where there is nothing to compare. An experiment of DVC sets its parameters in the file, so they are here too.
    """
    same = ["git", "diff", "--quiet", "HEAD", "--", PARAMS]  # in 1 % of the time that DVC takes to find it out
    with suppress(Exception):
        changed = subprocess.run(same, cwd=here, capture_output=True, timeout=10, check=False).returncode != 0
        if changed and (here / PARAMS).is_file():
            from dvc.repo import Repo

            with Repo(str(here)) as repo:
                found = repo.params.diff(targets=[PARAMS])["diff"][PARAMS]
            return {key: str(change.get("new", "removed")) for key, change in found.items() if key.startswith(above)}
    return {}


class SystemMonitor:
    """Notes how the machine is used, by MLflow's own monitors, under MLflow's names (`system/...`)."""

    def __init__(self) -> None:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        self.monitors: list[Any] = []
        for monitor in (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor):
            with suppress(Exception):  # whatever it raises, there is none of it that can be asked
                self.monitors.append(monitor())
        self.due: dict[Path, float] = {}
        self._measure()  # the first value of the processor's use is always 0

    def sample(self, runs: Iterable[Path]) -> None:
        """Note a sample for each of these runs whose stage works and has none yet, or an old one.

        `step` is the second of the run.
        """
        now = time.monotonic()
        due = [run for run in runs if now >= self.due.get(run, 0.0) and not (run / END).exists()]
        values = self._measure() if due else {}
        for run in due:
            self.due[run] = now + SAMPLE_SECONDS
            with suppress(OSError, *DAMAGE):
                stage = read_json(run / STAGE)
                age = time.time() - stage["time"]
                if is_alive(stage["process"]):
                    line = json.dumps({"step": max(int(age), 0), "time": time.time(), **values})
                    with (run / untracked.SYSTEM).open("a", encoding="utf-8") as file:
                        file.write(f"{line}\n")
                if age > LONG_AFTER:
                    self.due[run] = now + LONG_SAMPLE_SECONDS

    def _measure(self) -> dict[str, float]:
        """Processor, memory, disk, network and, where there are any, GPUs."""
        values: dict[str, float] = {}
        for monitor in self.monitors:
            monitor.clear_metrics()
            monitor.collect_metrics()
            values |= {f"system/{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
        return values


def read_json(file: Path) -> Any:
    """A small file's JSON; ValueError where it does not exist."""
    return json.loads(read_text(file))
