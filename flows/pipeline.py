"""The flow `cgn`: one Prefect task for each DVC stage, edges from DVC's graph; each task has DVC run its stage.

A run with parameters or variants of its own works in a workspace of its own (`flows.experiment`), any other in the
checkout. A stage becomes a task when what it needs is up to date and one of the `at_once` places is free, so that no
task waits in a state that says it runs, and none is left over when the run ends. The cache is DVC's alone; a stage it
skips is shown as Cached. A stage is tried again only after a temporary failure, a server that is down or a lock that is
held: bad input would be refused again. A failed stage stops only the stages that need it; the run names them.
"""

import os
import re
import sys
import time
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from uuid import UUID

from prefect import flow, get_client, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from ruamel.yaml import YAML

from cgn.core.devices import usable_cores
from flows.artifacts import show, show_new
from flows.experiment import Workspace, workspace
from flows.graph import Stage, all_needs, onward, read_graph, ready, share, wanted
from flows.live import Live, optional
from flows.processes import alive
from flows.stage_runner import Outcome, StageRunner, StoppedError
from flows.summary import evaluation, summarize, title
from flows.untracked import Pipeline, end_pipeline

RUNNER: Any = ThreadPoolTaskRunner(max_workers=256)  # the flow decides how many run
DEPLOYMENTS = Path("pipelines.yaml")
RANDOM_NAME = re.compile(r"[a-z]+-[a-z]+")  # as Prefect makes them
BACK_OFF_SECONDS = 10.0
"""Before the second try of a stage; twice as long before each one after it."""


@task(cache_policy=NO_CACHE, persist_result=False)
def reproduce(stage: Stage, runner: StageRunner, cores: int, retries: int) -> State[Any]:
    """Let DVC bring one stage up to date; the stage's output goes to the run's log line by line."""
    live, begun = Live(stage.name), time.monotonic()
    try:
        outcome = _patiently(stage, runner, live=live, cores=cores)
        for retry in range(retries):
            if not outcome.temporary:
                break
            seconds = BACK_OFF_SECONDS * 2**retry
            live.retry(outcome.reason, seconds=seconds)
            runner.pause(seconds)
            live.state("")
            outcome = _patiently(stage, runner, live=live, cores=cores)
    except StoppedError:
        return Cancelled(message="the run was cancelled")
    if outcome.status:
        return Failed(message=f"{outcome.reason} ({outcome.ended})", data=outcome.exit_status)
    if outcome.skipped:
        with optional(live.logger):
            show_new(stage)
        return Completed(name="Cached", message="up to date: nothing ran")
    live.made()
    with optional(live.logger):
        show(stage)
    return Completed(message=f"made in {time.monotonic() - begun:,.1f} s")


def _patiently(stage: Stage, runner: StageRunner, *, live: Live, cores: int) -> Outcome:
    """One try, repeated while another DVC holds the stage's paths. Raises StoppedError once the run was stopped."""
    while True:
        outcome = runner.reproduce(stage.name, cores=cores, log=live)
        if not (busy := outcome.busy):
            return outcome
        live.logger.info(f"waiting for {busy}: it holds {busy.path}")
        live.state("Waiting", message=f"for {busy}")
        runner.wait(busy)
        live.state("")


def _first_name() -> str:
    """The run's name until the stages are known: the user's, else the deployment's."""
    given = str(flow_run.name or "")
    return given if given and not RANDOM_NAME.fullmatch(given) else str(deployment.name or "cgn")


@flow(name="cgn", flow_run_name=_first_name, task_runner=RUNNER)
def cgn(
    targets: list[str] | None = None,
    *,
    variants: list[str] | None = None,
    overrides: dict[str, Any] | None = None,
    from_stage: str | None = None,
    retries: int = 0,
    at_once: int = 2,
    force: bool = False,
) -> State[None] | None:
    """Bring the stages up to date that match `targets` (patterns of names; all by default), and what they need.

    `variants` (instead of params.yaml's active ones) and `overrides` (values by dotted keys of params.yaml) run as an
    experiment of DVC. `from_stage` (a name or pattern) runs stages, and what needs them, also where they are up to
    date, `force` all. `at_once` stages may work side by side and share the processor's cores; a stage that failed for
    a temporary reason (exit status 75) is tried again `retries` times.
    """
    for name, value, least in (("at_once", at_once, 1), ("retries", retries, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}: expected {least} or more")
    logger = get_run_logger()
    if warning := _dropped():
        logger.warning(warning)
    experiment = workspace(Path.cwd(), overrides=overrides or {}, variants=variants or [], log=logger.info)
    with experiment as place, chdir(place.folder):
        stages = wanted(read_graph(), targets=targets or ["*"])
        logger.info(f"{len(stages)} stages: {', '.join(stages)}")
        forced = set(stages) if force else onward(stages, from_stage) if from_stage else set()
        name = title(stages, deployment=_first_name(), changed=len(overrides or {}), from_stage=from_stage, force=force)
        name = rename(name)
        runner = StageRunner(environment=_environment(place.folder, name=name) | place.environment, forced=forced)
        ended = _work(stages, runner=runner, at_once=at_once, retries=retries)
        return _concluded(stages, ended=ended, name=name, place=place)


def _work(stages: Mapping[str, Stage], *, runner: StageRunner, at_once: int, retries: int) -> dict[str, State[Any]]:
    """The last states of the stages that were begun. Any exception, a cancel too, stops the stages."""
    try:
        return _in_order(stages, runner=runner, at_once=at_once, retries=retries)
    except BaseException:
        runner.stop()
        raise


def _in_order(stages: Mapping[str, Stage], *, runner: StageRunner, at_once: int, retries: int) -> dict[str, State[Any]]:
    """Begin each stage when what it needs is up to date and a place is free, until none is left that can begin."""
    cores = usable_cores()
    futures: dict[str, PrefectFuture[Any]] = {}
    ended: dict[str, State[Any]] = {}
    news: SimpleQueue[str] = SimpleQueue()
    while True:
        done = {name for name, state in ended.items() if state.is_completed()}
        free = at_once - (len(futures) - len(ended))
        for stage in ready(stages, begun=futures.keys(), done=done)[:free]:
            part = share(stages, stage.name, ended=ended.keys(), cores=cores, at_once=at_once)
            run_name = stage.name.replace("{", "(").replace("}", ")")
            named = reproduce.with_options(name=stage.name, task_run_name=run_name)
            future = named.submit(  # type: ignore[call-overload]
                stage, runner, part, retries, wait_for=[futures[name] for name in stage.needs]
            )
            futures[stage.name] = future
            future.add_done_callback(lambda _future, name=stage.name: news.put(name))
        if len(futures) == len(ended):
            return ended
        name = news.get()
        futures[name].wait()  # the state that it ended with, not the one that the server knows so far
        ended[name] = futures[name].state


def _concluded(
    stages: Mapping[str, Stage], *, ended: Mapping[str, State[Any]], name: str, place: Workspace
) -> State[None] | None:
    """Report the results of the stages, and save an experiment that ended well."""
    key = str(flow_run.id)
    cached = [stages[stage] for stage, state in ended.items() if state.name == "Cached"]
    metrics: dict[str, float] = {"stages/cached": len(cached)}
    with optional(get_run_logger()):
        for stage in cached:
            metrics |= evaluation(stage)
    end_pipeline(place.root, key=key, metrics=metrics)
    with optional(get_run_logger()):
        summarize(stages, ended=ended, name=name, place=place, key=key)
    if failed := {stage: str(state.message) for stage, state in ended.items() if not state.is_completed()}:
        return Failed(message=failure(stages, failed=failed))
    place.save(stages, message=name, pipeline=key)
    return None


def failure(stages: Mapping[str, Stage], *, failed: Mapping[str, str]) -> str:
    """What failed, why, and what was not started because of it."""
    lines = [f"{name} failed: {why}" for name, why in failed.items()]
    left = [name for name in stages if all_needs(stages, name) & failed.keys()]
    if left:
        lines.append(f"not started, because they need what failed: {', '.join(left)}")
    return "\n".join(lines)


def rename(name: str) -> str:
    """Give the run this name, unless the user named it. Returns the name that it has."""
    first = _first_name()
    if first != (deployment.name or "cgn"):
        return first
    if flow_run.id:
        with optional(get_run_logger()), get_client(sync_client=True) as client:
            client.set_flow_run_name(UUID(str(flow_run.id)), name)
    return name


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


def _environment(root: Path, *, name: str) -> dict[str, str]:
    """The stages' environment: this interpreter first, and the flow run as the pipeline that tracking nests them in."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), environment.get("PYTHONPATH")]))
    if flow_run.id:
        parameters = {name: str(value) for name, value in flow_run.parameters.items()}
        mine = Pipeline(key=str(flow_run.id), name=name, process=alive(os.getpid()), parameters=parameters)
        environment |= mine.environment
    return environment


if __name__ == "__main__":
    sys.exit(not cgn(return_state=True).is_completed())
