"""Mini-ImageNet-C on the page: plain errors first, CE and mCE beside them, curves, and every severity folded away.

Decided here: a CE divides by AlexNet's error on ImageNet-C, which other pictures than its 50,000 do not share; so the
plain error stands in every cell, and the section says what its mCE can be compared with.
"""

from dataclasses import replace
from statistics import fmean

from cgn.evaluation.corruption_error import ALEXNET, ALEXNET_CLEAN, SEVERITIES, CorruptionErrors
from cgn.evaluation.suites import span
from cgn.imagenet.cells import name, number, printed, share
from cgn.imagenet.evidence import AVERAGE, BASELINE, SHAPE, Evidence, Head
from cgn.imagenet.pictures import drawn
from cgn.report.confusion_picture import DARK, LIGHT, Theme
from cgn.report.corruption_picture import CURVES, curves
from cgn.report.page import Html, element, paragraph, picture, section, text
from cgn.report.tabulated import NOTHING, Cell, Column, Table
from cgn.report.wording import percent

CHOSEN = (BASELINE, AVERAGE, SHAPE)
"""The heads of the table by corruption and of the curves, where they were examined."""
IMAGENET = 50_000
"""Validation images, from which ImageNet-C was made."""


def corruption_tables(evidence: Evidence) -> list[Table]:
    """The means of every head, and the chosen heads by corruption; none where nothing was corrupted."""
    heads = _corrupted(evidence)
    return [_means(heads), _by_corruption(_chosen(heads))] if heads else []


def corruption_section(evidence: Evidence) -> Html:
    """Errors under corruption."""
    heads = _corrupted(evidence)
    if not heads:
        told = paragraph("No corrupted pictures were examined.", class_="muted")
        return section("Corruptions", told, name="corruptions")
    words = (
        "Each corruption is applied at five severities. CE is the mean error over them as a share of AlexNet's on "
        "ImageNet-C, mCE its mean over the fifteen corruptions; the relative ones count only what corruption adds to "
        "the clean error. No source prints them for the ensemble."
    )
    means, by_corruption = corruption_tables(evidence)
    content = [
        paragraph(words),
        means.html(),
        paragraph(comparable(evidence), class_="note"),
        by_corruption.html(),
        element("h3", text("Error by severity")),
        _curves(_chosen(heads)),
        element("details", element("summary", text("Every corruption and severity")), _severities(heads).html()),
    ]
    return section("Corruptions", *content, name="corruptions")


def comparable(evidence: Evidence) -> str:
    """What this run's mCE can be compared with."""
    counts = [count for head in _corrupted(evidence) for count in _images(head)]
    source = _source(evidence)
    if {IMAGENET} == set(counts) and source != "here":
        return "These are ImageNet-C's own pictures, so mCE can be compared with published ones."
    made = {
        "here": "the corrupted pictures were made here from",
        "fetch": "the corrupted pictures are ImageNet-C's own, but only of",
        "user": "the corrupted pictures were read from a folder of the user, of",
    }[source]
    return (
        f"Not comparable with any published mCE: {made} {span(counts)} images, while AlexNet's errors are of "
        f"ImageNet-C's {IMAGENET:,}. AlexNet is a mere yardstick here; the plain errors can be compared among the "
        "classifiers of this page."
    )


def _source(evidence: Evidence) -> str:
    """Who made the corrupted pictures, as the examination says; an older one does not, so its parameters do."""
    if (said := evidence.shown.get("corrupted_by")) in ("here", "fetch", "user"):
        return str(said)
    folders = evidence.params.get("prepare", {}).get("folders") or {}
    return "user" if folders.get("imagenet_c") else "here"


def _corrupted(evidence: Evidence) -> list[Head]:
    return [head for head in evidence.heads if head.corruptions and head.estimates]


def _chosen(heads: list[Head]) -> list[Head]:
    chosen = [head for head in heads if head.key in CHOSEN]
    return sorted(chosen, key=lambda head: CHOSEN.index(head.key)) or heads[: len(CHOSEN)]


def _images(head: Head) -> list[int]:
    """Of every corruption and severity."""
    assert head.corruptions
    return [error.images for errors in head.corruptions.errors.values() for error in errors]


def _means(heads: list[Head]) -> Table:
    columns = [
        Column(title="Classifier"),
        Column(title="Clean error", small="the same pictures"),
        Column(title="Mean error", small="fifteen corruptions"),
        Column(title="mCE", small="over the fifteen"),
        Column(title="Relative mCE", small="over the fifteen"),
    ]
    rows = []
    for head in heads:
        assert head.corruptions
        assert head.estimates
        found = head.estimates
        means = [share(found.mean_error), number(found.mce), number(found.relative_mce)]
        rows.append([name(head), share(head.corruptions.clean), *means])
    alexnet = [f"{100 * error:.1f}" for error in (ALEXNET_CLEAN, fmean(ALEXNET.values()), 1.0, 1.0)]
    title = Cell(value="AlexNet on ImageNet-C, published", weight="muted")
    rows.append([title, *(printed(value) for value in alexnet)])
    return Table(caption="Errors under corruption, with 95 % intervals", columns=columns, rows=rows)


def _by_corruption(heads: list[Head]) -> Table:
    columns = [Column(title="Corruption"), Column(title="error", small="published", group="AlexNet")]
    for head in heads:
        columns += [Column(title=title, group=head.title) for title in ("error", "CE")]
    rows = []
    for corruption in _names(heads):
        alexnet = f"{100 * ALEXNET[corruption]:.1f}" if corruption in ALEXNET else None
        row = [Cell(value=corruption.replace("_", " ")), printed(alexnet)]
        for head in heads:
            assert head.estimates
            row += [share(head.estimates.errors.get(corruption)), number(head.estimates.ce.get(corruption))]
        rows.append(row)
    return Table(
        caption="Mean error over five severities and CE, with 95 % intervals", columns=columns, rows=rows, class_="wide"
    )


def _severities(heads: list[Head]) -> Table:
    columns = [Column(title="Corruption, severity"), *(Column(title=head.title) for head in heads)]
    rows = [
        [
            Cell(value=f"{corruption.replace('_', ' ')}, {severity}"),
            *(_error(head, corruption, severity) for head in heads),
        ]
        for corruption in _names(heads)
        for severity in SEVERITIES
    ]
    return Table(caption="Plain error, with 95 % intervals", columns=columns, rows=rows, class_="wide small")


def _error(head: Head, corruption: str, severity: int) -> Cell:
    assert head.corruptions
    if corruption not in head.corruptions.errors:
        return NOTHING
    told = share(head.corruptions.errors[corruption][severity - 1])
    return Cell(value=told.value, detail=told.detail)


def _names(heads: list[Head]) -> list[str]:
    return list(dict.fromkeys(name for head in heads if head.corruptions for name in head.corruptions.errors))


def _curves(heads: list[Head]) -> Html:
    errors = [_titled(head) for head in heads if head.corruptions][: len(CURVES)]
    means = "; ".join(
        f"{head.title} {percent(head.estimates.mean_error.value)}"
        for head in heads
        if head.estimates and head.estimates.mean_error
    )
    alt = "Curves of the error over the severity of each corruption" + (f". Mean errors: {means}" if means else "")

    def page(theme: Theme) -> bytes:
        return drawn(curves(errors, theme=theme))

    return element("div", picture(page(LIGHT), dark=page(DARK), alt=alt), class_="curves")


def _titled(head: Head) -> CorruptionErrors:
    """Its errors under the title that the page uses."""
    assert head.corruptions
    return replace(head.corruptions, classifier=head.title, head=head.owner or head.key[1])
