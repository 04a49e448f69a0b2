"""The small print of the page: what is missing, what could not be read, what can be compared with what.

Decided here: a suite, variation or corruption that was not examined is named, and every picture that could not be read
is counted and named, whether or not a number would change. Departures from published settings are found by comparing.
"""

from collections.abc import Mapping, Sequence

from cgn.data.image_folders import VARIATIONS
from cgn.evaluation.corruption_error import ALEXNET
from cgn.evaluation.predictions import CLEAN, CUE_CONFLICT, IMAGENET_C, IN9, STYLIZED, SUITES
from cgn.evaluation.suites import PREPARATION, preparations, span
from cgn.imagenet.evidence import BASELINE, TITLES, Evidence
from cgn.imagenet.page_corruptions import IMAGENET
from cgn.imagenet.published import SETTINGS
from cgn.report.page import Html, element, join, paragraph, section, text
from cgn.report.page_settings import departure_table, departures
from cgn.report.tabulated import Cell, Column, Table
from cgn.report.wording import DASH

NAMES = {
    CLEAN: "clean validation images",
    IN9: "ImageNet-9",
    CUE_CONFLICT: "cue conflict",
    STYLIZED: "Stylized-ImageNet",
    IMAGENET_C: "corruptions (ImageNet-C)",
}
PUBLISHED_IMAGES = {CLEAN: IMAGENET, IN9: 4_050, CUE_CONFLICT: 1_280}
"""Pictures of a condition in the published benchmarks."""
CLASSES = 1000


def notes_section(evidence: Evidence) -> Html:
    """What is missing, and what can be compared with what."""
    blocks = [
        element("ul", *(element("li", text(item)) for item in comparisons(evidence))),
        *_how_shown(evidence),
        element("h3", text("What is missing")),
        element("ul", *(element("li", text(item)) for item in missing(evidence))),
        *_unreadable(evidence),
    ]
    differing = departures(SETTINGS, evidence.params)
    if differing:
        blocks.append(departure_table(differing))
    elif evidence.params:
        blocks.append(paragraph("Every published setting that this run's folders tell of was kept."))
    return section("What can be compared with what", join(blocks, between="\n"), name="notes")


def preparation_tables(evidence: Evidence) -> list[Table]:
    """Network, preparation and file of each classifier; none where the decisions do not say."""
    rows = [[Cell(value=cell or DASH) for cell in row] for row in preparations(evidence.shown)]
    columns = [
        Column(title=title) for title in ("Classifier", *(title[0].upper() + title[1:] for title in PREPARATION))
    ]
    caption = "What each classifier was shown: photographs by resize/crop/interpolation"
    return [Table(caption=caption, columns=columns, rows=rows, class_="wide small")] if rows else []


def shown_suites(evidence: Evidence) -> list[str]:
    """A sentence for each suite: what is done to its pictures before the colours."""
    suites: Mapping[str, str] = evidence.shown.get("suites", {})
    return [f"{NAMES.get(suite, suite).capitalize()}: {words}" for suite, words in suites.items()]


def _how_shown(evidence: Evidence) -> list[Html]:
    tables, suites = [table.html() for table in preparation_tables(evidence)], shown_suites(evidence)
    if not (tables or suites):
        return []
    items = [element("ul", *(element("li", text(item)) for item in suites))] if suites else []
    return [element("h3", text("How pictures were shown")), *tables, *items]


def comparisons(evidence: Evidence) -> list[str]:
    """One sentence for each limit of a comparison."""
    items = [
        "Intervals are 95 %: Wilson's for shares, Newcombe's for differences; where a picture was shown under several "
        "corruptions, pictures and not answers were counted as independent. They belong to these trained classifiers; "
        "another seed trains others.",
        first_limit(evidence),
    ]
    if differences := _other_counts(evidence):
        items.append(f"The benchmarks are not of the published size: {differences}.")
    items.append(
        "The paper's classifiers are ResNet-50 on ImageNet, the replication's (Bagad et al.) on ImageNet-mini. A "
        "published top-1 of the ensemble is set beside the mean of its three heads, the background gap beside shape "
        "+ texture, as the paper computes it. “Better” and “worse” than the paper mean that the whole interval lies on "
        "one side of the paper's number, else they are equal within the interval; it is said only where a suite has as "
        "many pictures and classes as the published one."
    )
    return items


def first_limit(evidence: Evidence) -> str:
    """Whether the published numbers are of the same task at all, in one sentence."""
    if evidence.classes != CLASSES:
        return (
            f"Not comparable in size: this run tells {evidence.classes} classes apart, the published ones "
            f"{CLASSES:,}, on other pictures. Chance, accuracies, errors and gaps differ for that alone. The published "
            "numbers stand here to show which way an effect should point."
        )
    return (
        f"The published numbers are of the same {CLASSES:,} classes. They can be compared where pictures and settings "
        "are the published ones; the differences are listed below."
    )


def missing(evidence: Evidence) -> list[str]:
    """A sentence for each thing that was not examined."""
    rows = evidence.examination.rows
    present = {str(suite) for suite in rows["suite"].unique()}
    asked = evidence.params.get("evaluate", {}).get("suites")
    items = [f"{NAMES[suite]}: not examined{_asked(suite, asked)}" for suite in SUITES if suite not in present]
    if IN9 in present and (absent := _absent(evidence, IN9, VARIATIONS)):
        items.append(f"ImageNet-9: no {', '.join(absent)}")
    if IMAGENET_C in present and (absent := _absent(evidence, IMAGENET_C, tuple(ALEXNET))):
        items.append(f"Corruptions: no {', '.join(absent)}; so there is no mCE")
    if BASELINE not in {head.key for head in evidence.heads}:
        items.append("No baseline was examined, so nothing tells what the counterfactuals changed")
    if absent := [title for key, title in TITLES.items() if key[0] == "ensemble" and not evidence.head(key)]:
        items.append(f"Heads that were not examined: {', '.join(absent)}")
    items += [str(remark) for remark in evidence.examination.facts["remarks"]]
    return items or ["Nothing: every suite, variation and corruption was examined."]


def _asked(suite: str, asked: Sequence[str] | None) -> str:
    """Whether the parameters wanted it, where they are told."""
    if asked is None:
        return ""
    return f", though evaluate.suites names {suite}" if suite in asked else f", as evaluate.suites leaves {suite} out"


def _absent(evidence: Evidence, suite: str, expected: Sequence[str]) -> list[str]:
    conditions = evidence.examination.of(suite)["condition"].unique()
    present = {str(condition).partition("/")[0] for condition in conditions}
    return [name for name in expected if name not in present]


def of_published_size(evidence: Evidence, suite: str) -> bool:
    """Whether a suite was shown as many pictures as the published one, to networks of as many classes."""
    rows = evidence.examination.of(suite)
    if evidence.classes != CLASSES or not len(rows):
        return False
    return int(rows.groupby("condition")["image"].nunique().max()) == PUBLISHED_IMAGES.get(suite)


def _other_counts(evidence: Evidence) -> str:
    """Where a suite's conditions have another number of pictures than the published ones."""
    found = {suite: by_condition(evidence, suite) for suite in PUBLISHED_IMAGES}
    differing = [
        f"{NAMES[suite]} {span(counts)} pictures here, {PUBLISHED_IMAGES[suite]:,} published"
        for suite, counts in found.items()
        if counts and set(counts) != {PUBLISHED_IMAGES[suite]}
    ]
    return "; ".join(differing)


def by_condition(evidence: Evidence, suite: str) -> list[int]:
    """How many pictures each condition of a suite has; a picture that stands in two counts in both."""
    return [int(count) for count in evidence.examination.of(suite).groupby("condition")["image"].nunique()]


def _unreadable(evidence: Evidence) -> list[Html]:
    """How many pictures could not be read, and which."""
    named = [str(why) for why in evidence.examination.facts["unreadable"]]
    if not named:
        return [paragraph("Every picture could be read.", class_="note")]
    told = (
        f"{len(named):,} pictures could not be read and are in no number: "
        if len(named) > 1
        else ("1 picture could not be read and is in no number: ")
    )
    items = element("ul", *(element("li", element("code", text(why))) for why in named))
    return [element("details", element("summary", text(told.removesuffix(": "))), items)]
