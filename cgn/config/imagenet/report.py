"""imagenet report: only how many examples its sheets show."""

from dataclasses import dataclass

from cgn.config.record import require


@dataclass(frozen=True, kw_only=True)
class Report:
    """The page shows every table and sheet there is, and `examples` images of each kind."""

    examples: int

    def __post_init__(self) -> None:
        require(1 <= self.examples <= 50, "examples", self.examples, "1 to 50")
