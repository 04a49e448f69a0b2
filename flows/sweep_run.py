"""The run of a sweep in MLflow: its parameters, what it found over its points, and the runs of the points below it.

It takes the same way as a stage's (`flows.untracked`): what is not sent while a server is down is sent later. A sweep
that is started again continues its run. A point that was restored from DVC's cache has no run; its experiment is named
in the sweep's tags all the same.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flows.points import POINT, SAVED, Sweep, in_words
from flows.processes import alive
from flows.untracked import IMAGES, RECORD, SWEEP, Pipeline, UntrackedRun

NOTE = "A sweep: the runs nested in it are its experiments. Its metrics are taken over all of them."
NOTHING: Mapping[str, Any] = {}
KILLED = (SystemExit, KeyboardInterrupt)


@contextmanager
def tracked(sweep: Sweep, *, kind: str, parameters: Mapping[str, Any]) -> Iterator[UntrackedRun]:
    """The run of a sweep while the block works on it; pipelines that start in it are put below."""
    mine = {"key": sweep.key, "name": sweep.name}
    process = alive(os.getpid())
    pipeline = Pipeline(key=f"sweep-{sweep.key}-{process}", name=sweep.name, process=process)
    run = UntrackedRun(sweep.root, pipeline=pipeline, nested=False)
    track, _, variant = sweep.variant.partition("/")
    facts = {"name": sweep.name, "sweep": sweep.key, "kind": kind, "track": track, "variant": variant, "inputs": {}}
    run.begin(facts, out=(sweep.folder / SAVED).relative_to(sweep.root), log=sweep.folder)
    run.values(tags={"mlflow.note.content": NOTE}, params=parameters)
    os.environ[SWEEP] = json.dumps(mine)
    status, message = "FAILED", ""
    try:
        yield run
        status = "FINISHED"
    except KILLED:
        status = "KILLED"
        raise
    except Exception as error:
        message = str(error)
        raise
    finally:
        del os.environ[SWEEP]
        run.end(status, message=message)


def log_means(run: UntrackedRun, sweep: Sweep, folders: Sequence[Path], *, parameters: Mapping[str, Any]) -> None:
    """Mean, low and high of each figure over the seeds, as `python -m cgn compare` has saved them."""
    metrics: dict[str, float] = {}
    for mean in json.loads((sweep.folder / SAVED).read_text(encoding="utf-8"))["means"]:
        place = "/".join(_word(mean[key]) for key in ("group", "measure") if mean[key])
        for name in ("mean", "low", "high"):
            if mean[name] is not None:
                metrics[f"seeds/{place}/{_word(mean['head'])}.{name}"] = mean[name]
    _log(run, sweep, folders, parameters=parameters, metrics=metrics)


def log_study(
    run: UntrackedRun,
    sweep: Sweep,
    folders: Sequence[Path],
    *,
    parameters: Mapping[str, Any],
    trials: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
) -> None:
    """The value of each trial by its number, and what the study found."""
    with suppress(OSError):
        run.folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(trial) + "\n" for trial in trials)
        (run.folder / RECORD).write_text(lines, encoding="utf-8")
    _log(run, sweep, folders, parameters=parameters, metrics=metrics, tags=tags)


def _log(
    run: UntrackedRun,
    sweep: Sweep,
    folders: Sequence[Path],
    *,
    parameters: Mapping[str, Any],
    metrics: Mapping[str, float],
    tags: Mapping[str, str] = NOTHING,
) -> None:
    tags = {"mlflow.note.content": NOTE, **tags}
    for number, folder in enumerate(folders):
        point = json.loads((folder / POINT).read_text(encoding="utf-8"))
        tags[f"cgn.experiment.{number}"] = f"{point['experiment']}: {in_words(point['overrides'])}"
    tags["cgn.experiments"] = "runs of an experiment: tags.`dvc.dvc_exp_name` = 'NAME'; uv run dvc exp show lists them"
    run.values(tags=tags, params=parameters, metrics=metrics)
    for file in sorted([*sweep.folder.glob("*.md"), *sweep.folder.glob("*.json")]):
        run.link(file, f"{IMAGES}/{file.name}")


def _word(text: str) -> str:
    """As a part of a metric's name."""
    return re.sub(r"[^\w.-]+", "_", text).strip("_")
