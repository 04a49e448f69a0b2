"""imagenet prepare: a world drawn by formulas, or the user's photographs and the published benchmarks, as a collection.

Decided here: both come in the folders and under the names of the real benchmarks, so whatever reads one reads the
other. The miniature's frozen panes are drawn as well: its corruptions need no download. Examples are drawn from the
files that the collection lists, so the sheet shows what is counted, trained on and evaluated.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch

from cgn.config.imagenet.prepare import Folders, Prepare, World
from cgn.core.errors import ArtifactError
from cgn.core.files import MANIFEST, on_disk, read_json
from cgn.core.images import Bytes, from_bytes
from cgn.core.seeding import derive
from cgn.data.decoding import decode
from cgn.data.image_folders import SEVERITIES, VARIATIONS, is_image
from cgn.data.prepared_sets import (
    PreparedSet,
    PreparedSets,
    SetName,
    external_set,
    internal_set,
    read_prepared_sets,
    write_prepared_sets,
)
from cgn.data.wnids import wnids
from cgn.imagenet.folders import SURVEY, benchmark_sets, user_sets
from cgn.miniature.frost import write_frost
from cgn.miniature.sets import CLASS_FOLDERS, write_sets
from cgn.stages.prepare import Parts, Prepared

DRAWN: tuple[SetName, ...] = ("train", "val", "imagenet9", "cue_conflict", "frost", "masks")
COLUMNS = 9
TILE = 64
"""Pixels of an example."""
TRIES = 5
"""Pictures of a class that are tried where the first cannot be read."""


def parts(params: Prepare, *, seed: int, variant: str) -> Parts:
    """Parameters of a variant -> what the stage needs."""
    if params.world is not None:
        return Parts(write=partial(_draw, params.world, seed=derive(seed, "prepare"), variant=variant))
    assert params.folders is not None
    return Parts(write=partial(_gather, params.folders, variant=variant))


def _draw(world: World, *, seed: int, variant: str, assets: Path, data: Path, survey: Path | None) -> Prepared:
    del assets, survey  # nothing is read: the world is made of formulas
    write_sets(data, seed=seed, **asdict(world))
    write_frost(data / "frost", seed=seed)
    sets: dict[str, PreparedSet] = {name: internal_set(data, name) for name in DRAWN}
    facts = {"track": "imagenet", "variant": variant, "world": asdict(world), "seed": seed}
    return _written(PreparedSets(root=data, facts=facts, class_names=CLASS_FOLDERS, sets=sets))


def _gather(folders: Folders, *, variant: str, assets: Path, data: Path, survey: Path | None) -> Prepared:
    own = user_sets(folders, variant=variant)  # first: they may be refused
    if survey is not None:
        _check_survey(survey / SURVEY, {name: contents.digest for name, contents in own.items()})
    _drop_changed(data)
    sets: dict[str, PreparedSet] = dict(benchmark_sets(assets, data))
    sets |= {name: external_set(contents, root=data, name=name) for name, contents in own.items()}
    facts = {"track": "imagenet", "variant": variant}
    return _written(PreparedSets(root=data, facts=facts, class_names=wnids(), sets=sets))


def _drop_changed(data: Path) -> None:
    """Of what an earlier run unpacked into `data`, remove what is not as it was, so that it is unpacked again."""
    if (data / MANIFEST).is_file():
        earlier = read_prepared_sets(data)
        for name, held in earlier.sets.items():
            if not Path(held.folder).is_absolute():
                try:
                    earlier.unchanged(name)  # type: ignore[arg-type]
                except ArtifactError:
                    shutil.rmtree(data / held.folder, ignore_errors=True)


def _check_survey(path: Path, digests: Mapping[SetName, str]) -> None:
    surveyed = read_json(path)
    for name, digest in digests.items():
        if not isinstance(surveyed, dict) or surveyed.get(name) != digest:
            raise ArtifactError(f"{path} is not of the pictures that {name} holds now: make the survey again")


def _written(collection: PreparedSets) -> Prepared:
    write_prepared_sets(collection)
    return Prepared(
        images={name: held.images for name, held in collection.sets.items()}, examples=list(_rows(collection))
    )


def _rows(collection: PreparedSets) -> Iterator[tuple[str, torch.Tensor]]:
    """A row for each set, or each variation of one: the first picture of up to nine classes evenly spread."""
    for name in sorted(collection.sets):
        folder = collection.root / collection.sets[name].folder
        pictures = [file for file in collection.files(name) if is_image(file)]  # type: ignore[arg-type]
        if name in ("imagenet9", "masks"):
            for inner in sorted({file.partition("/")[0] for file in pictures}):
                if name == "masks" or inner in VARIATIONS:
                    held = [file.removeprefix(f"{inner}/") for file in pictures if file.startswith(f"{inner}/")]
                    yield inner if name == "imagenet9" else f"mask: {inner}", _examples(folder / inner, held, of=name)
        else:
            yield name, _examples(folder, pictures, of=name)


def _examples(folder: Path, pictures: Sequence[str], *, of: str) -> torch.Tensor:
    """(up to 9,3,64,64) in [-1,1]. Raises ArtifactError when none of those that are tried can be read."""
    by_class: dict[str, list[str]] = {}
    above = _above_classes(pictures[0], of=of)
    for name in pictures:
        if name.startswith(above):
            inner, _, below = name.removeprefix(above).partition("/")
            by_class.setdefault(inner if below else "", []).append(name)
    homes = sorted(by_class)
    if homes == [""]:  # no folders of classes: the first pictures
        tried = [[name] for name in pictures[:COLUMNS]]
    else:
        tried = [by_class[homes[place]][:TRIES] for place in _spread(len(homes))]
    shown = [tile for names in tried if (tile := _tile(folder, names)) is not None]
    if not shown:
        raise ArtifactError(f"{folder}: none of the pictures that were tried can be read, such as {tried[0][0]}")
    return from_bytes(np.stack(shown))


def _above_classes(name: str, *, of: str) -> str:
    """What comes before the folders of classes: val/<class>, [kind/]<corruption>/1/<class>, or nothing."""
    parts = name.split("/")
    if of == "imagenet9":
        return "val/"
    if of == "imagenet_c":
        severity = next(place for place, part in enumerate(parts) if part in map(str, SEVERITIES))
        return "/".join(parts[: severity + 1]) + "/"
    return ""


def _tile(folder: Path, names: Sequence[str]) -> Bytes | None:
    """The first that can be read, (64,64,3) uint8."""
    for name in names:
        try:
            return np.asarray(decode(folder / on_disk(name)).resize((TILE, TILE)))
        except ArtifactError:
            continue
    return None


def _spread(count: int) -> Sequence[int]:
    places: list[int] = np.linspace(0, count - 1, min(count, COLUMNS)).round().astype(int).tolist()
    return places
