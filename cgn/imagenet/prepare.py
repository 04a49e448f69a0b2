"""Prepare the images of the ImageNet track: the miniature world, or the user's photographs and downloaded benchmarks.

Both come in the folders and under the names of the real benchmarks, so whatever reads one reads the other. The
miniature is drawn by formulas, its frost too, so that its corruptions need no download. The user's folders stay where
they are; a benchmark is there when fetch downloaded its archive. The examples are read from the files that the manifest
lists, so the sheet shows what is counted, trained on and evaluated.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from cgn.config.imagenet import Folders, Prepare, World
from cgn.core.arguments import Input, OptionalInput, Output
from cgn.core.errors import ArtifactError
from cgn.core.files import MANIFEST, on_disk, replacing
from cgn.core.images import Bytes, from_bytes, save_image, sheet
from cgn.core.metrics import MetricSink
from cgn.core.seeding import derive
from cgn.data.decoding import decode
from cgn.download import archives, sources
from cgn.imagenet.data import image_folders
from cgn.imagenet.data.image_folders import SEVERITIES, VARIATIONS, is_image
from cgn.imagenet.data.prepared_sets import (
    PreparedSet,
    PreparedSets,
    SetName,
    external_set,
    internal_set,
    read_prepared_sets,
    write_prepared_sets,
)
from cgn.imagenet.data.wnids import wnids
from cgn.imagenet.folders import check_survey, user_sets
from cgn.miniature.sets import CLASS_FOLDERS, write_frost, write_sets

WORLD_SETS: tuple[SetName, ...] = ("train", "val", "imagenet9", "cue_conflict", "frost", "masks")
COLUMNS = 9
TILE = 64
"""Pixels of an example."""
TRIES = 5
"""Images of a class that are tried where the first cannot be read."""


def prepare(
    config: Prepare,
    *,
    seed: int,
    variant: str,
    assets: Input,
    data: Output,
    survey: OptionalInput = None,
    sink: MetricSink,
) -> None:
    """Write the sets of images, manifest.json and examples.png into `data`.

    `survey`: of the user's folders; the pipeline makes it anew each time, so that a folder that changed is prepared
    again. Raises ConfigError for a folder that cannot be used, and ArtifactError for a survey of other images.
    """
    if config.world is not None:
        collection = draw_world(config.world, data, seed=derive(seed, "prepare"), variant=variant)
    else:
        assert config.folders is not None
        collection = collect(config.folders, data, variant=variant, assets=assets, survey=survey)
    write_prepared_sets(collection)
    save_image(sheet(list(example_rows(collection))), data / "examples.png")
    sink.picture(data / "examples.png")
    sink.summary({f"images/{name}": held.images for name, held in collection.sets.items()})


def draw_world(world: World, data: Path, *, seed: int, variant: str) -> PreparedSets:
    """Draw the miniature world's sets into `data`."""
    write_sets(data, seed=seed, **world.model_dump())
    write_frost(data / "frost", seed=seed)
    sets: dict[str, PreparedSet] = {name: internal_set(data, name) for name in WORLD_SETS}
    facts = {"track": "imagenet", "variant": variant, "world": world.model_dump(), "seed": seed}
    return PreparedSets(root=data, facts=facts, class_names=CLASS_FOLDERS, sets=sets)


def collect(folders: Folders, data: Path, *, variant: str, assets: Path, survey: Path | None) -> PreparedSets:
    """List the user's folders, and unpack into `data` the benchmarks whose files are in `assets`."""
    own = user_sets(folders, variant=variant)  # first: they may be refused
    if survey is not None:
        check_survey(survey, own)
    remove_changed(data)
    sets: dict[str, PreparedSet] = unpack_benchmarks(assets, data)
    sets |= {name: external_set(contents, root=data, name=name) for name, contents in own.items()}
    return PreparedSets(root=data, facts={"track": "imagenet", "variant": variant}, class_names=wnids(), sets=sets)


def remove_changed(data: Path) -> None:
    """Of what an earlier run unpacked into `data`, remove what has changed since, so that it is unpacked again."""
    if not (data / MANIFEST).is_file():
        return
    earlier = read_prepared_sets(data)
    for name, held in earlier.sets.items():
        if not Path(held.folder).is_absolute():
            try:
                earlier.unchanged(name)  # type: ignore[arg-type]
            except ArtifactError:
                shutil.rmtree(data / held.folder, ignore_errors=True)


def unpack_benchmarks(assets: Path, data: Path) -> dict[str, PreparedSet]:
    """The benchmarks whose files are in `assets`, unpacked into `data`."""
    packed: Mapping[SetName, tuple[tuple[sources.Asset, ...], archives.Place]] = {
        "imagenet9": ((sources.BACKGROUNDS_CHALLENGE,), image_folders.imagenet9_member),
        "cue_conflict": ((sources.CUE_CONFLICT,), image_folders.cue_conflict_member),
        "imagenet_c": (sources.IMAGENET_C, image_folders.imagenet_c_member),
    }
    found: dict[str, PreparedSet] = {}
    for name, (files, place) in packed.items():
        present = [assets / file.name for file in files if (assets / file.name).is_file()]
        if present:
            archives.unpack(present, data / name, place=place)
            found[name] = internal_set(data, name)
    if all((assets / file.name).is_file() for file in sources.FROST):
        for file in sources.FROST:
            with replacing(data / "frost" / file.name) as temporary:
                shutil.copyfile(assets / file.name, temporary)
        found["frost"] = internal_set(data, "frost")
    return found


def example_rows(collection: PreparedSets) -> Iterator[tuple[str, torch.Tensor]]:
    """A row for each set, or each variation of one: the first image of up to nine classes evenly spread."""
    for name in sorted(collection.sets):
        folder = collection.root / collection.sets[name].folder
        images = [file for file in collection.files(name) if is_image(file)]  # type: ignore[arg-type]
        if name in ("imagenet9", "masks"):
            for inner in sorted({file.partition("/")[0] for file in images}):
                if name == "masks" or inner in VARIATIONS:
                    held = [file.removeprefix(f"{inner}/") for file in images if file.startswith(f"{inner}/")]
                    yield inner if name == "imagenet9" else f"mask: {inner}", _examples(folder / inner, held, of=name)
        else:
            yield name, _examples(folder, images, of=name)


def _examples(folder: Path, images: Sequence[str], *, of: str) -> torch.Tensor:
    """(up to 9,3,64,64) in [-1,1]. Raises ArtifactError when none of those that are tried can be read."""
    by_class: dict[str, list[str]] = {}
    above = _above_classes(images[0], of=of)
    for name in images:
        if name.startswith(above):
            inner, _, below = name.removeprefix(above).partition("/")
            by_class.setdefault(inner if below else "", []).append(name)
    classes = sorted(by_class)
    if classes == [""]:  # no folders of classes: the first images
        tried = [[name] for name in images[:COLUMNS]]
    else:
        tried = [by_class[classes[place]][:TRIES] for place in _spread(len(classes))]
    shown = [tile for names in tried if (tile := _tile(folder, names)) is not None]
    if not shown:
        raise ArtifactError(f"{folder}: none of the images that were tried can be read, such as {tried[0][0]}")
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
