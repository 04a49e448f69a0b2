"""One journal on its way to MLflow.

Decided here: the place in the journal moves on only after MLflow took the events before it, so whatever dies, an event
is repeated at worst (MLflow drops equal values) and never skipped. A journal whose first half went to another store or
experiment, or to a run that is gone, is carried from its start. What is wrong with this journal alone is a RefusedError
and stands in its refused.txt: what is refused does not pass by itself, and must not hold up other journals.
"""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows.journal import EVENTS, REFUSED, alone
from flows.lineage import changed_parameters, dvc_hash, is_alive
from flows.store import DROP, RefusedError, Store

PLACE = "tracked.json"
EMPTY_SECONDS = 60.0  # a journal without a line: its stage was killed while it made the file
BROKEN = (AssertionError, AttributeError, KeyError, TypeError, ValueError)  # what a damaged event leads to


class Courier:
    """Carries one journal, as far as it is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        known = _known(folder / PLACE)
        self.offset: int = known.get("offset", 0)
        self.run_id: str | None = known.get("run_id")
        self.place: list[str] | None = known.get("place")
        self.hashed: set[str] = set(known.get("hashed", ()))
        self.began: dict[str, Any] = {}
        self.pending: list[tuple[dict[str, Any], int]] = []
        self.ended = False
        self.next_try = 0.0
        self.damage = ""
        self.refused = False

    @property
    def over(self) -> bool:
        """Whether the stage's end is among what is pending."""
        return any(event["event"] == "end" for event, _ in self.pending)

    def look(self) -> None:
        """See what is pending. What only an onlooker knows is added: DVC's hashes, and the end of a stage that died.

        Where something was added nothing counts as pending until the next look, so that an end comes with its hashes.
        """
        try:
            self._look()
        except BROKEN as error:
            self.damage = f"{type(error).__name__}: {error}"

    def _look(self) -> None:
        self.pending = self._events(self.offset)
        self.began = self.began or next((event for event, _ in self._events(0)), {})
        if not self.began:
            facts = (self.folder / EVENTS).stat()
            if time.time() - facts.st_mtime > EMPTY_SECONDS:
                assert facts.st_size == 0, "no line of it is whole"
                self.ended = True
            return
        assert self.began["event"] == "begin", "it does not open with what was run"
        if "inputs" not in self.hashed:
            self.hashed.add("inputs")
            facts, here = self.began["facts"], Path(self.began["cwd"])
            inputs = facts["inputs"]
            self._hash({f"dvc.input.{role}": inputs[role] for role in inputs if inputs[role]})
            names = {name: str(facts.get(name, "")) for name in ("track", "variant")}
            if changed := changed_parameters(here, **names):
                self._tell(event="changed", values=changed)
        elif "output" not in self.hashed and any(event.get("status") == "FINISHED" for event, _ in self.pending):
            self.hashed.add("output")
            self._hash({"dvc.output": [self.began["out"]]})
        elif not self.over and not is_alive(self.began["process"]):
            self.pending = self._events(self.offset)  # its last words may have come since
            if not self.over:
                self._tell(event="end", status="KILLED", message="the stage died")

    def carry(self, store: Store) -> None:
        """Pass what is pending on to the store. Raises RefusedError, or whatever MLflow raises where it is down."""
        if self.damage:
            raise _damaged(self.damage)
        if not self.pending:
            return
        place = [store.uri, store.experiment]
        if self.place not in (None, place):
            self._start_over()
        self.place = place
        try:
            try:
                self._carry(store)
            except RefusedError:
                if self.run_id is None or not store.lacks(self.run_id):
                    raise
                self._start_over()
                self._carry(store)
        except BROKEN as error:
            raise _damaged(f"{type(error).__name__}: {error}") from error
        self.refused = False
        (self.folder / REFUSED).unlink(missing_ok=True)

    def refuse(self, error: RefusedError) -> None:
        """Leave word beside the journal: why it is not taken, and what to do."""
        self.refused = True
        remedy = error.remedy.replace("{journal}", str(self.folder))
        (self.folder / REFUSED).write_text(f"{error}. To do: {remedy}", encoding="utf-8")

    def _start_over(self) -> None:
        self.offset, self.run_id, self.pending = 0, None, self._events(0)

    def _carry(self, store: Store) -> None:
        metrics: list[dict[str, Any]] = []
        for event, offset in self.pending:
            metrics.append(event)
            if event["event"] != "metrics":
                self._send(store, metrics, offset=offset)
                metrics = []
        if metrics:
            self._send(store, metrics, offset=self.pending[-1][1])
        self.pending = []

    def _send(self, store: Store, events: Sequence[dict[str, Any]], *, offset: int) -> None:
        with store.refusals(self.run_id):
            if events[0]["event"] == "begin" and self.run_id is None:
                with alone(store.lock):
                    self.run_id = store.begin(events[0])
            assert self.run_id is not None, "it does not open with what was run"
            if metrics := [event for event in events if event["event"] == "metrics"]:
                store.metrics(self.run_id, metrics)
            self._send_last(store, self.run_id, event=events[-1])
        self.offset = offset
        known = {"offset": offset, "run_id": self.run_id, "place": self.place, "hashed": sorted(self.hashed)}
        temporary = self.folder / f".{PLACE}"
        temporary.write_text(json.dumps(known), encoding="utf-8")
        temporary.replace(self.folder / PLACE)

    def _send_last(self, store: Store, run_id: str, *, event: dict[str, Any]) -> None:
        """What is not metrics."""
        match event["event"]:
            case "note":
                store.note(run_id, event["run"])
            case "hashes":
                store.tags(run_id, event["values"])
            case "changed":
                store.changed(run_id, event["values"])
            case "table":
                store.table(run_id, event["values"])
            case "picture":
                if (copy := self.folder / event["copy"]).is_file():
                    store.picture(run_id, copy, place=event["place"])
            case "end":
                with alone(store.lock):
                    store.end(run_id, event)
                self.ended = True

    def _events(self, offset: int) -> list[tuple[dict[str, Any], int]]:
        """The events from a place on, each with the place after it. A half-written line waits."""
        events = []
        with (self.folder / EVENTS).open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                offset += len(line)
                try:
                    event = json.loads(line)
                except ValueError:  # half a line, of a stage that was killed or a disk that was full
                    continue
                if isinstance(event, dict) and "event" in event:
                    events.append((event, offset))
        return events

    def _hash(self, paths: dict[str, Sequence[str]]) -> None:
        base = Path(self.began["cwd"])
        values = {}
        for name, many in paths.items():
            with suppress(OSError):  # unreadable: without
                if hashes := [found for path in many if (found := dvc_hash(base / path))]:
                    values[name] = " ".join(hashes)  # without them where an experiment's folder is gone already
        self._tell(event="hashes", values=values)

    def _tell(self, **event: Any) -> None:
        self.pending = []
        whole = (self.folder / EVENTS).read_bytes().endswith(b"\n")
        with (self.folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(("" if whole else "\n") + json.dumps({"time": time.time(), **event}) + "\n")


def _known(file: Path) -> dict[str, Any]:
    """How far a journal has been carried; from its start where that is unreadable."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _damaged(how: str) -> RefusedError:
    return RefusedError(
        f"the journal is damaged ({how})", remedy=f"{DROP} {{journal}} (the stage's own files keep its numbers)"
    )
