"""Single stimuli of the cue-conflict test with every head's decision on them.

Decided here: stimuli are taken evenly from the list of those whose cues differ, by a rule, so that nothing is picked. A
decision is the category of the shape, of the texture, or neither; that word stands beside it, so colour carries nothing
alone.
"""

from collections.abc import Sequence

import pandas as pd

from cgn.core.files import on_disk
from cgn.data.decoding import decode
from cgn.data.prepared_sets import PreparedSets
from cgn.evaluation.predictions import CUE_CONFLICT
from cgn.imagenet.evidence import Evidence, Head
from cgn.imagenet.pictures import drawn
from cgn.report.page import Html, element, join, paragraph, picture, section, table, text
from cgn.report.wording import DASH

GOLDEN = 0.618034


def examples_section(evidence: Evidence, collection: PreparedSets | None, *, count: int) -> Html | None:
    """Pictures as columns, heads as rows; None where there are no decisions or the pictures are not at hand."""
    rows = evidence.examination.of(CUE_CONFLICT)
    conflicts = rows[rows["label"] != rows["texture"]]
    images = _evenly(sorted(set(map(str, conflicts["image"]))), count=count)
    if not images or collection is None or not collection.has("cue_conflict"):
        return None
    folder = collection.folder("cue_conflict")
    images = [image for image in images if (folder / on_disk(image)).is_file()]
    if not images:
        return None
    cues = {row["image"]: (row["label"], row["texture"]) for row in conflicts.to_dict("records")}
    names = evidence.examination.facts["categories"]
    columns = [text("Head")]
    for image in images:
        shape, texture = (names[label] for label in cues[image])
        shown = picture(drawn(decode(folder / on_disk(image))), alt=f"a {shape} with the texture of {texture}")
        columns.append(join([shown, element("small", text(shape)), element("small", text(f"in {texture}"))]))
    cells = [[text(head.title), *_decisions(conflicts, head, images=images, names=names)] for head in evidence.heads]
    told = (
        "Stimuli taken evenly from the list by a fixed rule, nothing picked. Below each stand its shape and its "
        "texture, and for every head what it decided: for the shape, for the texture, or for neither."
    )
    grid = element("div", table(caption="Decisions on single stimuli", columns=columns, rows=cells), class_="examples")
    return section("What the heads said", paragraph(told), grid, name="examples")


def _evenly(images: Sequence[str], *, count: int) -> list[str]:
    """`count` of them, one from each of as many equal parts of the list, each time from another place in its part."""
    if len(images) <= count:
        return list(images)
    block = len(images) / count
    return [images[int(block * (place + place * GOLDEN % 1))] for place in range(count)]


def _decisions(rows: pd.DataFrame, head: Head, *, images: Sequence[str], names: Sequence[str]) -> list[Html]:
    own = rows[(rows["classifier"] == head.key[0]) & (rows["head"] == head.key[1])]
    by_image = {row["image"]: row for row in own.to_dict("records")}
    cells = []
    for image in images:
        if image not in by_image:
            cells.append(text(DASH))
            continue
        decided, shape, texture = (by_image[image][column] for column in ("category", "label", "texture"))
        cue = {shape: "shape", texture: "texture"}.get(decided, "neither")
        said = element("b", text(names[decided] if 0 <= decided < len(names) else "none"))
        cell = join([said, element("small", text(cue))])
        cells.append(element("span", cell, class_="right" if cue == "shape" else "wrong"))
    return cells
