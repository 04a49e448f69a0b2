"""The DVC processes of one flow run, and their output.

DVC runs in a subprocess (`dvc --wait-for-lock repro -s STAGE`), because one Repo cannot serve several
threads, and in this process's own group, because Prefect cancels by signalling the group; it ends with this process,
also when that is killed. A stop flag keeps stages from starting after a cancel. `--wait-for-lock` does not cover the
lock that DVC holds on a stage's paths while the stage runs: where another DVC holds it, that is no failure of the
stage, which waits until the paths are free.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

BOUND = (sys.executable, "-I", "-S", str(Path(__file__).with_name("processes.py")))
DVC = (sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item")
RWLOCK = Path(".dvc") / "tmp" / "rwlock"
CORES = "CGN_CORES"
SKIPPED = ("didn't change, skipping", "is cached - skipping run")
PATIENCE_SECONDS = 8.0
STOP_SECONDS = 2.0
LOOK_SECONDS = 0.5
KEPT_LINES = 1000
BAD_INPUT = 2
TEMPORARY = 75  # of a stage whose download may succeed later
LOCKED = re.compile(r"ERROR: .*(Unable to acquire lock|database is locked).*")

# What DVC says around a stage, which Prefect shows otherwise or which is advice for a terminal.
CHATTER = re.compile(
    r"Running stage '.*':|Stage '.*' didn't change, skipping|Stage '.*' is cached - skipping run, checking out outputs"
    r"|(Generating|Updating) lock file '.*'|To track the changes with git, run:|\s*git add .*"
    r"|To enable auto staging, run:|\s*dvc config core\.autostage true|Use `dvc push` to send your updates .*"
    r"|Data and pipelines are up to date\.|If there are no processes with such PIDs, .*"
)
BUSY = re.compile(r".*'(?P<path>.*)' is busy, it is being blocked by:")
HOLDER = re.compile(r"\s*\(PID (?P<pid>\d+)\): (?P<command>.*)")
EXITED = re.compile(r"ERROR: failed to reproduce .*exited with (?P<status>-?\d+)")


class StoppedError(Exception):
    """The run was cancelled."""


@dataclass(frozen=True, kw_only=True)
class Busy:
    """What another DVC holds: one of the stage's paths, and the holders' process numbers and commands."""

    path: str
    holders: dict[int, str]

    def __str__(self) -> str:
        return " and ".join(f"PID {pid}, which runs {_short(command)}" for pid, command in self.holders.items())


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How DVC ended on one stage, and its lines with the stage's."""

    status: int
    lines: tuple[str, ...]

    @property
    def skipped(self) -> bool:
        """Whether the stage was up to date, or its outputs were restored."""
        return any(mark in line for line in self.lines for mark in SKIPPED)

    @property
    def exit_status(self) -> int:
        """The stage's exit status, negative for a signal; DVC's own where the stage did not run."""
        return self.status if self._exited is None else self._exited

    @property
    def temporary(self) -> bool:
        """Whether the failure is temporary: a server that is down, or a lock that DVC did not get."""
        locked = self._exited is None and any(LOCKED.match(line) for line in self.lines)
        return bool(self.status) and (locked or self._exited == TEMPORARY)

    @property
    def reason(self) -> str:
        """Why it failed: the last error line of a stage that refused its input, or of DVC; else the last line."""
        printed = [line.strip() for line in self.lines if not CHATTER.fullmatch(line) and not line.startswith("> ")]
        printed = [line for line in printed if not EXITED.match(line) and not line.startswith("note: ")]
        errors = [line for line in printed if line.startswith(("error: ", "ERROR: "))]
        refused = self._exited in (BAD_INPUT, TEMPORARY, None)
        return next((lines[-1] for lines in (errors if refused else [], printed) if lines), "it printed nothing")

    @property
    def _exited(self) -> int | None:
        found = [match for line in self.lines if (match := EXITED.match(line))]
        return int(found[-1]["status"]) if found else None

    @property
    def ended(self) -> str:
        """How it ended, in words."""
        if self.exit_status < 0 or self.exit_status > 128:
            number = -self.exit_status if self.exit_status < 0 else self.exit_status - 128
            if number in {known.value for known in signal.Signals}:
                return f"ended by {signal.Signals(number).name}"
        return f"exit status {self.exit_status}"

    @property
    def busy(self) -> Busy | None:
        """Who holds the stage's paths, where that is why DVC failed."""
        for index, line in enumerate(self.lines):
            if self.status and (match := BUSY.fullmatch(line)):
                found = [holder for after in self.lines[index + 1 :] if (holder := HOLDER.fullmatch(after))]
                return Busy(path=match["path"], holders={int(holder["pid"]): holder["command"] for holder in found})
        return None


@dataclass(frozen=True, kw_only=True)
class StageRunner:
    """The DVC processes of one flow run, and the flag that ends them all."""

    environment: dict[str, str]
    forced: Set[str] = frozenset()
    """The stages that run also where they are up to date."""
    stopped: threading.Event = field(default_factory=threading.Event)
    running: set[subprocess.Popen[str]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reproduce(self, stage: str, *, cores: int, log: Callable[[str], None]) -> Outcome:
        """Let DVC bring one stage up to date with so many cores. Raises StoppedError once the run was stopped."""
        lines = deque[str](maxlen=KEPT_LINES)
        process = self._start(stage, cores=cores)
        try:
            with process:
                assert process.stdout is not None
                for raw in process.stdout:
                    # of a progress bar, its last state
                    line = raw.rstrip("\n").rstrip("\r").rsplit("\r", 1)[-1].rstrip()
                    if line:
                        lines.append(line)
                        if not any(form.fullmatch(line) for form in (CHATTER, BUSY, HOLDER)):
                            log(line)
        finally:
            self.running.discard(process)
        outcome = Outcome(status=process.returncode, lines=tuple(lines))
        # a cancel signals the whole group: DVC may end before the flag is set
        ended = abs(outcome.exit_status) in (signal.SIGTERM, 128 + signal.SIGTERM)
        if self.stopped.wait(STOP_SECONDS if ended else 0) and outcome.status:
            raise StoppedError
        return outcome

    def wait(self, busy: Busy) -> None:
        """Return when the paths are free, or their holders gone. Raises StoppedError once the run was stopped."""
        while True:
            self.pause(LOOK_SECONDS)
            if not held(busy):
                forget_dead(busy)
                return

    def pause(self, seconds: float) -> None:
        """Raises StoppedError once the run was stopped."""
        if self.stopped.wait(seconds):
            raise StoppedError

    def stop(self) -> None:
        """Start nothing more; end what runs."""
        with self.lock:
            self.stopped.set()
            running = list(self.running)
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()

    def _start(self, stage: str, *, cores: int) -> "subprocess.Popen[str]":
        command = [*BOUND, str(os.getpid()), *DVC, *(["--force"] if stage in self.forced else []), stage]
        with self.lock:
            if self.stopped.is_set():
                raise StoppedError
            process = subprocess.Popen(
                command,
                env=self.environment | {CORES: str(cores)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
            )
            self.running.add(process)
        return process


def held(busy: Busy) -> bool:
    """Whether a living holder still has the path, by the file that DVC keeps; a file that cannot be read says no."""
    try:
        lock = json.loads(RWLOCK.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    entries = [(path, entry) for path, entry in lock.get("write", {}).items()]
    entries += [(path, entry) for path, readers in lock.get("read", {}).items() for entry in readers]
    return any(
        entry["pid"] in busy.holders and _overlap(path, busy.path) and _is_holder(entry) for path, entry in entries
    )


def forget_dead(busy: Busy) -> None:
    """Drop from DVC's lock the holders who are dead, but whose number is taken: by a zombie, or another process since.

    DVC itself drops those whose number is free. Where its lock cannot be had it is left as it is: DVC is started again.
    """
    if not any(psutil.pid_exists(pid) for pid in busy.holders):
        return
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]
    from dvc.fs import localfs  # type: ignore[import-untyped]
    from dvc.rwlock import _edit_rwlock  # type: ignore[import-untyped]

    def dead(entry: Mapping[str, Any]) -> bool:
        return entry["pid"] in busy.holders and not _is_holder(entry)

    with suppress(DvcException, OSError), _edit_rwlock(str(RWLOCK.parent), localfs, False) as lock:
        for path in [path for path, entry in lock["write"].items() if dead(entry)]:
            del lock["write"][path]
        for path, readers in lock["read"].items():
            lock["read"][path] = [entry for entry in readers if not dead(entry)]


def _is_holder(entry: Mapping[str, Any]) -> bool:
    """Whether the process of a lock's entry lives and is the one that created it, by the words of its command."""
    words = str(entry["cmd"]).partition(" ")[2]
    try:
        process = psutil.Process(int(entry["pid"]))
        return process.status() != psutil.STATUS_ZOMBIE and words in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _overlap(one: str, other: str) -> bool:
    return Path(one).is_relative_to(other) or Path(other).is_relative_to(one)


def _short(command: str) -> str:
    """DVC's command without the place of its program."""
    program, _, words = command.partition(" ")
    return f"dvc {words}" if "dvc" in Path(program).parts[-2:] else command
