"""Single images on an ImageNet report: stimuli with the heads' decisions, and one scene in every variation.

Images are shown only of an embedded world, never copied from somebody's photographs, but for the stimuli of the
cue-conflict test.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cgn.core.errors import ArtifactError
from cgn.core.files import MANIFEST, on_disk
from cgn.core.images import png
from cgn.data.decoding import decode
from cgn.evaluation.predictions import CUE_CONFLICT, IN9
from cgn.imagenet.data.prepared_sets import PreparedSets, read_prepared_sets
from cgn.imagenet.report_parts.heads import Results
from cgn.report.page import Image, image
from cgn.report.tables import Cell, Row, Table

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


def open_collection(data: Path) -> PreparedSets | None:
    """The sets that prepare wrote; None where they are absent or cannot be read: the page then shows no images."""
    try:
        return read_prepared_sets(data) if (data / MANIFEST).is_file() else None
    except ArtifactError:
        return None


def stimuli(results: Results, collection: PreparedSets | None, *, count: int) -> Table | None:
    """Stimuli of the cue-conflict test as columns, heads as rows; None without decisions or images.

    Stimuli are taken evenly from the list of those whose cues differ.
    """
    if collection is None or not collection.has("cue_conflict"):
        return None
    rows, names = results.stored.of(CUE_CONFLICT), results.stored.facts["categories"]
    conflicts = rows[rows["label"] != rows["texture"]]
    cues = {row["image"]: (names[row["label"]], names[row["texture"]]) for row in conflicts.to_dict("records")}
    folder, heads = collection.folder("cue_conflict"), {}
    for name in _evenly(sorted(cues), count=count):
        shape, texture = cues[name]
        if (path := folder / on_disk(name)).is_file():
            alt = f"stimulus: shape {shape}, texture {texture}"
            heads[name] = image(_png(path), alt=alt, caption=f"{shape} in {texture}")
    titles = {name: f"stimulus {number}" for number, name in enumerate(heads, start=1)}
    lines: list[Row] = []
    for head in results.heads:
        own = conflicts[(conflicts["classifier"] == head.key[0]) & (conflicts["head"] == head.key[1])]
        decided = own.set_index("image")[["category", "label", "texture"]].to_dict("index")
        cells = {titles[name]: _decision(decided[name], names) for name in titles if name in decided}
        lines.append({"Head": head.title, **dict.fromkeys(titles.values()), **cells})
    shown = {titles[name]: each for name, each in heads.items()}
    return Table(caption="Decisions on single stimuli", lines=lines, style="examples", heads=shown) if heads else None


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


def _decision(row: Mapping[Any, int], names: Sequence[str]) -> Cell:
    """The category that a head decided for, and whose cue it is."""
    category = row["category"]
    cue = {row["label"]: "shape", row["texture"]: "texture"}.get(category, "neither")
    word = names[category] if 0 <= category < len(names) else "none"
    return Cell(value=word, detail=cue, style="shape" if cue == "shape" else "other")


def _png(path: Path) -> bytes:
    return png(np.asarray(decode(path)))
