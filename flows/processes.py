"""What flows knows of processes: names that no later process shares, the DVC processes above, and ending together.

    python flows/processes.py PID COMMAND ...    run the command, which gets SIGTERM as soon as its parent PID ends

A process is named by its start since the boot, which setting the clock does not change; its time of day does change.
That a child ends with its parent is left to the kernel (PR_SET_PDEATHSIG, Linux), because a parent that was killed can
do nothing itself; the setting survives exec, so the command above is this process, under its own name. Python's
preexec_fn would do the same, and may hang in a process with threads. The command stands before every stage of a flow,
so this file loads psutil only where it is used.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PR_SET_PDEATHSIG = 1
BOOT = Path("/proc/sys/kernel/random/boot_id")


def alive(pid: int) -> str:
    """A living process as `pid-start-boot`, which no later process shares; empty for one that has ended."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return ""
        # psutil's own identity: without the clock where the system has such a time, and the same in every process
        return f"{pid}-{hash(process) & 0xFFFFFFFFFFFF:x}{_boot()}"
    except psutil.Error:
        return ""


def is_alive(process: str) -> bool:
    """Whether the process that `alive` named still lives; an empty name is that of a process that has ended."""
    return process != "" and alive(int(process.partition("-")[0])) == process


def dvc_above() -> Iterator[tuple[str, list[str]]]:
    """The DVC processes above this one, nearest first: the name by `alive`, and the command in words."""
    pid = os.getppid()
    while pid > 0:
        above, line = _parent_and_command(pid)
        if (start := _dvc_word(line)) is not None:
            yield alive(pid), ["dvc", *line[start + 1 :]]
        pid = above


def nearest_dvc() -> str | None:
    """The DVC process that runs this stage, as `alive` names it: the parent, or above a shell."""
    return next((process for process, _ in dvc_above()), None)


def end_with(parent: int) -> None:
    """Receive SIGTERM when the parent dies; SystemExit where it is dead already. Nothing happens outside Linux.

    The kernel means the parent's thread that started this process, so that thread has to wait for it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the kernel was asked
            raise SystemExit(128 + signal.SIGTERM)


@cache
def _boot() -> str:
    """The boot that starts are counted from: the same process number and start may come again after the next one."""
    try:
        return "-" + BOOT.read_text(encoding="utf-8")[:8]
    except OSError:
        return ""


def _parent_and_command(pid: int) -> tuple[int, list[str]]:
    """A process's parent and its command in words; (0, []) for one that has ended.

    psutil's `parents` would compare times of day, and stop where the clock was set.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        return process.ppid(), process.cmdline()
    except psutil.Error:
        return 0, []


def _dvc_word(line: list[str]) -> int | None:
    """Where in a command line DVC is named: `dvc`, `python .../bin/dvc`, `python -m dvc`."""
    for index, word in enumerate(line[:3]):
        if Path(word).name == "dvc" and (index < 2 or line[index - 1] == "-m"):
            return index
    return None


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
