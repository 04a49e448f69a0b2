"""From untracked runs (`flows.untracked`) to MLflow: live while a pipeline runs, or later.

    python -m flows.tracking sync                     send what a server that was down missed, and say what it refuses
    python -m flows.tracking drop RUN ...             remove runs that are not to be tracked
    python -m flows.tracking upload FOLDER PROCESS    the uploader, which the first stage of a pipeline starts

One uploader serves all stages of a pipeline, because MLflow takes seconds of processor time to load, and it is a
process of its own, because a server may hang. It lives as long as the pipeline and a short grace after it; it stays in
the pipeline's process group, so whoever ends the group ends it too. Whoever sends a pipeline's runs, or removes one,
holds the pipeline's lock.

sent.json says which version of which file MLflow has taken: whatever dies, something is sent twice at worst (MLflow
drops equal values), and nothing is left out. What went to another server or experiment, or to an MLflow run that is
gone, is sent from its start. A server that fails is asked again every ten seconds; the rest is sent by the next
pipeline's uploader, or by `sync`. What is wrong with one run alone is a RefusedError: it is noted in the run's
refused.txt and tried again as often, but nothing waits for it.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cgn.core.metrics import parse_lines
from flows import untracked
from flows.mlflow_client import DROP, Client, RefusedError, address, flat, probe, shown
from flows.observation import DAMAGE, observe, read_json
from flows.processes import is_alive
from flows.untracked import END, REFUSED, STAGE, UNTRACKED, alone, project_root, read, write_json

TURN_SECONDS = 0.5
RETRY_SECONDS = 10.0
GRACE_SECONDS = 30.0  # after a pipeline's end; the first use of a SQLite database creates it
EMPTY_SECONDS = 60.0  # a folder without stage.json: its stage was killed before it wrote the first file
NICE = 10
EVALUATE = "evaluate"


def upload(folder: Path, *, process: str) -> None:
    """Send a pipeline's runs until it has ended; then what earlier pipelines left."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # meant for the pipeline, whose end ends this too
    os.nice(NICE)
    with suppress(BlockingIOError):  # another stage was faster
        with alone(folder / untracked.LOCK, wait=False):
            uploader = Uploader(folder, root=project_root())
            while is_alive(process):
                uploader.turn()
                time.sleep(TURN_SECONDS)
            uploader.retry_at, deadline = {}, time.monotonic() + GRACE_SECONDS
            while uploader.turn() and time.monotonic() < deadline:
                time.sleep(TURN_SECONDS)
            uploader.close()
        if uploader.client and not uploader.down:
            send_left(project_root(), client=uploader.client, patient=False)


class Uploader:
    """Sends the runs of one pipeline."""

    def __init__(self, folder: Path, *, root: Path, client: Client | None = None) -> None:
        self.folder, self.root, self.client = folder, root, client
        self.retry_at: dict[Path, float] = {}
        """When a run that is refused is tried next; of the folder itself, a server that failed."""
        self.down = ""
        """What the server failed with when it was asked last."""

    def turn(self) -> bool:
        """Note what has happened, and send what is new unless that failed a moment ago. Whether more is to be sent."""
        ended = {run: observe(run) for run in runs(self.folder)}
        if time.monotonic() < self.retry_at.get(self.folder, 0.0):
            return False
        try:
            for run in [run for run in ended if time.monotonic() >= self.retry_at.get(run, 0.0)]:
                self._send(run, ended=ended[run])
            self.down = ""
            (self.folder / untracked.DOWN).unlink(missing_ok=True)
        except Exception as error:  # whatever it is, the pipeline goes on and the runs stay
            self.down = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            print(f"{time.ctime()}: {self.down}", file=sys.stderr, flush=True)
            (self.folder / untracked.DOWN).write_text(self.down, encoding="utf-8")
            self.retry_at[self.folder] = time.monotonic() + RETRY_SECONDS
        return not self.down and any(run not in self.retry_at for run in runs(self.folder))

    def _send(self, run: Path, *, ended: bool) -> None:
        try:
            if self.client is None:
                probe(address(self.root))
                self.client = Client(root=self.root)
            TrackedRun(run, client=self.client).send(ended=ended)
            self.retry_at.pop(run, None)
            (run / REFUSED).unlink(missing_ok=True)
        except RefusedError as error:  # any other error would hit the other runs too, and each may cost seconds
            self.retry_at[run] = time.monotonic() + RETRY_SECONDS
            remedy = error.remedy.replace("{run}", str(run))
            (run / REFUSED).write_text(f"{error}. To do: {remedy}", encoding="utf-8")

    def close(self) -> None:
        """Pass on what the pipeline has counted, and remove its folder if nothing is left in it."""
        if (counts := read(self.folder / untracked.COUNTS)) and self.client and not runs(self.folder):
            try:
                self.client.count(self.folder.name, json.loads(counts))
            except Exception as error:  # the numbers are not worth a pipeline's folder that stays
                print(f"{time.ctime()}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        discard(self.folder)


def runs(folder: Path) -> list[Path]:
    """The runs in a pipeline's folder, oldest first."""
    return sorted(file.parent for file in folder.glob(f"*/{STAGE}"))


def discard(folder: Path) -> None:
    """Remove a pipeline's folder, unless a run is in it (one may have come since it was looked at)."""
    for run in [run for run in folder.glob("*/") if not (run / STAGE).exists()]:
        if time.time() - run.stat().st_mtime > EMPTY_SECONDS:
            shutil.rmtree(run)
    if not any(path.is_dir() for path in folder.iterdir()):
        for name in (untracked.DOWN, untracked.LOG, untracked.COUNTS, untracked.LOCK):
            (folder / name).unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()


@dataclass(kw_only=True)
class Sent:
    """How far a run has been sent: `offset` bytes of its record with this checksum, and these versions of its files."""

    place: list[str]
    run_id: str = ""
    step: int = 0
    offset: int = 0
    checksum: int = 0
    files: dict[str, list[int]] = field(default_factory=dict)


class TrackedRun:
    """An untracked run on its way to MLflow."""

    def __init__(self, folder: Path, *, client: Client) -> None:
        self.folder, self.client = folder, client
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
            if not self.sent.run_id or not self.client.lacks(self.sent.run_id):
                raise
            self.sent = Sent(place=self.sent.place)
            self.send(ended=ended)
        except DAMAGE as error:
            reason = f"its files are damaged ({type(error).__name__}: {error})"
            raise RefusedError(reason, remedy=f"{DROP} {{run}} (the stage's own files keep its numbers)") from error
        if ended:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _send(self, *, ended: bool) -> None:
        images = sorted(path for path in self.folder.glob(f"{untracked.IMAGES}/**/[!.]*") if path.is_file())
        fixed = [self.folder / name for name in (untracked.INPUTS, untracked.RUN, untracked.RECORD)]
        last = [self.folder / name for name in (untracked.DETAILS, untracked.OUTPUT)]
        # all are looked at before one is read: with the final values, and with the end, the whole record is there
        versions = {file: _version(file) for file in [*fixed, *images, *last]}
        if not self.sent.run_id:
            with alone(self.client.lock):
                self.sent.run_id = self.client.begin(read_json(self.folder / STAGE))
            write_json(self.folder / untracked.SENT, asdict(self.sent))
        for file, version in versions.items():
            name = file.relative_to(self.folder).as_posix()
            if version and version != self.sent.files.get(name):
                self._send_file(file)
                self.sent.files[name] = version
                write_json(self.folder / untracked.SENT, asdict(self.sent))
        if ended:
            with alone(self.client.lock):
                self.client.end(self.sent.run_id, read_json(self.folder / END))

    def _send_file(self, file: Path) -> None:
        run_id, client = self.sent.run_id, self.client
        match file.name if file.parent == self.folder else "":
            case untracked.INPUTS:
                client.log(run_id, tags=read_json(file)["tags"])
                client.changed(run_id, read_json(file)["changed"])
            case untracked.RUN:
                client.note(run_id, read_json(file))
            case untracked.RECORD:
                self._send_record(file)
            case untracked.DETAILS:
                self._send_final(file)
            case untracked.OUTPUT:
                client.log(run_id, tags=read_json(file))
            case _:
                place = file.parent.relative_to(self.folder / untracked.IMAGES).as_posix()
                client.mlflow.log_artifact(run_id, str(file), None if place == "." else place)

    def _send_record(self, file: Path) -> None:
        """The lines of metrics.jsonl since the last time; all, where a run that continues has written it anew."""
        data, sent = file.read_bytes(), self.sent
        data = data[: data.rfind(b"\n") + 1]
        if zlib.crc32(data[: sent.offset]) != sent.checksum:
            sent.offset = 0
        lines = parse_lines(data[sent.offset :])
        sent.step = max([sent.step, *(line["step"] for line in lines)])
        # by step an evaluation has results of its parts, no curve
        if read_json(self.folder / STAGE)["facts"].get("verb") == EVALUATE:
            lines = [{"step": line["step"], "time": line.get("time"), "images": line["step"]} for line in lines]
        self.client.log(sent.run_id, metrics=lines)
        sent.offset, sent.checksum = len(data), zlib.crc32(data)

    def _send_final(self, file: Path) -> None:
        """The values that one compares, at the last step, so that MLflow shows them; where there are more, a table."""
        values = flat(read_json(file), separator="/")
        compared = flat(read_json(self.folder / untracked.METRICS), separator="/") or values
        self.client.log(self.sent.run_id, metrics=[{**compared, "step": self.sent.step, "time": file.stat().st_mtime}])
        if not set(values) <= set(compared):
            self.client.table(self.sent.run_id, values)


def _version(file: Path) -> list[int] | None:
    """What changes with a file; None where it does not exist."""
    with suppress(OSError):
        status = file.stat()
        return [status.st_size, status.st_mtime_ns]
    return None


def send_left(root: Path, *, client: Client, patient: bool) -> dict[Path, str]:
    """Send the runs that no uploader sends; `patient` waits for uploaders whose pipeline has ended.

    Why runs are left, by their pipeline's folder: what the server failed with, or nothing where they are still running.
    """
    reasons = {}
    for folder in sorted((root / UNTRACKED).glob("*/")):
        try:
            with alone(folder / untracked.LOCK, wait=patient and not _in_use(folder)):
                uploader = Uploader(folder, root=root, client=client)
                uploader.turn()
                uploader.close()
                reasons[folder] = uploader.down
        except BlockingIOError:
            reasons[folder] = ""
    return reasons


def _in_use(folder: Path) -> bool:
    """Whether a pipeline still runs."""
    for run in runs(folder):
        with suppress(*DAMAGE):
            return is_alive(read_json(run / STAGE)["pipeline"]["process"])
    return False


def sync(root: Path) -> int:
    """Send what was missed. Exit status: 0, 1 when the server cannot be used now, 2 when it refuses something."""
    waiting = [run for folder in sorted((root / UNTRACKED).glob("*/")) for run in runs(folder)]
    if not waiting:
        print("everything is tracked")
        return 0
    try:
        probe(address(root))
        reasons = send_left(root, client=Client(root=root), patient=True)
    except RefusedError as error:
        remedy, names = error.remedy.replace("{run}", "RUN"), [f"\n  {_from(root, run)}" for run in waiting]
        print(f"error: {error}. To do: {remedy}. Runs that wait: {len(waiting)}", *names, sep="", file=sys.stderr)
        return 2
    except Exception as error:
        place, reason = shown(address(root)), " ".join(str(error).split())
        print(f"error: {place} cannot be used now, runs that wait: {len(waiting)}: {reason}", file=sys.stderr)
        return 1
    left = [run for run in waiting if run.exists()]
    print(f"{len(waiting) - len(left)} of {len(waiting)} runs tracked")
    return max((_explain(run, reason=reasons.get(run.parent, ""), name=_from(root, run)) for run in left), default=0)


def _explain(run: Path, *, reason: str, name: Path) -> int:
    """Say why a run is left. The exit status that this calls for."""
    if refused := read(run / REFUSED):
        print(f"refused: {name}: {refused}", file=sys.stderr)
        return 2
    if not reason:
        print(f"still running, its own uploader sends it: {name}")
        return 0
    print(f"not tracked yet: {name}: {reason}", file=sys.stderr)
    return 1


def drop(root: Path, given: Sequence[Path]) -> int:
    """Remove runs without tracking them. Exit status: 0, or 2 where one is no untracked run, or still in use."""
    status = 0
    for run in [path.resolve() for path in given]:
        if run.parents[1] != (root / UNTRACKED).resolve() or not (run / STAGE).is_file():
            print(f"error: {run} is not an untracked run: expected {UNTRACKED}/PIPELINE/RUN", file=sys.stderr)
            status = 2
            continue
        try:
            with alone(run.parent / untracked.LOCK, wait=not _in_use(run.parent)):
                shutil.rmtree(run)
                discard(run.parent)
            print(f"dropped: {_from(root, run)}")
        except BlockingIOError:
            print(f"error: {_from(root, run)} is in use: its pipeline is still running", file=sys.stderr)
            status = 2
    return status


def _from(root: Path, run: Path) -> Path:
    """As one types it at the project's root."""
    return run.relative_to(root) if run.is_relative_to(root) else run


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
