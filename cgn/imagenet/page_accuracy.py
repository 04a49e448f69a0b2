"""Shape bias and accuracy on the page: the table beside the published one, bars by category, Stylized-ImageNet.

Decided here: top-1 and top-5 are those of the clean validation images. The shape bias has no chance line: it is a share
of the decisions for either cue, and how many these were stands beside it with the shape accuracy and its chance. One
that is undecided is not quoted, so it does not stand beside a published one either.
"""

from cgn.evaluation.predictions import STYLIZED
from cgn.imagenet.cells import (
    CUES,
    UNDECIDED,
    alone,
    beside,
    grounds,
    name,
    printed,
    shape_bias_cell,
    share,
    side_by_side,
)
from cgn.imagenet.evidence import AVERAGE, BASELINE, Evidence, Head
from cgn.imagenet.pictures import drawn, trimmed
from cgn.imagenet.published import ACCURACY, DECISIONS, ELSEWHERE, SHORT
from cgn.report.confusion_picture import DARK, LIGHT, Theme
from cgn.report.literature import REPLICATION
from cgn.report.page import Html, element, paragraph, picture, section, text
from cgn.report.shape_bias_picture import bars
from cgn.report.tabulated import Cell, Column, Table
from cgn.report.wording import interval, percent

COLUMNS = ("bias", "top_1", "top_5")


def accuracy_tables(evidence: Evidence) -> list[Table]:
    """The main table, and Stylized-ImageNet's where it was run."""
    tables = [_main(evidence)] if any(head.clean or head.bias for head in evidence.heads) else []
    return tables + ([_stylized(evidence)] if any(head.stylized for head in evidence.heads) else [])


def accuracy_section(evidence: Evidence) -> Html:
    """Shape bias, top-1 and top-5 of each head, and the bars by category."""
    told = (
        "On the cue-conflict test a picture has one class's shape and another's texture. The shape bias is the share "
        "of decisions for the shape among those for either cue; the shape accuracy is their share among all stimuli "
        "whose cues differ. Somebody who guesses has a shape bias of 50 %, so a head is undecided where it is no "
        "better than chance on clean pictures, or where the interval of its bias holds 50 %. The ensemble's heads were "
        "trained to follow one cue each; the mean of heads is the prediction that one would use."
    )
    decisions = ", ".join(f"{who} {share}" for who, share in DECISIONS.items())
    note = (
        "Top-1 and top-5 are of the clean validation images; the dotted line is chance. For orientation: in the "
        f"decisions published with the original stimuli (Geirhos et al., ICLR 2019) the shape bias is: {decisions}; "
        "1,200 stimuli have cues that differ."
    )
    content = [paragraph(told), *(table.html() for table in accuracy_tables(evidence)), paragraph(note, class_="note")]
    if not any(head.stylized for head in evidence.heads):
        content.append(paragraph(_elsewhere_note(), class_="note"))
    return section("Shape bias and accuracy", *content, _bars(evidence), name="shape-bias")


def _main(evidence: Evidence) -> Table:
    columns = [
        Column(title="Classifier"),
        *side_by_side("Shape bias"),
        *side_by_side("Top-1"),
        *side_by_side("Top-5"),
    ]
    rows = [_row(head, classes=evidence.classes) for head in evidence.heads]
    rows += [alone(row, COLUMNS, units=("%", "%", "%")) for row in ACCURACY if row.key is None]
    return Table(caption="Shape bias, top-1 and top-5, with 95 % intervals", columns=columns, rows=rows, class_="wide")


def _row(head: Head, *, classes: int) -> list[Cell]:
    first, fifth = head.clean or (None, None)
    return [
        name(head),
        shape_bias_cell(head, cue=CUES.get(head.key[1], "")),
        *beside(ACCURACY, head.key, column="bias"),
        share(first, chance=1 / classes),
        *beside(ACCURACY, head.key, column="top_1"),
        share(fifth, chance=min(5 / classes, 1.0)),
        *beside(ACCURACY, head.key, column="top_5"),
    ]


def _stylized(evidence: Evidence) -> Table:
    columns = [Column(title="Classifier"), *(Column(title=each, group="here") for each in ("Top-1", "Top-5"))]
    columns.append(Column(title="Top-1", group=SHORT[REPLICATION]))
    published = {BASELINE: ELSEWHERE[-1][1], AVERAGE: ELSEWHERE[-1][2]}
    rows = [
        [
            name(head),
            share(head.stylized[0], chance=1 / evidence.classes),
            share(head.stylized[1], chance=min(5 / evidence.classes, 1.0)),
            printed(published.get(head.key)),
        ]
        for head in evidence.heads
        if head.stylized
    ]
    return Table(caption="Stylized-ImageNet: top-1 and top-5, with 95 % intervals", columns=columns, rows=rows)


def _elsewhere_note() -> str:
    told = "; ".join(f"{suite} {before} % before, {after} % after" for suite, before, after in ELSEWHERE)
    return (
        f"Counterfactuals do not help everywhere. The replication (35,000 training images) prints top-1 of {told}. "
        f"None of these was measured here: the suite {STYLIZED} was not run, and the other two are no suites of this "
        "project."
    )


def _bars(evidence: Evidence) -> Html:
    """A panel for each head: shape against texture decisions, by the shape's category."""
    panels = [_panel(head) for head in evidence.heads if head.bias and head.bias.conflicts]
    if not panels:
        return paragraph("The cue-conflict test was not run, so there are no bars by category.", class_="muted")
    told = "Decisions by the class of the shape: for shape from the left, for texture from the right; n counts them."
    return element("div", element("h3", text("By class")), paragraph(told), element("div", *panels, class_="grid"))


def _panel(head: Head) -> Html:
    assert head.bias
    whole = "no decision for either cue"
    if head.bias.bias:
        share = UNDECIDED if head.undecided else percent(head.bias.bias.share)
        whole = "; ".join([f"{share} ({interval(head.bias.bias)}) over all", *grounds(head)])
    each = ", ".join(
        f"{category} {counts.shape} of {counts.shape + counts.texture}"
        for category, counts in head.by_category.items()
        if counts.bias
    )
    alt = f"Shape bias of {head.title}: {whole}. Decisions for the shape among those for either cue, by class: {each}"
    undecided = [head.title] if head.undecided else []

    def panel(theme: Theme) -> bytes:
        return drawn(trimmed(bars({head.title: head.by_category}, undecided=undecided, theme=theme)))

    return element("div", picture(panel(LIGHT), dark=panel(DARK), alt=alt))
