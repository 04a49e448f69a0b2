"""The generative network in an ImageNet report: films, masks against true silhouettes, the loss ablation.

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
from cgn.imagenet.report_parts.published import ABLATION, BIGGAN_SCORE
from cgn.report.page import Image, data_uri, last_sheet, sheets
from cgn.report.run import Run
from cgn.report.settings import flat
from cgn.report.tables import Cell, Row, Table, printed

FILM_BYTES = 4 << 20
IOU = {
    "own": ("Best IoU with the labelled class", "higher is better"),
    "others": ("Best IoU with another class", "a blob fits all alike"),
    "nearest": ("Masks nearest to the labelled class", "a share"),
}
GROUPS = {
    "shape": ("binary", "mask_size"),
    "texture": ("texture",),
    "background": ("background",),
    "reconstruction": ("l1", "perceptual"),
}
"""Loss of the published ablation -> the weights that make it up."""


def network_section(run: Run, names: Sequence[str]) -> dict[str, Any]:
    """What the template shows of the network: sheets, films, tables; `names`: of the classes, where they are known."""
    losses = _measured(run)
    parts = (run.images / "parts.png", "What the mechanisms made of the first counterfactual images")
    return {
        "sheets": sheets([*last_sheet(run.model), parts]),
        "films": _films(run.images / "interpolations", names),
        "silhouettes": _silhouettes(losses),
        "ablation": _ablation(run, losses),
        "entropy": _entropy(run, losses),
    }


def _measured(run: Run) -> dict[str, float]:
    """Name -> what the training measured last, and `start/...` before its first update."""
    path = run.model / "model.safetensors"
    losses = (read_facts(path) if path.is_file() else {}).get("losses")
    if not isinstance(losses, Mapping):
        losses = flat(run.records["train_cgn"].metrics, apart="/")
    return {name: float(value) for name, value in losses.items() if isinstance(value, int | float)}


def _films(folder: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """The interpolations: `films`; `large`, sentences on those that are too large; `frames`, sheets of their frames."""
    found: dict[str, list[Any]] = {"films": [], "large": []}
    for path in sorted(folder.glob("*.gif")):
        words = _path_in_words(path, names)
        if (size := path.stat().st_size) > FILM_BYTES:
            found["large"].append(f"{words}: {size / 2**20:.1f} MiB, too large for this page: {path.name}")
        else:
            found["films"].append(_film(path, words))
    found["frames"] = sheets((path, _path_in_words(path, names)) for path in sorted(folder.glob("*.png")))
    return found


def _silhouettes(losses: Mapping[str, float]) -> Table | None:
    """Masks against true silhouettes, before and after training; None where they were not compared."""
    rows: list[Row] = [
        {
            "Masks": Cell(value=words, detail=small),
            "before training": _decimal(losses.get(f"start/iou/{name}")),
            "after training": _decimal(losses.get(f"iou/{name}")),
        }
        for name, (words, small) in IOU.items()
    ]
    return Table(caption="Masks against true silhouettes", lines=rows) if "iou/own" in losses else None


def _ablation(run: Run, losses: Mapping[str, float]) -> Table:
    """The published ablation, the mean mask of this run in its row."""
    ours = _left_out(run.params.get("train_cgn", {}).get("losses", {}))
    columns = [f"{what}: {who}" for what in ("Inception score", "Mean mask") for who in ("paper", "replication")]
    rows: list[Row] = [
        {
            "Losses": words,
            **{column: printed(number, unit="") for column, number in zip(columns, numbers, strict=True)},
            "Mean mask: here": _decimal(losses.get("mask/mean") if left_out == ours else None),
        }
        for left_out, words, score, mean, score_again, mean_again in ABLATION
        for numbers in [(score, score_again, mean, mean_again)]
    ]
    rows.append({"Losses": Cell(value="BigGAN itself", style="muted"), columns[0]: printed(BIGGAN_SCORE, unit="")})
    return Table(caption="Which loss does what: the published ablation", lines=rows)


def _entropy(run: Run, losses: Mapping[str, float]) -> str:
    """Mean entropy of the last update's masks in bit a pixel; empty where it is not known."""
    weight = run.params.get("train_cgn", {}).get("losses", {}).get("binary")
    return f"{losses['loss/binary'] / weight:.3f}" if weight and "loss/binary" in losses else ""


def _film(path: Path, words: str) -> Image:
    """A GIF, with its first frame as a PNG."""
    data, still = path.read_bytes(), io.BytesIO()
    try:
        with Pillow.open(io.BytesIO(data), formats=["GIF"]) as opened:
            check_pixels(opened)
            opened.convert("RGB").save(still, format="PNG", optimize=True)
    except DECODE_ERRORS as error:
        raise ArtifactError(f"{path} is no GIF picture ({error}): run the stage that makes it again") from None
    width, height = opened.size
    still_uri = data_uri(still.getvalue())
    return Image(uri=data_uri(data, kind="gif"), width=width, height=height, alt=words, caption=words, still=still_uri)


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
    return any(map(_weighs, weight)) if isinstance(weight, list | tuple) else bool(weight)


def _decimal(value: float | None) -> Cell | None:
    return None if value is None else Cell(value=f"{value:.2f}", style="bold")
