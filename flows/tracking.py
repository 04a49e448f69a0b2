"""From journals to MLflow: live while a pipeline runs, or later.

    python -m flows.tracking sync                      track what a server that was down missed
    python -m flows.tracking follow FOLDER PROCESS     what the first stage of a pipeline starts

Decided here: one tracker serves all stages of a pipeline, because MLflow takes seconds of processor time to load, and
it is a process of its own, because a server may hang. It lives as long as the pipeline and a short grace after it; it
stays in the pipeline's process group, so whoever ends the group ends it too. A server that fails is asked again every
ten seconds; what it missed is carried by the next pipeline's tracker, or by `sync`.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from flows.courier import Courier, alone
from flows.journal import EVENTS, UNTRACKED, Journal, project_root
from flows.lineage import is_alive
from flows.store import Store, address, is_refusal, probe

TICK_SECONDS = 0.1
BATCH_SECONDS = 1.0
RETRY_SECONDS = 10.0
GRACE_SECONDS = 30.0  # after a pipeline's end; the first use of a SQLite store creates it
LOOKS = 6
SETTLE_SECONDS = 3.0
NICE = 10
LOCK, STATE, LOG = "tracker.lock", "tracker.state", "tracker.log"
OPEN = "open"


def start(journal: Journal) -> None:
    """Start the tracker of a journal's pipeline, unless it has one."""
    folder = journal.folder.parent
    package = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "flows.tracking", "follow", str(folder), journal.pipeline.process]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder / LOCK, wait=False):
            pass
        with (folder / LOG).open("ab") as log:
            # not in the stage's folder: DVC removes that of an experiment
            subprocess.Popen(
                command, cwd=project_root(), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
    except BlockingIOError:  # it has one
        return
    except OSError as error:
        print(
            f"note: this run is tracked later, by python -m flows.tracking sync: {error}", file=sys.stderr, flush=True
        )


def settle(journal: Journal) -> None:
    """Give a tracker that has reached its store a moment to bring the stage's end there; wait for no other."""
    state = journal.folder.parent / STATE
    deadline = time.monotonic() + SETTLE_SECONDS
    while journal.folder.exists() and time.monotonic() < deadline:
        told = state.read_text(encoding="utf-8") if state.is_file() else ""
        if told != OPEN:
            if told:
                later = "it is tracked once the server is back (by the next run, or: python -m flows.tracking sync)"
                print(f"note: MLflow has not all of this run; {later}: {told}", file=sys.stderr, flush=True)
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
            tracker = Tracker(folder, root=root)
            while is_alive(process):
                tracker.turn()
                time.sleep(RETRY_SECONDS / 10 if tracker.down else TICK_SECONDS)
            tracker.next_try, deadline = 0.0, time.monotonic() + GRACE_SECONDS
            tracker.turn()
            while tracker.couriers and not tracker.down and time.monotonic() < deadline:
                time.sleep(TICK_SECONDS)
                tracker.turn()
            (folder / STATE).unlink(missing_ok=True)
            discard(folder)
        if tracker.store and not tracker.down:
            carry_rest(root, store=tracker.store)
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
    def down(self) -> bool:
        """Whether the store did not answer when it was asked last."""
        return self.state not in ("", OPEN)

    def turn(self) -> None:
        """See what is new, and carry it when it is time: a batch a second, and an end at once."""
        for events in self.folder.glob(f"*/{EVENTS}"):
            if events.parent not in self.couriers:
                self.couriers[events.parent] = Courier(events.parent, lock=self.root / UNTRACKED / LOCK)
        for courier in self.couriers.values():
            courier.look()
        hurry = not self.down and any(courier.over for courier in self.couriers.values())
        if time.monotonic() < self.next_try and not hurry:
            return
        try:
            self._carry()
            self._say(OPEN if self.store else "")
            self.next_try = time.monotonic() + BATCH_SECONDS
        except Exception as error:  # whatever it is, the pipeline goes on and the journals stay
            print(f"{time.ctime()}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            self._say(" ".join(f"{type(error).__name__}: {error}".split())[:200])
            self.next_try = time.monotonic() + RETRY_SECONDS

    def _carry(self) -> None:
        if not self.couriers:
            return
        if self.store is None:
            probe(address(self.root))
            with alone(self.root / UNTRACKED / LOCK):  # several first users at once break a SQLite store
                self.store = Store(root=self.root)
        refused: Exception | None = None
        for folder, courier in list(self.couriers.items()):
            try:
                courier.carry(self.store)
            except Exception as error:
                if not is_refusal(error):  # a server that fails would fail the others too, and each may cost seconds
                    raise
                refused = error
                continue
            if courier.ended:
                shutil.rmtree(folder)
                del self.couriers[folder]
        if refused is not None:
            raise refused

    def _say(self, state: str) -> None:
        if state != self.state:
            (self.folder / STATE).write_text(state, encoding="utf-8")
        self.state = state


def carry_rest(root: Path, *, store: Store) -> list[Path]:
    """Carry every journal that no tracker has in its hands; those that are left."""
    left = []
    for folder in sorted(path.parent for path in (root / UNTRACKED).glob(f"*/{LOCK}")):
        try:
            with alone(folder / LOCK, wait=False):
                tracker = Tracker(folder, root=root)
                tracker.store = store
                for _ in range(LOOKS):  # the first looks may add hashes and an end
                    tracker.next_try = 0.0
                    tracker.turn()
                    if tracker.down or not tracker.couriers:
                        break
                left += list(tracker.couriers)
                discard(folder)
        except BlockingIOError:
            continue
    return left


def discard(folder: Path) -> None:
    """Remove a pipeline's folder, unless a journal is in it (one may have come since it was looked at)."""
    if any(path.is_dir() for path in folder.iterdir()):
        return
    for name in (STATE, LOG, LOCK):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def sync(root: Path) -> int:
    """Track what was missed: exit status 1 when something is left."""
    waiting = list((root / UNTRACKED).glob(f"*/*/{EVENTS}"))
    if not waiting:
        print("everything is tracked")
        return 0
    try:
        probe(address(root))
        left = carry_rest(root, store=Store(root=root))
    except Exception as error:
        print(f"error: {address(root)} did not take it: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(f"{len(waiting) - len(left)} of {len(waiting)} journals tracked")
    for folder in left:
        print(f"not tracked yet: {folder}", file=sys.stderr)
    return 1 if left else 0


def main(argv: Sequence[str]) -> int:
    """Exit status: 0, or 1 when something is still not tracked."""
    parser = argparse.ArgumentParser(prog="python -m flows.tracking")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("sync", help="track what a server that was down missed")
    following = commands.add_parser("follow", help="carry a pipeline's journals (started by its first stage)")
    following.add_argument("folder", type=Path)
    following.add_argument("process")
    given = parser.parse_args(argv)
    if given.command == "sync":
        return sync(project_root())
    follow(given.folder, process=given.process)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
