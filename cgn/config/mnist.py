"""The parameters of the MNIST track, a model for each verb; the defaults are the paper's values.

Some published values differ by the look of the digits (`PUBLISHED`). A variant gets those of its `prepare.look`: a look
that changes makes other training images, so DVC trains again anyway.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from cgn.core.parameters import (
    STORE,
    Config,
    Number,
    Weight,
    Whole,
    choice,
    extension,
    ours,
    published,
    require,
    require_store,
)

CLASSES = 10
"""Digits."""
Accelerator = Literal["auto", "cpu", "cuda"]
Precision = Literal["32-true", "bf16-mixed"]
WEIGHTS = "train_cgn.losses.perceptual.weights"
_LINEAR = {"train_cgn.discriminator.linear": 512, "train_cgn.discriminator.conv": 0}
_CONV = {"train_cgn.discriminator.linear": 0, "train_cgn.discriminator.conv": 32}
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "colored": {
        "prepare.color_deviation": 0.1414,  # variance 0.02
        "train_cgn.mechanisms.initialization": "orthogonal",
        "train_cgn.mechanisms.gain": 0.1,
        **_LINEAR,
        "train_cgn.losses.binary": 0.1,
        WEIGHTS: (0.05, 0.1, 0.01, 0.0),
    },
    "double_colored": {
        "prepare.color_deviation": 0.01,
        "train_cgn.mechanisms.initialization": "orthogonal",
        "train_cgn.mechanisms.gain": 0.2,
        **_LINEAR,
        "train_cgn.losses.binary": 0.3,
        WEIGHTS: (0.0, 0.05, 0.0, 0.05),
    },
    "wildlife": {
        "prepare.color_deviation": 0.0,
        "train_cgn.mechanisms.initialization": "normal",
        "train_cgn.mechanisms.gain": 0.03,
        **_CONV,
        "train_cgn.losses.binary": 0.3,
        WEIGHTS: (0.01, 0.05, 0.0, 0.01),
    },
}
"""Look -> dotted key -> the published code's value, where it depends on the look."""


class Fetch(Config):
    """Which assets a variant needs follows from its other parameters; there is nothing to set."""


class Jitter(Config):
    """Random similarity transforms of the training digits; each is drawn uniformly from +- its range."""

    copies: Whole = extension(..., "Transformed copies of each digit.", unit="copies", ge=1)
    rotation_degrees: Number = ours(unit="degrees", ge=0, le=180)
    scale: Number = ours(ge=0, lt=1)
    shift: Number = ours(about="Fraction of the image size.", ge=0, lt=0.5)


class Prepare(Config):
    """The data set. Labels decide the look in training; in the randomised test set chance does."""

    digits: Literal["mnist", "scikit-learn"] = choice("mnist")
    look: Literal["colored", "double_colored", "wildlife"] = ours()
    image_size: Whole = published(32, unit="pixels")
    train_images: Whole = published(
        50_000,
        unit="images",
        about="Of the training digits, the first so many (MNIST: up to 50,000; scikit-learn: up to 1,297).",
    )
    color_deviation: Number = published(
        about="Standard deviation of the colour's jitter, colours in [0,1]; no meaning for wildlife.", ge=0, lt=1
    )
    jitter: Jitter | None = extension(None, "Random transforms of the training digits; null: none.")
    images_per_shard: Whole = ours(5_000, unit="images", ge=1)

    @model_validator(mode="after")
    def _check(self) -> "Prepare":
        require(self.image_size >= 16 and self.image_size % 4 == 0, "image_size", self.image_size, "16, 20, 24, ...")
        most = 50_000 if self.digits == "mnist" else 1_297
        require(1 <= self.train_images <= most, "train_images", self.train_images, f"1 to {most:,} for {self.digits}")
        return self


class Mechanisms(Config):
    """The three conv generators."""

    shape_width: Whole = published(32, unit="channels", ge=1)
    tile_width: Whole = published(
        32, unit="channels", about="Of the nets that make tiles; narrower ones suffice for plain colours.", ge=1
    )
    tile_contrast: Number = extension(1.0, "Of untrained tiles, relative to the published start.", gt=0)
    noise_size: Whole = published(32, unit="numbers", ge=1)
    initialization: Literal["orthogonal", "normal"] = published()
    gain: Number = published(about="Of the initialization.", gt=0)


class Discriminator(Config):
    """Widths of the label-conditioned discriminators, 0 for none; of several, the losses are averaged."""

    linear: Whole = published(unit="units", ge=0)
    conv: Whole = published(unit="channels", ge=0)
    projection: Whole = extension(0, "A discriminator that projects the label on its features.", unit="channels", ge=0)

    @model_validator(mode="after")
    def _check(self) -> "Discriminator":
        some = self.linear + self.conv + self.projection > 0
        require(some, "linear", self.linear, "above 0 where conv and projection are 0")
        return self


class MaskSize(Config):
    """Hinge on the mean of each mask outside [smallest, largest]."""

    weight: Weight = extension(0.0, "On ImageNet the paper has this loss.")
    smallest: Number = ours(0.0, ge=0)
    largest: Number = ours(1.0, le=1)

    @model_validator(mode="after")
    def _check(self) -> "MaskSize":
        require(self.smallest < self.largest, "smallest", self.smallest, "0 up to largest")
        return self


class Border(Config):
    """Hinge on the mean of each mask's outermost `width` pixels above `largest`: it forbids inverted masks."""

    weight: Weight = extension(0.0, "The loss that forbids inverted masks.")
    width: Whole = ours(1, unit="pixels", ge=1)
    largest: Number = ours(0.0, ge=0, le=1)


class Perceptual(Config):
    """Gram style between the generated and the real batch, at four layers of a pretrained net."""

    features: Literal["none", "squeezenet", "vgg16"] = choice("vgg16")
    weights: tuple[Weight, Weight, Weight, Weight] = published(
        about="By layer; all 0 by default where features is none."
    )


class Losses(Config):
    """Weights of the losses; 0 leaves a loss out."""

    adversarial: Weight = published(1.0)
    mismatched: Weight = extension(
        0.0, "The discriminator's loss on real images under a wrong label (Reed et al. 2016)."
    )
    binary: Weight = published(about="Of the masks' entropy.")
    mask_size: MaskSize = MaskSize()
    border: Border = Border()
    energy: Weight = extension(0.0, "The energy distance between generated and real images of one class.")
    perceptual: Perceptual


class Optimizer(Config):
    """Adam; the rate falls linearly to zero over the last `decay_fraction` of the updates."""

    generator_rate: Number = published(2.0e-4, gt=0)
    discriminator_rate: Number = published(2.0e-4, gt=0)
    beta1: Number = published(0.5, ge=0, lt=1)
    beta2: Number = published(0.999, ge=0, lt=1)
    decay_fraction: Number = extension(0.0, "Of the updates; 0: constant rates.", ge=0, le=1)


class Intervals(Config):
    """How often training logs, saves its state and draws a sheet."""

    log: Whole = ours(100, unit="updates", ge=1)
    checkpoint: Whole = ours(1_000, unit="updates", ge=1)
    sheet: Whole = ours(5_000, unit="updates", ge=1)


class TrainCgn(Config):
    """Everything the training of a variant depends on, besides its data and the seed."""

    mechanisms: Mechanisms
    discriminator: Discriminator
    losses: Losses
    optimizer: Optimizer = Optimizer()
    batch_size: Whole = published(16, unit="images", ge=2)
    images_per_class: Whole = extension(
        1, "Images of one class that a batch has side by side, classes equally often; 1: epochs.", unit="images"
    )
    updates: Whole = published(46_875, unit="updates", about="15 epochs of 50,000 images.", ge=1)
    ema_decay: Number = extension(
        0.0, "Decay of the running average of the weights that is saved; 0 saves the last weights.", ge=0, lt=1
    )
    intervals: Intervals = Intervals()
    accelerator: Accelerator = ours("auto")
    precision: Precision = published("32-true")

    @model_validator(mode="after")
    def _check(self) -> "TrainCgn":
        group, least = self.images_per_class, 2 if self.losses.energy else 1
        require(group >= least, "images_per_class", group, "1 or more, 2 or more with losses.energy")
        whole = self.batch_size % group == 0
        require(whole, "batch_size", self.batch_size, f"a multiple of images_per_class, which is {group}")
        return self


class Generate(Config):
    """Two splits: `factual` (one label for all mechanisms) and `counterfactual` (a label drawn for each)."""

    factual_images: Whole = ours(50_000, unit="images", ge=1)
    counterfactual_images: Whole = published(100_000, unit="images", ge=1)
    images_per_mask: Whole = published(
        10, unit="images", about="Counterfactuals that share a mask, each with its own texture and background.", ge=1
    )
    images_per_shard: Whole = ours(5_000, unit="images")
    store: str | None = ours(None, STORE)

    @model_validator(mode="after")
    def _check(self) -> "Generate":
        require_store(self.store)
        whole = self.images_per_shard >= 1 and self.images_per_shard % self.images_per_mask == 0
        require(whole, "images_per_shard", self.images_per_shard, "a multiple of images_per_mask")
        return self


class TrainClassifier(Config):
    """The small CNN and its Adadelta."""

    learning_rate: Number = published(1.0, gt=0)
    decay_per_epoch: Number = published(0.7, about="Factor of the rate.", gt=0, le=1)
    batch_size: Whole = published(64, unit="images", ge=1)
    epochs: Whole = published(10, unit="epochs", ge=1)
    log_updates: Whole = ours(100, unit="updates", ge=1)
    checkpoint_updates: Whole = ours(1_000, unit="updates", ge=1)
    accelerator: Accelerator = ours("auto")
    precision: Precision = published("32-true")


class Evaluate(Config):
    """The conditions are the splits of the data: train, test_iid, test_random."""

    batch_size: Whole = ours(500, unit="images", ge=1)


class Gate(Config):
    """What a classifier must reach before it is offered to users, on the test set with random looks.

    Thresholds are for the lower end of a 95 % interval; what was not measured does not pass.
    """

    arm: Literal["original", "gan", "counterfactual", "original_counterfactual"] = ours("original_counterfactual")
    accuracy: Number | None = ours(0.8, "Published: 0.86 to 0.95; null: not checked.", ge=0, le=1)
    gain: Number | None = ours(
        0.5, "Accuracy minus that of the arm `original`. Published: 0.59 to 0.79; null: not checked.", ge=-1, le=1
    )

    @model_validator(mode="after")
    def _check(self) -> "Gate":
        checked = self.accuracy is not None or self.gain is not None
        require(checked, "accuracy", None, "a number where gain is null")
        return self


class Report(Config):
    """The page shows every table and sheet there is, and the first `examples` test images with their predictions."""

    examples: Whole = ours(12, unit="images", ge=1, le=50)


class Mnist(Config):
    """One variant: the seed of all its randomness, and a block for each verb, stated even if it is empty."""

    seed: Whole = ours(ge=0)
    fetch: Fetch
    prepare: Prepare
    train_cgn: TrainCgn
    generate: Generate
    train_classifier: TrainClassifier
    evaluate: Evaluate
    gate: Gate
    report: Report

    @model_validator(mode="before")
    @classmethod
    def _published_by_look(cls, values: Any) -> Any:
        """Fill in what the paper has for this look, and no perceptual weights where there are no features."""
        leaves = dict(PUBLISHED.get(_text(values, "prepare", "look"), {}))
        if leaves and _text(values, "train_cgn", "losses", "perceptual", "features") == "none":
            leaves[WEIGHTS] = (0.0, 0.0, 0.0, 0.0)
        for key, value in leaves.items():
            values = _filled(values, key.split("."), value)
        return values

    @model_validator(mode="after")
    def _check(self) -> "Mnist":
        size, look = self.prepare.image_size, self.prepare.look
        features, conv = self.train_cgn.losses.perceptual.features, self.train_cgn.discriminator.conv
        if features == "squeezenet" or conv:
            why = "32 or more with squeezenet features or a conv discriminator"
            require(size >= 32, "prepare.image_size", size, why)
        require(size <= 156 or look != "wildlife", "prepare.image_size", size, "up to 156 for wildlife")
        return self

    def published_here(self) -> Mapping[str, Any]:
        """What is published for this look; nothing where it is not known."""
        return PUBLISHED.get(_text(self, "prepare", "look"), {})

    def shared(self, verb: str) -> dict[str, str]:
        """What `verb` reads of other verbs' parameters: fetch downloads what prepare and train_cgn will need."""
        if verb != "fetch":
            return {}
        features = self.train_cgn.losses.perceptual.features
        return {"digits": self.prepare.digits, "look": self.prepare.look, "features": features}


def _text(values: Any, *keys: str) -> str:
    """The text at a place in nested mappings or models; empty where there is none."""
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else getattr(values, key, None)
    return values if isinstance(values, str) else ""


def _filled(values: Any, keys: list[str], value: Any, *, block: bool = True) -> Any:
    """A copy of nested mappings with a value where they have none. A verb's block that is missing stays missing."""
    if not isinstance(values, Mapping):
        return values
    key, *rest = keys
    if not rest:
        return {key: value, **values}
    if key not in values and block:
        return values
    return {**values, key: _filled(values.get(key, {}), rest, value, block=False)}
