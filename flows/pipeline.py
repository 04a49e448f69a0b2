"""The flow `cgn`: one Prefect task for each DVC stage, edges from DVC's graph, each task asking DVC for its stage.

Decided here: DVC is asked in a subprocess (`dvc --wait-for-lock repro -s STAGE`), because one Repo cannot serve several
threads, and in this process's own group, because Prefect cancels by signalling the group. A stop flag keeps tasks that
were still queued from starting a stage after that. The cache is DVC's alone; a stage it skips is shown as Cached. A
retry never follows a cancel, and a stage that failed stops only what needs it.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.exhibits import show
from flows.graph import Stage, read, wanted
from flows.journal import count_stages
from flows.lineage import Pipeline, alive

DVC = (sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item")
SKIPPED = ("didn't change, skipping", "is cached - skipping run")
LAST_LINES = 5
PATIENCE_SECONDS = 8.0
RUNNER: Any = ThreadPoolTaskRunner(max_workers=256)  # so many may wait; Crew.slots decides who works


@dataclass(frozen=True, kw_only=True)
class Crew:
    """The DVC processes of one flow run: how many may work at once, and the flag that ends them all."""

    slots: threading.Semaphore
    environment: dict[str, str]
    force: bool
    stopped: threading.Event = field(default_factory=threading.Event)
    working: set[subprocess.Popen[str]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def process(self, stage: str) -> Iterator[subprocess.Popen[str]]:
        """DVC at work on one stage. Raises RuntimeError once the run was stopped."""
        command = [*DVC, *(["--force"] if self.force else []), stage]
        with self.slots:
            with self.lock:
                if self.stopped.is_set():
                    raise RuntimeError(f"{stage} was not started: the run was stopped")
                process = subprocess.Popen(
                    command,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    encoding="utf-8",
                    errors="replace",
                )
                self.working.add(process)
            try:
                with process:
                    yield process
            finally:
                self.working.discard(process)

    def stop(self) -> None:
        """Start nothing more; end what works."""
        with self.lock:
            self.stopped.set()
            working = list(self.working)
        for process in working:
            process.terminate()
        for process in working:
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


@task(cache_policy=NO_CACHE, persist_result=False)
def reproduce(stage: Stage, crew: Crew) -> State[None]:
    """Let DVC bring one stage up to date; its output goes to the run's log line by line."""
    logger = get_run_logger()
    skipped, lines = False, []
    with crew.process(stage.name) as process:
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.rstrip("\n").rstrip("\r").rsplit("\r", 1)[-1].rstrip()  # of a progress bar, its last state
            if line:
                logger.info(line)
                lines.append(line)
                skipped = skipped or any(mark in line for mark in SKIPPED)
    if process.returncode:
        said = "\n".join(lines[-LAST_LINES:])
        raise RuntimeError(f"{stage.name} failed (dvc ended with {process.returncode}):\n{said}")
    show(stage)
    if skipped:
        return Completed(name="Cached", message="up to date: nothing ran")
    return Completed(message="made")


@flow(name="cgn", task_runner=RUNNER)
def cgn(targets: list[str] | None = None, retries: int = 0, at_once: int = 2, force: bool = False) -> None:
    """Bring the stages up to date that match `targets` (patterns of names; all by default), and what they need.

    `at_once` stages may work side by side; a stage that fails is tried again `retries` times; `force` runs stages that
    are up to date as well.
    """
    if at_once < 1:
        raise ValueError(f"at_once is {at_once}: expected 1 or more")
    root = Path.cwd()
    stages = wanted(read(), targets=targets or ["*"])
    crew = Crew(slots=threading.Semaphore(at_once), environment=_environment(root), force=force)
    futures: dict[str, PrefectFuture[Any]] = {}
    try:
        for stage in stages.values():
            named = reproduce.with_options(
                name=stage.name.partition("@")[0],
                task_run_name=stage.name.replace("{", "(").replace("}", ")"),
                retries=retries,
                retry_condition_fn=lambda _task, _run, _state: not crew.stopped.is_set(),
            )
            futures[stage.name] = named.submit(  # type: ignore[call-overload]
                stage, crew, wait_for=[futures[name] for name in stage.needs]
            )
        wait(list(futures.values()))
    except BaseException:
        crew.stop()
        raise
    cached = sum(future.state.name == "Cached" for future in futures.values())
    count_stages(root, key=str(flow_run.id), counts={"cached": cached})
    unfinished = [name for name, future in futures.items() if not future.state.is_completed()]
    if unfinished:
        raise RuntimeError(f"not finished: {', '.join(unfinished)}")


def _environment(root: Path) -> dict[str, str]:
    """The stages' environment: this interpreter first, and the flow run as the pipeline that tracking nests them in."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), environment.get("PYTHONPATH")]))
    if flow_run.id:
        parameters = {name: str(value) for name, value in flow_run.parameters.items()}
        mine = Pipeline(
            key=str(flow_run.id), name=f"{flow_run.name}", process=alive(os.getpid()), parameters=parameters
        )
        environment |= mine.environment
    return environment


if __name__ == "__main__":
    cgn()
