"""The report on the pretrained nets: what they are, how they were trained, how good they are, how they look.

`report.json`, `report.md` and sheets. Scenes that none of the nets was trained on measure them. A linear readout of the
means of the features' maps, fitted on counterfactual scenes, is the reference classifier: its accuracy says what the
features hold, and it classifies shape, texture and background of the BigGAN's images. A net without a file is left out.

Legend: B images, C maps of the features, S image size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from cgn.core.checkpoints import load_model
from cgn.core.files import read_json, sha256, write_json, write_text
from cgn.core.images import save_image, sheet
from cgn.core.metrics import read_lines
from cgn.core.seeding import derive, numpy_stream, torch_stream
from cgn.mechanisms import Prior
from cgn.miniature import shipped
from cgn.miniature.nets import load_biggan, load_features, load_segmenter
from cgn.miniature.pretraining.biggan import examples
from cgn.miniature.pretraining.config import PretrainingConfig, ReportConfig
from cgn.miniature.pretraining.features import PARTS
from cgn.miniature.world.scenes import CLASSES, backgrounds, scene
from cgn.nets.biggan import BigGan

DEFINITION = "definition.json"
"""In a training's folder: the seed and the config that it was begun with."""
RIDGE = 1e-4
"""The weight of the ridge penalty, relative to the mean square of each channel."""
IMAGES_PER_BATCH = 300
TILE_PIXELS = 48


def write_report(nets: Path, folder: Path, *, config: PretrainingConfig) -> None:
    """Evaluate the nets in the folder `nets` and write the report and its sheets to `folder`."""
    paths = {name: nets / f"{name}.safetensors" for name in ("biggan", "segmenter", "features")}
    paths = {name: path for name, path in paths.items() if path.is_file()}
    report = {name: training_facts(name, path) for name, path in paths.items()}
    for name, metrics in evaluate_nets(paths, config.report, seed=config.seed).items():
        report[name]["metrics"] = {key: round(value, 4) for key, value in metrics.items()}
    write_json(folder / "report.json", report)
    write_text(folder / "report.md", tables(report))
    draw_sheets(paths, folder, config.report, seed=config.seed)


def training_facts(name: str, path: Path) -> dict[str, Any]:
    """The file and its training. Seconds are those of an uninterrupted run: the median pace times the updates."""
    definition = read_json(path.parent / name / DEFINITION)
    lines = read_lines(path.parent / name / "metrics.jsonl")
    updates, losses = lines[-1]["step"], {key: value for key, value in lines[-1].items() if key.startswith("loss/")}
    paces = [(after["time"] - before["time"]) / (after["step"] - before["step"]) for before, after in pairwise(lines)]
    return {
        "file": {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)},
        "difference_from_shipped": difference_from_shipped(path),
        "seed": definition["seed"],
        "updates": updates,
        "seconds": round(median(paces) * updates) if paces else None,
        "last_losses": {key: round(value, 4) for key, value in losses.items()},
        "config": definition["config"],
    }


def difference_from_shipped(path: Path) -> float | None:
    """The largest absolute difference of a weight from the package's file: 0 where it is reproduced.

    None where the nets have other layers.
    """
    tensors, _ = load_model(path)
    known, _ = load_model(shipped.FOLDER / path.name)
    if {name: tensor.shape for name, tensor in tensors.items()} != {name: known[name].shape for name in known}:
        return None
    return max(float((tensors[name].double() - known[name].double()).abs().max()) for name in known)


def evaluate_nets(paths: Mapping[str, Path], config: ReportConfig, *, seed: int) -> dict[str, dict[str, float]]:
    """The metrics of each net; the BigGAN's need the features."""
    metrics: dict[str, dict[str, float]] = {}
    if "segmenter" in paths:
        metrics["segmenter"] = evaluate_segmenter(load_segmenter(paths["segmenter"]), config, seed=seed)
    if "features" in paths:
        world = derive(seed, "judge", "features")
        readout = fit_readout(load_features(paths["features"]), config, seed=world)
        metrics["features"] = evaluate_features(readout, config, seed=world)
        if "biggan" in paths:
            net = load_biggan(paths["biggan"])
            found = {
                f"{truncation:g}": evaluate_biggan(net, readout, config, seed=seed, truncation=truncation)
                for truncation in config.truncations
            }
            found["real"] = evaluate_scenes(readout, config, seed=seed)
            metrics["biggan"] = {
                f"{key}@{name}": value for name, values in found.items() for key, value in values.items()
            }
    return metrics


@dataclass(frozen=True, kw_only=True)
class Readout:
    """Linear maps from the means of the features' maps to the classes of each part."""

    features: nn.Module
    weights: torch.Tensor
    """(1 + C, 3 * 9)"""

    def classify(self, images: torch.Tensor) -> torch.Tensor:
        """(B,3,S,S) in [-1,1] -> (B,3) classes of shape, texture and background."""
        scores = pooled(self.features, images) @ self.weights
        classes: torch.Tensor = scores.reshape(len(scores), len(PARTS), len(CLASSES)).argmax(2)
        return classes


def fit_readout(features: nn.Module, config: ReportConfig, *, seed: int) -> Readout:
    """Fit by ridge regression on counterfactual scenes."""
    world = derive(seed, "fit")
    images, labels = counterfactuals(config.readout_images, seed=world, image_size=config.image_size)
    inputs = pooled(features, images)
    targets = torch.nn.functional.one_hot(labels, len(CLASSES)).float().flatten(1)
    products = (inputs.T @ inputs).double()
    strength = products.diagonal()
    penalty = RIDGE * torch.diag(strength.clamp_min(float(strength.mean()) * RIDGE))  # some channels are dead
    weights = torch.linalg.solve(products + penalty, (inputs.T @ targets).double()).float()
    return Readout(features=features, weights=weights)


def counterfactuals(count: int, *, seed: int, image_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(B,3,S,S) in [-1,1] and (B,3) independent labels of shape, texture and background."""
    labels = numpy_stream(seed, "labels").integers(0, len(CLASSES), (count, len(PARTS)))
    drawn = scene(*labels.T, seed=derive(seed, "scenes"), index=np.arange(count), image_size=image_size)
    return drawn.image, torch.from_numpy(labels)


@torch.no_grad()
def pooled(features: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """(B,3,S,S) -> (B,1+C): a one, and the mean of every map."""
    parts = [
        torch.cat([torch.ones(len(part), 1), *(maps.mean((2, 3)) for maps in features(part))], 1)
        for part in torch.split(images, IMAGES_PER_BATCH)
    ]
    return torch.cat(parts)


@torch.no_grad()
def evaluate_segmenter(net: nn.Module, config: ReportConfig, *, seed: int) -> dict[str, float]:
    """IoU with the true masks of factual scenes, and the mean saliency on objects, beside them and without any."""
    net.eval()
    labels = np.arange(config.images_per_class * len(CLASSES)) % len(CLASSES)
    index, world = np.arange(len(labels)), derive(seed, "judge", "segmenter")
    drawn = scene(labels, labels, labels, seed=world, index=index, image_size=config.image_size)
    saliency = torch.cat([net(part) for part in torch.split(drawn.image, IMAGES_PER_BATCH)])
    empty = backgrounds(labels, seed=derive(world, "empty"), index=index, image_size=config.image_size)
    on_empty = torch.cat([net(part) for part in torch.split(empty, IMAGES_PER_BATCH)])
    overlaps = iou(saliency, drawn.mask)
    metrics = {"iou": float(overlaps.mean()), "saliency_on_backgrounds": float(on_empty.mean())}
    metrics["saliency_on_objects"] = float((saliency * drawn.mask).sum() / drawn.mask.sum())
    metrics["saliency_beside_objects"] = float((saliency * (1 - drawn.mask)).sum() / (1 - drawn.mask).sum())
    for label, name in enumerate(CLASSES):
        chosen = torch.from_numpy(labels == label)
        metrics[f"iou/{name}"] = float(overlaps[chosen].mean())
        metrics[f"saliency_on_backgrounds/{name}"] = float(on_empty[chosen].mean())
    return metrics


def iou(mask: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """(B,1,S,S) twice, in [0,1] -> (B,): intersection over union, both with the threshold 0.5."""
    mask, true = (mask > 0.5).flatten(1), (true > 0.5).flatten(1)
    union = (mask | true).sum(1).clamp_min(1)
    return (mask & true).sum(1) / union


def evaluate_features(readout: Readout, config: ReportConfig, *, seed: int) -> dict[str, float]:
    """The readout's accuracy on counterfactual scenes that it was not fitted on."""
    count = config.images_per_class * len(CLASSES)
    images, labels = counterfactuals(count, seed=derive(seed, "test"), image_size=config.image_size)
    accuracy = (readout.classify(images) == labels).float().mean(0)
    return {f"accuracy/{part}": float(value) for part, value in zip(PARTS, accuracy, strict=True)}


@torch.no_grad()
def evaluate_biggan(
    net: BigGan, readout: Readout, config: ReportConfig, *, seed: int, truncation: float
) -> dict[str, float]:
    """How often the readout finds the label in each part of its images, and how much images of a class vary."""
    net.eval()
    labels = torch.arange(config.images_per_class * len(CLASSES)) % len(CLASSES)
    stream = torch_stream(seed, "judge", "biggan")
    noise = Prior(noise_size=net.config.noise_size, truncation=truncation).noise(len(labels), stream)
    batches = zip(torch.split(noise, IMAGES_PER_BATCH), torch.split(labels, IMAGES_PER_BATCH), strict=True)
    images = torch.cat([net(part, label, truncation=truncation) for part, label in batches])
    return agreement(images, labels, readout)


def evaluate_scenes(readout: Readout, config: ReportConfig, *, seed: int) -> dict[str, float]:
    """The same for real factual scenes: what the best BigGAN could reach."""
    labels = np.arange(config.images_per_class * len(CLASSES)) % len(CLASSES)
    world = derive(seed, "judge", "scenes")
    drawn = scene(labels, labels, labels, seed=world, index=np.arange(len(labels)), image_size=config.image_size)
    return agreement(drawn.image, torch.from_numpy(labels), readout)


def agreement(images: torch.Tensor, labels: torch.Tensor, readout: Readout) -> dict[str, float]:
    """The share of images (B,3,S,S) whose parts the readout classifies as `labels` (B,), and the spread of a class."""
    found = (readout.classify(images) == labels[:, None]).float().mean(0)
    spread = torch.stack([images[labels == label].std(0).mean() for label in range(len(CLASSES))]).mean()
    shares = {f"label_found/{part}": float(value) for part, value in zip(PARTS, found, strict=True)}
    return {**shares, "spread": float(spread)}


@torch.no_grad()
def draw_sheets(paths: Mapping[str, Path], folder: Path, config: ReportConfig, *, seed: int) -> None:
    """The BigGAN at each truncation, the segmenter on scenes and on the BigGAN's images."""
    segment = load_segmenter(paths["segmenter"]).eval() if "segmenter" in paths else None
    if segment is not None:
        labels = np.arange(2 * len(CLASSES)) % len(CLASSES)
        world, index = derive(seed, "report"), np.arange(len(labels))
        drawn = scene(labels, labels, labels, seed=world, index=index, image_size=config.image_size)
        rows = [("scene", drawn.image), ("true mask", drawn.mask * 2 - 1), ("saliency", segment(drawn.image) * 2 - 1)]
        rows += [("background", drawn.background), ("saliency", segment(drawn.background) * 2 - 1)]
        save_image(sheet(rows, tile_pixels=TILE_PIXELS), folder / "segmenter.png")
    if "biggan" not in paths:
        return
    net = load_biggan(paths["biggan"]).eval()
    for truncation in config.truncations:
        generated = examples(net, seed=derive(seed, "report"), truncation=truncation)
        save_image(sheet(generated, tile_pixels=TILE_PIXELS), folder / f"biggan-{truncation:g}.png")
        if segment is not None:
            masked = [row for name, images in generated[:3] for row in ((name, images), ("", segment(images) * 2 - 1))]
            save_image(sheet(masked, tile_pixels=TILE_PIXELS), folder / f"biggan-{truncation:g}-saliency.png")


def tables(report: Mapping[str, Any]) -> str:
    """The report as tables in Markdown."""
    lines = ["| net | file | bytes | updates | seconds | seed |", "|---|---|---|---|---|---|"]
    for name, part in sorted(report.items()):
        file = part["file"]
        lines.append(
            f"| {name} | {file['name']}, sha256 {file['sha256'][:16]}... | {file['bytes']:,} "
            f"| {part['updates']:,} | {part['seconds']} | {part['seed']} |"
        )
    for name, part in sorted(report.items()):
        lines += ["", f"**{name}**", "", "| metric | value |", "|---|---|"]
        lines += [f"| {key} | {value:.3f} |" for key, value in sorted(part.get("metrics", {}).items())]
    return "\n".join(lines) + "\n"
