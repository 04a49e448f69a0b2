"""One journal on its way to MLflow.

Decided here: the place in the journal moves on only after MLflow took the events before it, so whatever dies, an event
is repeated at worst (MLflow drops equal values) and never skipped. A journal whose first half went to another store
is carried from its start.
"""

import fcntl
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.journal import EVENTS
from flows.lineage import dvc_hash, is_alive
from flows.store import Store

PLACE = "tracked.json"


class Courier:
    """Carries one journal, as far as it is written."""

    def __init__(self, folder: Path, *, lock: Path) -> None:
        self.folder = folder
        self.lock = lock
        known = json.loads((folder / PLACE).read_text(encoding="utf-8")) if (folder / PLACE).is_file() else {}
        self.offset: int = known.get("offset", 0)
        self.run_id: str | None = known.get("run_id")
        self.uri: str | None = known.get("uri")
        self.hashed: set[str] = set(known.get("hashed", ()))
        self.began: dict[str, Any] = {}
        self.pending: list[tuple[dict[str, Any], int]] = []
        self.ended = False

    @property
    def over(self) -> bool:
        """Whether the stage's end is among what is pending."""
        return any(event["event"] == "end" for event, _ in self.pending)

    def look(self) -> None:
        """See what is pending. What only an onlooker can tell is added: DVC's hashes, and the end of a stage that died.

        Where something was added nothing counts as pending until the next look, so that an end comes with its hashes.
        """
        self.pending = self._events(self.offset)
        self.began = self.began or next((event for event, _ in self._events(0)), {})
        if not self.began:
            return
        if "inputs" not in self.hashed:
            self.hashed.add("inputs")
            inputs = self.began["facts"]["inputs"]
            self._hash({f"dvc.input.{role}": inputs[role] for role in inputs if inputs[role]})
        elif "output" not in self.hashed and any(event.get("status") == "FINISHED" for event, _ in self.pending):
            self.hashed.add("output")
            self._hash({"dvc.output": [self.began["out"]]})
        elif not self.over and not is_alive(self.began["process"]):
            self.pending = self._events(self.offset)  # its last words may have come since
            if not self.over:
                self._tell(event="end", status="KILLED", message="the stage died")

    def carry(self, store: Store) -> None:
        """Bring what is pending to the store. Raises whatever MLflow raises."""
        if not self.pending:
            return
        if self.uri not in (None, store.uri):
            self.offset, self.run_id, self.pending = 0, None, self._events(0)
        self.uri = store.uri
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
        if events[0]["event"] == "begin" and self.run_id is None:
            with alone(self.lock):
                self.run_id = store.begin(events[0])
        assert self.run_id is not None, "a journal opens with begin"
        if metrics := [event for event in events if event["event"] == "metrics"]:
            store.metrics(self.run_id, metrics)
        event = events[-1]
        match event["event"]:
            case "note":
                store.note(self.run_id, event["run"])
            case "hashes":
                store.tags(self.run_id, event["values"])
            case "picture":
                store.picture(self.run_id, self.folder / event["copy"], place=event["place"])
            case "end":
                with alone(self.lock):
                    store.end(self.run_id, event)
                self.ended = True
        self.offset = offset
        known = {"offset": offset, "run_id": self.run_id, "uri": self.uri, "hashed": sorted(self.hashed)}
        temporary = self.folder / f".{PLACE}"
        temporary.write_text(json.dumps(known), encoding="utf-8")
        temporary.replace(self.folder / PLACE)

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
                    events.append((json.loads(line), offset))
                except ValueError:  # half a line, of a stage that was killed or a disk that was full
                    continue
        return events

    def _hash(self, paths: dict[str, Sequence[str]]) -> None:
        base = Path(self.began["cwd"])
        values = {}
        for name, many in paths.items():
            if hashes := [found for path in many if (found := dvc_hash(base / path))]:
                values[name] = " ".join(hashes)  # without them where an experiment's folder is gone already
        self._tell(event="hashes", values=values)

    def _tell(self, **event: Any) -> None:
        self.pending = []
        whole = (self.folder / EVENTS).read_bytes().endswith(b"\n")
        with (self.folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(("" if whole else "\n") + json.dumps({"time": time.time(), **event}) + "\n")


@contextmanager
def alone(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a file lock, which the kernel frees with the process. Raises BlockingIOError where it may not wait."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
