"""Sweeps over seeds and parameters: one experiment of DVC for each point, and one table over all.

    python -m flows.sweep seeds mnist/digits --seeds 0 1 2
    python -m flows.sweep grid mnist/digits -S mnist.digits.train_classifier.learning_rate=0.1,1
    python -m flows.sweep study mnist/digits --trials 10 --set mnist.digits.train_classifier.learning_rate=log:0.01:1 \
        --maximize accuracy/original_counterfactual/test_random

A sweep that was killed continues when the same command is given again: points that are done are not run again, and one
that was cut goes on in its workspace, from the checkpoint of its training. `dvc exp run --queue` does not: after a kill
its task says Running for good, is not started again, and its half workspace stays (seen with DVC 3.67).
Exit status: 0; 1 where a point failed, after the others; 2 for what the user can fix.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, chdir, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from flows import study
from flows.experiment import pinned, workspace
from flows.graph import read_graph, wanted
from flows.points import POINT, SAVED, SHOWN, Run, Sweep, compare, finish, in_words
from flows.processes import alive
from flows.stage_runner import BOUND
from flows.sweep_run import log_means, log_study, tracked
from flows.untracked import Pipeline, alone, end_pipeline

NOTHING: Mapping[str, Any] = {}
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
STUDY = "study.md"
Shown = Callable[[float, str], object]
"""Receives the percentage of a sweep that is done, and what that is in words."""


class MissingError(RuntimeError):
    """Points of a sweep failed; `text` is the table of the others."""

    def __init__(self, failed: Sequence[str], *, text: str) -> None:
        super().__init__("\n".join(failed))
        self.text = text


def main(argv: Sequence[str]) -> int:
    """Exit status as above."""
    given = _parse(argv)
    root = Path.cwd()
    try:
        sweep, points, search = planned(root, **given)
        run, shown = partial(run_here, sweep), lambda percent, words: say(f"{words} ({percent:.0f} %)")
        print(run_sweep(sweep, points, search=search, run=run, log=say, shown=shown), end="", flush=True)
    except (ValueError, RuntimeError) as error:
        print(f"{getattr(error, 'text', '')}error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    return 0


def planned(
    root: Path,
    *,
    variant: str,
    seeds: Sequence[int] = (),
    grid: Mapping[str, Sequence[Any]] = NOTHING,
    space: Mapping[str, str] = NOTHING,
    metric: str = "",
    direction: str = "maximize",
    trials: int = 0,
    seed: int = 0,
    name: str = "",
) -> tuple[Sweep, list[dict[str, Any]], study.Search | None]:
    """A sweep with its points, or with the search that finds them. Raises ValueError for what cannot be run."""
    kind = "study" if space else "grid" if grid else "seeds"
    if not (seeds or grid or space) or (space and (seeds or grid)):
        raise ValueError(
            "a sweep has seeds, a grid of values, or both; a study has a space of values: name one of them"
        )
    named = name or f"{variant.rpartition('/')[2]}-{kind}"
    if not NAME.fullmatch(named):
        raise ValueError(f"the name {named!r} is not allowed: expected letters, digits, - and _")
    if not space:
        by_seed: list[dict[str, Any]] = [{f"{variant.replace('/', '.')}.seed": number} for number in seeds] or [{}]
        chosen = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
        points = [values | point for values in chosen for point in by_seed]
        return Sweep(root=root, variant=variant, name=named), points, None
    if not metric or trials < 1:
        raise ValueError("a study needs a metric, and a number of trials of 1 or more")
    search = study.Search(space=space, metric=metric, direction=direction, trials=trials, seed=seed)
    # what comes after an evaluation, a report, gives the search nothing
    return Sweep(root=root, variant=variant, name=named, targets=("*_evaluate@*",)), [], search


def run_sweep(
    sweep: Sweep,
    points: Sequence[Mapping[str, Any]],
    *,
    search: study.Search | None,
    run: Run,
    log: Callable[[str], object],
    shown: Shown,
) -> str:
    """Finish a sweep, by its points or by a search: its table.

    Raises ValueError for what the user can fix, MissingError where points failed, after the others, and RuntimeError
    where the points do not compare.
    """
    sweep.folder.mkdir(parents=True, exist_ok=True)
    with _only(sweep), pinned(sweep.root):
        if search:
            return _run_study(sweep, search, run=run, log=log, shown=shown)
        parameters = {"variant": sweep.variant, "points": len(points)} | _ranges(points)
        with tracked(sweep, kind="grid" if len(points[0]) > 1 else "seeds", parameters=parameters) as tracking:
            folders, failed = _finish_all(sweep, points, run=run, log=log, shown=shown)
            if not folders:
                raise MissingError(failed, text="")
            labelled = [f"{label}={folder}" if (label := _label(sweep, folder)) else str(folder) for folder in folders]
            saved = ["--save", str(sweep.folder / SAVED), "--markdown", str(sweep.folder / SHOWN)]
            text = compare(labelled, *saved)
            log_means(tracking, sweep, folders, parameters=parameters)
            if failed:
                raise MissingError(failed, text=text)
    return text


def run_here(sweep: Sweep, overrides: Mapping[str, Any]) -> None:
    """Run a point by `dvc repro` in its workspace, and save it. Raises RuntimeError where a stage fails."""
    experiment = workspace(sweep.root, overrides=overrides, variants=[sweep.variant], log=say)
    with experiment as place, chdir(place.folder):
        stages = wanted(read_graph(), targets=sweep.targets)
        key = f"{place.name}-{time.time_ns()}"
        parameters = {name: str(value) for name, value in overrides.items()}
        mine = Pipeline(key=key, name=place.name, process=alive(os.getpid()), parameters=parameters)
        environment = os.environ | place.environment | mine.environment | {"PYTHONUNBUFFERED": "1"}
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(place.folder), os.getenv("PYTHONPATH")]))
        command = [*BOUND, str(os.getpid()), sys.executable, "-m", "dvc", "--wait-for-lock", "repro", *stages]
        status = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False).returncode
        end_pipeline(sweep.root, key=key, metrics={})
        if status:
            raise RuntimeError(f"dvc repro ended with status {status} in {place.folder}; the same command continues it")
        place.save(stages, message=f"{sweep.name}: {parameters}", pipeline=key)


def say(words: str) -> None:
    """A line of progress."""
    print(f"sweep: {words}", flush=True)


@contextmanager
def _only(sweep: Sweep) -> Iterator[None]:
    """Work on a sweep alone. Raises ValueError where another process does."""
    with ExitStack() as stack:
        try:
            stack.enter_context(alone(sweep.lock, wait=False))
        except BlockingIOError:
            raise ValueError(f"another process works on the sweep {sweep.name}: wait for it, or end it") from None
        yield


def _finish_all(
    sweep: Sweep, points: Sequence[Mapping[str, Any]], *, run: Run, log: Callable[[str], object], shown: Shown
) -> tuple[list[Path], list[str]]:
    """The folders of the points that are done, and why the others are not."""
    folders, failed = [], []
    for number, point in enumerate(points):
        shown(100 * number / len(points), f"{number} of {len(points)} experiments")
        try:
            folders.append(finish(sweep, point, run=run, log=log))
        except RuntimeError as error:
            failed.append(f"{in_words(point)}: {error}")
    shown(100.0, f"{len(folders)} of {len(points)} experiments")
    return folders, failed


def _run_study(sweep: Sweep, search: study.Search, *, run: Run, log: Callable[[str], object], shown: Shown) -> str:
    parameters = {"variant": sweep.variant, "metric": search.metric, "direction": search.direction}
    parameters |= {f"space.{key}": words for key, words in search.space.items()} | {"sampler.seed": str(search.seed)}
    with tracked(sweep, kind="study", parameters=parameters) as tracking:

        def noted(found: Any) -> None:
            """After each trial, so that a study can be watched."""
            text = study.table(found)
            (sweep.folder / STUDY).write_text(text, encoding="utf-8")
            best = {f"best.{key}": value for key, value in study.best(found).items()}
            log_study(
                tracking,
                sweep,
                study.folders(found, sweep),
                parameters=parameters,
                trials=study.lines(found),
                metrics=study.numbers(found),
                tags={f"cgn.{key}": str(value) for key, value in best.items()},
            )
            done = study.ended(found)
            shown(min(100 * done / search.trials, 100.0), f"{done} of {search.trials} trials")

        found = study.study(sweep, search, run=run, log=log, noted=noted)
        if failed := study.failures(found):
            raise MissingError(failed, text=study.table(found))
    return study.table(found)


def _ranges(points: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Each key with the values that the points give it."""
    keys = dict.fromkeys(key for point in points for key in point)
    return {key: ", ".join(dict.fromkeys(str(point[key]) for point in points)) for key in keys}


def _label(sweep: Sweep, folder: Path) -> str:
    """What sets a point apart from others but its seed."""
    seed = f"{sweep.variant.replace('/', '.')}.seed"
    overrides = json.loads((folder / POINT).read_text(encoding="utf-8"))["overrides"]
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in overrides.items() if key != seed)


def _parse(argv: Sequence[str]) -> dict[str, Any]:
    """The arguments of `planned`."""
    parser = argparse.ArgumentParser(prog="python -m flows.sweep", description="run experiments that belong together")
    commands = parser.add_subparsers(dest="command", required=True)
    seeding = commands.add_parser("seeds", help="one experiment for each seed")
    gridding = commands.add_parser("grid", help="one experiment for each combination of values, and of seeds")
    searching = commands.add_parser("study", help="a search by Optuna, one experiment for each trial")
    searching.add_argument("--trials", type=int, required=True, help="how many the study has in the end")
    searching.add_argument(
        "--set", dest="space", type=_pair, nargs="+", required=True, metavar="KEY=KIND", help=study.KINDS
    )
    searching.add_argument("--seed", type=int, default=0, help="of the sampler; default: %(default)s")
    aims = searching.add_mutually_exclusive_group(required=True)
    aims.add_argument("--maximize", metavar="METRIC", help="a name in the evaluation's metrics.json")
    aims.add_argument("--minimize", metavar="METRIC")
    gridding.add_argument("-S", dest="grid", type=_pair, action="append", required=True, metavar="KEY=VALUE,VALUE")
    for command in (seeding, gridding):
        command.add_argument("--seeds", type=int, nargs="+", default=[], required=command is seeding)
    for command in (seeding, gridding, searching):
        command.add_argument("variant", metavar="TRACK/VARIANT")
        command.add_argument("--name", default="", help="default: the variant's with -seeds, -grid or -study")
    given = vars(parser.parse_args(argv))
    command = given.pop("command")
    if command == "study":
        given |= {"metric": given["maximize"] or given["minimize"], "space": dict(given["space"])}
        given["direction"] = "maximize" if given.pop("maximize") else "minimize"
        del given["minimize"]
    if command == "grid":
        given["grid"] = {key: [study.scalar(word) for word in words.split(",")] for key, words in given["grid"]}
    return given


def _pair(word: str) -> tuple[str, str]:
    """KEY=WORDS, with or without the `++` that DVC wants before a new key."""
    key, _, words = word.removeprefix("++").partition("=")
    if not key or not words:
        raise argparse.ArgumentTypeError(f"{word!r}: expected KEY=VALUES")
    return key, words


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
