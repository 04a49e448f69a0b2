"""imagenet prepare: a world drawn by formulas, or the user's photographs and the published benchmarks, as a collection.

Decided here: both come in the folders and under the names of the real benchmarks, so whatever reads one reads the
other. The miniature's frozen panes are drawn as well: its corruptions need no download.
"""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch

from cgn.config.imagenet.prepare import Folders, Prepare, World
from cgn.core.images import from_bytes
from cgn.core.seeding import derive
from cgn.data.collection import Collection, PictureSet, SetName, own_set, write_collection
from cgn.data.decoding import SUFFIXES, decode
from cgn.data.miniature.frost import write_frost
from cgn.data.miniature.sets import CLASS_FOLDERS, write_sets
from cgn.data.wnids import wnids
from cgn.stages.prepare import Parts, Prepared
from cgn.tracks.imagenet.folders import benchmark_sets, user_sets

DRAWN: tuple[SetName, ...] = ("train", "val", "imagenet9", "cue_conflict", "frost", "masks")
COLUMNS = 9
TILE = 64
"""Pixels of an example."""


def parts(params: Prepare, *, seed: int, variant: str) -> Parts:
    """Parameters of a variant -> what the stage needs."""
    if params.world is not None:
        return Parts(write=partial(_draw, params.world, seed=derive(seed, "prepare"), variant=variant))
    assert params.folders is not None
    return Parts(write=partial(_gather, params.folders, variant=variant))


def _draw(world: World, *, seed: int, variant: str, assets: Path, data: Path) -> Prepared:
    del assets  # nothing is read: the world is made of formulas
    write_sets(data, seed=seed, **asdict(world))
    write_frost(data / "frost", seed=seed)
    sets: dict[str, PictureSet] = {name: own_set(data, name) for name in DRAWN}
    facts = {"track": "imagenet", "variant": variant, "world": asdict(world), "seed": seed}
    return _written(Collection(root=data, facts=facts, class_names=CLASS_FOLDERS, sets=sets))


def _gather(folders: Folders, *, variant: str, assets: Path, data: Path) -> Prepared:
    sets: dict[str, PictureSet] = {**benchmark_sets(assets, data), **user_sets(folders, variant=variant)}
    facts = {"track": "imagenet", "variant": variant}
    return _written(Collection(root=data, facts=facts, class_names=wnids(), sets=sets))


def _written(collection: Collection) -> Prepared:
    write_collection(collection)
    return Prepared(images={name: held.images for name, held in collection.sets.items()}, examples=_rows(collection))


def _rows(collection: Collection) -> list[tuple[str, torch.Tensor]]:
    """A row for each set, or each variation of one: the first picture of up to nine classes evenly spread."""
    rows = []
    for name in sorted(collection.sets):
        folder = collection.root / collection.sets[name].folder
        if name in ("imagenet9", "masks"):
            inner = sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "fg_mask")
            rows += [(path.name if name == "imagenet9" else f"mask: {path.name}", _examples(path)) for path in inner]
        else:
            rows.append((name, _examples(folder)))
    return rows


def _examples(folder: Path) -> torch.Tensor:
    """(up to 9,3,64,64) in [-1,1]."""
    homes = sorted(path for path in folder.iterdir() if path.is_dir())
    while homes and not any(path.is_file() for path in homes[0].iterdir()):  # .../val/<class>, <corruption>/1/<class>
        homes = sorted(path for path in homes[0].iterdir() if path.is_dir())
    chosen = [homes[place] for place in _spread(len(homes))] if homes else [folder] * COLUMNS
    pictures = [path for number, home in enumerate(chosen) if (path := _picture(home, number if not homes else 0))]
    return from_bytes(np.stack([np.asarray(decode(path).resize((TILE, TILE))) for path in pictures]))


def _picture(folder: Path, number: int) -> Path | None:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    return found[number] if number < len(found) else None


def _spread(count: int) -> Sequence[int]:
    places: list[int] = np.linspace(0, count - 1, min(count, COLUMNS)).round().astype(int).tolist()
    return places
