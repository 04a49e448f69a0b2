"""python -m flows.stage VERB TRACK/VARIANT --role PATH ...: one stage, tracked. What dvc.yaml calls.

It takes the command line of `python -m cgn` and runs it in this process, through the front door. Tracking is left to a
process that the pipeline's stages share. The stage ends with its parent and with its pipeline: killing DVC or the flow
leaves no stage behind that a second DVC would start a copy of. SIGTERM becomes SystemExit, so everything is unwound and
the run ends in MLflow as KILLED; a stage that cannot be unwound is killed. A stage that computes on GPUs has them alone
(`flows.gpus`).

Exit status: 0; 2 for what the user can fix; 75 for a download that may succeed later, the only one that a flow tries
again after; 1 with a traceback for anything else; 143 after SIGTERM.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import FrameType
from typing import Any

from cgn.core.errors import CgnError, ConfigError
from flows import gpus
from flows.processes import end_with, is_alive, nearest_dvc
from flows.untracked import UntrackedRun, current_pipeline, project_root

WATCH_SECONDS = 0.5
UNWIND_SECONDS = 20.0

FrontDoor = Callable[[Sequence[str], UntrackedRun], None]


def main(argv: Sequence[str], *, front_door: FrontDoor | None = None) -> int:
    """Exit status as above; what the user can fix is printed in one line."""
    run = UntrackedRun(project_root(), pipeline=current_pipeline())
    die_with_parent(run.pipeline.process)
    signal.signal(signal.SIGTERM, _terminate)
    os.environ.setdefault("CGN_ROOT", str(project_root()))  # a temporary copy of the checkout lacks the user's data
    status, message = "FAILED", ""
    try:
        (front_door or _cgn)(argv, run)
        status = "FINISHED"
    except (SystemExit, KeyboardInterrupt):
        status = "KILLED"
        raise
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        if not isinstance(error, CgnError):
            raise
        from flows.cache import repaired

        print(f"error: {error}{repaired(message)}", file=sys.stderr)
        return error.exit_status
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the rest is short, and must not be left half done
        run.end(status, message=message)
    return 0


def die_with_parent(pipeline_process: str) -> None:
    """Receive SIGTERM when the parent dies, or DVC above a shell that stays, or the pipeline that DVC is part of."""
    end_with(os.getppid())
    above = {process for process in (nearest_dvc(), pipeline_process) if process}
    threading.Thread(target=_watch, args=(above,), daemon=True, name="watch over dvc and the pipeline").start()


def _watch(processes: set[str]) -> None:
    while all(is_alive(process) for process in processes):
        time.sleep(WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(UNWIND_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _cgn(argv: Sequence[str], tracked: UntrackedRun) -> None:
    from cgn.__main__ import VERBS, configured, parse, run

    call = parse(argv)
    track, _, variant = call.target.partition("/")
    name = " ".join([call.verb, call.target, *(str(value) for value in call.defining.values())])
    facts = {"name": name, "verb": call.verb, "track": track, "variant": variant, "command": " ".join(argv)}
    facts |= {"about": VERBS[call.verb], "output": call.output}
    facts |= {f"option.{key}": str(value) for key, value in call.defining.items()}
    inputs = {role: [str(path) for path in paths] for role, paths in call.inputs.items()}
    tracked.begin(facts | {"inputs": inputs}, out=call.out, log=call.log)
    count = _gpus(call, configured(call)[1])
    with ExitStack() as stack:
        try:
            stack.enter_context(gpus.claimed(count, holder=f"{call.verb} {call.target}"))
        except OSError as error:
            remedy = f"name a folder of your own in {gpus.FOLDER}, or set {gpus.SHARE}=1"
            raise ConfigError(f"no GPU can be claimed ({error}): {remedy}") from None
        run(call, sinks=[tracked])


def _gpus(call: Any, config: Any) -> int | None:
    """How many GPUs of this machine a stage computes on where there are any; None: as many as it can get.

    One that computes on a Ray cluster takes those that Ray gives it. Its process here, which draws the sheets, then
    sees none of this machine's.
    """
    if getattr(config, "accelerator", "cpu") == "cpu":
        return 0
    cluster = call.options["ray"] or os.environ.get("RAY_ADDRESS", "") if "ray" in call.options else ""
    if cluster not in ("", "local"):
        os.environ[gpus.VISIBLE] = ""
        return 0
    return None if cluster or call.verb == "generate" else getattr(config, "devices", 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
