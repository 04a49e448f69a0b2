"""python -m flows.stage VERB TRACK/VARIANT --role PATH ...: one stage, tracked. What dvc.yaml calls.

Decided here: it takes the command line of `python -m cgn` and runs it in this process, through the front door. Tracking
is left to a process that the pipeline's stages share; the stage only writes a journal. The stage dies with its parent:
killing dvc leaves no stage behind that a second dvc would start a copy of. SIGTERM becomes SystemExit, so everything is
unwound and the run ends in MLflow as KILLED.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType

from flows import tracking
from flows.cache import repaired
from flows.journal import Journal, project_root
from flows.lineage import is_alive, nearest_dvc, pipeline

PR_SET_PDEATHSIG = 1
WATCH_SECONDS = 0.5

FrontDoor = Callable[[Sequence[str], Journal], None]


def main(argv: Sequence[str], *, front_door: FrontDoor | None = None) -> int:
    """Exit status: 0, or 2 for what the user can mend (told in one line)."""
    die_with_parent()
    signal.signal(signal.SIGTERM, _terminate)
    root = project_root()
    os.environ.setdefault("CGN_ROOT", str(root))  # the user's data is not in a temporary copy of the checkout
    journal = Journal(root, pipeline=pipeline())
    tracking.start(journal)
    status, message = "FAILED", ""
    try:
        (front_door or _cgn)(argv, journal)
        status = "FINISHED"
    except (SystemExit, KeyboardInterrupt):
        status = "KILLED"
        raise
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        if not _mendable(error):
            raise
        print(f"error: {error}{repaired(message)}", file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the rest is short, and must not be left half done
        journal.end(status, message=message)
        tracking.settle(journal)
    return 0


def die_with_parent() -> None:
    """Receive SIGTERM when the parent dies, from the kernel (Linux), or when DVC dies above a shell that stays."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the kernel was asked
            raise SystemExit(128 + signal.SIGTERM)
    if dvc := nearest_dvc():
        threading.Thread(target=_watch, args=(dvc,), daemon=True, name="watch over dvc").start()


def _watch(process: str) -> None:
    while is_alive(process):
        time.sleep(WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _cgn(argv: Sequence[str], journal: Journal) -> None:
    from cgn.__main__ import parse, run

    call = parse(argv)
    track, _, variant = call.target.partition("/")
    name = "/".join(part for part in call.out.parts if part != "runs")
    facts = {"name": name, "verb": call.verb, "track": track, "variant": variant, "command": " ".join(argv)}
    facts |= {f"option.{key}": str(value) for key, value in call.defining.items()}
    inputs = {role: [str(path) for path in paths] for role, paths in call.inputs.items()}
    journal.begin(facts | {"inputs": inputs}, out=call.out, log=call.log)
    run(argv, sinks=[journal])


def _mendable(error: Exception) -> bool:
    from cgn.core.errors import CgnError

    return isinstance(error, CgnError)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
