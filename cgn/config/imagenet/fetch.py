"""imagenet fetch: which nets a variant needs follows from its other parameters; what else to bring, is said here."""

from dataclasses import dataclass
from typing import Literal

from cgn.config.record import require_distinct

Extra = Literal["imagenet9", "cue_conflict", "imagenet_c", "frost", "authors_cgn"]
"""`frost`: the photographs with which that corruption is made on the fly. `authors_cgn`: the published trained CGN."""


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """Benchmarks and weights to download beside the nets; the miniature draws its own."""

    extras: tuple[Extra, ...]

    def __post_init__(self) -> None:
        require_distinct("extras", self.extras)
