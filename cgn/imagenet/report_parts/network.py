"""The generative network in an ImageNet report: sheets, films, masks against true silhouettes, the loss ablation.

What the network measured of itself is read from the facts of its model file, and from its log where the file says
nothing. The mean mask of this run stands in the ablation's row of the losses that the run left out, or in the last one.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from cgn.core.errors import ArtifactError
from cgn.core.facts import read_facts
from cgn.data.decoding import DECODE_ERRORS, check_pixels
from cgn.imagenet.data.prepared_sets import PreparedSets
from cgn.imagenet.data.wnids import class_words
from cgn.imagenet.report_parts.published import ABLATION, BIGGAN_SCORE
from cgn.report.page import Group, Heading, Image, PageBlock, Text, film, last_sheet, sheets
from cgn.report.run import Run
from cgn.report.settings import flat
from cgn.report.tables import Cell, Table, printed, table

MODEL = "model.safetensors"
FILM_BYTES = 4 << 20
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


def network_blocks(run: Run, collection: PreparedSets | None) -> list[PageBlock]:
    """Sheets, films, masks and ablation; the collection names the classes."""
    names = class_words(collection.class_names) if collection else ()
    files = [
        *last_sheet(run.model),
        (run.images / "parts.png", "What the mechanisms made of the first counterfactual images"),
    ]
    losses = measured(run)
    blocks: list[PageBlock] = [*sheets(files)]
    blocks += [*_interpolations(run.images / "interpolations", names), Heading(title="Masks")]
    if "iou/own" in losses:
        words = (
            "A mask is drawn from noise, so no single silhouette is its own. It is compared with a bank of true "
            "silhouettes of every class, and its agreement with a class is its best intersection over union (IoU) "
            f"there; for a mask that knows nothing of its class, one in {CLASSES} is nearest to it."
        )
        blocks += [Text(words=words), _silhouettes(losses)]
    return [*blocks, _ablation(run, losses), Text(words=_entropy_note(run, losses), style="note")]


def measured(run: Run) -> dict[str, float]:
    """Name -> what the training measured last, and `start/...` before its first update."""
    path = run.model / MODEL
    losses = (read_facts(path) if path.is_file() else {}).get("losses")
    if not isinstance(losses, Mapping):
        losses = flat(run.records["train_cgn"].metrics, apart="/")
    return {name: float(value) for name, value in losses.items() if isinstance(value, int | float)}


def _interpolations(folder: Path, names: Sequence[str]) -> list[PageBlock]:
    """The films side by side, their frames as folded sheets."""
    films = [_film(path, names) for path in sorted(folder.glob("*.gif"))]
    frames = [(path, _path_in_words(path, names)) for path in sorted(folder.glob("*.png"))]
    blocks: list[PageBlock] = [Group(blocks=films, style="films")] if films else []
    blocks += [Group(blocks=sheets(frames), title="Frames")] if frames else []
    return [Heading(title="Interpolations"), *blocks] if blocks else []


def _path_in_words(path: Path, names: Sequence[str]) -> str:
    """`shape-0-4` in words, classes by their names; by their numbers where nothing names them."""
    mechanism, _, ends = path.stem.partition("-")
    first, _, last = (_class(end, names) for end in ends.partition("-"))
    what = "All mechanisms" if mechanism == "all" else mechanism.capitalize()
    return f"{what} from {first} to {last}" if last else path.stem


def _class(number: str, names: Sequence[str]) -> str:
    if not number.isdecimal():
        return ""
    return names[int(number)].lstrip("0123456789_") if int(number) < len(names) else f"class {number}"


def _film(path: Path, names: Sequence[str]) -> Image | Text:
    words = _path_in_words(path, names)
    if path.stat().st_size > FILM_BYTES:
        size = f"{path.stat().st_size / 2**20:.1f} MiB"
        return Text(words=f"{words}: {size}, too large for this page: {path.name}", style="note")
    data = path.read_bytes()
    try:
        with Pillow.open(io.BytesIO(data), formats=["GIF"]) as opened:
            check_pixels(opened)
            still = io.BytesIO()
            opened.convert("RGB").save(still, format="PNG", optimize=True)
    except DECODE_ERRORS as error:
        raise ArtifactError(f"{path} is no GIF picture ({error}): run the stage that makes it again") from None
    return film(data, size=opened.size, still=still.getvalue(), alt=words)


def _silhouettes(losses: Mapping[str, float]) -> Table:
    rows = [
        {
            "Masks": Cell(value=words, detail=small),
            "before training": _decimal(losses.get(f"start/iou/{name}")),
            "after training": _decimal(losses.get(f"iou/{name}")),
        }
        for name, (words, small) in IOU.items()
    ]
    return table("Masks against true silhouettes", rows)


def _ablation(run: Run, losses: Mapping[str, float]) -> Table:
    ours = _left_out(run.params.get("train_cgn", {}).get("losses", {}))
    rows = [
        {
            "Losses": words,
            "Inception score: paper": printed(score, unit=""),
            "Inception score: replication": printed(score_again, unit=""),
            "Mean mask: paper": printed(mean, unit=""),
            "Mean mask: replication": printed(mean_again, unit=""),
            "Mean mask: here": _decimal(losses.get("mask/mean") if left_out == ours else None),
        }
        for left_out, words, score, mean, score_again, mean_again in ABLATION
    ]
    biggan = {
        "Losses": Cell(value="BigGAN itself", style="muted"),
        "Inception score: paper": printed(BIGGAN_SCORE, unit=""),
    }
    return table("Which loss does what: the published ablation", [*rows, biggan])


def _left_out(losses: Mapping[str, Any]) -> str | None:
    """The ablation's row of a run's weights; None where its losses are unknown, or are those of no row."""
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


def _entropy_note(run: Run, losses: Mapping[str, float]) -> str:
    words = (
        "The inception score needs ImageNet's classes and a network that is no part of this project, so none is "
        "measured here. The mean mask of the paper should be read against the hinge on its size, 0.1 to 0.9."
    )
    weight = run.params.get("train_cgn", {}).get("losses", {}).get("binary")
    if weight and "loss/binary" in losses:
        words += (
            f" The masks of this run's last update had a mean entropy of {losses['loss/binary'] / weight:.3f} bit a "
            "pixel (0: every pixel decided, 1: none)."
        )
    return words


def _decimal(value: float | None) -> Cell | None:
    return None if value is None else Cell(value=f"{value:.2f}", style="bold")
