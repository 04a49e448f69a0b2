"""The generative network on the page: its sheets and films, its masks against true silhouettes, the loss ablation.

Decided here: what the network measured of itself is read from the facts of its model file, and from its log where the
file says nothing. An ablation's number of ours stands in the row of the losses that this run left out, or in the last.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cgn.core.checkpoints import read_facts
from cgn.data.prepared_sets import PreparedSets
from cgn.data.wnids import class_words
from cgn.imagenet.cells import printed
from cgn.imagenet.evidence import Evidence
from cgn.imagenet.pictures import first_frame
from cgn.imagenet.published import ABLATION, BIGGAN_SCORE
from cgn.report.page import Html, element, figure, film, paragraph, section, text
from cgn.report.page_sheets import figures, last_sheet
from cgn.report.tabulated import NOTHING, Cell, Column, Table

MODEL = "model.safetensors"
FILM_BYTES = 4 << 20
SHEET = "Sheet of small images with labelled rows"
IOU = {
    "own": ("Best IoU with the labelled class", "higher is better"),
    "others": ("Best IoU with another class", "a blob fits all alike"),
    "nearest": ("Masks nearest to the labelled class", "a share"),
}
CLASSES = 9
GROUPS = {
    "shape": ("binary", "mask_size"),
    "texture": ("texture",),
    "background": ("background",),
    "reconstruction": ("l1", "perceptual"),
}
"""Loss of the published ablation -> the weights that make it up."""


def network_tables(evidence: Evidence) -> list[Table]:
    """Masks against silhouettes, where they were measured, and the loss ablation."""
    told = measured(evidence)
    return [*([_silhouettes(told)] if "iou/own" in told else []), _ablation(evidence, told)]


def network_section(evidence: Evidence, collection: PreparedSets | None) -> Html:
    """Sheets, films, masks, ablation; the collection names the classes."""
    names = class_words(collection.class_names) if collection else ()
    images = evidence.material.images
    drawn = [
        *last_sheet(evidence.material.model),
        (images / "examples.png", "The images generated for training"),
        (images / "parts.png", "What the mechanisms made of the first of them"),
    ]
    content = [*figures(drawn, alt=SHEET), *_interpolations(images / "interpolations", names)]
    told = measured(evidence)
    content.append(element("h3", text("Masks")))
    if "iou/own" in told:
        words = (
            "A mask is drawn from noise, so no single silhouette is its own. It is compared with a bank of true "
            "silhouettes of every class, and its agreement with a class is its best intersection over union (IoU) "
            f"there; for a mask that knows nothing of its class, one in {CLASSES} is nearest to it."
        )
        content += [paragraph(words), _silhouettes(told).html()]
    content += [_ablation(evidence, told).html(), paragraph(_entropy_note(evidence, told), class_="note")]
    return section("The generative network", *content, name="network")


def measured(evidence: Evidence) -> Mapping[str, float]:
    """Name -> what the training measured last, and `start/...` before its first update."""
    path = evidence.material.model / MODEL
    facts = read_facts(path) if path.is_file() else {}
    told = facts.get("losses") if isinstance(facts.get("losses"), Mapping) else None
    if told is None:
        told = _flat(evidence.records["train_cgn"].metrics)
    return {name: float(value) for name, value in told.items() if isinstance(value, int | float)}


def _flat(tree: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, prefix=f"{prefix}{key}/") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _interpolations(folder: Path, names: Sequence[str]) -> list[Html]:
    """The films side by side, their frames as sheets folded away."""
    films = [_film(path, names) for path in sorted(folder.glob("*.gif"))]
    sheets = [(path, _way(path, names)) for path in sorted(folder.glob("*.png"))]
    blocks = [element("div", *films, class_="films")] if films else []
    if sheets:
        blocks.append(element("details", element("summary", text("Frames")), *figures(sheets, alt=SHEET)))
    return [element("h3", text("Interpolations")), *blocks] if blocks else []


def _way(path: Path, names: Sequence[str]) -> str:
    """`shape-0-4` in words, classes by their names; by their numbers only where nothing names them."""
    mechanism, _, ends = path.stem.partition("-")
    first, _, last = (_class(end, names) for end in ends.partition("-"))
    what = "All mechanisms" if mechanism == "all" else mechanism.capitalize()
    return f"{what} from {first} to {last}" if last else path.stem


def _class(number: str, names: Sequence[str]) -> str:
    if number.isdecimal():
        return names[int(number)] if int(number) < len(names) else f"class {number}"
    return ""


def _film(path: Path, names: Sequence[str]) -> Html:
    words = _way(path, names)
    if path.stat().st_size > FILM_BYTES:
        size = f"{path.stat().st_size / 2**20:.1f} MiB"
        return paragraph(f"{words}: {size}, too large for this page: {path.name}", class_="note")
    data = path.read_bytes()
    still = first_frame(data, source=str(path))
    return figure(film(data, still=still, alt=words, source=str(path)), caption=text(words), class_="sheet")


def _silhouettes(told: Mapping[str, float]) -> Table:
    columns = [Column(title="Masks"), Column(title="before training"), Column(title="after training")]
    rows = [
        [
            Cell(value=words, detail=small),
            *(_decimal(told.get(f"{when}iou/{name}")) for when in ("start/", "")),
        ]
        for name, (words, small) in IOU.items()
    ]
    return Table(caption="Masks against true silhouettes", columns=columns, rows=rows)


def _ablation(evidence: Evidence, told: Mapping[str, float]) -> Table:
    score, mask = "Inception score", "Mean mask"
    columns = [
        Column(title="Losses"),
        *(Column(title=title, group=score) for title in ("paper", "replication")),
        *(Column(title=title, group=mask) for title in ("paper", "replication", "here")),
    ]
    ours = _left_out(evidence.params.get("train_cgn", {}).get("losses", {}))
    rows = []
    for left_out, words, *numbers in ABLATION:
        first, mean, again, mean_again = ([_plain(value)] for value in numbers)
        here = told.get("mask/mean") if left_out == ours else None
        rows.append(
            [Cell(value=words), *first, *again, *mean, *mean_again, _decimal(here)],
        )
    rows.append([Cell(value="BigGAN itself", weight="muted"), _plain(BIGGAN_SCORE), *[NOTHING] * 4])
    return Table(caption="Which loss does what: the published ablation", columns=columns, rows=rows)


def _left_out(losses: Mapping[str, Any]) -> str | None:
    """The row of the ablation that a run's weights are in; None where its losses are told nowhere, or are another's."""
    if not losses:
        return None
    absent = [name for name, weights in GROUPS.items() if not any(_weighs(losses.get(weight)) for weight in weights)]
    return {0: "", 1: absent[0] if absent else None}.get(len(absent))


def _weighs(weight: Any) -> bool:
    """Whether a weight, a list of weights or a record with one is above zero."""
    if isinstance(weight, Mapping):
        return _weighs(weight.get("weight"))
    if isinstance(weight, list | tuple):
        return any(map(_weighs, weight))
    return bool(weight)


def _entropy_note(evidence: Evidence, told: Mapping[str, float]) -> str:
    words = (
        "The inception score needs ImageNet's classes and a network that this project does not bring, so none is "
        "measured here. The mean mask of the paper should be read against the hinge on its size, 0.1 to 0.9."
    )
    weight = evidence.params.get("train_cgn", {}).get("losses", {}).get("binary")
    if weight and "loss/binary" in told:
        words += (
            f" The masks of this run's last update had a mean entropy of {told['loss/binary'] / weight:.3f} bit a "
            "pixel (0: every pixel decided, 1: none)."
        )
    return words


def _plain(value: str | None) -> Cell:
    return printed(value, unit="") if value is not None else NOTHING


def _decimal(value: float | None) -> Cell:
    return NOTHING if value is None else Cell(value=f"{value:.2f}", weight="bold")
