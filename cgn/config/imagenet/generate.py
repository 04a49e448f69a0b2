"""imagenet generate: how many images of which classes, at which truncation, and what else is drawn of them."""

from dataclasses import dataclass
from typing import Literal

from cgn.config.record import require, require_distinct

Part = Literal["mask", "premask", "foreground", "background"]


@dataclass(frozen=True, kw_only=True)
class Interpolation:
    """Frames on the way from one class to another, in one mechanism or all; the others rest at `first`."""

    mechanism: Literal["shape", "texture", "background", "all"]
    first: int
    last: int
    frames: int

    def __post_init__(self) -> None:
        for name in ("first", "last"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        require(self.frames >= 2, "frames", self.frames, "2 or more")


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Two splits: `factual` (one label for all mechanisms) and `counterfactual` (a label drawn for each)."""

    weights: Literal["trained", "authors"]
    """`trained`: the network that train_cgn made. `authors`: the published one (`authors_cgn` in fetch.extras)."""
    factual_images: int
    """May be 0."""
    counterfactual_images: int
    truncation: float
    """On the grid 0, 0.02, ..., 1; published: 0.5."""
    classes: tuple[int, ...] | None
    """Labels are drawn from these; null: from all."""
    parts: tuple[Part, ...]
    """Also written into each sample, as PNG."""
    interpolations: tuple[Interpolation, ...]
    images_per_shard: int
    batch_size: int
    accelerator: Literal["auto", "cpu", "cuda"]
    precision: Literal["32-true", "bf16-mixed"]

    def __post_init__(self) -> None:
        require(self.factual_images >= 0, "factual_images", self.factual_images, "0 or more")
        for name in ("counterfactual_images", "images_per_shard", "batch_size"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(0 <= self.truncation <= 1, "truncation", self.truncation, "0, 0.02, ..., 1")
        if self.classes is not None:
            known = bool(self.classes) and min(self.classes) >= 0
            require(known, "classes", self.classes, "null, or a list of class numbers from 0")
            require_distinct("classes", self.classes)
        require_distinct("parts", self.parts)
        require_distinct("interpolations", [(way.mechanism, way.first, way.last) for way in self.interpolations])
