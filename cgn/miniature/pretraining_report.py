"""The report on the miniature's pretrained nets: what they are, how they were trained, what they can do, how they look.

`report.json` and `report.md`, and sheets: the BigGAN at two truncations, the segmenter on scenes and on the BigGAN's
images. Decided here: a net that is not there yet is left out, so the report can be had between trainings.
"""

from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from cgn.core.files import read_json, sha256, write_json, write_text
from cgn.core.images import save_image, sheet
from cgn.core.metrics import read_lines
from cgn.core.seeding import derive
from cgn.miniature import judge, nets
from cgn.miniature import pretraining_adversarial as adversarial
from cgn.miniature.pretraining_configs import IMAGE_SIZE
from cgn.miniature.scenes import CLASSES, scene
from cgn.nets.biggan import BigGan

READOUT_IMAGES = 3_600
TRUNCATIONS = (1.0, 0.5)
TILE_PIXELS = 48


def write(out: Path, *, seed: int) -> None:
    """Judge the nets in `out`, and write the report and the sheets there."""
    files = {name: out / f"{name}.safetensors" for name in ("biggan", "segmenter", "features")}
    present = {name: path for name, path in files.items() if path.is_file()}
    report: dict[str, Any] = {name: _training(out, name, path) for name, path in present.items()}
    for name, figures in _figures(present, seed=seed).items():
        report[name]["figures"] = {key: round(value, 4) for key, value in figures.items()}
    write_json(out / "report.json", report)
    write_text(out / "report.md", _page(report))
    _draw(out, present, seed=seed)


def _training(out: Path, name: str, path: Path) -> dict[str, Any]:
    """The file, and how it came about. Seconds are those of an unbroken run: the median pace times the updates."""
    recipe = read_json(out / name / "recipe.json")
    lines = read_lines(out / name / "metrics.jsonl")
    updates, losses = lines[-1]["step"], {key: value for key, value in lines[-1].items() if key.startswith("loss/")}
    paces = [(after["time"] - before["time"]) / (after["step"] - before["step"]) for before, after in pairwise(lines)]
    return {
        "file": {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)},
        "seed": recipe["seed"],
        "updates": updates,
        "seconds": round(median(paces) * updates) if paces else None,
        "last_losses": {key: round(value, 4) for key, value in losses.items()},
        "recipe": recipe["recipe"],
    }


def _figures(present: dict[str, Path], *, seed: int) -> dict[str, dict[str, float]]:
    figures: dict[str, dict[str, float]] = {}
    if "segmenter" in present:
        segment = nets.saliency_net(present["segmenter"])
        figures["segmenter"] = judge.judge_segmenter(segment, seed=seed, image_size=IMAGE_SIZE)
    if "features" in present:
        world = derive(seed, "judge", "features")
        fitted = judge.readout(
            nets.features(present["features"]), seed=world, count=READOUT_IMAGES, image_size=IMAGE_SIZE
        )
        figures["features"] = judge.judge_features(fitted, seed=world, image_size=IMAGE_SIZE)
        if "biggan" in present:
            net = nets.biggan(present["biggan"])
            for truncation in TRUNCATIONS:
                told = judge.judge_biggan(net, fitted, seed=seed, truncation=truncation)
                figures.setdefault("biggan", {}).update({f"{key}@{truncation:g}": told[key] for key in told})
            real = judge.judge_scenes(fitted, seed=seed, image_size=IMAGE_SIZE)
            figures["biggan"].update({f"{key}@real": real[key] for key in real})
    return figures


@torch.no_grad()
def _draw(out: Path, present: dict[str, Path], *, seed: int) -> None:
    segment = nets.saliency_net(present["segmenter"]).eval() if "segmenter" in present else None
    if segment is not None:
        labels = np.arange(2 * len(CLASSES)) % len(CLASSES)
        world = derive(seed, "report")
        drawn = scene(labels, labels, labels, seed=world, index=np.arange(len(labels)), image_size=IMAGE_SIZE)
        rows = [("scene", drawn.image), ("true mask", drawn.mask * 2 - 1), ("saliency", segment(drawn.image) * 2 - 1)]
        background = [("background", drawn.background), ("saliency", segment(drawn.background) * 2 - 1)]
        save_image(sheet([*rows, *background], tile_pixels=TILE_PIXELS), out / "segmenter.png")
    if "biggan" in present:
        _draw_biggan(out, nets.biggan(present["biggan"]).eval(), segment, seed=seed)


def _draw_biggan(out: Path, net: BigGan, segment: nn.Module | None, *, seed: int) -> None:
    for truncation in TRUNCATIONS:
        rows = adversarial.sheet(net, seed=derive(seed, "report"), truncation=truncation)
        save_image(sheet(rows, tile_pixels=TILE_PIXELS), out / f"biggan-{truncation:g}.png")
        if segment is not None:
            masked = [row for name, images in rows[:3] for row in ((name, images), ("", segment(images) * 2 - 1))]
            save_image(sheet(masked, tile_pixels=TILE_PIXELS), out / f"biggan-{truncation:g}-saliency.png")


def _page(report: dict[str, Any]) -> str:
    lines = ["| net | file | bytes | updates | seconds | seed |", "|---|---|---|---|---|---|"]
    for name, part in report.items():
        file = part["file"]
        lines.append(
            f"| {name} | {file['name']}, sha256 {file['sha256'][:16]}... | {file['bytes']:,} "
            f"| {part['updates']:,} | {part['seconds']} | {part['seed']} |"
        )
    for name, part in report.items():
        lines += ["", f"**{name}**", "", "| figure | value |", "|---|---|"]
        lines += [f"| {key} | {value:.3f} |" for key, value in part.get("figures", {}).items()]
    return "\n".join(lines) + "\n"
