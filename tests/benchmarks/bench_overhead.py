"""What the platform adds to a plain command: python -m tests.benchmarks.bench_overhead

    --repeats 5 --variants 60 --cases stage nothing variants

Run it in a checkout whose `dvc repro` has ended; it works in a clone with the same cache. Medians, in seconds:

    stage     mnist fetch of the digits, which has nothing to do: python -m cgn, dvc repro -s, and a task of Prefect
    nothing   dvc repro, and the flow on a server that runs, when all is up to date
    variants  dvc repro when all is up to date and many variants are active, each with all stages of the digits
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.flows.conftest import Project
from tests.flows.platform import started

ROOT = Path(__file__).parents[2]
STAGE = "mnist_fetch@digits"
DIGITS = re.compile(r"(?<=@)digits|(?<=mnist\.)digits(?=\.)|(?<=mnist/)digits(?!\.py)")
"""The variant's name in dvc.lock, but neither the parameter nor the module of this name."""


def main(argv: Sequence[str] | None = None) -> None:
    """Print one line a case."""
    options = _options(argv)
    with tempfile.TemporaryDirectory() as scratch:
        project = cloned(Path(scratch) / "checkout")
        project.run("dvc", "repro")  # the survey of the images' folders runs always
        if "stage" in options.cases:
            out = Path(scratch) / "plain"
            plain = (sys.executable, "-m", "cgn", "fetch", "mnist/digits", "--assets", str(out))
            _line("python -m cgn fetch mnist/digits", lambda: _forgotten(out, project, *plain), options.repeats)
            forced = ("dvc", "repro", "--force", "--single-item", STAGE)
            _line(f"dvc repro --single-item {STAGE}", lambda: project.run(*forced), options.repeats)
        if "nothing" in options.cases:
            _line("dvc repro, all up to date", lambda: project.run("dvc", "repro"), options.repeats)
        if {"stage", "nothing"} & {*options.cases}:
            with started(project) as platform:

                def flow(**parameters: Any) -> None:
                    run = platform.start("cgn-full", **parameters)
                    assert platform.ended(run) == "Completed", platform.log(run)

                _line("cgn-full, all up to date", flow, options.repeats)
                one = {"targets": [STAGE], "from_stage": STAGE}
                _line(f"cgn-full of {STAGE} alone", lambda: flow(**one), options.repeats)
                cached = {"targets": [STAGE]}
                _line("the same, up to date", lambda: flow(**cached), options.repeats)
        if "variants" in options.cases:
            count = multiply(project, variants=options.variants)
            _line(f"dvc repro, {options.variants} variants, {count} stages", lambda: project.run("dvc", "repro"), 3)


def cloned(folder: Path) -> Project:
    """A clone of this checkout with its cache and results."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(folder),
        "PREFECT_HOME": str(folder.parent / "prefect"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder.parent}/mlflow.db",
    }
    project = Project(folder=folder, environment=environment)
    if not (ROOT / "dvc.lock").is_file():
        sys.exit("there is no dvc.lock here: run `dvc repro` first")
    shutil.copy(ROOT / "dvc.lock", folder)
    project.run("dvc", "cache", "dir", "--local", str(ROOT / ".dvc/cache"))
    project.run("dvc", "checkout", "--force")
    return project


def multiply(project: Project, *, variants: int) -> int:
    """Make copies of the digits active, all up to date; how many stages there are then."""
    params, lock = project.folder / "params.yaml", project.folder / "dvc.lock"
    yaml = YAML(typ="safe")
    tree, locked = yaml.load(params), yaml.load(lock)
    names = [f"copy{number}" for number in range(variants)]
    tree["active"] = {"mnist": names, "imagenet": []}
    tree["mnist"] |= dict.fromkeys(names, tree["mnist"]["digits"])
    params.write_text(_dumped(tree))
    digits = {name: stage for name, stage in locked["stages"].items() if name.startswith("mnist_")}
    stages: dict[str, Any] = {}
    for copy in names:
        text = DIGITS.sub(copy, _dumped(digits))
        stages |= yaml.load(text)
    lock.write_text(_dumped({"schema": locked["schema"], "stages": stages}))
    project.run("dvc", "checkout", "--force")
    said = project.run("dvc", "repro")
    assert "Running stage 'mnist" not in said, said[-3000:]
    return len(stages)


def _dumped(value: Any) -> str:
    import yaml

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:  # DVC's lists of stages may not share parts
            del data
            return True

    return yaml.dump(value, Dumper=Plain, sort_keys=False, width=10_000)


def _forgotten(out: Path, project: Project, *words: str) -> None:
    shutil.rmtree(out, ignore_errors=True)
    project.run(*words)


def _line(name: str, call: Callable[[], object], repeats: int) -> None:
    seconds = []
    for _ in range(repeats):
        begun = time.monotonic()
        call()
        seconds.append(time.monotonic() - begun)
    spread = f"{min(seconds):.1f} to {max(seconds):.1f}"
    print(f"{name:50}{statistics.median(seconds):8.2f} s   ({spread}, {repeats} times)", flush=True)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--variants", type=int, default=60)
    parser.add_argument("--cases", nargs="+", default=["stage", "nothing", "variants"])
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
