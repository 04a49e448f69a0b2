"""The user's photographs and the published benchmarks as a collection: looked through, unpacked, never copied twice.

Decided here: the user's folders stay where they are. Each must hold pictures of at least one class, and no class folder
may be empty; classes without a folder, and files that are no pictures, are counted and told, not refused: ImageNet-mini
is ImageNet with most pictures gone. A benchmark is there when fetch brought its archive.
"""

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from cgn.config.imagenet.prepare import Folders
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.files import replacing, user_path
from cgn.data import archives, sources
from cgn.data.benchmarks import SEVERITIES, class_folders, corruption_homes
from cgn.data.collection import PictureSet, SetName, foreign_set, own_set
from cgn.data.wnids import wnids

SHOWN = 5
"""Names in a message, of many."""


def user_sets(folders: Folders, *, variant: str) -> dict[str, PictureSet]:
    """The user's folders that are named. Raises ConfigError with the dotted key of one that does not do."""
    named: dict[str, tuple[str | None, Callable[..., PictureSet]]] = {
        "train": (folders.train, _classes),
        "val": (folders.val, _classes),
        "stylized": (folders.stylized, _classes),
        "imagenet_c": (folders.imagenet_c, _corrupted),
    }
    found: dict[str, PictureSet] = {}
    for name, (told, look) in named.items():
        if told is not None:
            key = f"imagenet.{variant}.prepare.folders.{name}"
            folder = user_path(told)
            if not folder.is_dir():
                raise ConfigError(f"{key} is {told!r}: there is no folder {folder}; give the folder of the pictures")
            try:
                found[name] = look(folder, name=name)
            except ArtifactError as error:
                raise ConfigError(f"{key} is {told!r}: {error}") from None
    return found


def benchmark_sets(assets: Path, data: Path) -> dict[str, PictureSet]:
    """The benchmarks whose files fetch brought, unpacked into `data`."""
    packed: Mapping[SetName, tuple[tuple[sources.Asset, ...], archives.Place]] = {
        "imagenet9": ((sources.BACKGROUNDS_CHALLENGE,), archives.imagenet9),
        "cue_conflict": ((sources.CUE_CONFLICT,), archives.cue_conflict),
        "imagenet_c": (sources.IMAGENET_C, archives.imagenet_c),
    }
    found: dict[str, PictureSet] = {}
    for name, (files, place) in packed.items():
        brought = [assets / file.name for file in files if (assets / file.name).is_file()]
        if brought:
            archives.unpack(brought, data / name, place=place)
            found[name] = own_set(data, name)
    if all((assets / file.name).is_file() for file in sources.FROST):
        for file in sources.FROST:
            with replacing(data / "frost" / file.name) as temporary:
                shutil.copyfile(assets / file.name, temporary)
        found["frost"] = own_set(data, "frost")
    return found


def _classes(folder: Path, *, name: str) -> PictureSet:
    """An ImageFolder of WordNet ids."""
    listing = class_folders(folder, classes=wnids())
    held = {picture.partition("/")[0] for picture in listing.names}
    empty = sorted(set(wnids()) - held - set(listing.absent))
    if empty:
        raise ArtifactError(f"{folder} holds class folders without a picture: {_few(empty)}; fill or remove them")
    print(f"{name}: {len(listing):,} pictures of {len(held):,} classes in {folder}", flush=True)
    for what, names in (("classes without a folder", listing.absent), ("files that are left out", listing.strays)):
        if names:
            print(f"note: {name} has {len(names):,} {what}: {_few(names)}", file=sys.stderr, flush=True)
    return foreign_set(folder, listing.names)


def _corrupted(folder: Path, *, name: str) -> PictureSet:
    """Prebuilt ImageNet-C, [<kind>/]<corruption>/<severity>/<wnid>/...; every corruption there has all severities."""
    homes = corruption_homes(folder)
    if not homes:
        raise ArtifactError(f"{folder} holds no corruption of ImageNet-C, such as fog/1/{wnids()[0]}")
    pictures: list[str] = []
    for home in homes.values():
        for severity in SEVERITIES:
            listing = class_folders(home / str(severity), classes=wnids())
            below = (home / str(severity)).relative_to(folder).as_posix()
            pictures += [f"{below}/{picture}" for picture in listing.names]
    print(f"{name}: {len(pictures):,} pictures of {len(homes)} corruptions in {folder}", flush=True)
    return foreign_set(folder, pictures)


def _few(names: object) -> str:
    listed = [str(name) for name in names] if isinstance(names, list | tuple) else []
    return ", ".join(listed[:SHOWN]) + (f" and {len(listed) - SHOWN:,} more" if len(listed) > SHOWN else "")
