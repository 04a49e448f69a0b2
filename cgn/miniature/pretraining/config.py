"""The parameters of the pretraining: results/imagenet/pretraining/params.yaml, checked as a whole.

The file states every value; an unknown, missing or mistyped key is refused with its dotted name.
"""

from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from cgn.core.devices import PRECISIONS
from cgn.core.errors import ConfigError
from cgn.core.parameters import require
from cgn.core.validation import build
from cgn.nets.biggan import BigGanConfig
from cgn.nets.features import Blocks
from cgn.nets.u2net import Widths


@dataclass(frozen=True, kw_only=True)
class NetTraining:
    """What the training of every net has."""

    images: int
    """Scenes, drawn once."""
    updates: int
    beta1: float
    beta2: float
    decay_fraction: float
    """The learning rates fall linearly to 0 over this last fraction of the updates."""
    ema_decay: float
    precision: str
    log_updates: int
    checkpoint_updates: int
    sheet_updates: int
    """Updates between log lines, checkpoints and sheets of examples."""

    def __post_init__(self) -> None:
        for name in ("images", "updates", "log_updates", "checkpoint_updates", "sheet_updates"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("beta1", "beta2", "ema_decay"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "0 or more, less than 1")
        require(0 <= self.decay_fraction <= 1, "decay_fraction", self.decay_fraction, "0 to 1")
        require(self.precision in PRECISIONS, "precision", self.precision, ", ".join(PRECISIONS))


@dataclass(frozen=True, kw_only=True)
class SupervisedTraining(NetTraining):
    """A net that is trained on true labels."""

    image_size: int
    batch_size: int
    rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.batch_size <= self.images, "batch_size", self.batch_size, f"1 to images ({self.images})")


@dataclass(frozen=True, kw_only=True)
class SegmenterTraining(SupervisedTraining):
    """The salient-object net."""

    net: Widths


@dataclass(frozen=True, kw_only=True)
class FeaturesTraining(SupervisedTraining):
    """The perceptual features: the channels of each convolution, block by block."""

    blocks: Blocks


@dataclass(frozen=True, kw_only=True)
class BigGanTraining(NetTraining):
    """The BigGAN and its discriminator."""

    net: BigGanConfig
    discriminator_width: int
    images_per_class: int
    """In a batch."""
    generator_rate: float
    discriminator_rate: float
    difference: float
    """The weight of the L1 loss at first; it grows linearly from the update `growth_from` on ..."""
    last_difference: float
    """... to this weight at the end."""
    growth_from: int
    compiler: str
    """The backend of torch.compile for the generator: "inductor", or "eager" for none."""
    statistics_batches: int
    statistics_batch_size: int
    """What the standing statistics of the batch norms are means over, for each truncation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        most = self.images // self.net.classes
        require(1 <= self.images_per_class <= most, "images_per_class", self.images_per_class, f"1 to {most}")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """How the nets are evaluated."""

    image_size: int
    images_per_class: int
    """In each measurement."""
    readout_images: int
    """Scenes that the linear readout of the features is fitted on."""
    truncations: tuple[float, ...]
    """Of the BigGAN's noise."""


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """The whole file. Unknown keys are refused in it and in its parts."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (an annotation would make it a field)
    seed: int
    features: FeaturesTraining
    segmenter: SegmenterTraining
    biggan: BigGanTraining
    report: ReportConfig


def load_config(path: Path) -> PretrainingConfig:
    """Read a params file. Raises ConfigError naming the file and the dotted key that is wrong."""
    try:
        values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing: give --params the pretraining's params.yaml") from None
    except (ValueError, RecursionError, YAMLError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return build(PretrainingConfig, values, key=path.name)
