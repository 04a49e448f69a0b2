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


def study(
    sweep: Sweep,
    search: Search,
    *,
    run: Run,
    log: Callable[[str], object],
    noted: Callable[[Any], object],
) -> Any:
    """Bring a study up to its number of trials; the study, as Optuna has it. `noted` gets it before and after a trial.

    Nobody else works on it: the caller holds the sweep's lock. Raises ValueError for a wrong search, or a study of this
    name that has another one.
    """
    optuna = _optuna()
    distributions = {key: _distribution(optuna, key, words) for key, words in search.space.items()}
    found = _open(optuna, search, sweep)
    _ask_again(optuna, found, log=log)
    while (number := ended(found)) < search.trials:
        noted(found)
        found.sampler = optuna.samplers.TPESampler(seed=search.seed + number, n_startup_trials=STARTUP_TRIALS)
        trial = found.ask(distributions)
        overrides = {key: _short(trial.params[key], distributions[key]) for key in search.space}
        try:
            log(f"trial {number + 1} of {search.trials}")
            folder = finish(sweep, overrides, run=run, log=log)
        except RuntimeError as error:
            trial.set_user_attr(REASON, str(error))
            found.tell(trial, state=optuna.trial.TrialState.FAIL)
            log(f"trial {number + 1} failed: {error}")
            continue
        trial.set_user_attr(EXPERIMENT, folder.name)
        value = _value(folder, search.metric)
        found.tell(trial, value)
        log(f"trial {number + 1}: {search.metric} is {value:.4g}")
    noted(found)
    return found


def ended(found: Any) -> int:
    """How many trials have ended by themselves."""
    return len(_counted(found))


def failures(found: Any) -> list[str]:
    """Why trials failed."""
    reasons = {number: trial.user_attrs.get(REASON) for number, trial in enumerate(_counted(found), start=1)}
    return [f"trial {number}: {reason}" for number, reason in reasons.items() if reason]


def folders(found: Any, sweep: Sweep) -> list[Path]:
    """The points of the trials that ended well, in order."""
    names = [trial.user_attrs.get(EXPERIMENT, "") for trial in _counted(found)]
    return [sweep.folder / name for name in names if name and (sweep.folder / name).is_dir()]


def best(found: Any) -> dict[str, Any]:
    """The values of the best trial; empty before one has ended well."""
    return _values(top) if (top := _best(found)) else {}


def numbers(found: Any) -> dict[str, float]:
    """What a study found: the best value, and how much each parameter mattered."""
    top = _best(found)
    values = {"study/best_value": top.value, "study/best_trial": _counted(found).index(top) + 1} if top else {}
    return values | {f"importance/{key.rpartition('.')[2]}": share for key, share in importance(found).items()}


def lines(found: Any) -> list[dict[str, float]]:
    """A line for each trial that ended well: its number as `step`, its value and the best one so far."""
    made: list[dict[str, float]] = []
    higher = found.direction.name == "MAXIMIZE"
    for number, trial in enumerate(_counted(found), start=1):
        if trial.value is None:
            continue
        known = [line["study/best"] for line in made[-1:]] + [trial.value]
        values = {"study/value": trial.value, "study/best": max(known) if higher else min(known)}
        made.append({"step": number, "time": trial.datetime_complete.timestamp(), **values})
    return made


def table(found: Any) -> str:
    """The trials of a study in Markdown, the best one in bold, and how much each parameter mattered."""
    counted, top = _counted(found), _best(found)
    keys = list(dict.fromkeys(key for trial in counted for key in trial.params))
    metric = found.user_attrs[SETTINGS]["metric"]
    rows = [["trial", *(_words(key) for key in keys), metric, "experiment"], ["---"] * (len(keys) + 3)]
    for number, trial in enumerate(counted, start=1):
        shown = "failed" if trial.value is None else f"{trial.value:.4g}"
        cells = [str(number), *map(str, _values(trial).values()), shown, trial.user_attrs.get(EXPERIMENT, "")]
        rows.append([f"**{cell}**" if trial is top and cell else cell for cell in cells])
    text = ["| " + " | ".join(row) + " |" for row in rows]
    if weights := importance(found):
        shares = "; ".join(f"{_words(key)} {100 * weight:.0f} %" for key, weight in weights.items())
        text += ["", f"How much of the variance each parameter explains (fANOVA over these trials): {shares}."]
    return "\n".join(text) + "\n"


def importance(found: Any) -> dict[str, float]:
    """How much of the variance each parameter explains; empty where too few trials tell, or one parameter alone."""
    optuna = _optuna()
    done = [trial for trial in _counted(found) if trial.value is not None]
    if len(done) < STARTUP_TRIALS or len({trial.value for trial in done}) < 2:
        return {}
    varied = [key for key in done[0].params if len({str(trial.params[key]) for trial in done}) > 1]
    if len(varied) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return {
        key: float(value)
        for key, value in optuna.importance.get_param_importances(found, evaluator=evaluator, params=varied).items()
    }


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


def _ask_again(optuna: Any, found: Any, *, log: Callable[[str], object]) -> None:
    """Mark the trials that a kill has cut as failed, and have their values asked for first."""
    states = optuna.trial.TrialState
    waiting = [trial.system_attrs.get("fixed_params") for trial in found.get_trials(states=[states.WAITING])]
    for trial in found.get_trials(states=[states.RUNNING]):
        if trial.params not in waiting:
            found.enqueue_trial(trial.params)
        found._storage.set_trial_user_attr(trial._trial_id, CUT, True)
        found.tell(trial.number, state=states.FAIL)
        log(f"a trial was cut, it is run first: {', '.join(f'{key}={value}' for key, value in _values(trial).items())}")


def _best(found: Any) -> Any:
    """The best trial; None before one has ended well."""
    done = [trial for trial in _counted(found) if trial.value is not None]
    sign = 1 if found.direction.name == "MAXIMIZE" else -1
    return max(done, key=lambda trial: sign * trial.value, default=None)


def _values(trial: Any) -> dict[str, Any]:
    """The values that a trial set."""
    return {key: _short(value, trial.distributions[key]) for key, value in trial.params.items()}


def _counted(found: Any) -> list[Any]:
    """The trials that ended by themselves, in order."""
    return [
        trial
        for trial in found.get_trials(deepcopy=False)
        if trial.state.is_finished() and not trial.user_attrs.get(CUT)
    ]


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
