"""The parameters of the ImageNet track, a model for each verb; the defaults are the paper's values.

Where the published code and the paper's text differ, the code's value is the default: it trained the published weights.
"""

from typing import Literal

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
    require_distinct,
    require_store,
)

Accelerator = Literal["auto", "cpu", "cuda"]
Precision = Literal["32-true", "bf16-mixed"]
Extra = Literal["imagenet9", "cue_conflict", "imagenet_c", "frost", "authors_cgn"]
"""`frost`: the photographs with which that corruption is made on the fly. `authors_cgn`: the published trained CGN."""
Suite = Literal["clean", "in9", "cue_conflict", "stylized", "imagenet_c"]
Head = Literal["label", "shape", "texture", "background", "avg", "shape_texture"]
Four = tuple[Weight, Weight, Weight, Weight]


class Fetch(Config):
    """Benchmarks and weights to download beside the nets, which follow from the other parameters."""

    extras: tuple[Extra, ...] = ours(())

    @model_validator(mode="after")
    def _check(self) -> "Fetch":
        require_distinct("extras", self.extras)
        return self


class World(Config):
    """The miniature world's sets: images of each class, variation, or pair of shape and texture."""

    image_size: Whole = ours(64, unit="pixels")
    train_per_class: Whole = ours(200, unit="images", ge=1)
    val_per_class: Whole = ours(50, unit="images", ge=1)
    per_variation: Whole = ours(30, unit="images", ge=2)
    per_pair: Whole = ours(2, unit="images", ge=1)

    @model_validator(mode="after")
    def _check(self) -> "World":
        drawn = self.image_size == 32 or self.image_size >= 64
        require(drawn, "image_size", self.image_size, "32, or 64 and more")
        return self


class Folders(Config):
    """The user's own copies, relative to the project or absolute: ImageFolders of WordNet ids."""

    train: str
    val: str
    stylized: str | None = ours(None, "Stylized-ImageNet; null: not available.")
    imagenet_c: str | None = ours(
        None, "Prebuilt ImageNet-C, [<kind>/]<corruption>/<severity>/<wnid>/...; null: made on the fly from `val`."
    )


class Prepare(Config):
    """A world drawn by formulas, or folders of photographs that the user has: one of the two."""

    world: World | None = ours(None)
    folders: Folders | None = ours(None)

    @model_validator(mode="after")
    def _check(self) -> "Prepare":
        one = (self.world is None) != (self.folders is None)
        require(one, "world", self.world, "a mapping where folders is null, null where folders is one")
        return self


class MaskSize(Config):
    """Hinge on the mean of each mask outside [smallest, largest]."""

    weight: Weight = published(500.0)
    smallest: Number = published(0.1, ge=0)
    largest: Number = published(0.9, le=1)

    @model_validator(mode="after")
    def _check(self) -> "MaskSize":
        require(self.smallest < self.largest, "smallest", self.smallest, "0 up to largest")
        return self


class Losses(Config):
    """Weights; 0 leaves a loss out."""

    l1: Weight = published(100.0, about="Of the composite against the frozen BigGAN's image.")
    perceptual: Four = published((4.0, 4.0, 4.0, 4.0), about="Gram style of the same two, by layer of the features.")
    binary: Weight = published(300.0, about="Of the masks' entropy.")
    mask_size: MaskSize = MaskSize()
    texture: Four = published((0.0, 5.0, 5.0, 0.0), about="Gram style of the foreground against patches of the object.")
    background: Weight = published(2_000.0, about="Of the saliency that is left in the background.")

    @model_validator(mode="after")
    def _check(self) -> "Losses":
        weights = (self.l1, *self.perceptual, self.binary, self.mask_size.weight, *self.texture, self.background)
        require(max(weights) > 0, "l1", self.l1, "above 0 where every other weight is 0")
        return self


class Patches(Config):
    """What the foreground is compared with: a grid of patches from inside the object."""

    resolution: Whole = published(128, unit="pixels", about="Images are resized to this first.", ge=1)
    size: Whole = published(15, unit="pixels")
    best: Whole = published(100, unit="places", about="So many places with the highest mean mask are drawn from.")
    grid: Whole = published(6, unit="patches", about="Along a side.", ge=1)

    @model_validator(mode="after")
    def _check(self) -> "Patches":
        require(1 <= self.size <= self.resolution, "size", self.size, "1 to resolution")
        places = (self.resolution - self.size + 1) ** 2
        require(1 <= self.best <= places, "best", self.best, f"1 to {places:,}, as many places as there are")
        return self


class Rates(Config):
    """Adam's learning rates."""

    shape: Number = published(8.0e-6, gt=0)
    texture: Number = published(3.0e-5, "paper: published code; its text has 1e-5", gt=0)
    background: Number = published(1.0e-5, gt=0)
    beta1: Number = published(0.9, ge=0, lt=1)
    beta2: Number = published(0.999, ge=0, lt=1)
    decay_fraction: Number = extension(0.0, "Last part of the updates, in which they fall to zero.", ge=0, le=1)


class Intervals(Config):
    """How often training logs, saves its state and draws a sheet."""

    log: Whole = ours(1, unit="updates", ge=1)
    checkpoint: Whole = ours(1, unit="updates", ge=1)
    sheet: Whole = ours(10, unit="updates", ge=1)


class TrainCgn(Config):
    """Everything the training of a variant depends on, besides its assets and the seed."""

    nets: Literal["miniature", "published"] = choice("published", about="Whose BigGAN, saliency net and features.")
    truncation: Number = published(1.0)
    losses: Losses = Losses()
    patches: Patches = Patches()
    rates: Rates = Rates()
    batch_size: Whole = published(1, unit="images", about="In one forward pass, each of a class of its own.", ge=1)
    batches_per_update: Whole = published(4_000, unit="batches", about="Their gradients are summed.", ge=1)
    updates: Whole = published(300, unit="updates", ge=1)
    ema_decay: Number = extension(0.0, "Of the average of the weights that is saved; 0: the last weights.", ge=0, lt=1)
    checkpointing: Literal["none", "blocks"] = ours("none", "`blocks` computes BigGAN's maps twice, for less memory.")
    intervals: Intervals = Intervals()
    accelerator: Accelerator = ours("auto")
    devices: Whole = ours(1, unit="devices")
    precision: Precision = ours("32-true")

    @model_validator(mode="after")
    def _check(self) -> "TrainCgn":
        steps = self.truncation * 50
        known = 1 <= steps <= 50 and abs(steps - round(steps)) < 1e-6
        require(known, "truncation", self.truncation, "0.02, 0.04, ..., 1 (BigGAN has statistics for these)")
        most = self.batches_per_update
        fits = 1 <= self.devices <= most
        require(fits, "devices", self.devices, f"1 to {most}: a batch of each update for every device")
        return self


class Interpolation(Config):
    """Frames on the way from one class to another, in one mechanism or all; the others rest at `first`."""

    mechanism: Literal["shape", "texture", "background", "all"]
    first: Whole = ours(0, "A class.", ge=0)
    last: Whole = ours(4, "A class.", ge=0)
    frames: Whole = ours(12, unit="frames", ge=2)


class Generate(Config):
    """Two splits: `factual` (one label for all mechanisms) and `counterfactual` (a label drawn for each)."""

    weights: Literal["trained", "authors"] = ours("trained", "`authors`: the published ones (extra `authors_cgn`).")
    factual_images: Whole = ours(0, unit="images", ge=0)
    counterfactual_images: Whole = ours(1_281_167, "As many as ImageNet has for training.", unit="images", ge=1)
    truncation: Number = published(0.5)
    classes: tuple[Whole, ...] | None = ours(None, "Labels are drawn from these; null: from all.")
    parts: tuple[Literal["mask", "premask", "foreground", "background"], ...] = ours((), "Also in samples, as PNG.")
    interpolations: tuple[Interpolation, ...] = ours(())
    images_per_shard: Whole = ours(1_000, unit="images", ge=1)
    batch_size: Whole = ours(50, unit="images", ge=1)
    accelerator: Accelerator = ours("auto")
    precision: Precision = ours("32-true")
    store: str | None = ours(None, STORE)

    @model_validator(mode="after")
    def _check(self) -> "Generate":
        require_store(self.store)
        require(0 <= self.truncation <= 1, "truncation", self.truncation, "0, 0.02, ..., 1")
        if (classes := self.classes) is not None:
            require(min(classes, default=-1) >= 0, "classes", classes, "null, or a list of class numbers from 0")
            require_distinct("classes", classes)
        require_distinct("parts", self.parts)
        require_distinct("interpolations", [(way.mechanism, way.first, way.last) for way in self.interpolations])
        return self


class TrainClassifier(Config):
    """The ensemble of invariant classifiers and its baseline: SGD, the rate falling in steps."""

    backbone: str = published("resnet50", about="A classification network of torchvision, by its name there.")
    pretrained: Literal["none", "resnet50-0676ba61"] = choice("resnet50-0676ba61")
    batch_norm: Literal["frozen", "trained"] = published("frozen")
    image_size: Whole = published(224, unit="pixels", about="Of a crop; tests resize to 256/224 of it first.", ge=1)
    smallest_crop: Number = published(0.08, about="Least share of an image in a random crop.", gt=0, le=1)
    learning_rate: Number = published(1.0e-3, gt=0)
    momentum: Number = published(0.9, ge=0, lt=1)
    weight_decay: Weight = published(1.0e-4)
    decay_factor: Number = published(0.1, gt=0)
    decay_epochs: Whole = published(15, unit="epochs", about="The rate is multiplied by the factor each so many.", ge=1)
    epochs: Whole = published(45, unit="epochs", about="One is a pass through the real images.", ge=1)
    batch_size: Whole = published(32, unit="images", about="Real ones, of all devices together.", ge=1)
    counterfactuals_per_real: Number = published(1.0, gt=0)
    workers: Whole = ours(8, "For each device; 0: training decodes, and keeps all images.", unit="processes", ge=0)
    log_updates: Whole = ours(50, unit="updates", ge=1)
    checkpoint_updates: Whole = ours(1_000, unit="updates", ge=1)
    accelerator: Accelerator = ours("auto")
    devices: Whole = ours(1, unit="devices", ge=1)
    precision: Precision = ours("32-true")

    @property
    def counterfactuals_per_update(self) -> int:
        """Counterfactual images in a batch, of all devices together; at least one for each."""
        return max(1, round(self.batch_size * self.counterfactuals_per_real / self.devices)) * self.devices

    @model_validator(mode="after")
    def _check(self) -> "TrainClassifier":
        shared = self.batch_size % self.devices == 0
        require(shared, "batch_size", self.batch_size, f"a multiple of devices, which is {self.devices}")
        fits = self.pretrained == "none" or self.pretrained.startswith(f"{self.backbone}-")
        require(fits, "pretrained", self.pretrained, f"none, or a file of the backbone, which is {self.backbone}")
        return self


class Evaluate(Config):
    """Every suite stores its predictions; `report` derives the numbers."""

    suites: tuple[Suite, ...] = ours(("clean", "in9", "cue_conflict", "imagenet_c"))
    corruptions: tuple[str, ...] = ours((), "Of the nineteen, by name; empty: the benchmark's fifteen.")
    corruption_images: Whole | None = ours(None, "Clean ones, evenly over the classes; null: all.", unit="images")
    batch_size: Whole = ours(128, unit="images", ge=1)
    workers: Whole = ours(8, "That decode; no more than there are cores.", unit="processes", ge=0)
    accelerator: Accelerator = ours("auto")

    @model_validator(mode="after")
    def _check(self) -> "Evaluate":
        require(len(self.suites) >= 1, "suites", self.suites, "one or more")
        require_distinct("suites", self.suites)
        require_distinct("corruptions", self.corruptions)
        images = self.corruption_images
        require(images is None or images >= 1, "corruption_images", images, "null, or 1 or more")
        return self


class GapThreshold(Config):
    """Background gap, accuracy on mixed_same minus that on mixed_rand: the upper end of its 95 % interval."""

    heads: tuple[Head, ...] = ours(("shape_texture",), "Each must pass; `avg` is the mean of all heads.")
    most: Number | None = ours(0.073, "The published baseline's; null: not checked.", ge=-1, le=1)


class BiasThreshold(Config):
    """Shape bias: the lower end of its 95 % interval."""

    heads: tuple[Head, ...] = ours(("shape",), "Each must pass.")
    least: Number | None = ours(
        0.4, "Published: baseline 0.21, shape head 0.55; replication: 0.49; null: not checked.", ge=0, le=1
    )
    decided: Whole = ours(100, "For either cue; with fewer, the shape bias is undecided.", unit="decisions", ge=1)


class TopThreshold(Config):
    """Top-1 on clean images: the lower end of its 95 % interval."""

    heads: tuple[Head, ...] = ours(("avg",), "Each must pass.")
    least: Number | None = ours(0.5, "Published: 0.74; replication: 0.56; null: not checked.", ge=0, le=1)


class Gate(Config):
    """What a classifier must reach before it is offered to users; what is undecided does not pass."""

    arm: Literal["baseline", "ensemble"] = ours("ensemble")
    background_gap: GapThreshold = GapThreshold()
    shape_bias: BiasThreshold = BiasThreshold()
    top_1: TopThreshold = TopThreshold()

    @model_validator(mode="after")
    def _check(self) -> "Gate":
        thresholds = {self.background_gap.most, self.shape_bias.least, self.top_1.least}
        require(thresholds != {None}, "top_1.least", None, "a number where every other threshold is null")
        for name in ("background_gap", "shape_bias", "top_1"):
            heads = getattr(self, name).heads
            require(len(heads) >= 1, f"{name}.heads", heads, "one head or more")
            require_distinct(f"{name}.heads", heads)
        return self


class Report(Config):
    """The page shows every table and sheet there is, and `examples` images of each kind."""

    examples: Whole = ours(10, unit="images", ge=1, le=50)


class ImageNet(Config):
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

    @model_validator(mode="after")
    def _check(self) -> "ImageNet":
        nets, world = self.train_cgn.nets, self.prepare.world
        whole = (nets == "miniature") == (world is not None)
        require(whole, "train_cgn.nets", nets, "miniature with prepare.world, published with prepare.folders")
        weights, extras = self.generate.weights, self.fetch.extras
        fetched = weights == "trained" or (nets == "published" and "authors_cgn" in extras)
        why = "trained; authors only with train_cgn.nets published and authors_cgn in fetch.extras"
        require(fetched, "generate.weights", weights, why)
        return self

    def shared(self, verb: str) -> dict[str, str]:
        """What `verb` reads of other verbs' parameters: fetch downloads what the others will need."""
        if verb != "fetch":
            return {}
        return {"nets": self.train_cgn.nets, "pretrained": self.train_classifier.pretrained}
