"""What train_cgn asks of its parameters on every track."""

from dataclasses import dataclass

from cgn.config.record import require


@dataclass(frozen=True, kw_only=True)
class MaskSize:
    """Hinge on the mean of each mask outside [smallest, largest]; published for ImageNet: 500, 0.1, 0.9."""

    weight: float
    smallest: float
    largest: float

    def __post_init__(self) -> None:
        require(self.weight >= 0, "weight", self.weight, "0 or more")
        require(0 <= self.smallest < self.largest, "smallest", self.smallest, "0 up to largest")
        require(self.largest <= 1, "largest", self.largest, "up to 1")


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """In updates."""

    log: int
    checkpoint: int
    sheet: int

    def __post_init__(self) -> None:
        for name in ("log", "checkpoint", "sheet"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
