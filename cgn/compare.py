"""python -m cgn compare RUN ...: one table over the seeds of finished runs, from their stored decisions.

RUN is a folder with an evaluation (`runs/mnist/digits`), one above several of them (`runs`, without its `sweeps`), or a
file of figures that --save wrote. LABEL=RUN sets a run apart from others of its variant: it is no seed of theirs.
A mean has Student's 95 % interval over the seeds (`cgn.evaluation.seeds`), a single seed that of its own test set.

--write renews the tables of Markdown files: between these two lines stands what the command makes of the words in the
first one, and a test can ask for the same text.

    <!-- compare: results/seeds.json --layout heads --only mnist/* -->
    <!-- end of compare -->
"""

import argparse
import csv
import importlib
import io
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Any

from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.files import read_json, read_object, write_json, write_text
from cgn.core.outputs import DEFINITION
from cgn.evaluation.predictions import FILE
from cgn.evaluation.seeds import Figure, SeedMean, SeedRun, over_seeds, read_seed_run
from cgn.evaluation.suite_tables import markdown_table

EVALUATE, SWEEPS, DEPTH = "evaluate", "sweeps", 4
LAYOUTS = ("summary", "seeds", "heads")
BLOCK = re.compile(r"(?P<first><!-- compare: (?P<words>[^>]*?) -->\n).*?(?P<last><!-- end of compare -->)", re.DOTALL)
ABOUT = "Figures of finished runs by seed, shares in [0,1]. Written by: python -m cgn compare RUN ... --save FILE"
Lines = list[list[str]]
"""The rows of a table, its columns' titles first."""


def compare(argv: Sequence[str]) -> None:
    """Print a table over the seeds of finished runs.

    Raises ConfigError for what the user can fix, ArtifactError for runs and files that are missing or broken.
    """
    given = _parse(argv)
    if given.write:
        for file in given.write:
            write_text(file, rewritten(file.read_text(encoding="utf-8"), source=file))
            print(f"{file}: tables renewed")
        return
    runs = read_runs(given.runs)
    lines = table(runs, layout=given.layout, only=given.only)
    print(aligned(lines), end="")
    if given.save:
        means = [asdict(mean) for mean in over_seeds(runs)]
        write_json(given.save, {"about": ABOUT, "runs": [run.as_json for run in runs], "means": means})
    if given.markdown:
        write_text(given.markdown, markdown_table(lines[0], lines[1:]))
    if given.csv:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(_values(over_seeds(runs)))
        write_text(given.csv, text.getvalue())


def rewritten(text: str, *, source: Path) -> str:
    """A Markdown text with its tables made anew. Raises ConfigError where it has none."""
    if not BLOCK.search(text):
        raise ConfigError(f"{source} has no table to renew: expected a line <!-- compare: RUN ... --> and its end")

    def renewed(block: re.Match[str]) -> str:
        given = _parse(shlex.split(block["words"]))
        lines = table(read_runs(given.runs), layout=given.layout, only=given.only)
        return f"{block['first']}\n{markdown_table(lines[0], lines[1:])}\n{block['last']}"

    return BLOCK.sub(renewed, text)


def read_runs(words: Sequence[str]) -> list[SeedRun]:
    """The runs that RUN words name, by target, group and seed. Raises ArtifactError where one is missing or double."""
    found: list[SeedRun] = []
    for word in words:
        label, separator, place = word.partition("=")
        group, path = (label, Path(place)) if separator and not Path(word).exists() else ("", Path(word))
        found += _stored(path) if path.is_file() else _evaluated(path, group=group)
    found.sort(key=lambda run: (run.target, run.group, run.seed))
    for one, other in pairwise(found):
        if (one.target, one.group, one.seed) == (other.target, other.group, other.seed):
            raise ArtifactError(f"two runs are seed {one.seed} of {one.target}: set one apart by a label, LABEL=RUN")
    return found


def table(runs: Sequence[SeedRun], *, layout: str, only: Sequence[str] = ()) -> Lines:
    """The figures in a layout: `summary` a row each with its mean; `seeds` a column each seed; `heads` a row each head.

    `only`: patterns of variants, figures or heads; all without any.
    """
    means = [mean for mean in over_seeds(runs) if not only or any(_matches(mean, pattern) for pattern in only)]
    if not means:
        raise ConfigError(f"--only {' '.join(only)}: no figure is called so; {_known(runs)}")
    makers: Mapping[str, Callable[..., Lines]] = {"summary": _summary, "seeds": _seeds, "heads": _heads}
    return makers[layout](means, runs)


def aligned(lines: Lines) -> str:
    """A table for the terminal."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )


def _summary(means: Sequence[SeedMean], runs: Sequence[SeedRun]) -> Lines:
    rows = [
        [_called(mean), mean.measure, mean.head, *_mean_cells(mean), _seed_words(mean), _within(mean, runs)]
        for mean in means
    ]
    return [["variant", "figure", "of", "mean", "95 % over seeds", "seeds", "each seed, 95 % over its images"], *rows]


def _seeds(means: Sequence[SeedMean], runs: Sequence[SeedRun]) -> Lines:
    """Columns: the seeds of the plain runs, those of other groups, then the means of the plain ones."""
    targets = {mean.target for mean in means}
    several = len(targets) > 1
    columns = sorted({(run.group, run.seed) for run in runs if run.target in targets})
    rows = []
    for target, measure, head in dict.fromkeys((mean.target, mean.measure, mean.head) for mean in means):
        by_column = {(run.group, run.seed): run.figure(measure, head) for run in runs if run.target == target}
        cells = [_seed_cell(by_column.get(column)) for column in columns]
        plain = [mean for mean in means if (mean.target, mean.measure, mean.head) == (target, measure, head)]
        over = next((_cell(mean) for mean in plain if not mean.group), "")
        rows.append([*([target] if several else []), f"{_titled(plain[0])}: {head}", *cells, over])
    titles = [f"seed {seed}{f', {group}' if group else ''}" for group, seed in columns]
    return [[*(["variant"] if several else []), "", *titles, "mean of the seeds"], *rows]


def _heads(means: Sequence[SeedMean], _runs: Sequence[SeedRun]) -> Lines:
    """A row for each head, a column for each measure."""
    measures = list(dict.fromkeys(mean.measure for mean in means))
    several = len({(mean.target, mean.group) for mean in means}) > 1
    rows = []
    for target, group, head in dict.fromkeys((mean.target, mean.group, mean.head) for mean in means):
        found = {mean.measure: mean for mean in means if (mean.target, mean.group, mean.head) == (target, group, head)}
        name = [_called(next(iter(found.values())))] if several else []
        rows.append([*name, head, *(_cell(found[measure]) if measure in found else "" for measure in measures)])
    titles = [_titled(next(mean for mean in means if mean.measure == measure)) for measure in measures]
    return [[*(["variant"] if several else []), "", *titles], *rows]


def _called(mean: SeedMean) -> str:
    return f"{mean.target}, {mean.group}" if mean.group else mean.target


def _titled(mean: SeedMean) -> str:
    return f"{mean.measure}, points" if mean.unit == "points" else mean.measure


def _cell(mean: SeedMean) -> str:
    """On one line: "70.5 % (65.6 to 75.5)"."""
    value, ends = _mean_cells(mean)
    return f"{value} ({ends})" if ends else value


def _mean_cells(mean: SeedMean) -> tuple[str, str]:
    if mean.mean is None:
        of = f" in {mean.undecided} of {len(mean.seeds)} seeds" if len(mean.seeds) > 1 else ""
        return f"undecided{of}", ""
    ends = "" if mean.low is None or mean.high is None else _ends(mean.low, mean.high)
    return _number(mean.mean, unit=mean.unit), ends


def _seed_words(mean: SeedMean) -> str:
    return f"{len(mean.seeds)} ({', '.join(map(str, mean.seeds))})"


def _within(mean: SeedMean, runs: Sequence[SeedRun]) -> str:
    of = [run for run in runs if (run.target, run.group) == (mean.target, mean.group)]
    return "; ".join(_seed_cell(run.figure(mean.measure, mean.head)) for run in of)


def _seed_cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    value = "undecided" if figure.value is None else _number(figure.value, unit=figure.unit)
    ends = f" ({_ends(figure.of.low, figure.of.high)})" if figure.of else ""
    return value + ends + (f", {figure.counts}" if figure.counts else "")


def _number(value: float, *, unit: str) -> str:
    return f"{100 * value:.1f}" + (" %" if unit == "%" else "")


def _ends(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _values(means: Sequence[SeedMean]) -> list[list[Any]]:
    """Columns of numbers: shares in [0,1]."""
    columns = ["target", "group", "measure", "head", "unit", "mean", "low", "high", "seeds", "undecided"]
    rows = [[*(getattr(mean, name) for name in columns[:-2]), len(mean.seeds), mean.undecided] for mean in means]
    return [columns, *rows]


def _matches(mean: SeedMean, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in (mean.target, mean.measure, mean.head))


def _known(runs: Sequence[SeedRun]) -> str:
    names = [name for run in runs for figure in run.figures for name in (run.target, figure.measure, figure.head)]
    return f"known: {', '.join(dict.fromkeys(names))}"


def _stored(path: Path) -> list[SeedRun]:
    try:
        return [read_seed_run(run) for run in read_json(path)["runs"]]
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path} is no file of figures ({error}): python -m cgn compare RUN ... --save {path}"
        ) from None


def _evaluated(path: Path, *, group: str) -> list[SeedRun]:
    """The evaluations in a folder or up to DEPTH folders below it, without those of sweeps, which repeat its seeds."""
    places = [path.glob("*/" * depth + FILE) for depth in range(DEPTH + 1)]
    folders = sorted({file.parent for found in places for file in found if SWEEPS not in file.relative_to(path).parts})
    if not folders:
        raise ArtifactError(
            f"{path} has no evaluation ({EVALUATE}/{FILE}): name a folder of runs, or run evaluate first"
        )
    return [_read(folder, group=group) for folder in folders]


def _read(decisions: Path, *, group: str) -> SeedRun:
    """The figures of one evaluation, computed from its decisions."""
    from cgn.report.run import read_decisions, read_run

    definition = read_object(decisions / DEFINITION)
    target = f"{definition['track']}/{definition['variant']}"
    missing = {role: decisions.parent / verb for role, verb in _OTHERS.items()}
    run = read_run(target, decisions=decisions, **missing)
    if definition["track"] == "mnist":
        figures = importlib.import_module("cgn.mnist.report").figures(read_decisions(run))
    else:
        heads = importlib.import_module("cgn.imagenet.report_parts.heads")
        figures = heads.figures(heads.read_results(run).heads)
    return SeedRun(target=target, seed=int(definition["seed"]), group=group, figures=figures)


_OTHERS = {"data": "prepare", "model": "train_cgn", "images": "generate"}


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cgn compare", description=compare.__doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="a folder of runs, LABEL=FOLDER, or a file of figures")
    parser.add_argument("--layout", choices=LAYOUTS, default="summary", help="default: %(default)s")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="PATTERN", help="variants, figures or heads of that name"
    )
    parser.add_argument(
        "--save", type=Path, metavar="JSON", help="write all figures by seed, which compare reads again"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the means as numbers")
    parser.add_argument("--write", type=Path, nargs="+", metavar="FILE", help="renew the tables in Markdown files")
    given = parser.parse_args(argv)
    if not given.runs and not given.write:
        parser.error("name at least one RUN")
    return given
