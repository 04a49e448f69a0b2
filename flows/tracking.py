"""From journals to MLflow: live while a pipeline runs, or later.

    python -m flows.tracking sync                      track what a server that was down missed, and say what it refuses
    python -m flows.tracking drop JOURNAL ...          remove journals that are not to be tracked
    python -m flows.tracking follow FOLDER PROCESS     what the first stage of a pipeline starts

Decided here: one tracker serves all stages of a pipeline, because MLflow takes seconds of processor time to load, and
it is a process of its own, because a server may hang. It lives as long as the pipeline and a short grace after it; it
stays in the pipeline's process group, so whoever ends the group ends it too. A server that fails is asked again every
ten seconds; what it missed is carried by the next pipeline's tracker, or by `sync`. A journal that is refused is tried
again just as often, but nothing waits for it. Whoever carries a pipeline's journals, or removes one, holds its lock.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from flows.courier import Courier
from flows.journal import COUNTS, EVENTS, REFUSED, UNTRACKED, Journal, alone, project_root
from flows.lineage import is_alive
from flows.store import RefusedError, Store, address, probe, shown

TICK_SECONDS = 0.1
BATCH_SECONDS = 1.0
RETRY_SECONDS = 10.0
GRACE_SECONDS = 30.0  # after a pipeline's end; the first use of a SQLite store creates it
LOOKS = 6
SETTLE_SECONDS = 3.0
NICE = 10
LOCK, STATE, LOG = "tracker.lock", "tracker.state", "tracker.log"
OPEN = "open"
SYNC = "python -m flows.tracking sync"


def start(journal: Journal) -> None:
    """Start the tracker of a journal's pipeline, unless it has one."""
    folder = journal.folder.parent
    package = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH")]))
    refused = len(list(folder.parent.glob(f"*/*/{REFUSED}")))
    command = [sys.executable, "-m", "flows.tracking", "follow", str(folder), journal.pipeline.process]
    try:
        with alone(folder / LOCK, wait=False):
            pass
        if refused:
            print(f"note: MLflow refuses {refused} earlier runs; {SYNC} says why", file=sys.stderr, flush=True)
        with (folder / LOG).open("ab") as log:
            # not in the stage's folder: DVC removes that of an experiment
            subprocess.Popen(
                command, cwd=project_root(), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
    except BlockingIOError:  # it has one
        return
    except OSError as error:
        print(f"note: this run is tracked later, by {SYNC}: {error}", file=sys.stderr, flush=True)


def settle(journal: Journal) -> None:
    """Give a tracker that has reached its store a moment to bring the stage's end there; wait for no other."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while journal.folder.exists() and time.monotonic() < deadline:
        if refused := _read(journal.folder / REFUSED):
            print(f"note: this run is not in MLflow: {refused}", file=sys.stderr, flush=True)
            return
        state = _read(journal.folder.parent / STATE)
        if state != OPEN:
            if state:
                later = f"it is tracked once the server is back (by the next run, or: {SYNC})"
                print(f"note: MLflow has not all of this run; {later}: {state}", file=sys.stderr, flush=True)
            return
        time.sleep(TICK_SECONDS / 2)


def follow(folder: Path, *, process: str) -> None:
    """Carry a pipeline's journals until it has ended."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # meant for the pipeline, whose end ends this too
    os.nice(NICE)
    root = project_root()
    try:
        with alone(folder / LOCK, wait=False):
            (folder / LOCK).write_text(process, encoding="utf-8")  # for `sync`: how long this may take
            tracker = Tracker(folder, root=root)
            while is_alive(process):
                tracker.turn()
                time.sleep(RETRY_SECONDS / 10 if tracker.down else TICK_SECONDS)
            tracker.next_try, deadline = 0.0, time.monotonic() + GRACE_SECONDS
            tracker.turn()
            while tracker.waiting and not tracker.down and time.monotonic() < deadline:
                time.sleep(TICK_SECONDS)
                tracker.turn()
            tracker.close()
        if tracker.store and not tracker.down:
            carry_rest(root, store=tracker.store, patience=0.0)
    except BlockingIOError:  # another stage was faster
        return


class Tracker:
    """The journals of one pipeline, and when the store is asked next."""

    def __init__(self, folder: Path, *, root: Path) -> None:
        self.folder, self.root = folder, root
        self.couriers: dict[Path, Courier] = {}
        self.store: Store | None = None
        self.next_try = 0.0
        self.state = ""

    @property
    def waiting(self) -> list[Path]:
        """The journals that are not refused."""
        return [folder for folder, courier in self.couriers.items() if not courier.refused]

    @property
    def down(self) -> bool:
        """Whether the store did not answer when it was asked last."""
        return self.state not in ("", OPEN)

    def turn(self) -> None:
        """See what is new, and carry it when it is time: a batch a second, and an end at once."""
        for events in sorted(self.folder.glob(f"*/{EVENTS}")):
            if events.parent not in self.couriers:
                self.couriers[events.parent] = Courier(events.parent)
        try:
            for courier in self._due():
                courier.look()
            hurry = not self.down and any(courier.over for courier in self._due())
            if time.monotonic() < self.next_try and not hurry:
                return
            self._carry()
            self._say(OPEN if self.store else "")
            self.next_try = time.monotonic() + BATCH_SECONDS
        except Exception as error:  # whatever it is, the pipeline goes on and the journals stay
            print(f"{time.ctime()}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            self._say(" ".join(f"{type(error).__name__}: {error}".split())[:200])
            self.next_try = time.monotonic() + RETRY_SECONDS

    def close(self) -> None:
        """Pass on what the pipeline has counted, and remove its folder if nothing is left in it."""
        counts = self.folder / COUNTS
        if counts.is_file() and self.store and not self.down and not self.couriers:
            try:
                numbers = json.loads(counts.read_text(encoding="utf-8"))
                self.store.count(self.folder.name, numbers)
            except Exception as error:  # they are not worth a pipeline's folder that stays
                print(f"{time.ctime()}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        (self.folder / STATE).unlink(missing_ok=True)
        discard(self.folder)

    def _due(self) -> list[Courier]:
        """Those to be tried now: who was refused waits. A folder that is gone was dropped."""
        self.couriers = {folder: courier for folder, courier in self.couriers.items() if folder.is_dir()}
        return [courier for courier in self.couriers.values() if time.monotonic() >= courier.next_try]

    def _carry(self) -> None:
        due = self._due()
        if not due:
            return
        try:
            if self.store is None:
                probe(address(self.root))
                self.store = Store(root=self.root)
        except RefusedError as error:
            for courier in due:
                self._refuse(courier, error)
            return
        for courier in due:
            try:
                courier.carry(self.store)
            except RefusedError as error:  # any other error would hit the other journals too, and each may cost seconds
                self._refuse(courier, error)
                continue
            if courier.ended:
                shutil.rmtree(courier.folder)
                del self.couriers[courier.folder]

    def _refuse(self, courier: Courier, error: RefusedError) -> None:
        courier.refuse(error)
        courier.next_try = time.monotonic() + RETRY_SECONDS

    def _say(self, state: str) -> None:
        if state != self.state:
            (self.folder / STATE).write_text(state, encoding="utf-8")
        self.state = state


@dataclass(kw_only=True)
class Rest:
    """What became of journals that were left: `running` are in the hands of a tracker, or their stage still works."""

    tracked: int = 0
    running: list[Path] = field(default_factory=list)
    refused: list[Path] = field(default_factory=list)
    waiting: dict[Path, str] = field(default_factory=dict)


def carry_rest(root: Path, *, store: Store, patience: float) -> Rest:
    """Carry every journal that no tracker carries; one that is ending is waited for, `patience` seconds at most."""
    rest = Rest()
    places = {path.parent for path in (root / UNTRACKED).glob(f"*/{LOCK}")}
    places |= {path.parents[1] for path in (root / UNTRACKED).glob(f"*/*/{EVENTS}")}
    for folder in sorted(places):
        journals = [path.parent for path in folder.glob(f"*/{EVENTS}")]
        try:
            with _taken_over(folder, patience=patience):
                _carry_folder(folder, root=root, store=store, rest=rest)
        except BlockingIOError:
            rest.running += [journal for journal in journals if journal.exists()]
        rest.tracked += sum(not journal.exists() for journal in journals)
    return rest


def _carry_folder(folder: Path, *, root: Path, store: Store, rest: Rest) -> None:
    tracker = Tracker(folder, root=root)
    tracker.store = store
    for _ in range(LOOKS):  # the first looks may add hashes and an end
        tracker.next_try = 0.0
        tracker.turn()
        if tracker.down or not tracker.waiting:
            break
    for journal, courier in tracker.couriers.items():
        if courier.refused:
            rest.refused.append(journal)
        elif tracker.down:
            rest.waiting[journal] = tracker.state
        elif courier.began and is_alive(courier.began["process"]):
            rest.running.append(journal)
        else:
            rest.waiting[journal] = "its stage has not written all of it yet"
    tracker.close()


@contextmanager
def _taken_over(folder: Path, *, patience: float) -> Iterator[None]:
    """A pipeline's lock. Raises BlockingIOError where its tracker works, or takes longer than `patience` to end."""
    deadline = time.monotonic() + patience
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(alone(folder / LOCK, wait=False))
                break
            except BlockingIOError:
                if is_alive(_read(folder / LOCK)) or time.monotonic() > deadline:
                    raise
            time.sleep(TICK_SECONDS)
        yield


def _read(file: Path) -> str:
    """A small file's text; empty where there is none (its writer may remove it at any moment)."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""


def discard(folder: Path) -> None:
    """Remove a pipeline's folder, unless a journal is in it (one may have come since it was looked at)."""
    if any(path.is_dir() for path in folder.iterdir()):
        return
    for name in (STATE, LOG, COUNTS, LOCK):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def sync(root: Path) -> int:
    """Track what was missed. Exit status: 0, 1 when the store cannot be used now, 2 when it refuses something."""
    waiting = sorted(path.parent for path in (root / UNTRACKED).glob(f"*/*/{EVENTS}"))
    if not waiting:
        print("everything is tracked")
        return 0
    try:
        probe(address(root))
        rest = carry_rest(root, store=Store(root=root), patience=GRACE_SECONDS)
    except RefusedError as error:
        remedy = error.remedy.replace("{journal}", "JOURNAL")
        print(f"error: {error}. To do: {remedy}. Journals that wait: {len(waiting)}", file=sys.stderr)
        for journal in waiting:
            print(f"  {_from(root, journal)}", file=sys.stderr)
        return 2
    except Exception as error:
        said = " ".join(str(error).split())
        place = shown(address(root))
        print(f"error: {place} cannot be used now, journals that wait: {len(waiting)}: {said}", file=sys.stderr)
        return 1
    return _report(root, rest)


def _report(root: Path, rest: Rest) -> int:
    left = len(rest.running) + len(rest.refused) + len(rest.waiting)
    print(f"{rest.tracked} of {rest.tracked + left} journals tracked")
    for journal in rest.running:
        print(f"still running, its own tracker carries it: {_from(root, journal)}")
    for journal, reason in rest.waiting.items():
        print(f"not tracked yet: {_from(root, journal)}: {reason}", file=sys.stderr)
    for journal in rest.refused:
        print(f"refused: {_from(root, journal)}: {_read(journal / REFUSED)}", file=sys.stderr)
    return 2 if rest.refused else 1 if rest.waiting else 0


def drop(root: Path, journals: Sequence[Path]) -> int:
    """Remove journals without tracking them. Exit status: 0, or 2 where one is not a journal, or still in use."""
    status = 0
    for given in journals:
        journal = given.resolve()
        if journal.parents[1] != (root / UNTRACKED).resolve() or not (journal / EVENTS).is_file():
            print(f"error: {given} is not a journal: expected {UNTRACKED}/PIPELINE/JOURNAL", file=sys.stderr)
            status = 2
            continue
        try:
            with _taken_over(journal.parent, patience=GRACE_SECONDS):
                shutil.rmtree(journal)
                discard(journal.parent)
            print(f"dropped: {given}")
        except BlockingIOError:
            print(f"error: {given} is in use: its pipeline is still running", file=sys.stderr)
            status = 2
    return status


def _from(root: Path, journal: Path) -> Path:
    """As one types it at the project's root."""
    return journal.relative_to(root) if journal.is_relative_to(root) else journal


def main(argv: Sequence[str]) -> int:
    """Exit status: 0, 1 when something can be tracked only later, 2 when something needs a decision."""
    parser = argparse.ArgumentParser(prog="python -m flows.tracking")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("sync", help="track what a server that was down missed")
    dropping = commands.add_parser("drop", help="remove journals that are not to be tracked")
    dropping.add_argument("journals", type=Path, nargs="+", metavar="JOURNAL", help="its folder, as sync names it")
    following = commands.add_parser("follow", help="carry a pipeline's journals (started by its first stage)")
    following.add_argument("folder", type=Path)
    following.add_argument("process")
    given = parser.parse_args(argv)
    if given.command == "sync":
        return sync(project_root())
    if given.command == "drop":
        return drop(project_root(), given.journals)
    follow(given.folder, process=given.process)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
