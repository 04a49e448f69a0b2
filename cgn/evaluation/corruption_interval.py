"""Corruption errors with intervals: the same numbers as `cgn.evaluation.corruption_error`, pictures as clusters.

Decided here: a corruption's mean error and its CE have Wilson's interval (`cgn.evaluation.estimates`); mCE and the
relative ones, which leave [0,1], the normal one. A picture's clean decision is part of its cluster where it is the same
picture by its name.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from cgn.evaluation.corruption_error import (
    ALEXNET,
    ALEXNET_CLEAN,
    CLEAN,
    SEVERITIES,
    SUITE,
    CorruptionErrors,
    condition,
)
from cgn.evaluation.estimates import Estimate, mean_error, weighted
from cgn.evaluation.examination import Examination


@dataclass(frozen=True, kw_only=True)
class CorruptionEstimates:
    """The numbers of one head; a number that cannot be had is None or has no key."""

    errors: Mapping[str, Estimate]
    """Corruption -> mean error over the severities, in [0,1]."""
    ce: Mapping[str, Estimate]
    """As a share of AlexNet's, for corruptions of the fifteen."""
    relative_ce: Mapping[str, Estimate]
    mean_error: Estimate | None
    mce: Estimate | None
    relative_mce: Estimate | None


def corruption_estimates(examination: Examination, one: CorruptionErrors) -> CorruptionEstimates:
    """Intervals for what `corruption_errors` found for one head of the same examination."""
    outcomes = _outcomes(examination, one)
    errors = {name: mean_error(outcomes, _spread({name: 1.0})) for name in one.errors}
    relative = {name: 1 / (error - ALEXNET_CLEAN) for name, error in ALEXNET.items()}
    whole = all(name in one.errors for name in ALEXNET)
    fifteenth = 1 / len(ALEXNET)
    return CorruptionEstimates(
        errors=errors,
        ce={name: error.times(1 / ALEXNET[name]) for name, error in errors.items() if name in ALEXNET},
        relative_ce={
            name: weighted(outcomes, _above_clean({name: relative[name]}))
            for name in one.errors
            if name in ALEXNET and one.clean
        },
        mean_error=mean_error(outcomes, _spread(dict.fromkeys(ALEXNET, fifteenth))) if whole else None,
        mce=weighted(outcomes, _spread({n: fifteenth / error for n, error in ALEXNET.items()})) if whole else None,
        relative_mce=weighted(outcomes, _above_clean({name: fifteenth * factor for name, factor in relative.items()}))
        if whole and one.clean
        else None,
    )


def _outcomes(examination: Examination, one: CorruptionErrors) -> pd.DataFrame:
    """Picture x condition: 1 where `top_1` is not the label; clean decisions under CLEAN."""
    rows = examination.of(SUITE, classifier=one.classifier, head=one.head)
    if not (rows["condition"] == CLEAN).any():
        plain = examination.of(CLEAN, classifier=one.classifier, head=one.head)
        rows = pd.concat([rows, plain.assign(condition=CLEAN)])
    wrong = rows.assign(wrong=(rows["top_1"] != rows["label"]).astype(float))
    return wrong.pivot_table(index="image", columns="condition", values="wrong")


def _spread(factors: Mapping[str, float]) -> dict[str, float]:
    """A corruption's factor, evenly over its severities."""
    return {
        condition(name, severity): factor / len(SEVERITIES)
        for name, factor in factors.items()
        for severity in SEVERITIES
    }


def _above_clean(factors: Mapping[str, float]) -> dict[str, float]:
    """The same for what an error has above the clean one."""
    return _spread(factors) | {CLEAN: -sum(factors.values())}
