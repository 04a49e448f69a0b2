"""ImageNet's suites: their classes, and what the stored predictions say of every head on each of them.

    clean, stylized    top-1 and top-5
    in9                accuracy by variation; BG-gap where both its variations are there
    cue_conflict       shape bias and shape accuracy, over all conflicts and by the shape's category
    imagenet_c         error by corruption and severity; CE, mCE and the relative mCE

Every proportion has its counts and Wilson's 95 % interval, the gap Newcombe's. A number that cannot be computed, as mCE
without all fifteen corruptions, is left out; nothing takes its place. A shape bias goes with how many decisions it
counts, the shape accuracy on the conflicts, its chance, and why it is undecided where it is; the summary, whose numbers
are compared between runs, leaves an undecided one out.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cgn.evaluation.corruption_error import CorruptionErrors, corruption_errors
from cgn.evaluation.intervals import Proportion
from cgn.evaluation.metrics import (
    ShapeBias,
    Superclasses,
    background_gap,
    by_shape,
    shape_bias,
    superclass_accuracy,
    top,
    undecided,
)
from cgn.evaluation.predictions import CLEAN, CUE_CONFLICT, IMAGENET_C, IN9, NONE, STYLIZED, Predictions

IMAGENET_CLASSES = 1000
SUPERCLASSES: dict[str, tuple[int, ...]] = {
    "dog": (*range(151, 171), *range(173, 269)),
    "bird": (*range(7, 25), *range(87, 101), *range(127, 147)),
    "wheeled vehicle": (
        407, 408, 428, 436, 444, 468, 511, 547, 555, 561, 565, 569, 573, 586, 603, 609, 612, 627, 656, 661, 665,
        670, 671, 675, 690, 705, 717, 734, 751, 757, 791, 802, 803, 817, 820, 829, 847, 864, 866, 867, 870, 880,
    ),
    "reptile": (*range(33, 69),),
    "carnivore": (*range(269, 281), *range(286, 300), *range(356, 363), 387, 388),
    "insect": (*range(300, 327),),
    "musical instrument": (
        401, 402, 420, 432, 486, 494, 513, 541, 546, 558, 566, 577, 579, 593, 594, 641, 642, 683, 684, 687, 699, 776,
        822, 875, 881, 889,
    ),
    "primate": (*range(365, 385),),
    "fish": (*range(7), *range(389, 398)),
}  # fmt: skip
"""ImageNet-9's superclasses, in the order of their numbers, 0 to 8 -> their classes: WordNet's hyponyms of nine
synsets, as published with the backgrounds challenge (Xiao et al., ICLR 2021). 630 classes are in none."""
CATEGORIES: dict[str, tuple[int, ...]] = {
    "airplane": (404,),
    "bear": (294, 295, 296, 297),
    "bicycle": (444, 671),
    "bird": (
        8, *range(10, 17), 18, 19, 20, 22, 23, 24, *range(80, 84), *range(87, 97), 98, 99, 100, *range(127, 134),
        *range(135, 146),
    ),
    "boat": (472, 554, 625, 814, 914),
    "bottle": (440, 720, 737, 898, 899, 901, 907),
    "car": (436, 511, 817),
    "cat": (281, 282, 283, 284, 285, 286),
    "chair": (423, 559, 765, 857),
    "clock": (409, 530, 892),
    "dog": (
        *range(152, 192), *range(193, 204), *range(205, 227), *range(228, 242), *range(243, 251), *range(252, 258),
        259, 261, 262, 263, *range(265, 269),
    ),
    "elephant": (385, 386),
    "keyboard": (508, 878),
    "knife": (499,),
    "oven": (766,),
    "truck": (555, 569, 656, 675, 717, 734, 864, 867),
}  # fmt: skip
"""The sixteen entry-level categories of the cue-conflict test, in alphabetical order -> their classes, 0 to 999
(Geirhos et al., 2018, 2019; github.com/rgeirhos/texture-vs-shape): WordNet hyponyms, as published with the stimuli,
even where it surprises (no Chihuahua among dogs, no ostrich among birds)."""
Numbers = dict[str, dict[str, dict[str, dict[str, Any]]]]
"""Classifier -> head -> suite -> its numbers, as JSON."""
PREPARATION = ("network", "prepared by", "photographs", "colours", "file", "SHA-256")
"""The columns of `preparations`."""


def superclass_of() -> Superclasses:
    """(1000,) the number of each class's superclass, 0 to 8, or -1."""
    found = np.full(IMAGENET_CLASSES, NONE, dtype=np.int64)
    for number, members in enumerate(SUPERCLASSES.values()):
        found[list(members)] = number
    return found


def numbers(predictions: Predictions, *, corrupted: Sequence[CorruptionErrors] | None = None) -> Numbers:
    """All that follows from the predictions, for every suite that has any; `corrupted`: if it is computed already."""
    corrupted = corruption_errors(predictions) if corrupted is None else corrupted
    errors = {(one.classifier, one.head): one for one in corrupted}
    metrics: dict[str, Callable[[pd.DataFrame], dict[str, Any]]] = {
        CLEAN: _tops,
        STYLIZED: _tops,
        IN9: lambda rows: _in9(rows, superclass_of=np.array(predictions.facts["superclass_of"], dtype=np.int64)),
        CUE_CONFLICT: lambda rows: _cue_conflict(rows, predictions),
    }
    found: Numbers = {}
    for classifier in predictions.classifiers:
        for head in predictions.heads(classifier):
            suites = found.setdefault(classifier, {}).setdefault(head, {})
            for suite, compute in metrics.items():
                if len(rows := predictions.of(suite, classifier=classifier, head=head)):
                    suites[suite] = compute(rows)
            if (classifier, head) in errors:
                suites[IMAGENET_C] = _imagenet_c(errors[classifier, head])
    return found


def summary(found: Numbers) -> dict[str, float]:
    """The numbers that tables show, "<classifier>/<head>/<suite>/<number>" -> value; shares in [0,1]."""
    return {
        f"{classifier}/{head}/{suite}/{name}": value
        for classifier, heads in found.items()
        for head, suites in heads.items()
        for suite, values in suites.items()
        for name, value in _flat(values)
    }


def preparations(shown: Mapping[str, Any]) -> list[list[str]]:
    """A row for each classifier of an predictions's fact `shown`: its name, and the texts of PREPARATION."""
    rows = []
    for name, of in shown.get("classifiers", {}).items():
        if not isinstance(of, Mapping) or not isinstance(prepared := of.get("preparation"), Mapping):
            continue
        recipe = f"{of['recipe']}, says {of.get('recipe_from')}" if "recipe" in of else "as it was trained here"
        photographs = f"{prepared.get('resize')}/{prepared.get('crop')}/{prepared.get('interpolation')}"
        mean, deviation = (", ".join(f"{value:g}" for value in prepared.get(key, ())) for key in ("mean", "deviation"))
        colours = f"0 to {255 / prepared.get('scale', 255):g}, minus {mean}, over {deviation}"
        colours += "; then transform_input" if prepared.get("transform_input") else ""
        file = [str(of.get(key, "")) for key in ("file", "sha256")]
        rows.append([str(name), str(of.get("network", "")), recipe, photographs, colours, *file])
    return rows


def span(counts: Collection[int]) -> str:
    """One number where all are equal, else "3 to 5"."""
    return " to ".join(f"{count:,}" for count in sorted({min(counts), max(counts)}))


def _tops(rows: pd.DataFrame) -> dict[str, Any]:
    return {"top_1": _share(top(rows, kept=1)), "top_5": _share(top(rows, kept=5))}


def _in9(rows: pd.DataFrame, *, superclass_of: Superclasses) -> dict[str, Any]:
    shares = {
        str(variation): superclass_accuracy(part, superclass_of=superclass_of)
        for variation, part in rows.groupby("condition", sort=True)
    }
    found: dict[str, Any] = {variation: _share(share) for variation, share in shares.items()}
    if gap := background_gap(shares):
        found["bg_gap"] = _present(value=gap.gap, low=gap.low, high=gap.high, undecided=gap.undecided)
    return found


def _cue_conflict(rows: pd.DataFrame, predictions: Predictions) -> dict[str, Any]:
    names = predictions.facts["categories"]
    categories = {name: _bias(bias, categories=len(names)) for name, bias in by_shape(rows, names=names).items()}
    whole = _bias(shape_bias(rows), categories=len(names))
    return _present(**whole, undecided=why_undecided(rows, predictions), by_category=categories)


def why_undecided(rows: pd.DataFrame, predictions: Predictions) -> str | None:
    """`undecided` of the one head whose stimuli `rows` are."""
    classifier, head = map(str, rows[["classifier", "head"]].iloc[0])
    clean = predictions.of(CLEAN, classifier=classifier, head=head)
    return undecided(rows, clean, categories=len(predictions.facts["categories"]))


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


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Top-level numbers, and the mean error of each corruption; not named `error`, which DVC takes for a failure."""
    for name, value in values.items():
        if name == "shape_bias":
            yield from _flat_bias(values)
        elif isinstance(value, float):
            yield name, value
        elif isinstance(value, Mapping) and "value" in value and "undecided" not in value:
            yield name, value["value"]
        elif name == "corruptions":
            yield from ((f"errors/{corruption}", of["mean_error"]) for corruption, of in value.items())


def _flat_bias(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The interval and the counts of a shape bias, and the bias itself where it is decided."""
    doubtful = "undecided" in values
    if not doubtful:
        yield "shape_bias", values["shape_bias"]["value"]
    yield from ((f"shape_bias_{end}", values["shape_bias"][end]) for end in ("low", "high"))
    yield from ((name, float(values[name])) for name in ("decided", "conflicts"))
    yield "undecided", float(doubtful)
