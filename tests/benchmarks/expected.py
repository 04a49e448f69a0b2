"""Note what finished runs gave in cgn/evaluation/expected.json: python -m tests.benchmarks.expected [RUNS ...]

    uv run python -m tests.benchmarks.expected                          # ./runs, this machine
    uv run python -m tests.benchmarks.expected ../other/runs --machine "AMD EPYC 7B13 with AVX2"
    uv run python -m tests.benchmarks.expected runs --renew             # forget what was measured before

Each RUNS holds <track>/<variant>/{prepare,train_cgn,generate,evaluate} of one checkout. Every variant that the file
knows and RUNS holds is noted; a run of a seed and a machine that are noted already takes their place. Only runs of the
default parameters (params.yaml, all but the seed) are taken, others are named and left out.
The machine is what the logs say, processor and instruction set; runs whose stages ran on different
machines, or whose logs are gone, need --machine. The parameters in the file become those of params.yaml; runs that
were noted for other values of them are dropped.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cgn.config.load import load
from cgn.core.devices import describe_machine
from cgn.core.errors import ArtifactError, CgnError
from cgn.core.files import read_json, write_json
from cgn.core.outputs import DEFINITION
from cgn.evaluation.expected import FILE, Headline, deciding
from cgn.evaluation.records import read_record
from cgn.imagenet.report_parts import heads as imagenet
from cgn.mnist import report as mnist
from cgn.report.run import Run, read_decisions, read_run

DEFAULTS = ("imagenet/miniature", "mnist/digits")
"""The variants whose figures are noted where the file is new."""
ABOUT = (
    "What the default variants were measured to give, over seeds and machines; see expected.py beside this file for "
    "its meaning. Written by: python -m tests.benchmarks.expected"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Note the runs; exit status 2 where one is broken or of other parameters."""
    options = _options(argv)
    defaults = {name: deciding(load(options.params).variant(name).model_dump()) for name in DEFAULTS}
    variants = _renewed(options.file, defaults, renew=options.renew)
    left_out = 0
    for root in options.runs:
        for target in DEFAULTS:
            if not (root / target / "evaluate").is_dir():
                continue
            try:
                note(variants[target], root / target, target=target, machine=options.machine)
                print(f"{root / target}: noted")
            except CgnError as error:
                left_out += 1
                print(f"{root / target}: left out: {error}", file=sys.stderr)
    write_json(options.file, {"about": ABOUT, "variants": variants})
    for target, entry in variants.items():
        print(f"{target}: {len(entry['runs'])} runs in {options.file}")
    return 2 if left_out else 0


def note(entry: dict[str, Any], folder: Path, *, target: str, machine: str | None = None) -> None:
    """Add one run's figures to a variant's entry. Raises ArtifactError for other parameters or an unknown machine."""
    inputs = {"data": "prepare", "model": "train_cgn", "images": "generate", "decisions": "evaluate"}
    finished = read_run(target, **{role: folder / verb for role, verb in inputs.items()})
    ours, theirs = entry["parameters"], deciding(finished.params)
    differing = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
    # A parameter that a run does not know was added since, with a default that keeps what was before.
    if unlike := [name for name in differing if name in theirs]:
        raise ArtifactError(f"its parameters are not the default ones: {', '.join(unlike)}")
    seed = read_json(finished.decisions / DEFINITION)["seed"]
    figures = _figures(finished)
    run = {
        "seed": seed,
        "machine": machine or _machine(folder),
        "figures": {figure.name: figure.percent for figure in figures},
    }
    same = (run["seed"], run["machine"])
    entry["runs"] = [each for each in entry["runs"] if (each["seed"], each["machine"]) != same] + [run]
    entry["runs"].sort(key=lambda each: (each["machine"], each["seed"]))
    entry["units"] = {figure.name: figure.unit for figure in figures}


def _figures(finished: Run) -> list[Headline]:
    if finished.target.startswith("mnist/"):
        return mnist.headlines(read_decisions(finished))
    return imagenet.headlines(imagenet.read_results(finished).heads)


def _renewed(file: Path, defaults: Mapping[str, Mapping[str, Any]], *, renew: bool) -> dict[str, dict[str, Any]]:
    """The file's entries with the default parameters; without their runs where a value changed."""
    known = read_json(file)["variants"] if file.is_file() else {}
    found = {}
    for target, parameters in defaults.items():
        entry = known.get(target, {"parameters": {}, "units": {}, "runs": []})
        changed = [name for name, value in entry["parameters"].items() if parameters.get(name, value) != value]
        if changed and entry["runs"]:
            print(f"{target}: {', '.join(changed)} changed, so {len(entry['runs'])} older runs are dropped")
        kept = [] if renew or changed else entry["runs"]
        found[target] = {"parameters": dict(parameters), "units": entry["units"], "runs": list(kept)}
    return found


def _machine(folder: Path) -> str:
    """In words, from the logs of the stages whose arithmetic decides the figures."""
    stages = [folder / "train_cgn", *_classifiers(folder), folder / "evaluate"]
    machines = {describe_machine(read_record(stage).machine) for stage in stages if stage.is_dir()}
    if len(machines) != 1 or "" in machines:
        raise ArtifactError(
            f"its stages do not name one machine with its instruction set ({', '.join(sorted(machines)) or 'no log'}): "
            "give --machine"
        )
    return machines.pop()


def _classifiers(folder: Path) -> list[Path]:
    found = (folder / "train_classifier").glob("*")
    return sorted(path for path in found if path.is_dir() and path.suffix != ".log")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.expected", description="Note finished runs.")
    parser.add_argument("runs", type=Path, nargs="*", default=[Path("runs")], help="default: runs")
    parser.add_argument("--machine", help="what the runs ran on, in place of what their logs say")
    parser.add_argument("--renew", action="store_true", help="forget the runs that were noted before")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--file", type=Path, default=FILE)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
