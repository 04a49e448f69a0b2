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
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, chdir, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from flows import study
from flows.experiment import workspace
from flows.graph import read, wanted
from flows.points import Run, Sweep, compare, finish
from flows.processes import alive
from flows.stage_runner import BOUND
from flows.untracked import Pipeline, alone

SAVED, SHOWN = "compare.json", "compare.md"


def main(argv: Sequence[str]) -> int:
    """Exit status as above."""
    given = _parse(argv)
    root = Path.cwd()
    try:
        match given.command:
            case "study":
                return _study(given, root=root)
            case "seeds":
                points = seeds(given.variant, given.seeds)
                points = [point | setting for setting in grid(given.values) for point in points]
            case _:
                points = grid(given.values)
        sweep = Sweep(root=root, variant=given.variant, name=given.name or default_name(given.variant, given.command))
        with only(sweep):
            folders, failed = finish_all(sweep, points, run=partial(run_here, sweep), log=say)
        print(conclude(sweep, folders), end="", flush=True)
    except (ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for words in failed:
        print(f"failed: {words}", file=sys.stderr)
    return 1 if failed else 0


def seeds(variant: str, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """A point for each seed."""
    return [{f"{variant.replace('/', '.')}.seed": number} for number in numbers]


def grid(settings: Sequence[str]) -> list[dict[str, Any]]:
    """A point for each combination of the values of KEY=VALUE,VALUE. Raises ValueError for another form."""
    space = study.parse_space(list(settings))
    values = [[study.scalar(word) for word in words.split(",")] for words in space.values()]
    return [dict(zip(space, chosen, strict=True)) for chosen in itertools.product(*values)]


def default_name(variant: str, kind: str) -> str:
    """What a sweep is called where the user does not say it."""
    return f"{variant.rpartition('/')[2]}-{kind}"


@contextmanager
def only(sweep: Sweep) -> Iterator[None]:
    """Work on a sweep alone. Raises ValueError where another process does."""
    with ExitStack() as stack:
        try:
            stack.enter_context(alone(sweep.lock, wait=False))
        except BlockingIOError:
            raise ValueError(f"another process works on the sweep {sweep.name}: wait for it, or end it") from None
        yield


def finish_all(
    sweep: Sweep, points: Sequence[Mapping[str, Any]], *, run: Run, log: Callable[[str], object]
) -> tuple[list[Path], list[str]]:
    """The folders of the points that are done, and why the others are not."""
    folders, failed = [], []
    for number, point in enumerate(points, start=1):
        try:
            log(f"{number} of {len(points)}")
            folders.append(finish(sweep, point, run=run, log=log))
        except RuntimeError as error:
            failed.append(f"{', '.join(f'{key}={value}' for key, value in point.items())}: {error}")
    return folders, failed


def conclude(sweep: Sweep, folders: Sequence[Path]) -> str:
    """The table over all points, which is kept beside them."""
    if not folders:
        return ""
    return compare(folders, "--save", str(sweep.folder / SAVED), "--markdown", str(sweep.folder / SHOWN))


def run_here(sweep: Sweep, overrides: Mapping[str, Any]) -> None:
    """Run a point by `dvc repro` in its workspace, and save it. Raises RuntimeError where a stage fails."""
    experiment = workspace(sweep.root, overrides=overrides, variants=[sweep.variant], log=say)
    with experiment as place, chdir(place.folder):
        stages = wanted(read(), targets=sweep.targets)
        key = f"{sweep.name}-{place.name}-{time.time_ns()}"
        parameters = {name: str(value) for name, value in overrides.items()}
        mine = Pipeline(key=key, name=place.name, process=alive(os.getpid()), parameters=parameters)
        environment = os.environ | place.environment | mine.environment | {"PYTHONUNBUFFERED": "1"}
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(place.folder), os.getenv("PYTHONPATH")]))
        command = [*BOUND, str(os.getpid()), sys.executable, "-m", "dvc", "--wait-for-lock", "repro", *stages]
        if status := subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False).returncode:
            raise RuntimeError(f"dvc repro ended with status {status} in {place.folder}; the same command continues it")
        place.save(stages, message=f"{sweep.name}: {parameters}", pipeline=key)


def say(words: str) -> None:
    """A line of progress."""
    print(f"sweep: {words}", flush=True)


def _study(given: argparse.Namespace, *, root: Path) -> int:
    metric, direction = (given.maximize, "maximize") if given.maximize else (given.minimize, "minimize")
    space = study.parse_space(given.space)
    search = study.Search(space=space, metric=metric, direction=direction, trials=given.trials, seed=given.seed)
    name = given.name or default_name(given.variant, "study")
    sweep = Sweep(root=root, variant=given.variant, name=name, targets=("*_evaluate@*",))
    with only(sweep):
        found = study.study(sweep, search, run=partial(run_here, sweep), log=say)
        text = study.table(found)
        sweep.folder.mkdir(parents=True, exist_ok=True)
        (sweep.folder / "study.md").write_text(text, encoding="utf-8")
    print(text, end="", flush=True)
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m flows.sweep", description="run experiments that belong together")
    commands = parser.add_subparsers(dest="command", required=True)
    seeding = commands.add_parser("seeds", help="one experiment for each seed")
    seeding.add_argument("--seeds", type=int, nargs="+", required=True)
    gridding = commands.add_parser("grid", help="one experiment for each combination of values")
    searching = commands.add_parser("study", help="a search by Optuna, one experiment for each trial")
    searching.add_argument("--trials", type=int, required=True, help="how many the study has in the end")
    searching.add_argument("--set", dest="space", action="append", required=True, metavar="KEY=KIND", help=study.KINDS)
    searching.add_argument("--seed", type=int, default=0, help="of the sampler; default: %(default)s")
    aims = searching.add_mutually_exclusive_group(required=True)
    aims.add_argument("--maximize", metavar="METRIC", help="a name in the evaluation's metrics.json")
    aims.add_argument("--minimize", metavar="METRIC")
    for command in (seeding, gridding, searching):
        command.add_argument("variant", metavar="TRACK/VARIANT")
        command.add_argument("--name", help="default: the variant's with -seeds, -grid or -study")
    for command in (seeding, gridding):
        command.add_argument(
            "-S", dest="values", action="append", default=[], required=command is gridding, metavar="KEY=VALUE,VALUE"
        )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
