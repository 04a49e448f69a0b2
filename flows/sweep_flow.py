"""The flow `sweep`: a sweep or a study (`flows.sweep`) by Prefect, one flow run `cgn` below it for each experiment.

The runs below are subflows in this process, no runs of a deployment: they take no place in a work pool or in the queue
of `cgn-full`, so a sweep that waits for its own runs cannot be what they wait for. A sweep holds the lock of one
experiment at a time and stages claim GPUs one after another (`flows.gpus`), as in any other run.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import deployment, flow_run
from prefect.states import Failed

from flows.pipeline import RANDOM_NAME, cgn, rename
from flows.points import SHOWN, Sweep, in_words
from flows.sweep import STUDY, MissingError, planned, run_sweep


def _first_name() -> str:
    given = str(flow_run.name or "")
    return given if given and not RANDOM_NAME.fullmatch(given) else str(deployment.name or "cgn-sweep")


@flow(name="sweep", flow_run_name=_first_name)
def sweep(
    variant: str,
    *,
    seeds: list[int] | None = None,
    grid: dict[str, list[Any]] | None = None,
    space: dict[str, str] | None = None,
    metric: str = "",
    direction: str = "maximize",
    trials: int = 0,
    sampler_seed: int = 0,
    name: str = "",
    retries: int = 0,
    at_once: int = 2,
) -> State[None] | None:
    """Run an experiment for each of `seeds` and each combination of `grid`, or for each trial of a search in `space`.

    `variant` is a track/variant. `space` has a kind for each dotted key (log:0.001:1), `metric` the name of what is
    brought to its `direction`, `trials` their number. A sweep that was killed continues when it is started again with
    the same parameters.
    """
    logger = get_run_logger()
    chosen, points, search = planned(
        Path.cwd(),
        variant=variant,
        seeds=seeds or [],
        grid=grid or {},
        space=space or {},
        metric=metric,
        direction=direction,
        trials=trials,
        seed=sampler_seed,
        name=name,
    )
    what = f"study of {trials} trials" if search else f"{len(points)} experiments"
    rename(" · ".join([str(deployment.name or "cgn-sweep"), chosen.name, what]))
    run = partial(_run, chosen, retries=retries, at_once=at_once)
    progress = create_progress_artifact(0.0, key=f"sweep-{_key(chosen)}-progress", description=chosen.name)
    shown = partial(_show, UUID(str(progress)))
    try:
        run_sweep(chosen, points, search=search, run=run, log=logger.info, shown=shown)
    except MissingError as error:
        return Failed(message=str(error))
    finally:
        _summarize(chosen, kept=STUDY if search else SHOWN)
    return None


def _run(chosen: Sweep, overrides: Mapping[str, Any], *, retries: int, at_once: int) -> None:
    """One experiment as a subflow. Raises RuntimeError where it fails."""
    named = cgn.with_options(flow_run_name=f"{chosen.name} · {in_words(overrides)}")
    state = named(
        list(chosen.targets),
        variants=[chosen.variant],
        overrides=dict(overrides),
        retries=retries,
        at_once=at_once,
        return_state=True,
    )
    if not state.is_completed():
        raise RuntimeError(str(state.message))


def _show(progress: UUID, percent: float, words: str) -> None:
    update_progress_artifact(progress, percent, description=words)


def _summarize(chosen: Sweep, *, kept: str) -> None:
    """The table as the run's summary, as far as there is one."""
    table = chosen.folder / kept
    if table.is_file():
        words = [
            "`uv run dvc exp show --only-changed` lists the experiments; their results are in",
            f"`{chosen.folder}`.",
        ]
        text = f"# {chosen.name}\n\n{table.read_text(encoding='utf-8')}\n{' '.join(words)}\n"
        create_markdown_artifact(text, key=f"sweep-{_key(chosen)}", description=chosen.name)


def _key(chosen: Sweep) -> str:
    """A name as Prefect wants an artifact's key."""
    return chosen.name.lower().replace("_", "-")
