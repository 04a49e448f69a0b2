"""The suites' numbers as Markdown: what stands beside results.json for people to read.

A share is in percent with one decimal, its 95 % interval in brackets; one table a suite, one row a head;
of corruptions one table a head, a row a corruption. What could not be computed is left empty.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cgn.evaluation.corruption_error import SEVERITIES
from cgn.evaluation.predictions import CLEAN, CUE_CONFLICT, IMAGENET_C, IN9, STYLIZED
from cgn.evaluation.suites import PREPARATION, Numbers, preparations, span

VARIATIONS = ("original", "mixed_same", "mixed_rand", "mixed_next", "only_fg", "no_fg", "only_bg_b", "only_bg_t")
CUES = {
    "shape_bias": "shape bias",
    "shape": "for shape",
    "texture": "for texture",
    "decided": "decided",
    "conflicts": "conflicts",
    "shape_accuracy": "shape accuracy",
    "chance": "its chance",
}
MEANS = {"mean_error": "mean error", "mce": "mCE", "relative_mce": "relative mCE"}
"""Each over the benchmark's fifteen corruptions, whatever else was evaluated."""
YARDSTICK = (
    "CE divides by AlexNet's error on ImageNet-C; where the images are others, as with Mini-ImageNet-C, it is not "
    "comparable with a published one."
)


def tables(
    numbers: Numbers,
    *,
    remarks: Sequence[str] = (),
    unreadable: Sequence[str] = (),
    shown: Mapping[str, Any] | None = None,
) -> str:
    """Everything that `cgn.evaluation.suites.numbers` found, what was left out, and what networks were shown.

    `shown`: the fact of that name, of `cgn.evaluation.predictions`.
    """
    parts = [
        _by_head(numbers, CLEAN, "Clean images", {"top_1": "top-1", "top_5": "top-5"}),
        _by_head(numbers, STYLIZED, "Stylized images", {"top_1": "top-1", "top_5": "top-5"}),
        _by_head(numbers, IN9, "ImageNet-9", {**{name: name for name in VARIATIONS}, "bg_gap": "BG-gap"}),
        _by_head(numbers, CUE_CONFLICT, "Cue conflict", CUES),
        _listed("What is undecided", _undecided(numbers)),
        _corruptions(numbers),
        _listed("What was left out or is missing", remarks),
        _listed("Pictures that could not be read", unreadable),
        _preparations(shown or {}),
    ]
    return "\n".join(part for part in parts if part)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _by_head(numbers: Numbers, suite: str, title: str, columns: Mapping[str, str]) -> str:
    found = {(name, head): of[suite] for name, heads in numbers.items() for head, of in heads.items() if suite in of}
    if not found:
        return ""
    kept = {key: shown for key, shown in columns.items() if any(_shown(of, key) for of in found.values())}
    rows = [[*key, *(_shown(of, column) for column in kept)] for key, of in found.items()]
    return f"## {title}\n\n{markdown_table(['classifier', 'head', *kept.values()], rows)}"


def _undecided(numbers: Numbers) -> list[str]:
    """A sentence for each head that cannot be said to follow either cue."""
    return [
        f"{what} of {name}, {head}: {of['undecided']}"
        for name, heads in numbers.items()
        for head, suites in heads.items()
        for what, of in (
            ("shape bias", suites.get(CUE_CONFLICT, {})),
            ("BG-gap", suites.get(IN9, {}).get("bg_gap", {})),
        )
        if "undecided" in of
    ]


def _corruptions(numbers: Numbers) -> str:
    parts = []
    for classifier, heads in numbers.items():
        for head, of in heads.items():
            if IMAGENET_C in of:
                parts.append(f"### {classifier}, {head}\n\n{_of_head(of[IMAGENET_C])}")
    return "\n".join([f"## Corruptions: errors\n\n{YARDSTICK}\n", *parts]) if parts else ""


def _of_head(measured: Mapping[str, Any]) -> str:
    rows = [
        [
            name.replace("_", " "),
            *(_percent(error["value"]) for error in of["severities"]),
            *(_shown(of, column) for column in ("mean_error", "ce", "relative_ce")),
        ]
        for name, of in measured["corruptions"].items()
    ]
    columns = ["corruption", *(f"severity {severity}" for severity in SEVERITIES), "mean error", "CE", "relative CE"]
    means = [f"{title} over the fifteen {_shown(measured, name)}" for name, title in MEANS.items() if name in measured]
    clean = [f"clean error {_shown(measured, 'clean_error')}"] if "clean_error" in measured else []
    counts = [error["images"] for of in measured["corruptions"].values() for error in of["severities"]]
    images = span(counts) if counts else "0"
    return f"{markdown_table(columns, rows)}\n{', '.join([*clean, *means, f'{images} images each'])}.\n"


def _preparations(shown: Mapping[str, Any]) -> str:
    """Which network each classifier is, of which file, and what is done to an image before it sees it."""
    rows = preparations(shown)
    table = markdown_table(["classifier", *PREPARATION], rows) if rows else ""
    suites = "".join(f"- {suite}: {words}\n" for suite, words in shown.get("suites", {}).items())
    parts = [part for part in (table, suites) if part]
    return "\n".join(["## How pictures were shown\n", *parts]) if parts else ""


def _shown(of: Mapping[str, Any], column: str) -> str:
    """One number of a head, or the word that it is undecided, with its interval."""
    value = of.get(column)
    if isinstance(value, Mapping):
        undecided = "undecided" in value or (column == "shape_bias" and "undecided" in of)
        number = "undecided" if undecided else _percent(value["value"])
        return f"{number} ({100 * value['low']:.1f} to {100 * value['high']:.1f})"
    if isinstance(value, float):
        return _percent(value)
    if column == "shape_bias" and "undecided" in of:
        return "undecided"
    return "" if value is None else f"{value:,}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _listed(title: str, lines: Sequence[str]) -> str:
    return f"## {title}\n\n" + "".join(f"- {line}\n" for line in lines) if lines else ""
