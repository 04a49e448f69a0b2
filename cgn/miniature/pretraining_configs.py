"""The numbers of the miniature's pretraining: nets, optimizers, lengths. What was tried is told in results/."""

from dataclasses import dataclass

from cgn.miniature.scenes import NOISE_SIZE
from cgn.nets.biggan import BigGanConfig
from cgn.nets.features import Blocks
from cgn.nets.u2net import Widths

IMAGE_SIZE = 32
CLASSES = 9

MINIATURE_BIGGAN = BigGanConfig(
    noise_size=NOISE_SIZE,
    embedding_size=16,
    classes=CLASSES,
    width=16,
    blocks=((True, 12, 12), (False, 12, 12), (True, 12, 6), (False, 6, 6), (True, 6, 1)),
    attention_at=3,
)


@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """How the BigGAN is trained from scratch."""

    table: BigGanConfig = MINIATURE_BIGGAN
    discriminator_width: int = 64
    images: int = 27_000
    """Factual scenes drawn once."""
    updates: int = 6_000
    images_per_class: int = 4
    generator_rate: float = 5e-4
    discriminator_rate: float = 5e-4
    difference: float = 40.0
    """Weight of the mean absolute difference from the scene whose causes were the noise, at first."""
    last_difference: float = 150.0
    """That weight at the end. With the first to the end, patterns grow sharper and shapes under them dissolve."""
    growth_from: int = 2_000
    """The update from which the weight grows, linearly."""
    beta1: float = 0.0
    beta2: float = 0.99
    decay_fraction: float = 0.4
    ema_decay: float = 0.999
    precision: str = "bf16-mixed"
    compiler: str = "inductor"
    """torch.compile's backend for the generator: it makes an update on a CPU almost twice as fast as "eager"."""
    statistics_batches: int = 2
    statistics_batch_size: int = 252
    log_updates: int = 50
    checkpoint_updates: int = 500
    sheet_updates: int = 500


@dataclass(frozen=True, kw_only=True)
class Supervised:
    """How a net is trained on true labels of scenes that are drawn once."""

    image_size: int = IMAGE_SIZE
    images: int = 27_000
    updates: int
    batch_size: int = 64
    rate: float
    beta1: float = 0.9
    beta2: float = 0.99
    decay_fraction: float = 0.5
    ema_decay: float = 0.99
    precision: str = "bf16-mixed"
    log_updates: int = 50
    checkpoint_updates: int = 250
    sheet_updates: int = 500


QUARTER_U2NETP = Widths(down=((8, 16),) * 6, up=((8, 16),) * 5)


@dataclass(frozen=True, kw_only=True)
class Segmenter(Supervised):
    """The salient-object net, of U2-NetP's form with a quarter of its width."""

    widths: Widths = QUARTER_U2NETP
    updates: int = 400
    rate: float = 2e-3
    precision: str = "32-true"
    """In half precision a sigmoid near 1 is 1, and the cross entropy loses its gradient."""


@dataclass(frozen=True, kw_only=True)
class Features(Supervised):
    """The perceptual features, of VGG-16's form."""

    blocks: Blocks = ((16, 16), (32, 32), (48, 48), (64, 64))
    updates: int = 3_000
    rate: float = 2e-3
