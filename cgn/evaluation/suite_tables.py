"""The suites' numbers as Markdown: what stands beside results.json for people to read.

A share is in percent with one decimal, its 95 % interval in brackets; one table a suite, one row a head;
of corruptions one table a head, a row a corruption. What could not be computed is left empty.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cgn.evaluation.corruption_error import SEVERITIES
from cgn.evaluation.predictions import CLEAN, CUE_CONFLICT, IMAGENET_C, IN9, STYLIZED
from cgn.evaluation.suites import PREPARATION, Numbers, preparations, span

TOPS = {"top_1": "top-1", "top_5": "top-5"}
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
SUITES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    CLEAN: ("Clean images", TOPS),
    STYLIZED: ("Stylized images", TOPS),
    IN9: ("ImageNet-9", {name: name for name in VARIATIONS} | {"bg_gap": "BG-gap"}),
    CUE_CONFLICT: ("Cue conflict", CUES),
}
"""Suite -> its title, and number -> column."""
MEANS = {"mean_error": "mean error", "mce": "mCE", "relative_mce": "relative mCE"}
"""Each over the benchmark's fifteen corruptions, whatever else was evaluated."""
YARDSTICK = (
    "CE divides by AlexNet's error on ImageNet-C; where the images are others, as with Mini-ImageNet-C, it is not "
    "comparable with a published one."
)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


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
    heads = {(name, head): of for name, heads in numbers.items() for head, of in heads.items()}
    corrupted = {key: of[IMAGENET_C] for key, of in heads.items() if IMAGENET_C in of}
    undecided = [
        f"{what} of {name}, {head}: {of['undecided']}"
        for (name, head), suites in heads.items()
        for what, of in (
            ("shape bias", suites.get(CUE_CONFLICT, {})),
            ("BG-gap", suites.get(IN9, {}).get("bg_gap", {})),
        )
        if "undecided" in of
    ]
    rows = preparations(shown or {})
    how = [f"{suite}: {words}" for suite, words in (shown or {}).get("suites", {}).items()]
    suites = {title: _by_head(heads, suite, columns) for suite, (title, columns) in SUITES.items()}
    parts = {
        **suites,
        "What is undecided": _listed(undecided),
        "Corruptions: errors": "\n".join([YARDSTICK + "\n", *map(_corruptions, corrupted, corrupted.values())])
        if corrupted
        else "",
        "What was left out or is missing": _listed(remarks),
        "Pictures that could not be read": _listed(unreadable),
        "How pictures were shown": "\n".join(
            filter(None, [markdown_table(["classifier", *PREPARATION], rows) if rows else "", _listed(how)])
        ),
    }
    return "\n".join(f"## {title}\n\n{words}" for title, words in parts.items() if words)


def _by_head(heads: Mapping[tuple[str, str], Mapping[str, Any]], suite: str, columns: Mapping[str, str]) -> str:
    found = {key: of[suite] for key, of in heads.items() if suite in of}
    kept = {name: title for name, title in columns.items() if any(_shown(of, name) for of in found.values())}
    rows = [[*key, *(_shown(of, name) for name in kept)] for key, of in found.items()]
    return markdown_table(["classifier", "head", *kept.values()], rows) if rows else ""


def _corruptions(key: tuple[str, str], measured: Mapping[str, Any]) -> str:
    columns = ["corruption", *(f"severity {severity}" for severity in SEVERITIES), "mean error", "CE", "relative CE"]
    rows = [
        [
            name.replace("_", " "),
            *(_shown(error, "value") for error in of["severities"]),
            *(_shown(of, column) for column in ("mean_error", "ce", "relative_ce")),
        ]
        for name, of in measured["corruptions"].items()
    ]
    words = [f"clean error {_shown(measured, 'clean_error')}"] if "clean_error" in measured else []
    words += [f"{title} over the fifteen {_shown(measured, name)}" for name, title in MEANS.items() if name in measured]
    counts = [error["images"] for of in measured["corruptions"].values() for error in of["severities"]]
    words.append(f"{span(counts) if counts else 0} images each.")
    return f"### {', '.join(key)}\n\n{markdown_table(columns, rows)}\n{', '.join(words)}\n"


def _shown(of: Mapping[str, Any], name: str) -> str:
    """One number of a head, or the word that it is undecided, with its interval."""
    value = of.get(name)
    undecided = name == "shape_bias" and "undecided" in of
    if isinstance(value, Mapping):
        number = "undecided" if undecided or "undecided" in value else _shown(value, "value")
        return f"{number} ({100 * value['low']:.1f} to {100 * value['high']:.1f})"
    if value is None:
        return "undecided" if undecided else ""
    return f"{100 * value:.1f} %" if isinstance(value, float) else f"{value:,}"


def _listed(lines: Sequence[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)
