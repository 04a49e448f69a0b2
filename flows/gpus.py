"""A GPU for each stage: one file lock for each GPU, for all pipelines of a user on this machine.

A training claims as many GPUs as its `devices` says, an evaluation one, a generation all that are free, at least one.
The stage then sees only these (CUDA_VISIBLE_DEVICES). A stage that finds none free waits, and prints which processes
hold them. The kernel frees a lock when its process ends, also when it is killed; a limit on a server would stay taken.
Any number of stages without a GPU work at the same time. Where nvidia-smi lists no GPU, nothing is claimed.

Another program that needs GPUs to itself, such as a node of Ray, claims them in the same way:

    python -m flows.gpus ray start --address HEAD:6379 --block    # all that are free, until it ends

    CGN_SHARE_GPUS=1           stages may share GPUs: nothing is claimed
    CGN_GPU_LOCKS=FOLDER       where the locks are, for several users of one machine; all must be able to write there
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from flows.untracked import alone, read_text

SHARE, FOLDER, VISIBLE = "CGN_SHARE_GPUS", "CGN_GPU_LOCKS", "CUDA_VISIBLE_DEVICES"
QUERY = ("nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader")
LOOK_SECONDS = 1.0
WAITING = "waiting for a GPU"
"""What the line begins with that a stage prints when it waits."""


def main(command: Sequence[str]) -> int:
    """Run a command that has all free GPUs to itself; its exit status."""
    from flows.stage_runner import BOUND

    if not command:
        print("usage: python -m flows.gpus COMMAND ...", file=sys.stderr)
        return 2
    with claimed(None, holder=" ".join(command[:2])):
        return subprocess.run([*BOUND, str(os.getpid()), *command], check=False).returncode


@contextmanager
def claimed(count: int | None, *, holder: str) -> Iterator[None]:
    """Hold `count` GPUs of those that this process sees, or all that are free (None), and show it no others.

    It waits until they are free. Where this process sees fewer than `count`, it holds none: the library refuses that,
    or computes on the CPU. Raises OSError where no lock can be made.
    """
    seen = [] if count == 0 or os.environ.get(SHARE) == "1" else visible()
    if len(seen) < (count or 1):
        yield
        return
    with ExitStack() as stack:
        said = False
        while not (held := _held(seen, count=count, holder=holder, stack=stack)):
            if not said:
                used = [f"{gpu} is used by {read_text(_lock(gpu)) or 'another stage'}" for gpu in seen]
                print(f"{WAITING}: {'; '.join(used)}", flush=True)
            said = True
            time.sleep(LOOK_SECONDS)
        os.environ[VISIBLE] = ",".join(held)
        print(f"{holder} has {', '.join(held)}", flush=True)
        yield


def visible() -> list[str]:
    """The GPUs that this process may use, by their UUIDs: the same names in every process."""
    try:
        listed = subprocess.run(QUERY, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return []
    given = os.environ.get(VISIBLE)
    if given is None:
        return listed
    words = [word.strip() for word in given.split(",")]
    return [
        listed[int(word)] if word.isdecimal() and int(word) < len(listed) else word
        for word in words
        if word not in ("", "-1")
    ]


def locks() -> Path:
    """The folder of the locks: of this machine and user, unless the environment names another.

    Raises PermissionError where somebody else made it: links in it would have this user write into files of theirs.
    """
    if given := os.environ.get(FOLDER):
        return Path(given)
    folder = Path(tempfile.gettempdir()) / f"cgn-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    return folder


def _held(seen: Sequence[str], *, count: int | None, holder: str, stack: ExitStack) -> list[str]:
    """The GPUs that are held now: `count`, or none at all, so that two stages that want several never deadlock."""
    held: list[str] = []
    with ExitStack() as found:
        for gpu in seen:
            if len(held) < (count or len(seen)):
                with suppress(BlockingIOError):
                    found.enter_context(alone(_lock(gpu), wait=False))
                    held.append(gpu)
        if len(held) < (count or 1):
            return []
        for gpu in held:
            _lock(gpu).write_text(f"PID {os.getpid()}, {holder}", encoding="utf-8")
            with suppress(PermissionError):  # of another user, who did the same
                _lock(gpu).chmod(locks().stat().st_mode & 0o666)  # whoever may use the folder may lock
        stack.enter_context(found.pop_all())
    return held


def _lock(gpu: str) -> Path:
    return locks() / f"{gpu.replace('/', '-')}.lock"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
