"""The ImageNet track's examination: every classifier on every suite, and the numbers that follow from the decisions.

Decided here: a picture is read once for all classifiers that are shown the same. Everything that can be refused is
looked at before the first picture is shown. Of several suites those that the data lack are left out and named; a suite
that was asked for by name must be there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cgn.core.devices import resolve_device
from cgn.core.errors import ArtifactError
from cgn.core.progress import progress, say
from cgn.corruptions import BENCHMARK, SEVERITIES
from cgn.corruptions.weather import FROST_PHOTOGRAPHS, read_ice
from cgn.data.datasets import TransformedFolder
from cgn.data.image_folders import balanced_subset
from cgn.data.prepared_sets import PreparedSets
from cgn.evaluation import examination as decisions
from cgn.evaluation.predict import Predicted, predict
from cgn.evaluation.predictions import CLEAN, Predictions
from cgn.evaluation.suites import numbers, summary
from cgn.imagenet.benchmarks import (
    Part,
    available,
    corrupted_by,
    coverage,
    is_prebuilt,
    kind_of,
    label_classes,
    open_data,
    parts_of,
    shown_as,
)
from cgn.imagenet.corrupting import Block, Corrupting, by_preparation
from cgn.imagenet.judges import Judge, opened
from cgn.imagenet.notes import Notes
from cgn.report.figures import pictures
from cgn.report.suite_tables import tables
from cgn.stages.evaluate import ALL, Findings, Request

Advance = Callable[[int], object]
SHOWN = ("network", "recipe", "recipe_from", "preparation", "file", "sha256")
"""What of `Judge.told` stands beside every result."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One piece of work: so many pictures of a suite are shown, to all classifiers."""

    key: str
    suite: str
    pictures: int
    make: Callable[[Advance], Predicted]


@dataclass(frozen=True, kw_only=True)
class Examiner:
    """A request -> findings, of one variant."""

    variant: str
    seed: int
    suites: tuple[str, ...]
    corruptions: tuple[str, ...]
    """By name; empty: the benchmark's fifteen."""
    corruption_images: int | None
    batch_size: int
    workers: int
    accelerator: str

    def __call__(self, request: Request) -> Findings:
        """Raises ArtifactError for data or classifiers that are foreign, broken, or do not fit each other."""
        place = torch.device(resolve_device(self.accelerator))
        collection = open_data(request.data, variant=self.variant)
        judges = opened(
            request.classifiers, network=request.network, collection=collection, variant=self.variant, device=place
        )
        suites, remarks = self._suites(request.suite, collection)
        shown: dict[str, Any] = {"classifiers": {}, "suites": {}, "corrupted_by": corrupted_by(collection)}
        for name, judge in judges.items():
            shown["classifiers"][name] = {key: judge.told[key] for key in SHOWN if key in judge.told}
        jobs: list[Job] = []
        for suite in suites:
            added, lacking, shown["suites"][suite] = self._jobs(suite, collection, judges, request=request, place=place)
            jobs += added
            remarks += lacking
        for remark in remarks:
            print(remark, flush=True)
        notes = Notes(request.folder)
        gather = partial(self._gathered, collection=collection, remarks=remarks, shown=shown)
        made = gather(self._work(jobs, notes, gather=gather, request=request))
        told, unreadable = numbers(made), made.facts["unreadable"]
        took = {f"training/{name}/{key}": value for name, judge in judges.items() for key, value in judge.took.items()}

        def write(path: Path) -> None:
            decisions.write(made, path)
            notes.clear()

        return Findings(
            write=write,
            numbers={
                "results.json": {"classifiers": told, "remarks": remarks, "unreadable": unreadable, "shown": shown},
                "classifiers.json": {name: judge.told for name, judge in judges.items()},
            },
            texts={"results.md": tables(told, remarks=remarks, unreadable=unreadable, shown=shown)},
            pictures=pictures(made),
            summary=summary(told) | took,
        )

    def _suites(self, asked: str, collection: PreparedSets) -> tuple[list[str], list[str]]:
        """Which suites there are to run, and a remark for each that is not."""
        if asked != ALL:
            return [asked], []
        present = [suite for suite in self.suites if available(suite, collection)]
        if not present:
            raise ArtifactError(f"{collection.root} has the pictures of no suite of {', '.join(self.suites)}")
        absent = [suite for suite in self.suites if suite not in present]
        return present, [f"{suite}: not in {collection.root.name}, left out" for suite in absent]

    def _jobs(
        self,
        suite: str,
        collection: PreparedSets,
        judges: Mapping[str, Judge],
        *,
        request: Request,
        place: torch.device,
    ) -> tuple[list[Job], list[str], str]:
        """The work, what the suite lacks, and how its pictures are shown, in words."""
        corruptions = self.corruptions or tuple(BENCHMARK)
        parts, lacking = parts_of(suite, collection, corruptions=corruptions)
        told, shown = [remark for part in parts for remark in part.remarks], shown_as(suite, parts[0], collection)
        if suite == SUITE and not is_prebuilt(collection):
            photographs = self._photographs(collection, request.assets) if "frost" in corruptions else ()
            work = self._corrupting(parts[0], photographs, collection, judges, place=place)
            told += coverage(suite, {"shape": [work.listing.labels["shape"][at] for at in work.places]}, collection)
            return list(_corrupting_jobs(work, corruptions)), lacking + told, shown
        members = kind_of(collection).members
        cues = parts[0].listing.labels
        labels = {cue: [label for part in parts for label in part.listing.labels[cue]] for cue in cues}
        told += coverage(suite, labels, collection)
        return [self._job(part, judges, members=members, place=place) for part in parts], lacking + told, shown

    def _job(
        self, part: Part, judges: Mapping[str, Judge], *, members: Sequence[Sequence[int]], place: torch.device
    ) -> Job:
        def make(advance: Advance) -> Predicted:
            found = [
                predict(
                    group,
                    pictures=TransformedFolder(folder=part.listing, transform=preparation.transform(part.view)),
                    suite=part.suite,
                    condition=part.condition,
                    batch_size=self.batch_size,
                    members=members,
                    device=place,
                    workers=self.workers,
                    advance=advance,
                )
                for preparation, group in by_preparation(judges).items()
            ]
            rows = pd.concat([one.rows for one in found], ignore_index=True)
            return Predicted(rows=rows, unreadable=found[0].unreadable)

        key = f"{part.suite}/{part.condition}"
        return Job(key=key, suite=part.suite, pictures=len(part.listing) * len(by_preparation(judges)), make=make)

    def _corrupting(
        self,
        clean: Part,
        photographs: Sequence[Path],
        collection: PreparedSets,
        judges: Mapping[str, Judge],
        *,
        place: torch.device,
    ) -> Corrupting:
        kind, count = kind_of(collection), len(clean.listing)
        return Corrupting(
            listing=clean.listing,
            places=balanced_subset(clean.listing, images=self.corruption_images or count),
            judges=judges,
            members=kind.members,
            crop=kind.crop,
            view=kind.view,
            seed=self.seed,
            ice=cache(lambda height, width: read_ice(photographs, height=height, width=width)),
            batch_size=self.batch_size,
            workers=self.workers,
            device=place,
        )

    def _photographs(self, collection: PreparedSets, assets: Path | None) -> tuple[Path, ...]:
        """Those of frost, from the collection or from a folder that was given."""
        folders = [collection.unchanged("frost")] if collection.has("frost") else []
        folders += [assets / "frost", assets] if assets else []
        for folder in folders:
            found = sorted(path for path in folder.glob("frost?.*") if path.is_file())
            if len(found) >= FROST_PHOTOGRAPHS:
                return tuple(found)
        raise ArtifactError(
            f"{collection.root.name} has no photographs of frost (frost1.png ... frost5.jpg in frost/): fetch the "
            "benchmark frost and run prepare again, give a folder that holds them by --assets, or list other "
            f"corruptions in imagenet.{self.variant}.evaluate.corruptions"
        )

    def _work(
        self,
        jobs: Sequence[Job],
        notes: Notes,
        *,
        gather: Callable[[Sequence[Predicted]], Predictions],
        request: Request,
    ) -> list[Predicted]:
        """Every job's decisions; a suite's numbers are logged when its last job is done."""
        found: list[Predicted] = []
        shown, total = 0, sum(job.pictures for job in jobs)
        done = sum(job.pictures for job in jobs if notes.has(job.key))
        if done:
            say(f"continues after {done:,} pictures that are decided already")
        with progress(total=total, initial=done, unit="pictures") as bar:
            for number, job in enumerate(jobs):
                found.append(notes.kept(job.key, partial(job.make, bar.update)))
                shown += job.pictures
                if number + 1 == len(jobs) or jobs[number + 1].suite != job.suite:
                    of_suite = [one for one, its in zip(found, jobs, strict=False) if its.suite == job.suite]
                    request.sink.log(summary(numbers(gather(of_suite))), step=shown)
        return found

    def _gathered(
        self, found: Sequence[Predicted], *, collection: PreparedSets, remarks: Sequence[str], shown: Mapping[str, Any]
    ) -> Predictions:
        kind = kind_of(collection)
        return decisions.gathered(
            [one.rows for one in found],
            track="imagenet",
            variant=self.variant,
            classes=collection.classes,
            suites=label_classes(collection),
            unreadable=[why for one in found for why in one.unreadable],
            superclass_of=kind.superclass_of,
            categories=kind.categories,
            remarks=remarks,
            shown=shown,
        )


def _corrupting_jobs(work: Corrupting, corruptions: Sequence[str]) -> Iterator[Job]:
    read = work.reader()
    for number, places in enumerate(work.blocks):
        for name in (CLEAN, *corruptions):
            yield Job(
                key=f"{SUITE}/{number:04d}/{name}",
                suite=SUITE,
                pictures=len(places) * (1 if name == CLEAN else len(SEVERITIES)),
                make=partial(_corrupted, work, read, number, name),
            )


def _corrupted(work: Corrupting, read: Callable[[int], Block], number: int, name: str, advance: Advance) -> Predicted:
    return work.examined(read(number), name, advance=advance)
