"""What the lines that a stage prints change in Prefect while it runs: the run's log, the task's state, its progress."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from logging import Logger, LoggerAdapter
from uuid import UUID

from prefect import get_client, get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import task_run
from prefect.states import Running

from flows.artifacts import artifact_key
from flows.gpus import WAITING

PROGRESS = re.compile(r"[\d,]+ of [\d,]+ .*\((?P<percent>\d+)%\), .* to go")  # as cgn.core.progress prints it


class Live:
    """Takes a stage's lines, inside its task. A server that is away stops no stage: what it misses is not shown."""

    def __init__(self, stage: str) -> None:
        self.stage, self.logger = stage, get_run_logger()
        self.waiting = False
        self.progress: UUID | None = None

    def __call__(self, line: str) -> None:
        """Log the line; show a wait as a state and progress as an artifact, which only long stages have."""
        self.logger.info(line)
        if line.startswith(WAITING) != self.waiting:
            self.waiting = not self.waiting
            self.state("Waiting" if self.waiting else "", message=line if self.waiting else "")
        if found := PROGRESS.search(line):
            self.show(float(found["percent"]), text=found[0])

    def state(self, name: str, *, message: str = "") -> None:
        """Show a state while the task goes on; without a name that it runs."""
        state: State[None] = Running(name=name, message=message) if name else Running()
        with optional(self.logger), get_client(sync_client=True) as client:
            client.set_task_run_state(UUID(str(task_run.id)), state, force=True)

    def retry(self, reason: str, *, seconds: float) -> None:
        """The stage failed for a temporary reason, and is tried again."""
        self.logger.warning(f"tried again in {seconds:.0f} s: {reason}")
        self.state("Retrying", message=reason)

    def show(self, percent: float, *, text: str) -> None:
        """Move the progress artifact, which the first call creates."""
        with optional(self.logger):
            if self.progress is None:
                key = artifact_key(self.stage, "progress")
                artifact = create_progress_artifact(percent, key=key, description=f"{self.stage}: {text}")
                self.progress = UUID(str(artifact))
            else:
                update_progress_artifact(self.progress, percent, description=f"{self.stage}: {text}")

    def made(self) -> None:
        """The stage has ended well."""
        if self.progress is not None:
            self.show(100.0, text="made")


@contextmanager
def optional(logger: "Logger | LoggerAdapter[Logger]") -> Iterator[None]:
    """What the pages show is not worth a stage: where Prefect's server fails, say so and go on."""
    try:
        yield
    except Exception as error:  # of Prefect, or of the library by which it asks
        logger.warning(f"not shown, because Prefect's server failed: {type(error).__name__}: {error}")
