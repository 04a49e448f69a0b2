"""python flows/bound.py PID COMMAND ...: the command, which gets SIGTERM as soon as its parent PID ends, however.

Decided here: the kernel does it (PR_SET_PDEATHSIG, Linux), because a parent that was killed can do nothing itself; the
setting survives exec, so the command is this process, under its own name. It is a file that imports next to nothing,
because it stands before every stage. Python's preexec_fn would do the same, and may hang in a process with threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Receive SIGTERM when the parent dies; SystemExit where it is dead already. Nothing happens outside Linux.

    The kernel means the parent's thread that started this process, so that thread has to wait for it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the kernel was asked
            raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
