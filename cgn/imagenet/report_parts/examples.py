"""Single images on an ImageNet report: stimuli with the heads' decisions, and one scene in every variation.

Images are shown only of an embedded world, never copied from somebody's photographs, but for the stimuli of the
cue-conflict test.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cgn.core.files import on_disk
from cgn.core.images import png
from cgn.data.decoding import decode
from cgn.evaluation.predictions import CUE_CONFLICT, IN9
from cgn.imagenet.data.prepared_sets import PreparedSets
from cgn.imagenet.report_parts.heads import Head, Results
from cgn.report.page import Image, PageBlock, Text, image
from cgn.report.tables import DASH, Cell, Row, table

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
GOLDEN = 0.618034


def example_blocks(results: Results, collection: PreparedSets | None, *, count: int) -> list[PageBlock]:
    """Stimuli of the cue-conflict test as columns, heads as rows; none without decisions or images.

    Stimuli are taken evenly from the list of those whose cues differ.
    """
    rows = results.stored.of(CUE_CONFLICT)
    conflicts = rows[rows["label"] != rows["texture"]]
    names = results.stored.facts["categories"]
    if collection is None or not collection.has("cue_conflict"):
        return []
    folder = collection.folder("cue_conflict")
    chosen = _evenly(sorted(set(map(str, conflicts["image"]))), count=count)
    cues = {row["image"]: (names[row["label"]], names[row["texture"]]) for row in conflicts.to_dict("records")}
    heads = {
        name: image(
            _png(folder / on_disk(name)),
            alt=f"stimulus: shape {shape}, texture {texture}",
            caption=f"{shape} in {texture}",
        )
        for name, (shape, texture) in ((name, cues[name]) for name in chosen)
        if (folder / on_disk(name)).is_file()
    }
    if not heads:
        return []
    titles = {name: f"stimulus {number}" for number, name in enumerate(heads, start=1)}
    lines: list[Row] = [
        {"Head": head.title, **{titles[name]: cell for name, cell in _decisions(conflicts, head, heads, names).items()}}
        for head in results.heads
    ]
    words = (
        "Stimuli taken evenly from the list by a fixed rule, none selected. Below each stand its shape and its "
        "texture, and for every head what it decided: for the shape, for the texture, or for neither."
    )
    pictures = {titles[name]: shown for name, shown in heads.items()}
    found = table("Decisions on single stimuli", lines, style="examples", heads=pictures, summary=False)
    return [Text(words=words), found]


def scene(results: Results, collection: PreparedSets) -> dict[str, Image]:
    """One scene of an embedded world in every variation: the first image that all of them show."""
    if not results.run.params.get("prepare", {}).get("world") or not collection.has("imagenet9"):
        return {}
    parts = results.stored.of(IN9).groupby("condition")
    by_variation = {str(variation): sorted(set(part["image"])) for variation, part in parts}
    folder, found = collection.folder("imagenet9"), {}
    for original in by_variation.get("original", [])[:1]:
        for variation, images in by_variation.items():
            same = [name for name in images if name == original or _foreground(name) == Path(original).stem]
            path = folder / variation / "val" / on_disk(same[0]) if same else None
            if path and path.is_file():
                found[variation] = image(_png(path), alt=f"one scene as {variation}", caption=SHOWN[variation])
    return found


def _foreground(name: str) -> str:
    """`fg_<stem>_bg_<stem>` -> the foreground's stem."""
    return Path(name).stem.removeprefix("fg_").partition("_bg_")[0]


def _evenly(images: Sequence[str], *, count: int) -> list[str]:
    """`count` of them, one from each of as many equal parts of the list, each time from another place in its part."""
    if len(images) <= count:
        return list(images)
    block = len(images) / count
    return [images[int(block * (place + place * GOLDEN % 1))] for place in range(count)]


def _decisions(
    rows: pd.DataFrame, head: Head, images: Sequence[str] | dict[str, Image], names: Sequence[str]
) -> dict[str, Cell]:
    """Image -> the category that the head decided for, and whose cue it is."""
    own = rows[(rows["classifier"] == head.key[0]) & (rows["head"] == head.key[1])]
    decided = {row["image"]: row for row in own.to_dict("records")}
    cells = {}
    for name in images:
        if name not in decided:
            cells[name] = Cell(value=DASH)
            continue
        category, shape, texture = (decided[name][column] for column in ("category", "label", "texture"))
        cue = {shape: "shape", texture: "texture"}.get(category, "neither")
        word = names[category] if 0 <= category < len(names) else "none"
        cells[name] = Cell(value=word, detail=cue, style="shape" if cue == "shape" else "other")
    return cells


def _png(path: Path) -> bytes:
    return png(np.asarray(decode(path)))
