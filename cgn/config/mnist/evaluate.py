"""mnist evaluate: only how many images are classified at once."""

from dataclasses import dataclass

from cgn.config.record import require


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """The conditions are the splits of the data: train, test_iid, test_random."""

    batch_size: int

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
