"""One stage's run on its way from its folder (`flows.untracked`) to MLflow, and what is noted of the stage meanwhile.

Each kind of file in the folder has one function that sends it (`KINDS`). sent.json lists which version of which file
MLflow has received: after a crash, something may be sent twice, and nothing is left out. So a function sends only what
MLflow keeps once: equal values, or a file under the same name. What went to another server or experiment, or to an
MLflow run that is gone, is sent from its start.

MLflow's page groups charts by what is before the last `/` of a metric's name. A name without a group gets the first
word of the stage's verb: `loss` of train_classifier is `train/loss`.

The pipeline's run is open while one of its stages is, and ends as the worst of them; of a stage that was tried again,
the last try counts. It has the revision, the command or the flow's parameters, each variant's seed and changed
parameters, the final values of the evaluations, and the numbers of stages. A sweep has one run above those of its
pipelines, also where it was killed and started again.
"""

import csv
import io
import shutil
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cgn.core.metrics import parse_lines
from flows import untracked
from flows.mlflow_client import DROP, PARENT, PIPELINE, RUN, SWEEP, Client, RefusedError, flat
from flows.models.registry import verdict_words
from flows.models.tracked import Noted, evaluated, judge, register
from flows.observed import DAMAGE, read_json
from flows.untracked import END, STAGE, alone, write_json

EVALUATE = "evaluate"
LINE = ("step", "time")
PIPELINE_NOTE = (
    "One run of the pipeline. Its stages are the runs nested in it. Its metrics are the main ones of its evaluations."
)
ENDS = {"FAILED": "failed", "KILLED": "killed", "FINISHED": "made"}
"""How a stage ends, the worst first, and what the pipeline's run calls that in its metrics."""


@dataclass(kw_only=True)
class Sent:
    """How far a run has been sent: these versions of its files; of a record so many bytes, with this checksum."""

    place: list[str]
    run_id: str = ""
    step: int = 0
    records: dict[str, list[int]] = field(default_factory=dict)
    files: dict[str, list[int]] = field(default_factory=dict)


class TrackedRun:
    """An untracked run on its way to MLflow."""

    def __init__(self, folder: Path, *, client: Client) -> None:
        self.folder, self.client = folder, client
        self.stage: dict[str, Any] = {}
        self.sent = Sent(place=[client.uri, client.experiment])
        with suppress(*DAMAGE):  # sent from the start then
            known = Sent(**read_json(folder / untracked.SENT))
            self.sent = known if known.place == self.sent.place else self.sent

    def send(self, *, ended: bool) -> None:
        """Send what is new, and remove the folder when all is sent.

        Raises RefusedError, or whatever MLflow raises where it cannot be used now.
        """
        try:
            with self.client.refusals(self.sent.run_id):
                self._send(ended=ended)
        except RefusedError:
            if not self.sent.run_id or self.client.run(self.sent.run_id):
                raise
            self.sent = Sent(place=self.sent.place)  # the run is gone for good
            self.send(ended=ended)
        except DAMAGE as error:
            reason = f"its files are damaged ({type(error).__name__}: {error})"
            raise RefusedError(reason, remedy=f"{DROP} {{run}} (the stage's own files keep its numbers)") from error
        if ended:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _send(self, *, ended: bool) -> None:
        # all are looked at before one is read: with the final values, and with the end, the whole record is there
        found = [(path, send) for pattern, send in KINDS.items() for path in sorted(self.folder.glob(pattern))]
        versions = [(path, send, _version(path)) for path, send in found if path.is_file()]
        self.stage = read_json(self.folder / STAGE)
        if not self.sent.run_id:
            with alone(self.client.lock):
                self._begin()
        for path, send, version in versions:
            name = path.relative_to(self.folder).as_posix()
            if version and version != self.sent.files.get(name):
                send(self, path)
                self.sent.files[name] = version
                write_json(self.folder / untracked.SENT, asdict(self.sent))
        if ended:
            with alone(self.client.lock):
                self._end(read_json(self.folder / END))

    def _begin(self) -> None:
        """Open the run, below its pipeline's, which is created if this stage is its first."""
        facts, start, client = self.stage["facts"], self.stage["time"], self.client
        tags = {f"cgn.{key}": value for key, value in facts.items() if key not in ("name", "inputs", "about", "output")}
        tags |= {f"dvc.{key}": value for key, value in self.stage["experiment"].items()}
        if "verb" in facts:
            note = f"{facts.get('about', facts['verb'])}\n\n`python -m cgn {facts.get('command', facts['verb'])}`"
            tags |= client.described(f"cgn/{facts.get('track')}/{facts['verb']}.py", note=note)
        if self.stage.get("nested", True):
            tags[PARENT] = self._open_pipeline()
        mark, key = (SWEEP, facts["sweep"]) if "sweep" in facts else (RUN, self.folder.name)
        tags[mark] = key
        if known := client.tagged(mark, key):  # also where a crash kept sent.json from being written
            client.log(known, tags=tags)
            client.mlflow.update_run(known, status="RUNNING")
        self.sent.run_id = known or client.create(facts["name"], start=start, tags=tags)
        write_json(self.folder / untracked.SENT, asdict(self.sent))

    def _open_pipeline(self) -> str:
        """The id of the pipeline's run, which is running again."""
        pipeline, client = self.stage["pipeline"], self.client
        parent = client.pipeline(pipeline["key"])
        if parent is None:
            tags = {PIPELINE: pipeline["key"]} | client.described("dvc.yaml", note=PIPELINE_NOTE)
            tags |= {f"dvc.{key}": value for key, value in self.stage["experiment"].items()}
            if sweep := pipeline.get("sweep"):
                tags[PARENT] = self._open_sweep(sweep)
            parent = client.create(pipeline["name"], start=self.stage["time"], tags=tags)
            client.log(parent, params=pipeline["parameters"])
        client.mlflow.update_run(parent, status="RUNNING")
        return parent

    def _open_sweep(self, sweep: Mapping[str, str]) -> str:
        """The id of a sweep's run, which is created if the sweep's own files were not sent yet."""
        known = self.client.tagged(SWEEP, sweep["key"])
        return known or self.client.create(sweep["name"], start=self.stage["time"], tags={SWEEP: sweep["key"]})

    def send_inputs(self, file: Path) -> None:
        """Datasets and DVC's hashes of the inputs or the output.

        The pipeline's run gets the changed parameters, and the datasets that are named like a variant.
        """
        noted = read_json(file)
        given = noted.get("datasets", [])
        self.client.log(self.sent.run_id, tags=noted.get("tags", {}))
        self.client.log_datasets(self.sent.run_id, given)
        self._log_above(params=noted.get("changed", {}))
        main = [dataset for dataset in given if " " not in dataset["name"]]
        if main and (parent := self._parent()):
            self.client.log_datasets(parent.info.run_id, main)

    def send_note(self, file: Path) -> None:
        """run.json, and what it says; the pipeline's run gets the revision and the variant's seed."""
        record = read_json(file)
        seed = record.get("seed")
        values = {**flat(record.get("params", {})), "seed": seed, **flat(record.get("options", {}))}
        revision = record.get("git_revision") or (record.get("starts") or [{}])[-1].get("git_revision") or ""
        revisions = {"mlflow.source.git.commit": revision.rstrip("+"), "git_revision": revision}
        versions = {f"version.{name}": text for name, text in record.get("versions", {}).items()}
        self.client.log(self.sent.run_id, params=values, tags=versions | revisions)
        variant = ".".join(filter(None, map(self.stage["facts"].get, ("track", "variant"))))
        self._log_above(tags=revisions, params={f"{variant}.seed": seed} if variant else {})
        self.client.mlflow.log_artifact(self.sent.run_id, str(file))

    def send_record(self, file: Path) -> None:
        """metrics.jsonl; by step an evaluation has results of its parts, no curve."""
        lines = self._new_lines(file)
        self.sent.step = max([self.sent.step, *(line["step"] for line in lines)])
        if self.stage["facts"].get("verb") == EVALUATE:
            lines = [{"step": line["step"], "time": line.get("time"), "images": line["step"]} for line in lines]
        self.client.log(self.sent.run_id, metrics=[self._grouped(line) for line in lines])

    def _grouped(self, values: Mapping[str, Any]) -> dict[str, Any]:
        group = self.stage["facts"].get("verb", "").partition("_")[0] or "run"
        return {key if "/" in key or key in LINE else f"{group}/{key}": value for key, value in values.items()}

    def send_system(self, file: Path) -> None:
        """How the machine was used."""
        self.client.log(self.sent.run_id, metrics=self._new_lines(file))

    def _new_lines(self, file: Path) -> list[dict[str, Any]]:
        """The lines of a record since the last time; all, where a run that continues has written it anew."""
        data = file.read_bytes()
        data = data[: data.rfind(b"\n") + 1]
        offset, checksum = self.sent.records.get(file.name, [0, 0])
        if zlib.crc32(data[:offset]) != checksum:
            offset = 0
        self.sent.records[file.name] = [len(data), zlib.crc32(data)]
        return parse_lines(data[offset:])

    def send_final(self, file: Path) -> None:
        """The values of metrics.json at the last step, so that MLflow shows them; if there are more, a table of all."""
        values, compared = flat(read_json(file), separator="/"), self._compared()
        last = {"step": self.sent.step, "time": file.stat().st_mtime}
        self.client.log(self.sent.run_id, metrics=[compared | last])
        if not set(self._grouped(values)) <= set(compared):
            table = io.StringIO()
            csv.writer(table, lineterminator="\n").writerows([("metric", "value"), *values.items()])
            self.client.mlflow.log_text(self.sent.run_id, table.getvalue(), "metrics.csv")

    def _compared(self) -> dict[str, Any]:
        """The final values that are metrics in MLflow."""
        files = (self.folder / name for name in (untracked.METRICS, untracked.DETAILS))
        return self._grouped(next(filter(None, (flat(read_json(file), separator="/") for file in files)), {}))

    def send_values(self, file: Path) -> None:
        """Tags, params and metrics that are in no file of the stage's own (`UntrackedRun.values`)."""
        given, time = read_json(file), file.stat().st_mtime
        metrics = [{**given["metrics"], "step": self.sent.step, "time": time}]
        self.client.log(self.sent.run_id, metrics=metrics, tags=given["tags"], params=given["params"])

    def send_model(self, file: Path) -> None:
        """A trained network."""
        with alone(self.client.lock.with_name(f"{self.client.lock.name}.models")):  # else equal weights twice at once
            register(file.parent, values=self._compared(), run=self._noted())

    def send_verdict(self, file: Path) -> None:
        """What a gate says of a classifier: with its reasons a tag, also of the pipeline's run."""
        variant, said = ".".join(map(self.stage["facts"].get, ("track", "variant"))), verdict_words(read_json(file))
        self.client.log(self.sent.run_id, tags={"cgn.verdict": said})
        self._log_above(tags={f"cgn.verdict.{variant}": said})
        judge(file.parent, run=self._noted())

    def _noted(self) -> Noted:
        return Noted(
            client=self.client, run_id=self.sent.run_id, step=self.sent.step, stage=self.stage, folder=self.folder
        )

    def send_image(self, file: Path) -> None:
        """sheets/000300.png is the image `sheets` at step 300; pages and films are artifacts by their place."""
        place = file.relative_to(self.folder / untracked.IMAGES)
        numbered = place.stem.isdigit() and place.parent.name
        key, step = (place.parent, int(place.stem)) if numbered else (place.with_suffix(""), 0)
        if place.suffix == ".png" and self.client.log_image(self.sent.run_id, file, key=key.as_posix(), step=step):
            return
        folder = place.parent.as_posix()
        self.client.mlflow.log_artifact(self.sent.run_id, str(file), None if folder == "." else folder)

    def _end(self, end: Mapping[str, Any]) -> None:
        """Close the run, and its pipeline's when no other stage runs."""
        run_id, client, facts = self.sent.run_id, self.client, self.stage["facts"]
        client.log(run_id, tags={"cgn.message": end.get("message", "")})
        client.mlflow.set_terminated(run_id, end["status"], int(end["time"] * 1000))
        if facts.get("verb") == EVALUATE and end["status"] == "FINISHED":
            evaluated(self._compared(), run=self._noted())
            options = [value for key, value in facts.items() if key.startswith("option.") and value != "all"]
            name, metrics = "/".join([facts["track"], facts["variant"], *options]), client.run(run_id).data.metrics
            self._log_above(metrics=[{**evaluated_above(metrics, name=name), "step": 0, "time": end["time"]}])
        if not (parent := self._parent()):
            return
        below = client.search(f"tags.`{PARENT}` = '{parent.info.run_id}'")
        if all(stage.info.status != "RUNNING" for stage in below):
            last = {stage.info.run_name: stage.info.status for stage in below}  # the last try of a stage counts
            over = max(stage.info.end_time or 0 for stage in below)
            counts = {f"stages/{word}": list(last.values()).count(status) for status, word in ENDS.items()}
            # the newest value counts, and stages may come here in another order than they ended in
            self._log_above(metrics=[{**counts, "seconds": (over - parent.info.start_time) / 1000, "step": 0}])
            worst = next(status for status in ENDS if status in last.values())
            client.mlflow.set_terminated(parent.info.run_id, worst, over)

    def _log_above(self, **values: Any) -> None:
        """Log into the pipeline's run (arguments of `Client.log`)."""
        if any(values.values()) and (parent := self._parent()):
            self.client.log(parent.info.run_id, **values)

    def _parent(self) -> Any:
        """The pipeline's run; None where the user has deleted it, and for a run that is below none."""
        parent = self.client.run(self.sent.run_id).data.tags.get(PARENT)
        run = self.client.run(parent) if parent else None
        return run if run and run.info.lifecycle_stage == "active" else None


def evaluated_above(values: Mapping[str, float], *, name: str) -> dict[str, float]:
    """An evaluation's final values as its pipeline's run has them; `name` is the variant's.

    With dots, as DVC shows them, all of a variant are in one group of charts.
    """
    own = ("system/", f"{EVALUATE}/")
    kept = {key: value for key, value in values.items() if "/" in key and not key.startswith(own)}
    return {f"{name}/{key.replace('/', '.')}": value for key, value in kept.items()}


KINDS: dict[str, Callable[[TrackedRun, Path], None]] = {
    untracked.INPUTS: TrackedRun.send_inputs,
    untracked.RUN: TrackedRun.send_note,
    untracked.RECORD: TrackedRun.send_record,
    untracked.SYSTEM: TrackedRun.send_system,
    f"{untracked.IMAGES}/**/[!.]*": TrackedRun.send_image,
    untracked.DETAILS: TrackedRun.send_final,
    untracked.VALUES: TrackedRun.send_values,
    untracked.OUTPUT: TrackedRun.send_inputs,
    f"{untracked.MODEL}/{untracked.WEIGHTS}": TrackedRun.send_model,
    f"{untracked.VERDICT}/{untracked.GATE}": TrackedRun.send_verdict,
}
"""What sends a file, by a pattern of its place in the folder, in the order in which files are sent."""


def _version(file: Path) -> list[int] | None:
    """What changes with a file; None where it does not exist."""
    with suppress(OSError):
        status = file.stat()
        return [status.st_size, status.st_mtime_ns]
    return None
