"""Predictions of classifiers on the suites, in pieces that an interrupted evaluation keeps; and what is written.

A picture is read once for all classifiers that see it prepared alike. Everything that can be refused is checked before
the first picture is shown. A suite that the data lack is left out and named, but a suite that was asked for by name
must be there. A piece of work is a suite's condition, or one block of pictures under one corruption: when it is done
its predictions are stored below the output folder, so that a killed evaluation repeats no finished piece. That folder
is continued by the same definition and code only (`cgn.core.outputs.building`), so a piece that can be read is right.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cgn.config.imagenet import Evaluate
from cgn.core.devices import resolve_device
from cgn.core.errors import ArtifactError
from cgn.core.fan_out import Workers, fan_out
from cgn.core.files import write_json, write_text
from cgn.core.metrics import MetricSink, Silent
from cgn.core.progress import progress, say
from cgn.corruptions import BENCHMARK, SEVERITIES
from cgn.evaluation.predict import Predicted, predict
from cgn.evaluation.predictions import (
    CLEAN,
    FILE,
    IMAGENET_C,
    Predictions,
    gather,
    read_rows,
    write_predictions,
    write_rows,
)
from cgn.evaluation.records import read_record
from cgn.evaluation.suite_tables import tables
from cgn.evaluation.suites import numbers, summary
from cgn.imagenet.classifiers import Classifier, by_preparation
from cgn.imagenet.data.datasets import TransformedFolder
from cgn.imagenet.data.image_folders import balanced_subset
from cgn.imagenet.data.prepared_sets import PreparedSets
from cgn.imagenet.evaluation.corrupting import Corrupter, blocks, frost_photographs
from cgn.imagenet.evaluation.suites import (
    ALL,
    SuitePart,
    corrupted_by,
    coverage,
    is_prebuilt,
    kind_of,
    label_classes,
    parts_of,
    shown_as,
    suites_to_run,
)

SILENT = Silent()
PIECES = "pieces"
"""The folder of the finished pieces, below the output."""
SHOWN = ("network", "recipe", "recipe_from", "preparation", "file", "sha256")
"""What of a classifier's metadata stands beside every result."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """So many pictures of a suite, shown to all classifiers."""

    key: str
    part: SuitePart
    images: int
    """How often a picture is shown."""
    places: tuple[int, ...] = ()
    """Where the part's pictures are corrupted here: those of one block."""
    corruption: str = ""
    """What is done to them, or CLEAN."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The work of an evaluation, in its order."""

    pieces: Sequence[Piece]
    corrupter: Corrupter | None
    """None where no pictures are corrupted here."""
    remarks: Sequence[str]
    """What the suites lack."""
    shown: Mapping[str, Any]
    """The fact of this name, see `cgn.evaluation.predictions`."""


def predict_suites(
    classifiers: Mapping[str, Classifier],
    collection: PreparedSets,
    *,
    config: Evaluate,
    variant: str,
    seed: int,
    suite: str = ALL,
    assets: Path | None = None,
    folder: Path | None = None,
    workers: Workers | None = None,
    sink: MetricSink = SILENT,
) -> Predictions:
    """The predictions of every classifier on a suite, or on all that `config` names and the collection has.

    `seed`: of the corruptions' randomness; `assets`: a folder with the photographs of frost, where the collection has
    none; `folder`: where finished pieces are stored; `workers`: who predicts the pieces, by default this process; for
    others the classifiers are on the CPU. A suite's numbers are logged when its last piece is done. Raises
    ArtifactError for data that are missing or broken, or that do not fit the classifiers.
    """
    workers = workers or Workers(devices=(torch.device(resolve_device(config.accelerator)),))
    plan = _plan(classifiers, collection, config=config, variant=variant, seed=seed, suite=suite, assets=assets)
    for remark in plan.remarks:
        print(remark, flush=True)
    pieces, stored = plan.pieces, _read_pieces(folder, plan.pieces)
    done = sum(pieces[number].images for number in stored)
    if done:
        say(f"continues after {done:,} pictures whose predictions are stored already")
    found: dict[int, Predicted] = {}
    shown = reached = 0
    with progress(total=sum(piece.images for piece in pieces), initial=done, unit="pictures") as bar:
        advance = bar.update if workers.in_this_process else _in_silence
        opening = partial(
            _open, plan=plan, classifiers=classifiers, collection=collection, config=config, advance=advance
        )
        missing = [number for number in range(len(pieces)) if number not in stored]
        computed = fan_out(opening, missing, workers=workers, name=lambda number: pieces[number].key)
        for number, predicted in chain(stored.items(), computed):
            found[number] = predicted
            if number not in stored:
                _write_piece(folder, pieces[number], predicted)
                if not workers.in_this_process:
                    bar.update(pieces[number].images)
            while reached in found:  # logged in the plan's order; they finish in any
                suite, shown, reached = pieces[reached].part.suite, shown + pieces[reached].images, reached + 1
                if suite not in {later.part.suite for later in pieces[reached:]}:
                    those = [found[n] for n in range(reached) if pieces[n].part.suite == suite]
                    sink.log(summary(numbers(_gather(those, plan, collection, variant=variant))), step=shown)
    return _gather([found[number] for number in range(len(pieces))], plan, collection, variant=variant)


def write_evaluation(
    predictions: Predictions, classifiers: Mapping[str, Classifier], folder: Path, *, sink: MetricSink
) -> None:
    """Write the predictions and the numbers that follow from them; remove the finished pieces."""
    found, facts = numbers(predictions), predictions.facts
    write_predictions(predictions, folder / FILE)
    beside = {name: facts[name] for name in ("remarks", "unreadable", "shown")}
    write_json(folder / "results.json", {"classifiers": found, **beside})
    write_json(folder / "classifiers.json", {name: one.metadata for name, one in classifiers.items()})
    write_text(folder / "results.md", tables(found, **beside))
    shutil.rmtree(folder / PIECES, ignore_errors=True)
    sink.summary(summary(found) | _training_speeds(classifiers))


def _training_speeds(classifiers: Mapping[str, Classifier]) -> dict[str, float]:
    """How long and how fast each was trained here, as far as its run's record says."""
    records = {name: read_record(one.folder) for name, one in classifiers.items() if one.folder}
    return {
        f"training/{name}/{key}": value
        for name, record in records.items()
        for key in ("seconds", "images_per_second")
        if (value := record.metric(key)) is not None
    }


def _plan(
    classifiers: Mapping[str, Classifier],
    collection: PreparedSets,
    *,
    config: Evaluate,
    variant: str,
    seed: int,
    suite: str,
    assets: Path | None,
) -> Plan:
    corruptions = config.corruptions or tuple(BENCHMARK)
    suites, remarks = suites_to_run(suite, collection, suites=config.suites)
    pieces: list[Piece] = []
    suites_shown: dict[str, str] = {}
    corrupter = None
    for name in suites:
        parts, lacking = parts_of(name, collection, corruptions=corruptions)
        suites_shown[name] = shown_as(name, parts[0], collection)
        if name == IMAGENET_C and not is_prebuilt(collection):
            frost = frost_photographs(collection, assets, variant=variant) if "frost" in corruptions else ()
            corrupter = _corrupter(parts[0], classifiers, collection, config=config, seed=seed, photographs=frost)
            listing = parts[0].listing
            places = balanced_subset(listing, images=config.corruption_images or len(listing))
            labels = {"shape": [listing.labels["shape"][place] for place in places]}
            pieces += _corrupted_pieces(parts[0], places, corruptions)
        else:
            labels = {
                cue: [label for part in parts for label in part.listing.labels[cue]] for cue in parts[0].listing.labels
            }
            pieces += _stored_pieces(parts, times=len(by_preparation(classifiers)))
        remarks += [*lacking, *(remark for part in parts for remark in part.remarks)]
        remarks += coverage(name, labels, collection)
    described = {
        name: {key: one.metadata[key] for key in SHOWN if key in one.metadata} for name, one in classifiers.items()
    }
    shown = {"classifiers": described, "suites": suites_shown, "corrupted_by": corrupted_by(collection)}
    return Plan(pieces=pieces, corrupter=corrupter, remarks=remarks, shown=shown)


def _corrupter(
    part: SuitePart,
    classifiers: Mapping[str, Classifier],
    collection: PreparedSets,
    *,
    config: Evaluate,
    seed: int,
    photographs: Sequence[Path],
) -> Corrupter:
    return Corrupter(
        part.listing,
        classifiers=classifiers,
        kind=kind_of(collection),
        photographs=photographs,
        seed=seed,
        batch_size=config.batch_size,
        workers=config.workers,
    )


def _stored_pieces(parts: Sequence[SuitePart], *, times: int) -> list[Piece]:
    """Pictures as they are stored, each shown `times`, once a preparation."""
    return [Piece(key=f"{part.suite}/{part.condition}", part=part, images=len(part.listing) * times) for part in parts]


def _corrupted_pieces(part: SuitePart, places: Sequence[int], corruptions: Sequence[str]) -> list[Piece]:
    return [
        Piece(
            key=f"{IMAGENET_C}/{number:04d}/{name}",
            part=part,
            images=len(block) * (1 if name == CLEAN else len(SEVERITIES)),
            places=block,
            corruption=name,
        )
        for number, block in enumerate(blocks(places))
        for name in (CLEAN, *corruptions)
    ]


def _open(
    device: torch.device,
    *,
    plan: Plan,
    classifiers: Mapping[str, Classifier],
    collection: PreparedSets,
    config: Evaluate,
    advance: Callable[[int], object],
) -> Callable[[int], Predicted]:
    """A function: the number of a piece of the plan -> its predictions, computed on this device."""
    for classifier in classifiers.values():
        classifier.to(device)
    if plan.corrupter:
        plan.corrupter.device = device
    members = kind_of(collection).members

    def predicted(number: int) -> Predicted:
        piece = plan.pieces[number]
        if piece.corruption:
            assert plan.corrupter is not None
            return plan.corrupter.predict(piece.places, piece.corruption, advance=advance)
        part = piece.part
        found = [
            predict(
                group,
                pictures=TransformedFolder(folder=part.listing, transform=preparation.transform(part.view)),
                suite=part.suite,
                condition=part.condition,
                batch_size=config.batch_size,
                members=members,
                device=device,
                workers=config.workers,
                advance=advance,
            )
            for preparation, group in by_preparation(classifiers).items()
        ]
        rows = pd.concat([one.rows for one in found], ignore_index=True)
        return Predicted(rows=rows, unreadable=found[0].unreadable)

    return predicted


def _in_silence(_: int) -> None:
    """Counts nothing: another process does."""


def _piece_path(folder: Path, piece: Piece) -> Path:
    return folder / PIECES / f"{piece.key.replace('/', '-')}.parquet"


def _read_pieces(folder: Path | None, pieces: Sequence[Piece]) -> dict[int, Predicted]:
    """What an earlier run stored, by the piece's number."""
    found = {}
    for number, piece in enumerate(pieces):
        if folder is None or not (path := _piece_path(folder, piece)).is_file():
            continue
        try:
            rows, facts = read_rows(path)
            found[number] = Predicted(rows=rows, unreadable=tuple(facts["unreadable"]))
        except (ArtifactError, KeyError):
            path.unlink()
    return found


def _write_piece(folder: Path | None, piece: Piece, predicted: Predicted) -> None:
    if folder is not None:
        facts = {"unreadable": list(predicted.unreadable)}
        write_rows(predicted.rows, _piece_path(folder, piece), facts=facts)


def _gather(found: Sequence[Predicted], plan: Plan, collection: PreparedSets, *, variant: str) -> Predictions:
    kind = kind_of(collection)
    return gather(
        [one.rows for one in found],
        track="imagenet",
        variant=variant,
        classes=collection.classes,
        suites=label_classes(collection),
        unreadable=[why for one in found for why in one.unreadable],
        superclass_of=kind.superclass_of,
        categories=kind.categories,
        remarks=plan.remarks,
        shown=plan.shown,
    )
