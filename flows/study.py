"""An Optuna study over the points of a sweep: which trials there were is in optuna.db, what they gave in DVC.

A trial is a point (`flows.points`), so its stages are cached like all others. The sampler of a trial is seeded by the
study's seed and the number of trials before it: a study that was killed goes on with the trials that it would have had.
A trial that was cut is marked as failed and asked for again with the same values, so it continues in its workspace.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.points import Run, Sweep, finish, metrics

STORE = "optuna.db"
STARTUP_TRIALS = 4
"""Random ones, before the sampler follows what it has seen."""
DIGITS = 3
"""Significant digits of a value that is set: more would only make the table hard to read."""
CUT, SETTINGS, REASON, EXPERIMENT = "cut", "settings", "reason", "experiment"
KINDS = "log:LOW:HIGH, float:LOW:HIGH, int:LOW:HIGH, or values such as 16,32,64"


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a study looks for."""

    space: Mapping[str, str]
    """Dotted key of params.yaml -> one of KINDS."""
    metric: str
    """A name in the evaluation's metrics.json, "accuracy/original/test_random"."""
    direction: str
    """"maximize" or "minimize"."""
    trials: int
    seed: int = 0


def study(sweep: Sweep, search: Search, *, run: Run, log: Callable[[str], object]) -> Any:
    """Bring a study up to its number of trials; the study, as Optuna has it.

    Raises ValueError for a wrong search, or a study of this name that has another one.
    """
    optuna = _optuna()
    distributions = {key: _distribution(optuna, key, words) for key, words in search.space.items()}
    states = optuna.trial.TrialState
    found = _open(optuna, search, sweep)
    for trial in found.get_trials(states=[states.RUNNING]):  # nobody else works on it: the caller holds the lock
        log(f"trial {trial.number} was cut: it is asked for again")
        found._storage.set_trial_user_attr(trial._trial_id, CUT, True)
        found.enqueue_trial(trial.params)
        found.tell(trial.number, state=states.FAIL)
    while (number := len(_counted(found))) < search.trials:
        found.sampler = optuna.samplers.TPESampler(seed=search.seed + number, n_startup_trials=STARTUP_TRIALS)
        trial = found.ask(distributions)
        overrides = {key: _short(trial.params[key], distributions[key]) for key in search.space}
        try:
            folder = finish(sweep, overrides, run=run, log=_headed(log, number))
        except RuntimeError as error:
            trial.set_user_attr(REASON, str(error))
            found.tell(trial, state=states.FAIL)
            log(f"trial {number} failed: {error}")
            continue
        trial.set_user_attr(EXPERIMENT, folder.name)
        found.tell(trial, _value(folder, search.metric))
        log(f"trial {number}: {search.metric} is {_value(folder, search.metric):.4g}")
    return found


def table(found: Any) -> str:
    """The trials of a study in Markdown, the best one, and how much each parameter mattered."""
    counted = _counted(found)
    keys = list(dict.fromkeys(key for trial in counted for key in trial.params))
    rows = [["trial", *(_words(key) for key in keys), "value", "experiment"], ["---"] * (len(keys) + 3)]
    best = max(
        (trial for trial in counted if trial.value is not None),
        key=lambda trial: trial.value if found.direction.name == "MAXIMIZE" else -trial.value,
        default=None,
    )
    for number, trial in enumerate(counted):
        values = [str(_short(trial.params[key], trial.distributions[key])) for key in keys]
        reason = trial.user_attrs.get(REASON, "")
        shown = (
            f"{trial.value:.4g}" if trial.value is not None else f"failed: {reason.splitlines()[0] if reason else ''}"
        )
        cells = [str(number), *values, shown, trial.user_attrs.get(EXPERIMENT, "")]
        rows.append([f"**{cell}**" if trial is best and cell else cell for cell in cells])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    if weights := importance(found):
        shares = "; ".join(f"{_words(key)} {100 * weight:.0f} %" for key, weight in weights.items())
        lines += ["", f"How much of the variance each parameter explains (fANOVA, {len(counted)} trials): {shares}."]
    return "\n".join(lines) + "\n"


def importance(found: Any) -> dict[str, float]:
    """How much of the variance each parameter explains; empty where too few trials tell, or one parameter alone."""
    optuna = _optuna()
    done = [trial for trial in _counted(found) if trial.value is not None]
    if len(done) < STARTUP_TRIALS or len({trial.value for trial in done}) < 2 or len(done[0].params) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return {
        key: float(value) for key, value in optuna.importance.get_param_importances(found, evaluator=evaluator).items()
    }


def parse_space(words: list[str]) -> dict[str, str]:
    """KEY=KIND of the command line, with or without the `++` that DVC wants. Raises ValueError for anything else."""
    pairs = [word.removeprefix("++").partition("=") for word in words]
    if wrong := [word for word, (key, _, kind) in zip(words, pairs, strict=True) if not key or not kind]:
        raise ValueError(f"--set {wrong[0]}: expected KEY=KIND, with KIND {KINDS}")
    return {key: kind for key, _, kind in pairs}


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ValueError("a study needs Optuna, which is not installed: uv sync --group platform") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(optuna: Any, key: str, words: str) -> Any:
    """A kind in words as Optuna's distribution."""
    kind, *ends = words.split(":")
    try:
        if not ends:
            return optuna.distributions.CategoricalDistribution([scalar(word) for word in words.split(",")])
        low, high = ends
        match kind:
            case "int":
                return optuna.distributions.IntDistribution(int(low), int(high))
            case "float" | "log":
                return optuna.distributions.FloatDistribution(float(low), float(high), log=kind == "log")
    except ValueError as error:
        raise ValueError(f"{key}={words}: {error}; expected {KINDS}") from None
    raise ValueError(f"{key}={words}: {kind!r} is no kind; expected {KINDS}")


def scalar(word: str) -> Any:
    """A value as YAML reads it."""
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(word)


def _open(optuna: Any, search: Search, sweep: Sweep) -> Any:
    """The study of the sweep's name. One in which no trial has ended takes other settings.

    Raises ValueError for any other: trials compare only where the space, the metric, the variant and its other
    parameters are equal.
    """
    from ruamel.yaml import YAML

    tree = YAML(typ="safe").load(sweep.root / "params.yaml")
    track, _, variant = sweep.variant.partition("/")
    settings = {"variant": sweep.variant, "space": dict(search.space), "metric": search.metric, "seed": search.seed}
    settings |= {"direction": search.direction, "parameters": tree.get(track, {}).get(variant)}
    store = {"storage": f"sqlite:///{sweep.root / STORE}", "study_name": sweep.name}
    for name in optuna.get_all_study_names(store["storage"]):
        if name == sweep.name:
            known = optuna.load_study(**store)
            other = [key for key, value in settings.items() if known.user_attrs.get(SETTINGS, {}).get(key) != value]
            if not other:
                return known
            if _counted(known):
                began = f"the study {sweep.name} in {STORE} was begun with another {' and '.join(other)}"
                raise ValueError(f"{began}: give this one a --name of its own")
            optuna.delete_study(**store)
    found = optuna.create_study(**store, direction=search.direction)
    found.set_user_attr(SETTINGS, settings)
    return found


def _counted(found: Any) -> list[Any]:
    """The trials that ended by themselves, in order."""
    return [
        trial
        for trial in found.get_trials(deepcopy=False)
        if trial.state.is_finished() and not trial.user_attrs.get(CUT)
    ]


def _headed(log: Callable[[str], object], number: int) -> Callable[[str], object]:
    return lambda words: log(f"trial {number}: {words}")


def _value(folder: Path, metric: str) -> float:
    known = metrics(folder)
    if metric not in known:
        raise ValueError(f"the evaluation has no metric {metric!r}; it has: {', '.join(known)}")
    return known[metric]


def _short(value: Any, distribution: Any) -> Any:
    """A value with few digits, within its range."""
    if not isinstance(value, float) or not hasattr(distribution, "low"):
        return value
    return min(max(float(f"{value:.{DIGITS}g}"), distribution.low), distribution.high)


def _words(key: str) -> str:
    return key.rpartition(".")[2].replace("_", " ")
