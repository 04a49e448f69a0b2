"""Predictions on ImageNet's suites whose every number can be computed by hand, and the folders of a run around them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from cgn.core.checkpoints import save_model
from cgn.core.files import write_json
from cgn.evaluation.corruption_error import ALEXNET, SEVERITIES, condition
from cgn.evaluation.predictions import NONE, Predictions, gather, prediction_rows, write_predictions
from cgn.imagenet.data.prepared_sets import PreparedSet, PreparedSets, write_prepared_sets

CATEGORIES = ("dog", "bird", "vehicle", "reptile", "carnivore", "insect", "instrument", "primate", "fish")
CLASSES = len(CATEGORIES)
HEADS = (
    ("baseline", "label"),
    ("ensemble", "shape"),
    ("ensemble", "texture"),
    ("ensemble", "background"),
    ("ensemble", "avg"),
    ("ensemble", "shape_texture"),
)
CLEAN_IMAGES, VARIATION_IMAGES, CORRUPTED_IMAGES = 20, 10, 4
RIGHT = dict(zip(HEADS, (19, 12, 14, 11, 18, 17), strict=True))
"""Of the clean images, top-1; one more is right among the five best."""
CUES = dict(zip(HEADS, ((0, 8), (7, 1), (1, 8), (3, 3), (1, 9), (5, 4)), strict=True))
"""Decisions for shape and for texture on ten stimuli with conflict; the rest for neither. Two more agree."""
UNDECIDED = (("ensemble", "background"), ("ensemble", "shape_texture"))
"""The heads whose interval holds 50 %."""
VARIATIONS = {
    "original": (10, 9, 9, 9, 10, 10),
    "mixed_same": (9, 8, 8, 8, 9, 9),
    "mixed_rand": (5, 7, 6, 6, 8, 8),
    "no_fg": (3, 1, 2, 4, 3, 2),
}
WRONG = dict(zip(HEADS, (3, 2, 3, 3, 1, 2), strict=True))
"""Of the four corrupted images, under every corruption and severity; of the clean ones, none."""


def rows(
    key: tuple[str, str],
    suite: str,
    condition: str,
    *,
    label: Sequence[int],
    tops: Sequence[Sequence[int]],
    texture: Sequence[int] | None = None,
    category: Sequence[int] | None = None,
    images: Sequence[str] | None = None,
) -> pd.DataFrame:
    """One head's rows on N pictures; `tops` (N,5)."""
    count = len(label)
    cues = {"shape": label} if texture is None else {"shape": label, "texture": texture}
    return prediction_rows(
        classifier=key[0],
        head=key[1],
        suite=suite,
        condition=condition,
        images=images or [f"{number:02d}.png" for number in range(count)],
        labels=cues,
        tops=np.array(tops),
        category=np.array(category) if category else NONE,
        probability=np.full(count, 0.5),
    )


def clean(key: tuple[str, str], *, suite: str = "clean") -> pd.DataFrame:
    """RIGHT first choices, one right fifth choice, the rest wrong."""
    label = [number % CLASSES for number in range(CLEAN_IMAGES)]
    tops = [_tops(best) for best in label]
    for number in range(RIGHT[key], CLEAN_IMAGES):
        tops[number] = [(label[number] + rank) % CLASSES for rank in (1, 2, 3, 4, 5)]
    if RIGHT[key] < CLEAN_IMAGES:
        tops[RIGHT[key]][4] = label[RIGHT[key]]
    return rows(key, suite, "clean" if suite == "clean" else "all", label=label, tops=tops)


def cue_conflict(key: tuple[str, str]) -> pd.DataFrame:
    """Stimuli `dog/dog3-bird1.png`: ten with conflict, then two without."""
    pairs = [(number % CLASSES, (number + 4) % CLASSES) for number in range(10)] + [(0, 0), (1, 1)]
    for_shape, for_texture = CUES[key]
    decided = []
    for number, (shape, texture) in enumerate(pairs):
        neither = next(other for other in range(CLASSES) if other not in (shape, texture))
        cue = shape if number < for_shape else texture if number < for_shape + for_texture else neither
        decided.append(cue if shape != texture else shape)
    images = [
        f"{CATEGORIES[shape]}/{CATEGORIES[shape]}{number}-{CATEGORIES[texture]}1.png"
        for number, (shape, texture) in enumerate(pairs)
    ]
    return rows(
        key,
        "cue_conflict",
        "all",
        label=[shape for shape, _ in pairs],
        texture=[texture for _, texture in pairs],
        tops=[_tops(best) for best in decided],
        category=decided,
        images=images,
    )


def counted(key: tuple[str, str], suite: str, condition: str, *, images: int, right: int) -> pd.DataFrame:
    """`right` of `images` decisions are right, the first ones."""
    label = [number % CLASSES for number in range(images)]
    decided = [best if number < right else (best + 1) % CLASSES for number, best in enumerate(label)]
    return rows(key, suite, condition, label=label, tops=[_tops(best) for best in decided])


def tables(*, suites: Sequence[str], heads: Sequence[tuple[str, str]] = HEADS) -> list[pd.DataFrame]:
    """The rows of the suites, of the chosen heads."""
    found = []
    for place, key in enumerate(HEADS):
        if key not in heads:
            continue
        if "clean" in suites:
            found.append(clean(key))
        if "stylized" in suites:
            found.append(clean(key, suite="stylized"))
        if "cue_conflict" in suites:
            found.append(cue_conflict(key))
        if "in9" in suites:
            found += [
                counted(key, "in9", name, images=VARIATION_IMAGES, right=right[place])
                for name, right in VARIATIONS.items()
            ]
        if "imagenet_c" in suites:
            found += _corrupted(key)
    return found


def _corrupted(key: tuple[str, str]) -> list[pd.DataFrame]:
    right = CORRUPTED_IMAGES - WRONG[key]
    conditions = [condition(name, severity) for name in ALEXNET for severity in SEVERITIES]
    corrupted = [counted(key, "imagenet_c", each, images=CORRUPTED_IMAGES, right=right) for each in conditions]
    return [*corrupted, counted(key, "imagenet_c", "clean", images=CORRUPTED_IMAGES, right=CORRUPTED_IMAGES)]


ALL = ("clean", "in9", "cue_conflict", "stylized", "imagenet_c")


def predictions(
    *,
    suites: Sequence[str] = ALL,
    heads: Sequence[tuple[str, str]] = HEADS,
    variant: str = "miniature",
    unreadable: Sequence[str] = (),
    remarks: Sequence[str] = (),
    shown: Mapping[str, Any] | None = None,
) -> Predictions:
    """All of it together."""
    return gather(
        tables(suites=suites, heads=heads),
        track="imagenet",
        variant=variant,
        classes=CLASSES,
        suites=dict.fromkeys(ALL, CLASSES),
        superclass_of=range(CLASSES),
        categories=CATEGORIES,
        unreadable=unreadable,
        remarks=remarks,
        shown=shown,
    )


def make_run(root: Path, stored: Predictions) -> dict[str, Path]:
    """The folders of a run: the decisions, and nothing else in them."""
    folders = {role: root / role for role in ("data", "model", "images", "decisions")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    write_predictions(stored, folders["decisions"] / "decisions.parquet")
    return folders


def define(folder: Path, verb: str, params: Mapping[str, Any], *, variant: str = "miniature") -> None:
    """What the front door writes into a finished folder."""
    definition = {
        "verb": verb,
        "track": "imagenet",
        "variant": variant,
        "seed": 4,
        "params": dict(params),
        "inputs": {},
    }
    write_json(folder / "definition.json", definition)


def note(folder: Path, *, seconds: float, starts: int = 1, metrics: Mapping[str, Any] | None = None) -> None:
    """What the front door writes into the folder's log."""
    log = folder.with_name(folder.name + ".log")
    machine = {"cpu": "Abacus 9000", "cores": 3, "gpus": []}
    write_json(log / "run.json", {"seconds": seconds, "starts": [{}] * starts, "finished": "now", "machine": machine})
    write_json(log / "metrics.json", dict(metrics or {}))


def picture(path: Path, *, size: tuple[int, int] = (8, 8)) -> None:
    """A red PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)


def film(path: Path) -> None:
    """A GIF of two frames of 12 x 10 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [Image.new("RGB", (12, 10), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)


def benchmarks(data: Path, stored: Predictions) -> None:
    """The stimuli, and one scene in ImageNet-9's variations, as pictures below a manifest."""
    for image in stored.of("cue_conflict")["image"].unique():
        picture(data / "cue_conflict" / str(image), size=(9, 9))
    for name in VARIATIONS:
        picture(data / "imagenet9" / name / "val" / "00.png", size=(7, 7))
    sets = {name: PreparedSet(folder=name, images=1, digest="") for name in ("imagenet9", "cue_conflict")}
    facts = {"track": "imagenet", "variant": "miniature"}
    write_prepared_sets(PreparedSets(root=data, facts=facts, class_names=CATEGORIES, sets=sets))


def model(folder: Path, **losses: float) -> None:
    """A model file that says what its training measured."""
    facts = {"track": "imagenet", "variant": "miniature", "losses": losses}
    save_model(folder / "model.safetensors", {"weight": torch.zeros(1)}, facts=facts)


def _tops(best: int) -> list[int]:
    return [(best + rank) % CLASSES for rank in range(5)]
