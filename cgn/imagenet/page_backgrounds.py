"""ImageNet-9 on the page: the background gap beside the published ones, and the accuracy on every variation.

Decided here: the gap is a difference in percentage points; smaller is better only where the accuracies hold.
Pictures of the variations are shown for a drawn world, never copied from somebody's photographs.
"""

from collections.abc import Mapping
from pathlib import Path

from cgn.core.files import on_disk
from cgn.data.decoding import decode
from cgn.data.image_folders import VARIATIONS
from cgn.data.prepared_sets import PreparedSets
from cgn.evaluation.metrics import CHANCE, RANDOM, SAME
from cgn.evaluation.predictions import IN9
from cgn.imagenet.cells import alone, beside, gap_cell, name, share, side_by_side
from cgn.imagenet.evidence import Evidence, Head
from cgn.imagenet.pictures import drawn
from cgn.imagenet.published import BACKGROUNDS
from cgn.report.page import Html, paragraph, picture, section
from cgn.report.tabulated import Cell, Column, Table

COLUMNS = ("original", SAME, RANDOM)
SHOWN = {
    "original": "as it is",
    "mixed_same": "background of its class",
    "mixed_rand": "background of any class",
    "mixed_next": "background of the next",
    "only_fg": "object alone",
    "no_fg": "object cut out",
    "only_bg_b": "its box black",
    "only_bg_t": "its box filled",
}


def background_tables(evidence: Evidence) -> list[Table]:
    """The gap, and all variations; none where ImageNet-9 was not run."""
    heads = [head for head in evidence.heads if head.variations]
    return [_gaps(heads), _variations(heads, pictures={})] if heads else []


def background_section(evidence: Evidence, collection: PreparedSets | None) -> Html:
    """BG-gap and accuracies of each head."""
    heads = [head for head in evidence.heads if head.variations]
    told = (
        "ImageNet-9 exchanges backgrounds. The background gap is the accuracy on mixed_same minus that on mixed_rand: "
        "what is lost where the background is of another class. The paper reports the shape and texture heads together."
    )
    if not heads:
        return section(
            "Backgrounds", paragraph(told), paragraph("ImageNet-9 was not run.", class_="muted"), name="backgrounds"
        )
    note = (
        f"Chance is {100 * CHANCE:.1f} %. In the published sets a decision for a class outside the nine is wrong. The "
        "gap's interval is Newcombe's from the two Wilson intervals."
    )
    pictures = _pictures(evidence, collection) if collection else {}
    tables = [_gaps(heads), _variations(heads, pictures=pictures)]
    content = [tables[0].html(), paragraph(note, class_="note"), tables[1].html()]
    return section("Backgrounds", paragraph(told), *content, name="backgrounds")


def _gaps(heads: list[Head]) -> Table:
    columns = [Column(title="Classifier")]
    for group in (*COLUMNS, "BG-gap"):
        columns += side_by_side(group)
    rows = [_row(head) for head in heads]
    keys, units = (*COLUMNS, "gap"), ("%", "%", "%", "pt")
    rows += [alone(row, keys, units=units) for row in BACKGROUNDS if row.key is None]
    caption = "ImageNet-9: accuracy and background gap, with 95 % intervals"
    return Table(caption=caption, columns=columns, rows=rows, class_="wide dense")


def _row(head: Head) -> list[Cell]:
    cells = [name(head)]
    for variation in COLUMNS:
        cells.append(share(head.variations.get(variation), chance=CHANCE))
        cells += beside(BACKGROUNDS, head.key, column=variation)
    cells.append(gap_cell(head))
    return cells + beside(BACKGROUNDS, head.key, column="gap", unit="pt")


def _variations(heads: list[Head], *, pictures: Mapping[str, Html]) -> Table:
    present = [variation for variation in VARIATIONS if any(variation in head.variations for head in heads)]
    columns = [
        Column(title="Classifier"),
        *(Column(title=each, small=SHOWN[each], picture=pictures.get(each)) for each in present),
    ]
    rows = [[name(head), *(share(head.variations.get(each), chance=CHANCE) for each in present)] for head in heads]
    return Table(
        caption="ImageNet-9: accuracy on every variation, with 95 % intervals",
        columns=columns,
        rows=rows,
        class_="wide variations",
    )


def _pictures(evidence: Evidence, collection: PreparedSets) -> dict[str, Html]:
    """One scene in every variation: the first picture that all of them show."""
    if not evidence.params.get("prepare", {}).get("world") or not collection.has("imagenet9"):
        return {}
    rows = evidence.examination.of(IN9)
    by_variation = {str(variation): sorted(set(part["image"])) for variation, part in rows.groupby("condition")}
    folder, found = collection.folder("imagenet9"), {}
    for original in by_variation.get("original", [])[:1]:
        for variation, images in by_variation.items():
            same = [image for image in images if image == original or _foreground(image) == _stem(original)]
            path = folder / variation / "val" / on_disk(same[0]) if same else None
            if path and path.is_file():
                found[variation] = picture(drawn(decode(path)), alt=f"one scene as {variation}")
    return found


def _stem(image: str) -> str:
    return Path(image).stem


def _foreground(image: str) -> str:
    """`fg_<stem>_bg_<stem>` -> the foreground's stem."""
    return Path(image).stem.removeprefix("fg_").partition("_bg_")[0]
