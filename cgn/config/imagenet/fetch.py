"""imagenet fetch: which nets a variant needs follows from its other parameters; which benchmarks, is said here."""

from dataclasses import dataclass
from typing import Literal

Benchmark = Literal["imagenet9", "cue_conflict", "imagenet_c", "frost"]
"""`frost`: the photographs with which the corruption frost is made on the fly."""


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """Benchmarks to download beside the nets; the miniature draws its own."""

    benchmarks: tuple[Benchmark, ...]
