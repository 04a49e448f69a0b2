"""What a data folder can be evaluated on: its suites, as parts of one condition each, and how their labels match.

Two kinds of collections are known by their number of classes. ImageNet's 1000 have the published maps to nine
superclasses and sixteen categories; pictures of ImageNet-9 and cue conflict are stored as the square that a network
sees, of ImageNet-C's the middle is shown, as its authors do. The miniature's nine classes are their own superclasses
and categories (named by the last words of the class folders' names), and all its pictures are drawn at one scale, so
all are shown as its validation images are.
A folder without a manifest is treated as benchmarks of the 1000 classes, so that a network of one's own can be
evaluated on folders that one has. What a suite lacks becomes a remark; nothing at all is an error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, cast, get_args

from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.facts import refuse_foreign
from cgn.core.files import MANIFEST
from cgn.corruptions import CORRUPTIONS
from cgn.data.decoding import decode
from cgn.evaluation.predictions import CLEAN, CUE_CONFLICT, IMAGENET_C, IN9, STYLIZED, SUITES
from cgn.evaluation.suites import CATEGORIES, IMAGENET_CLASSES, SUPERCLASSES, superclass_of
from cgn.imagenet.data.image_folders import VARIATIONS, ImageFolder, class_folders, cue_conflict, imagenet9, imagenet_c
from cgn.imagenet.data.prepared_sets import PreparedSet, PreparedSets, SetName, read_prepared_sets
from cgn.imagenet.data.preprocessing import VIEWS, View
from cgn.imagenet.data.wnids import wnids

SETS: Mapping[str, tuple[SetName, ...]] = {
    CLEAN: ("val",),
    IN9: ("imagenet9",),
    CUE_CONFLICT: ("cue_conflict",),
    STYLIZED: ("stylized",),
    IMAGENET_C: ("imagenet_c", "val"),
}
"""Suite -> the sets that it can be built from, the best first."""
ALL = "all"
"""Stands for every suite that the parameters name."""
COMPARED_VALUES = (
    *(f"*/{head}/clean/top_1" for head in ("label", "avg")),
    *(f"*/{head}/cue_conflict/{number}" for head in ("label", "avg", "shape") for number in ("shape_bias", "decided")),
    *(f"*/{head}/in9/bg_gap" for head in ("label", "shape_texture")),
    *(f"*/{head}/imagenet_c/mean_error" for head in ("label", "avg")),
)
"""Of the final values (classifier/head/suite/number), those that go to metrics.json; the others are in results.json."""


@dataclass(frozen=True, kw_only=True)
class SuiteKind:
    """How a collection's classes match its benchmarks."""

    superclass_of: tuple[int, ...]
    categories: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    view: View
    """Of stored benchmark pictures; `whole` is `middle` for ImageNet-C's own."""
    crop: int | None
    """Pixels of what is corrupted: the middle of a photograph, or, None, the picture as it is."""


@dataclass(frozen=True, kw_only=True)
class SuitePart:
    """One condition of a suite; `remarks` say what its folder holds beside the pictures, or lacks."""

    suite: str
    condition: str
    listing: ImageFolder
    view: View

    @property
    def remarks(self) -> list[str]:
        where, strays, absent = f"{self.suite}/{self.condition}", self.listing.strays, self.listing.absent
        found = [f"{where}: left out {stray}" for stray in strays]
        for names, what in ((absent, "have no folder"), (self.listing.empty, "have a folder without a picture")):
            shown = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
            found += [f"{where}: {len(names)} classes {what}: {shown}"] if names else []
        return found


def check_options(suite: str, *, corruptions: Sequence[str], variant: str) -> None:
    """Raise ConfigError for a suite or a corruption that does not exist."""
    if suite not in (ALL, *SUITES):
        raise ConfigError(f"--suite is {suite!r}; imagenet knows: {', '.join((ALL, *SUITES))}")
    if unknown := [name for name in corruptions if name not in CORRUPTIONS]:
        raise ConfigError(
            f"imagenet.{variant}.evaluate.corruptions has {', '.join(unknown)}; known: {', '.join(CORRUPTIONS)}"
        )


def open_data(data: Path, *, variant: str | None = None) -> PreparedSets:
    """What prepare wrote, or a folder of benchmarks; `variant`: the only one that is accepted.

    Raises ArtifactError for a folder of another variant, or one that is neither.
    """
    if (data / MANIFEST).is_file():
        collection = read_prepared_sets(data)
        expected = {"track": "imagenet"} if variant is None else {"track": "imagenet", "variant": variant}
        refuse_foreign(collection.facts, source=data, **expected)
        return collection
    names = [name for name in cast(tuple[SetName, ...], get_args(SetName)) if (data / name).is_dir()]
    if not names:
        raise ArtifactError(
            f"{data} holds neither a {MANIFEST} of prepare nor a folder of the name {', '.join(get_args(SetName))}"
        )
    sets: dict[str, PreparedSet] = {name: PreparedSet(folder=name, images=0, digest="") for name in names}
    return PreparedSets(root=data, facts={}, class_names=wnids(), sets=sets)


def kind_of(collection: PreparedSets) -> SuiteKind:
    """Raises ArtifactError for a collection of other classes."""
    if collection.classes == IMAGENET_CLASSES:
        return SuiteKind(
            superclass_of=tuple(superclass_of().tolist()),
            categories=tuple(CATEGORIES),
            members=tuple(CATEGORIES.values()),
            view="whole",
            crop=224,
        )
    count = len(SUPERCLASSES)
    if collection.classes == count:
        return SuiteKind(
            superclass_of=tuple(range(count)),
            categories=tuple(name.partition("_")[2].rpartition(" ")[2] for name in collection.class_names),
            members=tuple((number,) for number in range(count)),
            view="clean",
            crop=None,
        )
    raise ArtifactError(
        f"{collection.root} has {collection.classes} classes: the suites know ImageNet's {IMAGENET_CLASSES} and the "
        f"miniature's {count}"
    )


def label_classes(collection: PreparedSets) -> dict[str, int]:
    """Suite -> how many classes its labels count in."""
    of_classes = dict.fromkeys((CLEAN, STYLIZED, IMAGENET_C), collection.classes)
    return {**of_classes, IN9: len(SUPERCLASSES), CUE_CONFLICT: len(kind_of(collection).categories)}


def suites_to_run(suite: str, collection: PreparedSets, *, suites: Sequence[str]) -> tuple[list[str], list[str]]:
    """The suites to run, `suite` or those of ALL that the collection has; and a remark for each that is left out.

    Raises ArtifactError when the collection has none of them.
    """
    if suite != ALL:
        return [suite], []
    present = [name for name in suites if any(collection.has(of) for of in SETS[name])]
    if not present:
        raise ArtifactError(f"{collection.root} has the pictures of no suite of {', '.join(suites)}")
    return present, [f"{name}: not in {collection.root.name}, left out" for name in suites if name not in present]


def is_prebuilt(collection: PreparedSets) -> bool:
    """Whether the data have corrupted pictures, so that none is corrupted here."""
    return collection.has("imagenet_c")


def corrupted_by(collection: PreparedSets) -> Literal["here", "fetch", "user"]:
    """Who corrupted the pictures: this run; the benchmark's authors, by fetch; or who filled the user's folder."""
    if not is_prebuilt(collection):
        return "here"
    unpacked = collection.facts and not Path(collection.sets["imagenet_c"].folder).is_absolute()
    return "fetch" if unpacked else "user"


def shown_as(suite: str, part: SuitePart, collection: PreparedSets) -> str:
    """What is done to a suite's pictures before any network's colours, in words; `part`: its first."""
    kind = kind_of(collection)
    if suite == IMAGENET_C and not is_prebuilt(collection):
        what = f"the middle {kind.crop} pixels of photographs" if kind.crop else "whole pictures"
        return f"{what}, corrupted here; then {VIEWS[kind.view].partition(': ')[2]}"
    if suite == IMAGENET_C:
        try:
            size = " x ".join(map(str, decode(part.listing.root / part.listing.names[0]).size))
        except ArtifactError:
            return VIEWS[part.view]  # it will be named as unreadable
        return f"{VIEWS[part.view]}; the first of these pictures has {size} pixels"
    return VIEWS[part.view]


def coverage(suite: str, labels: Mapping[str, Sequence[int]], collection: PreparedSets) -> list[str]:
    """What its pictures leave out of the classes that a decision is among: a sentence, or none. `labels`: by cue."""
    among, present = f"{collection.classes:,}", len(set(labels["shape"]))
    if suite == CUE_CONFLICT:
        return _uncovered(labels, kind_of(collection).categories)
    if suite == IN9:
        count = len(SUPERCLASSES)
        remark = (
            f"{IN9}: pictures of {present} of the {count} superclasses; every decision is among all {among} classes"
        )
        return [remark] if present < count else []
    remark = f"{suite}: pictures of {present:,} of the {among} classes; every decision is among all {among}"
    return [remark] if present < collection.classes else []


def _uncovered(labels: Mapping[str, Sequence[int]], categories: Sequence[str]) -> list[str]:
    """Of cue conflict: the categories that no conflict has for shape, or for texture."""
    conflicts = [pair for pair in zip(labels["shape"], labels["texture"], strict=True) if pair[0] != pair[1]]
    found = []
    for cue, held in (("shape", {shape for shape, _ in conflicts}), ("texture", {texture for _, texture in conflicts})):
        if lacking := [name for number, name in enumerate(categories) if number not in held]:
            found.append(
                f"{CUE_CONFLICT}: no conflict has the {cue} of {', '.join(lacking)}: the shape bias is over "
                f"{len(held)} of {len(categories)} {cue}s, every decision among all {len(categories)} categories"
            )
    return found


def parts_of(suite: str, collection: PreparedSets, *, corruptions: Sequence[str]) -> tuple[list[SuitePart], list[str]]:
    """A suite's parts and what it lacks as a whole.

    Raises ArtifactError when there is nothing to show, or when the pictures are others than prepare found.
    """
    kind, classes = kind_of(collection), collection.class_names
    folder = collection.unchanged(next((name for name in SETS[suite] if collection.has(name)), SETS[suite][0]))
    part = partial(SuitePart, suite=suite)
    if suite == IN9:
        variations = imagenet9(folder)
        lacking = [f"{IN9}: no variation {name} of {len(VARIATIONS)}" for name in variations.missing]
        present = variations.present.items()
        return [part(condition=name, listing=listing, view=kind.view) for name, listing in present], lacking
    if suite == CUE_CONFLICT:
        listing = cue_conflict(folder, categories=kind.categories)
        return [part(condition="all", listing=listing, view=kind.view)], []
    if suite == IMAGENET_C and is_prebuilt(collection):
        corrupted = imagenet_c(folder, corruptions=corruptions, classes=classes)
        lacking = [f"{IMAGENET_C}: no corruption {name}" for name in corrupted.missing]
        first = next(iter(corrupted.present.values())).absent  # named once, not 75 times
        return [
            part(
                condition=name,
                listing=replace(listing, absent=() if number and listing.absent == first else listing.absent),
                view="middle" if kind.view == "whole" else kind.view,
            )
            for number, (name, listing) in enumerate(corrupted.present.items())
        ], lacking
    return [part(condition=CLEAN, listing=class_folders(folder, classes=classes), view="clean")], []
