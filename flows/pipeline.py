"""The flow `cgn`: one Prefect task for each DVC stage, edges from DVC's graph, each task asking DVC for its stage.

Decided here: a stage becomes a task when what it needs is up to date and one of the `at_once` places is free, so that
no task waits in a state that says it works, and none is left over when the run ends. The cache is DVC's alone; a stage
it skips is shown as Cached. A retry never follows a cancel, nor bad input, which would be refused again. A stage that
failed stops only what needs it, and the run says which those are.
"""

import os
import re
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from uuid import UUID

from prefect import flow, get_client, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.runtime import deployment, flow_run, task_run
from prefect.states import Cancelled, Completed, Failed, Running
from prefect.task_runners import ThreadPoolTaskRunner
from ruamel.yaml import YAML

from cgn.core.devices import usable_cores
from flows.crew import BAD_INPUT, Crew, StoppedError
from flows.exhibits import show, show_new
from flows.graph import Stage, all_needs, read, ready, share, wanted
from flows.journal import count_stages
from flows.lineage import Pipeline, alive

RUNNER: Any = ThreadPoolTaskRunner(max_workers=256)  # the flow decides how many work
DEPLOYMENTS = Path("pipelines.yaml")
RANDOM_NAME = re.compile(r"[a-z]+-[a-z]+")  # as Prefect makes them


@task(cache_policy=NO_CACHE, persist_result=False)
def reproduce(stage: Stage, crew: Crew, cores: int) -> State[Any]:
    """Let DVC bring one stage up to date; the stage's output goes to the run's log line by line."""
    logger = get_run_logger()
    try:
        answer = crew.ask(stage.name, cores=cores, say=logger.info)
        while busy := answer.busy:
            logger.info(f"waiting for {busy}: it holds {busy.path}")
            _set_state(Running(name="Waiting", message=f"for {busy}"))
            crew.wait(busy)
            _set_state(Running())
            answer = crew.ask(stage.name, cores=cores, say=logger.info)
    except StoppedError:
        return Cancelled(message="the run was cancelled")
    if answer.status:
        return Failed(message=f"{answer.reason} ({answer.ended})", data=answer.exit_status)
    if answer.skipped:
        show_new(stage)
        return Completed(name="Cached", message="up to date: nothing ran")
    show(stage)
    return Completed(message="made")


def _run_name() -> str:
    """The deployment and the time, unless whoever started the run named it."""
    given = str(flow_run.name or "")
    if given and not RANDOM_NAME.fullmatch(given):
        return given
    return f"{deployment.name or 'cgn'} {datetime.now().astimezone():%Y-%m-%d %H:%M:%S}"


@flow(name="cgn", flow_run_name=_run_name, task_runner=RUNNER)
def cgn(
    targets: list[str] | None = None, retries: int = 0, at_once: int = 2, force: bool = False
) -> State[None] | None:
    """Bring the stages up to date that match `targets` (patterns of names; all by default), and what they need.

    `at_once` stages may work side by side and share the processor's cores; a stage that fails is tried again `retries`
    times, but not one that refuses its input (exit status 2); `force` runs stages that are up to date as well.
    """
    if at_once < 1:
        raise ValueError(f"at_once is {at_once}: expected 1 or more")
    logger = get_run_logger()
    if warning := _dropped():
        logger.warning(warning)
    stages = wanted(read(), targets=targets or ["*"])
    logger.info(f"{len(stages)} stages: {', '.join(stages)}")
    crew = Crew(environment=_environment(Path.cwd()), force=force)
    try:
        ended = _work(stages, crew=crew, at_once=at_once, retries=retries)
    except BaseException:
        crew.stop()
        raise
    cached = sum(state.name == "Cached" for state in ended.values())
    count_stages(Path.cwd(), key=str(flow_run.id), counts={"cached": cached})
    failed = {name: str(state.message) for name, state in ended.items() if not state.is_completed()}
    return Failed(message=failure(stages, failed=failed)) if failed else None


def _work(stages: Mapping[str, Stage], *, crew: Crew, at_once: int, retries: int) -> dict[str, State[Any]]:
    """The last states of the stages that were begun."""
    cores = usable_cores()
    futures: dict[str, PrefectFuture[Any]] = {}
    ended: dict[str, State[Any]] = {}
    news: SimpleQueue[str] = SimpleQueue()
    while True:
        done = {name for name, state in ended.items() if state.is_completed()}
        free = at_once - (len(futures) - len(ended))
        for stage in ready(stages, begun=futures.keys(), done=done)[:free]:
            part = share(stages, stage.name, ended=ended.keys(), cores=cores, at_once=at_once)
            named = reproduce.with_options(
                name=stage.name,
                task_run_name=stage.name.replace("{", "(").replace("}", ")"),
                retries=retries,
                retry_condition_fn=lambda _task, _run, state: again(state, crew=crew),
            )
            future = named.submit(  # type: ignore[call-overload]
                stage, crew, part, wait_for=[futures[name] for name in stage.needs]
            )
            futures[stage.name] = future
            future.add_done_callback(lambda _future, name=stage.name: news.put(name))
        if len(futures) == len(ended):
            return ended
        name = news.get()
        futures[name].wait()  # the state that it ended with, not the one that the server knows so far
        ended[name] = futures[name].state


def again(state: State[Any], *, crew: Crew) -> bool:
    """Whether a stage that ended in this state is worth another try."""
    return not crew.stopped.is_set() and state.data != BAD_INPUT


def failure(stages: Mapping[str, Stage], *, failed: Mapping[str, str]) -> str:
    """What failed, why, and what was therefore not started."""
    said = [f"{name} failed: {why}" for name, why in failed.items()]
    left = [name for name in stages if all_needs(stages, name) & failed.keys()]
    if left:
        said.append(f"not started, because they need what failed: {', '.join(left)}")
    return "\n".join(said)


def _set_state(state: State[Any]) -> None:
    """Show a task's state in Prefect while the task goes on."""
    with get_client(sync_client=True) as client:
        client.set_task_run_state(UUID(str(task_run.id)), state, force=True)


def _dropped() -> str:
    """A warning where a schedule started this run that the deployment file does not have any more."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or not context.flow_run.auto_scheduled or not DEPLOYMENTS.is_file():
        return ""
    known = YAML(typ="safe").load(DEPLOYMENTS)["deployments"]
    if any(entry.get("name") == deployment.name and entry.get("schedules") for entry in known):
        return ""
    return (
        f"a schedule started this run, and {DEPLOYMENTS} has none for {deployment.name}: to end it, "
        f"prefect deployment schedule clear -y cgn/{deployment.name}"
    )


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
    sys.exit(not cgn(return_state=True).is_completed())
