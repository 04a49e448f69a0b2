"""imagenet evaluate: which suites, with which corruptions."""

from dataclasses import dataclass
from typing import Literal

from cgn.config.record import require, require_distinct

Suite = Literal["clean", "in9", "cue_conflict", "stylized", "imagenet_c"]


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Every suite keeps its decisions; `report` derives the numbers."""

    suites: tuple[Suite, ...]
    corruptions: tuple[str, ...]
    """Of the nineteen, by name; empty: the benchmark's fifteen."""
    corruption_images: int | None
    """Of the clean images, so many, evenly over the classes, are corrupted; null: all."""
    batch_size: int
    workers: int
    """Processes that decode; no more than there are cores."""
    accelerator: Literal["auto", "cpu", "cuda"]

    def __post_init__(self) -> None:
        require(len(self.suites) >= 1, "suites", self.suites, "one or more")
        require_distinct("suites", self.suites)
        require_distinct("corruptions", self.corruptions)
        require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        require(self.workers >= 0, "workers", self.workers, "0 or more")
        if self.corruption_images is not None:
            require(self.corruption_images >= 1, "corruption_images", self.corruption_images, "null, or 1 or more")
