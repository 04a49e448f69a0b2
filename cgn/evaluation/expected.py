"""What a default variant was measured to give over seeds and machines, and whether a run lies within it.

Equal parameters and seeds give equal bytes on one machine only: another processor or instruction set sums in another
order, and a training carries the last bit to other weights. So what to expect is a range over seeds *and* machines.
expected.json beside this module holds it:

    variants/<track>/<variant>/
        parameters    dotted parameter -> value: the figures hold for these alone; the seed is none of them
        units         figure -> "%" or "points"
        runs          seed, machine, and the figures as percentages; null where a shape bias was undecided

A figure is compared at the one decimal that pages show. Parameters that say where or how often
something is written or computed (PACES) are left out. `python -m tests.benchmarks.expected` fills the file.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cgn.core.errors import ArtifactError
from cgn.core.files import read_json

FILE = Path(__file__).with_suffix(".json")
VERBS = ("prepare", "train_cgn", "generate", "train_classifier", "evaluate")
"""Whose parameters decide the figures."""
PACES = frozenset(
    {"accelerator", "devices", "workers", "store", "intervals", "log_updates", "checkpoint_updates", "interpolations"}
)
"""Parts of dotted parameters that change no figure but by rounding."""
WHY = (
    "Another processor or instruction set rounds differently and so trains other weights; where this "
    "machine is among them, look for what else changed."
)


@dataclass(frozen=True, kw_only=True)
class Headline:
    """A headline figure of a run: a share or a difference of shares; None where it must not be quoted."""

    name: str
    value: float | None
    unit: Literal["%", "points"] = "%"

    @property
    def percent(self) -> float | None:
        """As files and pages hold it, 12.3."""
        return None if self.value is None else round(100 * self.value, 1) + 0.0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One variant's entry in the file."""

    parameters: Mapping[str, Any]
    units: Mapping[str, str]
    runs: Sequence[Mapping[str, Any]]

    def among(self, name: str) -> list[float]:
        """What the runs measured of a figure, without those that were undecided."""
        values = (run["figures"].get(name) for run in self.runs)
        return [float(value) for value in values if value is not None]


def measured(target: str, *, file: Path = FILE) -> Measured | None:
    """The entry of "track/variant"; None where nothing was measured. Raises ArtifactError for a broken file."""
    stored = read_json(file)
    try:
        entry = stored["variants"].get(target)
        return None if entry is None else Measured(**entry)
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{file} is broken ({error}): restore it from the repository") from None


def deciding(params: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of a variant's parameters (by verb) those that decide its figures, by dotted name, as JSON reads them."""
    by_verb = {verb: params[verb] for verb in VERBS if verb in params}
    return {name: value for name, value in _flat(by_verb) if not PACES & set(name.split("."))}


def remarks(
    figures: Iterable[Headline], *, target: str, params: Mapping[str, Mapping[str, Any]], file: Path = FILE
) -> list[str]:
    """A sentence for each figure outside the range that was measured, or one that all are within; and why that may be.

    Empty where nothing was measured for these parameters. `params`: by verb, as a run's folders carry them.
    """
    known = measured(target, file=file)
    if known is None or not known.runs or deciding(params) != known.parameters:
        return []
    where, outside, compared = machines(known.runs), [], 0
    for figure in figures:
        values, value = known.among(figure.name), figure.percent
        if value is None or len(values) < 2:
            continue
        compared += 1
        low, high = min(values), max(values)
        if not low <= value <= high:
            outside.append(
                f"{figure.name} {value:.1f} {figure.unit} lies outside the {low:.1f} to {high:.1f} measured over "
                f"{len(values)} runs."
            )
    if not compared:
        return []
    if not outside:
        return [f"Every headline figure lies within what was measured over {len(known.runs)} runs ({where})."]
    runs = len(known.runs)
    chance = f"By chance alone a figure leaves the range of {runs} runs in 2 of {runs + 1} cases."
    return [*outside, f"Measured were {where}. {WHY} {chance}"]


def machines(runs: Sequence[Mapping[str, Any]]) -> str:
    """Which seeds ran on which machine, "seeds 0 to 2 on Intel Xeon Processor with AMX"."""
    seeds: dict[str, list[int]] = {}
    for run in runs:
        seeds.setdefault(str(run["machine"]), []).append(int(run["seed"]))
    return "; ".join(f"{_seeds(sorted(set(of)))} on {machine}" for machine, of in seeds.items())


def _seeds(of: Sequence[int]) -> str:
    if len(of) > 1 and list(of) == list(range(of[0], of[-1] + 1)):
        return f"seeds {of[0]} to {of[-1]}"
    return f"seed{'s' if len(of) > 1 else ''} {', '.join(map(str, of))}"


def _flat(tree: Mapping[str, Any], *, prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, prefix=f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.loads(json.dumps(value))  # tuples as lists
