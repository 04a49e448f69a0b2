"""What was published of the ImageNet experiments, each number with its source and the head of ours that it belongs to.

Only numbers that a source prints, written as it prints them. A published network without a counterpart
among our heads has a row of its own. The ensemble's published top-1 and top-5 stand beside the mean of its three heads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cgn.evaluation.predictions import CLEAN, CUE_CONFLICT, IN9
from cgn.imagenet.report_parts.heads import AVERAGE, BACKGROUND, BASELINE, SHAPE, SHAPE_TEXTURE, TEXTURE, Head
from cgn.report.page import PAPER, REPLICATION
from cgn.report.tables import Cell, Measure, Row, Table, printed

SHORT = {PAPER: "paper", REPLICATION: "replication"}
"""Source -> the title of its columns."""
CLASSES = 1000
"""Of the published networks."""
IMAGENET_C_IMAGES = 50_000
"""Validation images, from which ImageNet-C was made."""
IMAGES = {CLEAN: 50_000, IN9: 4_050, CUE_CONFLICT: 1_280}
"""Suite -> images of a condition in the published benchmark."""


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """Percentages by column, as `source` prints them; `key`: the head of ours, or None and a title of its own."""

    source: str
    key: tuple[str, str] | None
    values: Mapping[str, str]
    title: str = ""


def _row(source: str, key: tuple[str, str] | None, title: str = "", **values: str) -> PublishedRow:
    return PublishedRow(source=source, key=key, title=title, values=values)


ACCURACY = (
    _row(PAPER, BASELINE, bias="21.39", top_1="76.13", top_5="92.86"),
    _row(PAPER, SHAPE, bias="54.8"),
    _row(PAPER, TEXTURE, bias="16.7"),
    _row(PAPER, BACKGROUND, bias="22.9"),
    _row(PAPER, AVERAGE, top_1="74.0", top_5="91.7"),
    _row(REPLICATION, SHAPE, bias="49.1"),
    _row(REPLICATION, TEXTURE, bias="20.5"),
    _row(REPLICATION, BACKGROUND, bias="25.7"),
    _row(REPLICATION, AVERAGE, top_1="56.2", top_5="79.1"),
    _row(PAPER, None, "ResNet-50 trained on Stylized-ImageNet", bias="81.37", top_1="60.18", top_5="82.62"),
)
"""Shape bias, top-1 and top-5. Paper: ImageNet, ResNet-50; replication: ImageNet-mini."""

BACKGROUNDS = (
    _row(PAPER, BASELINE, original="95.6", mixed_same="86.2", mixed_rand="78.9", gap="7.3"),
    _row(PAPER, SHAPE_TEXTURE, original="94.2", mixed_same="83.4", mixed_rand="80.1", gap="3.3"),
    _row(REPLICATION, SHAPE_TEXTURE, original="86.8", mixed_same="73.2", mixed_rand="68.3", gap="4.9"),
    _row(REPLICATION, AVERAGE, gap="10.7"),
    _row(PAPER, None, "trained on Stylized-ImageNet", original="89.2", mixed_same="73.1", mixed_rand="63.7", gap="9.4"),
    _row(
        PAPER, None, "trained on ImageNet + Stylized", original="94.7", mixed_same="85.9", mixed_rand="78.5", gap="7.4"
    ),
    _row(PAPER, None, "trained on mixed_rand", original="73.3", mixed_same="71.5", mixed_rand="71.3", gap="0.2"),
)
"""ImageNet-9: accuracies and the background gap in points."""

ELSEWHERE = (
    ("ImageNet-A", "3.4", "1.4"),
    ("ImageNet-Sketch", "24.1", "11.8"),
    ("Stylized-ImageNet", "19.2", "17.2"),
)
"""Test set, top-1 of the baseline and of the ensemble (replication, trained on 35,000 images)."""

STYLIZED = tuple(
    _row(REPLICATION, key, **{"stylized/top_1": value})
    for key, value in zip((BASELINE, AVERAGE), ELSEWHERE[-1][1:], strict=True)
)
DECISIONS = "ResNet-50 22.07 % (162 of 734 decisions for either cue), VGG-16 9.21 % (84 of 912), people 95.87 %"
"""Shape bias in the decisions that were published with the stimuli (Geirhos et al., ICLR 2019)."""

ABLATION = (
    ("shape", "without the shape losses", "85.9", "0.2", None, None),
    ("texture", "without the texture loss", "198.4", "0.9", "186.5", "0.4"),
    ("background", "without the background loss", "195.6", "0.1", None, None),
    ("reconstruction", "without the reconstruction losses", "38.4", "0.3", None, None),
    ("", "all losses", "130.2", "0.3", None, None),
)
"""Loss left out, title, inception score and mean mask of the paper, of the replication."""
BIGGAN_SCORE = "202.9"


def published_value(
    rows: Sequence[PublishedRow], key: tuple[str, str] | None, *, source: str, column: str
) -> str | None:
    """What `source` prints for a head in a column; None where it prints nothing."""
    found = [row.values[column] for row in rows if (row.key, row.source) == (key, source) and column in row.values]
    return found[0] if found else None


def head_table(
    caption: str, heads: Sequence[Head], columns: Mapping[str, str], rows: Sequence[PublishedRow] = ()
) -> Table | None:
    """The heads' measures (`columns`: title -> name), and what is published for them, in `rows`, beside and below.

    None where no head has any.
    """
    lines: list[Row] = []
    for head in heads:
        line: dict[str, Cell | Measure | str | None] = {"Classifier": Cell(value=head.title, detail=head.owner)}
        for title, name in columns.items():
            line[f"{title}: here" if rows else title] = head.measures.get(name)
            for source in (short for short in SHORT if any(r.source == short and name in r.values for r in rows)):
                value = published_value(rows, head.key, source=source, column=name)
                line[f"{title}: {SHORT[source]}"] = printed(value, unit="pt" if name == "gap" else "%")
        if any(name in head.measures for name in columns.values()):
            lines.append(line)
    if not lines:
        return None
    for row in (row for row in rows if row.key is None):
        values = {title: row.values.get(name) for title, name in columns.items()}
        cells = {
            f"{title}: {SHORT[row.source]}": printed(value, unit="pt" if columns[title] == "gap" else "%")
            for title, value in values.items()
            if value
        }
        lines.append({"Classifier": Cell(value=row.title, style="muted"), **cells})
    return Table(caption=f"{caption}, with 95 % intervals", lines=lines, style="dense" if len(lines[0]) > 6 else "")
