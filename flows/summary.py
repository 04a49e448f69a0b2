"""A flow run's name, which lists what runs, and its summary artifact, with the results of the stages and links."""

import base64
import json
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from ruamel.yaml import YAML

from flows.database import sqlite_file
from flows.experiment import Workspace
from flows.graph import Stage, variants
from flows.mlflow_client import EXPERIMENT, PARENT, PIPELINE, address, flat, shown
from flows.observed import read_json
from flows.tracked_run import evaluated_above
from flows.untracked import METRICS

NAMED = 3
"""Variants that a name lists; of more it says how many."""
MLFLOW_UI = "http://127.0.0.1:5000"  # where `mlflow ui` shows a SQLite file
VIEW = "?workflowType=machine_learning"  # else MLflow's page shows what it has for language models
PATIENCE_SECONDS = 4.0
PAGE = "index.html"
VERDICT = "gate.json"


def title(
    stages: Mapping[str, Stage], *, deployment: str, changed: int, from_stage: str | None = None, force: bool = False
) -> str:
    """A run's name: "cgn-full · miniature seed 1 · 2 changed", from the params.yaml of the current folder."""
    tree = YAML(typ="safe").load(Path("params.yaml"))
    named = [f"{name} seed {tree[track][name].get('seed', 0)}" for track, name in variants(stages)]
    what = ", ".join(named) if len(named) <= NAMED else f"{len(named)} variants"
    notes = [f"{changed} changed"] * (changed > 0) + [f"from {from_stage}"] * bool(from_stage) + ["all anew"] * force
    return " · ".join(filter(None, [deployment, what, *notes]))


def summarize(
    stages: Mapping[str, Stage], *, ended: Mapping[str, State[Any]], name: str, place: Workspace, key: str
) -> None:
    """Create the artifact of a run: its stages, where its reports are, its run in MLflow, its experiment.

    `key` is the run's in tracking.
    """
    rows = [f"| {stage} | {_word(ended.get(stage))} | {_cell(ended.get(stage))} |" for stage in stages]
    lines = [f"# {name}", "", "| stage | | |", "|---|---|---|", *rows, ""]
    for stage in stages.values():
        lines += [f"- Report of {stage.name}: `{out / PAGE}`" for out in stage.outs if (out / PAGE).is_file()]
        lines += [_verdict(stage, out / VERDICT) for out in stage.outs if (out / VERDICT).is_file()]
    if place.name:
        lines.append(f"- Experiment `{place.name}`: `uv run dvc exp apply {place.name}` applies it to the checkout")
    create_markdown_artifact("\n".join([*lines, *_mlflow(place.root, key=key)]), key="summary", description=name)


def evaluation(stage: Stage) -> dict[str, float]:
    """The metrics that an evaluation gives its pipeline's run, from its files; empty for any other stage."""
    found: dict[str, float] = {}
    for track, variant in variants({stage.name: stage}) if stage.metrics else ():
        for file in [metrics.with_name(METRICS) for metrics in stage.metrics]:
            found |= evaluated_above(flat(read_json(file), separator="/"), name=f"{track}/{variant}")
    return found


def _mlflow(root: Path, *, key: str) -> list[str]:
    """Links to the run and its reports in MLflow; where it is not found there, why."""
    uri = address(root)
    try:
        found = _runs(uri, {PIPELINE: key})
        below = [run for parent in found for run in _runs(uri, {PARENT: parent["id"], "cgn.verb": "report"})]
    except Exception as error:  # whatever a server answers, the run has ended well
        return [f"- MLflow at {shown(uri)} cannot be asked now: {type(error).__name__}"]
    if not found:
        return ["- MLflow has no run of it: nothing ran, or its upload is not there yet"]
    base = MLFLOW_UI if sqlite_file(uri) else shown(uri).rstrip("/")
    links = [(run, f"{base}/#/experiments/{run['experiment']}/runs/{quote(run['id'])}") for run in found + below]
    return [f"- MLflow: [{run['name']}]({link}{'/artifacts' if run in below else ''}{VIEW})" for run, link in links]


def _runs(uri: str, tags: Mapping[str, str]) -> list[dict[str, str]]:
    """The runs in MLflow that have these tags. Asked without MLflow's own client, which takes seconds to load."""
    if file := sqlite_file(uri):
        query = "SELECT run_uuid, experiment_id, name FROM runs WHERE lifecycle_stage = 'active'"
        query += " AND run_uuid IN (SELECT run_uuid FROM tags WHERE key = ? AND value = ?)" * len(tags)
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=PATIENCE_SECONDS)) as database:
            rows = database.execute(query, [word for pair in tags.items() for word in pair]).fetchall()
        return [{"id": str(row[0]), "experiment": str(row[1]), "name": str(row[2])} for row in rows]
    experiment = _answer(uri, f"experiments/get-by-name?experiment_name={quote(_experiment())}")["experiment"]
    body = {
        "experiment_ids": [experiment["experiment_id"]],
        "filter": " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items()),
    }
    runs = [run["info"] for run in _answer(uri, "runs/search", body).get("runs", ())]
    return [{"id": run["run_id"], "experiment": run["experiment_id"], "name": run["run_name"]} for run in runs]


def _answer(uri: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    headers = {"Content-Type": "application/json"}
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    elif account := _account(uri):
        headers["Authorization"] = f"Basic {base64.b64encode(account.encode()).decode()}"
    data = None if body is None else json.dumps(body).encode()
    request = Request(f"{shown(uri).rstrip('/')}/api/2.0/mlflow/{path}", data=data, headers=headers)
    with urlopen(request, timeout=PATIENCE_SECONDS) as reply:
        return json.load(reply)


def _account(uri: str) -> str:
    """USER:PASSWORD of the address or the environment; empty where there is none."""
    parts, user = urlsplit(uri), os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    if parts.username:
        return unquote(f"{parts.username}:{parts.password or ''}")
    return f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}" if user else ""


def _experiment() -> str:
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT


def _verdict(stage: Stage, file: Path) -> str:
    """A gate's verdict on a line, with the reasons of one that refused."""
    found = json.loads(file.read_text(encoding="utf-8"))
    reasons = [f"{check['name']}: {check['reason']}" for check in found["checks"] if not check["passed"]]
    verdict = f"{found['classifier']} {'refused' if reasons else 'passed'}"
    return f"- Verdict of {stage.name}: **{verdict}**" + "".join(f"; {reason}" for reason in reasons)


def _word(state: State[Any] | None) -> str:
    return "not started" if state is None else str(state.name)


def _cell(state: State[Any] | None) -> str:
    """A state's message as a cell of a table."""
    return "" if state is None else " ".join(str(state.message or "").split()).replace("|", "\\|")
