"""What five benchmarks say of every head, computed from an examination alone: no network, no picture is needed.

    clean, stylized    top-1 and top-5
    in9                accuracy by variation; BG-gap where both its variations are there
    cue_conflict       shape bias and shape accuracy, over all conflicts and by the shape's category
    imagenet_c         error by corruption and severity; CE, mCE and the relative mCE

Decided here: every proportion carries its counts and Wilson's 95 % interval, the gap Newcombe's. A number that cannot
be had, as mCE without all fifteen corruptions, is left out; nothing stands in its place. A shape bias goes with how
many decisions it counts, the shape accuracy on the conflicts, its chance, and why it is undecided where it is; the
summary, which is made to be compared, leaves an undecided one out.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from cgn.evaluation import background_gap, corruption_error
from cgn.evaluation.accuracy import Proportion, top
from cgn.evaluation.corruption_error import CorruptionErrors, corruption_errors
from cgn.evaluation.examination import Examination
from cgn.evaluation.shape_bias import ShapeBias, by_shape, shape_bias, undecided

CLEAN, IN9, CUE_CONFLICT, STYLIZED, IMAGENET_C = SUITES = (
    corruption_error.CLEAN,
    background_gap.SUITE,
    "cue_conflict",
    "stylized",
    corruption_error.SUITE,
)
Numbers = dict[str, dict[str, dict[str, dict[str, Any]]]]
"""Classifier -> head -> suite -> what it says, as JSON."""


PREPARATION = ("network", "prepared by", "photographs", "colours", "file", "SHA-256")
"""What `preparations` says of each classifier."""


def numbers(examination: Examination) -> Numbers:
    """All that follows from the decisions, for every suite that has any."""
    errors = {(one.classifier, one.head): one for one in corruption_errors(examination)}
    made: dict[str, Callable[[pd.DataFrame], dict[str, Any]]] = {
        CLEAN: _tops,
        STYLIZED: _tops,
        IN9: lambda rows: _in9(rows, superclass_of=np.array(examination.facts["superclass_of"], dtype=np.int64)),
        CUE_CONFLICT: lambda rows: _cue_conflict(rows, examination),
    }
    found: Numbers = {}
    for classifier in examination.classifiers:
        for head in examination.heads(classifier):
            told = found.setdefault(classifier, {}).setdefault(head, {})
            for suite, compute in made.items():
                if len(rows := examination.of(suite, classifier=classifier, head=head)):
                    told[suite] = compute(rows)
            if (classifier, head) in errors:
                told[IMAGENET_C] = _imagenet_c(errors[classifier, head])
    return found


def summary(found: Numbers) -> dict[str, float]:
    """The numbers that tables show, "<classifier>/<head>/<suite>/<number>" -> value; shares in [0,1]."""
    return {
        f"{classifier}/{head}/{suite}/{name}": value
        for classifier, heads in found.items()
        for head, suites in heads.items()
        for suite, told in suites.items()
        for name, value in _flat(told)
    }


def preparations(shown: Mapping[str, Any]) -> list[list[str]]:
    """A row for each classifier of an examination's fact `shown`: its name, and the texts of PREPARATION."""
    rows = []
    for name, of in shown.get("classifiers", {}).items():
        if not isinstance(of, Mapping) or not isinstance(told := of.get("preparation"), Mapping):
            continue
        recipe = f"{of['recipe']}, says {of.get('recipe_from')}" if "recipe" in of else "as it was trained here"
        photographs = f"{told.get('resize')}/{told.get('crop')}/{told.get('interpolation')}"
        mean, deviation = (", ".join(f"{value:g}" for value in told.get(key, ())) for key in ("mean", "deviation"))
        colours = f"0 to {255 / told.get('scale', 255):g}, minus {mean}, over {deviation}"
        colours += "; then transform_input" if told.get("transform_input") else ""
        file = [str(of.get(key, "")) for key in ("file", "sha256")]
        rows.append([str(name), str(of.get("network", "")), recipe, photographs, colours, *file])
    return rows


def span(counts: Collection[int]) -> str:
    """One number where all are equal, else "3 to 5"."""
    return " to ".join(f"{count:,}" for count in sorted({min(counts), max(counts)}))


def _tops(rows: pd.DataFrame) -> dict[str, Any]:
    return {"top_1": _share(top(rows, kept=1)), "top_5": _share(top(rows, kept=5))}


def _in9(rows: pd.DataFrame, *, superclass_of: background_gap.Superclasses) -> dict[str, Any]:
    shares = {
        str(variation): background_gap.superclass_accuracy(part, superclass_of=superclass_of)
        for variation, part in rows.groupby("condition", sort=True)
    }
    told: dict[str, Any] = {variation: _share(share) for variation, share in shares.items()}
    if gap := background_gap.background_gap(shares):
        told["bg_gap"] = _present(value=gap.gap, low=gap.low, high=gap.high, undecided=gap.undecided)
    return told


def _cue_conflict(rows: pd.DataFrame, examination: Examination) -> dict[str, Any]:
    names = examination.facts["categories"]
    categories = {name: _bias(bias, categories=len(names)) for name, bias in by_shape(rows, names=names).items()}
    told = _bias(shape_bias(rows), categories=len(names))
    return _present(**told, undecided=why_undecided(rows, examination), by_category=categories)


def why_undecided(rows: pd.DataFrame, examination: Examination) -> str | None:
    """`undecided` of the one head whose stimuli `rows` are."""
    classifier, head = map(str, rows[["classifier", "head"]].iloc[0])
    clean = examination.of(CLEAN, classifier=classifier, head=head)
    return undecided(rows, clean, categories=len(examination.facts["categories"]))


def _bias(bias: ShapeBias, *, categories: int) -> dict[str, Any]:
    return _present(
        shape=bias.shape,
        texture=bias.texture,
        decided=bias.shape + bias.texture,
        conflicts=bias.conflicts,
        shape_bias=_share(bias.bias) if bias.bias else None,
        shape_accuracy=_share(bias.accuracy) if bias.accuracy else None,
        chance=1 / categories,
    )


def _imagenet_c(errors: CorruptionErrors) -> dict[str, Any]:
    corruptions = {
        name: _present(
            severities=[_share(error) for error in by_severity],
            mean_error=errors.mean(name),
            ce=errors.ce(name),
            relative_ce=errors.relative_ce(name),
        )
        for name, by_severity in errors.errors.items()
    }
    means = _present(mean_error=errors.mean_error, mce=errors.mce, relative_mce=errors.relative_mce)
    clean = {"clean_error": _share(errors.clean)} if errors.clean else {}
    return {"corruptions": corruptions, **means, **clean}


def _share(proportion: Proportion) -> dict[str, Any]:
    return {
        "value": proportion.share,
        "low": proportion.low,
        "high": proportion.high,
        "hits": proportion.hits,
        "images": proportion.images,
    }


def _present(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _flat(told: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Top-level numbers, and the mean error of each corruption; not named `error`, which DVC takes for a failure."""
    for name, value in told.items():
        if name == "shape_bias":
            yield from _flat_bias(told)
        elif isinstance(value, float):
            yield name, value
        elif isinstance(value, Mapping) and "value" in value and "undecided" not in value:
            yield name, value["value"]
        elif name == "corruptions":
            yield from ((f"errors/{corruption}", of["mean_error"]) for corruption, of in value.items())


def _flat_bias(told: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The interval and the counts of a shape bias, and the bias itself where it is decided."""
    doubtful = "undecided" in told
    if not doubtful:
        yield "shape_bias", told["shape_bias"]["value"]
    yield from ((f"shape_bias_{end}", told["shape_bias"][end]) for end in ("low", "high"))
    yield from ((name, float(told[name])) for name in ("decided", "conflicts"))
    yield "undecided", float(doubtful)
