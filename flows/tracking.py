"""From untracked runs (`flows.untracked`) to MLflow: live while a pipeline runs, or later.

    python -m flows.tracking sync                     send what a server that was down missed, and say what it refuses
    python -m flows.tracking drop RUN ...             remove runs that are not to be tracked
    python -m flows.tracking upload FOLDER PROCESS    the uploader, which the first stage of a pipeline starts

One uploader serves all stages of a pipeline, because MLflow takes seconds of processor time to load, and it is a
process of its own, because a server may hang. It lives as long as the pipeline and a short grace after it; it stays in
the pipeline's process group, so ending the group ends it too. A process that sends a pipeline's runs, or removes one,
holds the pipeline's lock.

A server that fails is asked again every ten seconds; the rest is sent by the next pipeline's uploader, or by `sync`.
What is wrong with one run alone is a RefusedError: it is noted in the run's refused.txt and tried again as often, but
nothing waits for it.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from flows import untracked
from flows.mlflow_client import Client, RefusedError, address, shown
from flows.observed import DAMAGE, SystemMonitor, observe, read_json
from flows.processes import is_alive
from flows.tracked_run import TrackedRun
from flows.untracked import REFUSED, STAGE, UNTRACKED, alone, project_root, read_text

TURN_SECONDS = 0.5
RETRY_SECONDS = 10.0
GRACE_SECONDS = 30.0  # after a pipeline's end; the first use of a SQLite database creates it
EMPTY_SECONDS = 60.0  # a folder without stage.json: its stage was killed before it wrote the first file
NICE = 10
SAMPLING = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"


def upload(folder: Path, *, process: str) -> None:
    """Send a pipeline's runs until it has ended; then what earlier pipelines left."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # meant for the pipeline, whose end ends this too
    os.nice(NICE)
    if os.environ.get(SAMPLING, "true").lower() not in ("false", "0"):
        threading.Thread(target=sample, args=(folder,), daemon=True).start()  # a server that hangs leaves no gap
    uploader = Uploader(project_root())
    with suppress(BlockingIOError), alone(folder / untracked.LOCK, wait=False):  # else another stage was faster
        # a sweep's process outlives its pipelines: a file says that they have ended
        while is_alive(process) and not (folder / untracked.ENDED).exists():
            uploader.turn(folder)
            time.sleep(TURN_SECONDS)
        uploader.retry_at, deadline = {}, time.monotonic() + GRACE_SECONDS
        while uploader.turn(folder) and time.monotonic() < deadline:
            time.sleep(TURN_SECONDS)
        uploader.close(folder)
    if uploader.client and not uploader.down:
        send_left(uploader, patient=False)


def sample(folder: Path) -> None:
    """Note how the machine is used while the pipeline's stages work, as long as this process lives."""
    monitor = SystemMonitor()
    while True:
        time.sleep(TURN_SECONDS)
        monitor.sample(runs(folder))


class Uploader:
    """Sends the runs of pipelines, each pipeline's under its lock."""

    def __init__(self, root: Path, *, client: Client | None = None) -> None:
        self.root, self.client = root, client
        self.retry_at: dict[Path, float] = {}
        """When a run that is refused is tried next; of a pipeline's folder, a server that failed."""
        self.down = ""
        """What the server failed with when it was asked last."""

    def turn(self, folder: Path) -> bool:
        """Note what has happened, and send what is new unless that failed a moment ago. Whether more is to be sent."""
        ended = {run: observe(run) for run in runs(folder)}
        if time.monotonic() < self.retry_at.get(folder, 0.0):
            return False
        try:
            for run in [run for run in ended if time.monotonic() >= self.retry_at.get(run, 0.0)]:
                self._send(run, ended=ended[run])
            self.down = ""
            (folder / untracked.DOWN).unlink(missing_ok=True)
        except Exception as error:  # whatever it is, the pipeline goes on and the runs stay
            self.down = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            print(f"{time.ctime()}: {self.down}", file=sys.stderr, flush=True)
            (folder / untracked.DOWN).write_text(self.down, encoding="utf-8")
            self.retry_at[folder] = time.monotonic() + RETRY_SECONDS
        return not self.down and any(run not in self.retry_at for run in runs(folder))

    def _send(self, run: Path, *, ended: bool) -> None:
        try:
            self.client = self.client or Client(root=self.root)
            TrackedRun(run, client=self.client).send(ended=ended)
            self.retry_at.pop(run, None)
            (run / REFUSED).unlink(missing_ok=True)
        except RefusedError as error:  # any other error would hit the other runs too, and each may cost seconds
            self.retry_at[run] = time.monotonic() + RETRY_SECONDS
            remedy = error.remedy.replace("{run}", str(run))
            (run / REFUSED).write_text(f"{error}. To do: {remedy}", encoding="utf-8")

    def close(self, folder: Path) -> None:
        """Pass on the metrics that the pipeline ended with, and remove its folder if nothing is left in it."""
        if (metrics := read_text(folder / untracked.ENDED)) and self.client and not runs(folder):
            try:
                if run_id := self.client.pipeline(folder.name):
                    self.client.log(run_id, metrics=[{**json.loads(metrics), "step": 0}])
            except Exception as error:  # the numbers are not worth a pipeline's folder that stays
                print(f"{time.ctime()}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        discard(folder)


def runs(folder: Path) -> list[Path]:
    """The runs in a pipeline's folder, oldest first."""
    return sorted(file.parent for file in folder.glob(f"*/{STAGE}"))


def discard(folder: Path) -> None:
    """Remove a pipeline's folder, unless a run is in it (one may have come since it was looked at)."""
    for run in [run for run in folder.glob("*/") if not (run / STAGE).exists()]:
        if time.time() - run.stat().st_mtime > EMPTY_SECONDS:
            shutil.rmtree(run)
    if not any(path.is_dir() for path in folder.iterdir()):
        for name in (untracked.DOWN, untracked.LOG, untracked.ENDED, untracked.LOCK):
            (folder / name).unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()


def send_left(uploader: Uploader, *, patient: bool) -> dict[Path, str]:
    """Send the runs that no uploader sends; `patient` waits for uploaders whose pipeline has ended.

    Why runs are left, by their pipeline's folder: what the server failed with, or nothing where they are still running.
    """
    reasons = {}
    for folder in sorted((uploader.root / UNTRACKED).glob("*/")):
        reasons[folder] = ""
        with suppress(BlockingIOError), alone(folder / untracked.LOCK, wait=patient and not _in_use(folder)):
            uploader.turn(folder)
            uploader.close(folder)
            reasons[folder] = uploader.down
    return reasons


def _in_use(folder: Path) -> bool:
    """Whether a pipeline still runs."""
    for run in runs(folder):
        with suppress(*DAMAGE):
            return is_alive(read_json(run / STAGE)["pipeline"]["process"])
    return False


def sync(root: Path) -> int:
    """Send what was missed. Exit status: 0, 1 when the server cannot be used now, 2 when it refuses something."""
    waiting = sorted(file.parent for file in (root / UNTRACKED).glob(f"*/*/{STAGE}"))
    names = {run: os.path.relpath(run, root) for run in waiting}
    if not waiting:
        print("everything is tracked")
        return 0
    try:
        reasons = send_left(Uploader(root, client=Client(root=root)), patient=True)
    except RefusedError as error:
        heading = f"error: {error}. To do: {error.remedy.replace('{run}', 'RUN')}. Runs that wait: {len(waiting)}"
        print(heading, *names.values(), sep="\n  ", file=sys.stderr)
        return 2
    except Exception as error:
        place, reason = shown(address(root)), " ".join(str(error).split())
        print(f"error: {place} cannot be used now, runs that wait: {len(waiting)}: {reason}", file=sys.stderr)
        return 1
    left = [run for run in waiting if run.exists()]
    print(f"{len(waiting) - len(left)} of {len(waiting)} runs tracked")
    status = 0
    for run in left:
        if refused := read_text(run / REFUSED):
            print(f"refused: {names[run]}: {refused}", file=sys.stderr)
            status = 2
        elif reason := reasons.get(run.parent, ""):
            print(f"not tracked yet: {names[run]}: {reason}", file=sys.stderr)
            status = max(status, 1)
        else:
            print(f"still running, its own uploader sends it: {names[run]}")
    return status


def drop(root: Path, given: Sequence[Path]) -> int:
    """Remove runs without tracking them. Exit status: 0, or 2 where one is no untracked run, or still in use."""
    status = 0
    for run in [path.resolve() for path in given]:
        try:
            if run.parents[1] != (root / UNTRACKED).resolve() or not (run / STAGE).is_file():
                raise ValueError(f"is not an untracked run: expected {UNTRACKED}/PIPELINE/RUN")
            with alone(run.parent / untracked.LOCK, wait=not _in_use(run.parent)):
                shutil.rmtree(run)
                discard(run.parent)
            print(f"dropped: {run}")
        except (ValueError, BlockingIOError) as error:
            reason = error if isinstance(error, ValueError) else "is in use: its pipeline is still running"
            print(f"error: {run} {reason}", file=sys.stderr)
            status = 2
    return status


def main(argv: Sequence[str]) -> int:
    """Exit status: 0, 1 when something can be tracked only later, 2 when something needs a decision."""
    parser = argparse.ArgumentParser(prog="python -m flows.tracking")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("sync", help="send what a server that was down missed")
    dropping = commands.add_parser("drop", help="remove runs that are not to be tracked")
    dropping.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="its folder, as sync names it")
    uploading = commands.add_parser("upload", help="send a pipeline's runs (started by its first stage)")
    uploading.add_argument("folder", type=Path)
    uploading.add_argument("process")
    given = parser.parse_args(argv)
    match given.command:
        case "drop":
            return drop(project_root(), given.runs)
        case "upload":
            upload(given.folder, process=given.process)
            return 0
    return sync(project_root())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
