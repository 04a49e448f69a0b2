"""Predictions of classifiers on the suites, in pieces that an interrupted evaluation keeps; and what is written.

A picture is read once for all classifiers that see it prepared alike. Everything that can be refused is checked before
the first picture is shown. A suite that the data lack is left out and named, but a suite that was asked for by name
must be there. A piece of work is a suite's condition, or one block of pictures under one corruption: when it is done
its predictions are stored below the output folder, so that a killed evaluation repeats no finished piece. That folder
is continued by the same definition and code only (`cgn.core.files.building`), so a piece that can be read is right.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from cgn.config.imagenet.evaluate import Evaluate, Suite
from cgn.core.devices import resolve_device
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.files import write_json, write_text
from cgn.core.metrics import MetricSink, Silent
from cgn.core.progress import progress, say
from cgn.corruptions import BENCHMARK, SEVERITIES
from cgn.data.benchmarks import evenly
from cgn.data.collection import Collection
from cgn.data.pictures import Pictures
from cgn.data.transforms import Preparation
from cgn.evaluation.predict import Predicted, predict
from cgn.evaluation.predictions import CLEAN, FILE, IMAGENET_C, Predictions, gather, read_rows, write, write_rows
from cgn.evaluation.suites import Numbers, numbers, summary
from cgn.imagenet.classifiers import Classifier, by_preparation
from cgn.imagenet.corrupting import Corrupter, blocks, frost_photographs
from cgn.imagenet.suites import (
    ALL,
    Part,
    check_options,
    corrupted_by,
    coverage,
    is_prebuilt,
    kind_of,
    label_classes,
    open_data,
    parts_of,
    shown_as,
    suites_to_run,
)
from cgn.report.figures import pictures
from cgn.report.records import read_record
from cgn.report.suite_tables import tables

SILENT = Silent()
PIECES = "pieces"
"""The folder of the finished pieces, below the output."""
SHOWN = ("network", "recipe", "recipe_from", "preparation", "file", "sha256")
"""What of a classifier's metadata stands beside every result."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """So many pictures of a suite, shown to all classifiers."""

    key: str
    part: Part
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
    collection: Collection,
    *,
    config: Evaluate,
    variant: str,
    seed: int,
    suite: str = ALL,
    assets: Path | None = None,
    folder: Path | None = None,
    sink: MetricSink = SILENT,
) -> Predictions:
    """The predictions of every classifier on a suite, or on all that `config` names and the collection has.

    `seed`: of the corruptions' randomness; `assets`: a folder with the photographs of frost, where the collection has
    none; `folder`: where finished pieces are stored. A suite's numbers are logged when its last piece is done. Raises
    ArtifactError for data that are missing or broken, or that do not fit the classifiers.
    """
    plan = _plan(classifiers, collection, config=config, variant=variant, seed=seed, suite=suite, assets=assets)
    for remark in plan.remarks:
        print(remark, flush=True)
    found: list[Predicted] = []
    shown = 0
    done = sum(piece.images for piece in plan.pieces if folder and _piece_path(folder, piece).is_file())
    if done:
        say(f"continues after {done:,} pictures whose predictions are stored already")
    with progress(total=sum(piece.images for piece in plan.pieces), initial=done, unit="pictures") as bar:
        for number, piece in enumerate(plan.pieces):
            predicted = _read_piece(folder, piece) if folder else None
            if predicted is None:
                predicted = _predict_piece(piece, plan, classifiers, collection, config=config, advance=bar.update)
                if folder:
                    write_rows(
                        predicted.rows, _piece_path(folder, piece), facts={"unreadable": list(predicted.unreadable)}
                    )
            found.append(predicted)
            shown += piece.images
            if not any(later.part.suite == piece.part.suite for later in plan.pieces[number + 1 :]):
                of_suite = [
                    one for one, its in zip(found, plan.pieces, strict=False) if its.part.suite == piece.part.suite
                ]
                sink.log(summary(numbers(_gather(of_suite, plan, collection, variant=variant))), step=shown)
    return _gather(found, plan, collection, variant=variant)


def write_evaluation(
    predictions: Predictions, classifiers: Mapping[str, Classifier], folder: Path, *, sink: MetricSink
) -> None:
    """Write the predictions, the numbers that follow from them and their figures; remove the finished pieces."""
    found, facts = numbers(predictions), predictions.facts
    write(predictions, folder / FILE)
    beside = {name: facts[name] for name in ("remarks", "unreadable", "shown")}
    write_json(folder / "results.json", {"classifiers": found, **beside})
    write_json(folder / "classifiers.json", {name: one.metadata for name, one in classifiers.items()})
    write_text(folder / "results.md", tables(found, **beside))
    for name, figure in pictures(predictions).items():
        figure.save(folder / name)
        sink.picture(folder / name)
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


def evaluate_models(
    models: nn.Module | Mapping[str, nn.Module],
    *,
    preparation: Preparation,
    data: Path,
    suites: Sequence[Suite] = ("clean", "in9", "cue_conflict", "stylized", "imagenet_c"),
    corruptions: Sequence[str] = (),
    corruption_images: int | None = None,
    assets: Path | None = None,
    batch_size: int = 64,
    workers: int = 0,
    accelerator: str = "auto",
    seed: int = 0,
) -> tuple[Predictions, Numbers]:
    """Evaluate any network on ImageNet's suites: its predictions, and their numbers by model, head and suite.

    `models`: one in eval mode, called "model", or several by name: images (B,3,crop,crop) as `preparation` makes them
    -> logits (B,K), or a mapping of heads to them. `data`: a folder that `prepare` wrote, or one that holds imagenet9/,
    cue_conflict/, val/, stylized/ or imagenet_c/ as their authors lay them out; suites that it lacks are left out.
    `corruptions`: of the nineteen, by name; empty: the benchmark's fifteen; `corruption_images`: of the clean images,
    so many are corrupted (None: all). `assets`: photographs of frost, where `data` has none. Raises ConfigError for a
    suite, a corruption or a model that cannot be evaluated, ArtifactError for broken or missing data.
    """
    config = Evaluate(
        suites=tuple(suites),
        corruptions=tuple(corruptions),
        corruption_images=corruption_images,
        batch_size=batch_size,
        workers=workers,
        accelerator=accelerator,  # type: ignore[arg-type]
    )
    collection = open_data(data)
    variant = str(collection.facts.get("variant", "benchmarks"))
    for suite in suites:
        check_options(suite, corruptions=corruptions, variant=variant)
    device = torch.device(resolve_device(accelerator))
    named = {"model": models} if isinstance(models, nn.Module) else models
    if training := [name for name, module in named.items() if module.training]:
        raise ConfigError(f"{', '.join(training)} is in training mode: call eval() before it is evaluated")
    classifiers = {
        name: Classifier(name=name, module=module, preparation=preparation).to(device) for name, module in named.items()
    }
    for classifier in classifiers.values():
        _refuse_other_classes(classifier, classes=collection.classes, device=device)
    predictions = predict_suites(classifiers, collection, config=config, variant=variant, seed=seed, assets=assets)
    return predictions, numbers(predictions)


def _refuse_other_classes(classifier: Classifier, *, classes: int, device: torch.device) -> None:
    """Raise ConfigError unless every head answers with `classes` logits."""
    crop = classifier.preparation.crop
    with torch.inference_mode():
        answers = classifier(torch.zeros(1, 3, crop, crop, device=device))
    for head, logits in answers.items():
        if logits.shape != (1, classes):
            raise ConfigError(
                f"the head {head} of {classifier.name} answers an image with {tuple(logits.shape)}: expected "
                f"(1, {classes}), a logit for each class of the data"
            )


def _plan(
    classifiers: Mapping[str, Classifier],
    collection: Collection,
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
            listing = parts[0].listing
            places = evenly(listing, images=config.corruption_images or len(listing))
            labels = {"shape": [listing.labels["shape"][place] for place in places]}
            pieces += _corrupted_pieces(parts[0], places, corruptions)
            frost = frost_photographs(collection, assets, variant=variant) if "frost" in corruptions else ()
            corrupter = Corrupter(
                listing,
                classifiers=classifiers,
                kind=kind_of(collection),
                photographs=frost,
                seed=seed,
                batch_size=config.batch_size,
                workers=config.workers,
                device=_device(config),
            )
        else:
            cues = parts[0].listing.labels
            labels = {cue: [label for part in parts for label in part.listing.labels[cue]] for cue in cues}
            groups = len(by_preparation(classifiers))
            pieces += [
                Piece(key=f"{name}/{part.condition}", part=part, images=len(part.listing) * groups) for part in parts
            ]
        remarks += [*lacking, *(remark for part in parts for remark in part.remarks)]
        remarks += coverage(name, labels, collection)
    described = {
        name: {key: one.metadata[key] for key in SHOWN if key in one.metadata} for name, one in classifiers.items()
    }
    shown = {"classifiers": described, "suites": suites_shown, "corrupted_by": corrupted_by(collection)}
    return Plan(pieces=pieces, corrupter=corrupter, remarks=remarks, shown=shown)


def _corrupted_pieces(part: Part, places: Sequence[int], corruptions: Sequence[str]) -> list[Piece]:
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


def _predict_piece(
    piece: Piece,
    plan: Plan,
    classifiers: Mapping[str, Classifier],
    collection: Collection,
    *,
    config: Evaluate,
    advance: Callable[[int], object],
) -> Predicted:
    if piece.corruption:
        assert plan.corrupter is not None
        return plan.corrupter.predict(piece.places, piece.corruption, advance=advance)
    part = piece.part
    found = [
        predict(
            group,
            pictures=Pictures(listing=part.listing, transform=preparation.transform(part.view)),
            suite=part.suite,
            condition=part.condition,
            batch_size=config.batch_size,
            members=kind_of(collection).members,
            device=_device(config),
            workers=config.workers,
            advance=advance,
        )
        for preparation, group in by_preparation(classifiers).items()
    ]
    return Predicted(rows=pd.concat([one.rows for one in found], ignore_index=True), unreadable=found[0].unreadable)


def _piece_path(folder: Path, piece: Piece) -> Path:
    return folder / PIECES / f"{piece.key.replace('/', '-')}.parquet"


def _read_piece(folder: Path, piece: Piece) -> Predicted | None:
    """What an earlier run stored of a piece; None where it did not finish it."""
    path = _piece_path(folder, piece)
    if not path.is_file():
        return None
    try:
        rows, facts = read_rows(path)
        return Predicted(rows=rows, unreadable=tuple(facts["unreadable"]))
    except (ArtifactError, KeyError):
        path.unlink()
        return None


def _gather(found: Sequence[Predicted], plan: Plan, collection: Collection, *, variant: str) -> Predictions:
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


def _device(config: Evaluate) -> torch.device:
    return torch.device(resolve_device(config.accelerator))
