"""Train the MNIST counterfactual generative network (Sauer & Geiger, ICLR 2021, section 4.1).

A generator of three mechanisms is trained against one or more label-conditioned discriminators (least squares). Masks
are shaped by their binary entropy and by hinges on their size and border and, optionally, by the energy distance
between generated and real images of a class and by the style of pretrained features.

Shapes: B batch, N training images, S image size, K classes.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from cgn.config.mnist import CLASSES, Discriminator, Mechanisms, TrainCgn
from cgn.core.checkpoints import load_strictly, load_weights, save_model
from cgn.core.devices import fits, open_fabric
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.images import from_bytes
from cgn.core.metrics import MetricSink
from cgn.core.parallel import concurrently
from cgn.core.parameters import Input, Output
from cgn.core.seeding import derive, torch_stream
from cgn.data.shards import Images, load_split
from cgn.losses import (
    binary_entropy,
    border_hinge,
    discriminator_loss,
    energy_distance,
    generator_loss,
    mismatch_loss,
    size_hinge,
    style,
)
from cgn.mechanisms import Causes, Generator, Picture, Prior, counterfactual, factual
from cgn.mnist.generator import build_generator, initialize, model_facts, soften
from cgn.nets.discriminators import ConvDiscriminator, LinearDiscriminator, MultiDiscriminator, ProjectionDiscriminator
from cgn.nets.features import SqueezeFeatures, VggFeatures, squeezenet_weights, vgg_weights
from cgn.optimization import EMA, adam, evaluating, frozen, linear_decay
from cgn.training import MODEL, STATE, Rows, Training, batch_indices, finished


def train_cgn(
    config: TrainCgn, *, seed: int, variant: str, assets: Input, data: Input, model: Output, sink: MetricSink
) -> None:
    """Train on `data`, the folder that prepare wrote; write model.safetensors and sheets/ into `model`."""
    if finished(model, sink=sink):
        return
    seed = derive(seed, "train_cgn")
    fabric = open_fabric(accelerator=config.accelerator, precision=config.precision)
    images = load_images(config, data)
    size = images.pixels.shape[1]
    torch.manual_seed(derive(seed, "initialization"))  # modules draw their initial weights from the global stream
    generator = initial_generator(config.mechanisms, image_size=size).to(fabric.device)
    discriminator = build_discriminator(config.discriminator, image_size=size).to(fabric.device)
    features = load_features(config.losses.perceptual.features, assets=assets, device=fabric.device)
    ema = EMA(generator, decay=config.ema_decay)
    prior = Prior(noise_size=config.mechanisms.noise_size, tile_size=size)
    sampler = Sampler(images, config=config, prior=prior, seed=seed)
    betas = (config.optimizer.beta1, config.optimizer.beta2)
    training = Training(
        model,
        fabric=fabric,
        sink=sink,
        seed=seed,
        updates=config.updates,
        modules={"generator": generator, "discriminator": discriminator, "ema": ema.module},
        optimizers={
            "generator": adam(generator, rate=config.optimizer.generator_rate, betas=betas),
            "discriminator": adam(discriminator, rate=config.optimizer.discriminator_rate, betas=betas),
        },
        log_every=config.intervals.log,
        checkpoint_every=config.intervals.checkpoint,
        sheet_every=config.intervals.sheet,
    )

    with fits(config.batch_size):
        if training.starts:
            draw(training, ema.module, prior=prior, start=True)
        for update in training:
            batch = sampler.batch(update).to(fabric.device)
            with fabric.autocast():
                fake = generator(batch.causes)
            with frozen(discriminator), fabric.autocast():
                losses = generator_losses(config, fake, batch, discriminator=discriminator, features=features)
            backward_generator = partial(fabric.backward, training.total(losses))
            # Independent of it: the discriminator takes the images from before the generator's step.
            backward_discriminator = partial(
                discriminate, training, config, fake.image.detach(), batch, discriminator=discriminator
            )
            concurrently(backward_discriminator, backward_generator, device=fabric.device)
            rate_factor = linear_decay(update, updates=config.updates, fraction=config.optimizer.decay_fraction)
            training.step("generator", "discriminator", rate_factor=rate_factor)
            ema.follow(update)
            if training.sheet_due:
                draw(training, ema.module, prior=prior)

    sink.summary(training.values)
    facts = model_facts(variant=variant, net=generator_sizes(config.mechanisms, image_size=size))
    # Last: a model file means a finished run.
    save_model(model / MODEL, ema.module.state_dict(), facts={**facts, "losses": training.values})
    (model / STATE).unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Real images (B,3,S,S) in [-1,1] with their labels (B,), a wrong label for each, and causes of B images."""

    real: torch.Tensor
    label: torch.Tensor
    wrong_label: torch.Tensor
    causes: Causes

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return Batch(
            real=self.real.to(device),
            label=self.label.to(device),
            wrong_label=self.wrong_label.to(device),
            causes=self.causes.to(device),
        )


class Sampler:
    """Draws an update's batch: a pure function of (seed, update)."""

    def __init__(self, images: Images, *, config: TrainCgn, prior: Prior, seed: int) -> None:
        self.pixels, self.labels = images.pixels, images.labels["shape"]  # (N,S,S,3) uint8, (N,)
        self.batch_size, self.images_per_class = config.batch_size, config.images_per_class
        self.prior, self.seed = prior, seed
        self.order = self.labels.argsort(stable=True)  # by class
        self.sizes = self.labels.bincount(minlength=CLASSES)

    def batch(self, update: int) -> Batch:
        """Real images and causes of factual ones; both have the same labels if a batch has groups of a class."""
        stream = torch_stream(self.seed, "update", update)
        grouped = self.images_per_class > 1
        if grouped:
            per_class = self.images_per_class
            chosen = self.order[by_class(self.sizes, self.batch_size, images_per_class=per_class, stream=stream)]
        else:
            chosen = batch_indices(update, count=len(self.labels), batch_size=self.batch_size, seed=self.seed)
        real_label = self.labels[chosen]
        label = real_label if grouped else torch.randint(CLASSES, (self.batch_size,), generator=stream)
        wrong_label = (real_label + torch.randint(1, CLASSES, (self.batch_size,), generator=stream)) % CLASSES
        return Batch(
            real=from_bytes(self.pixels[chosen]),
            label=real_label,
            wrong_label=wrong_label,
            causes=factual(label, prior=self.prior, stream=stream),
        )


def by_class(sizes: torch.Tensor, count: int, *, images_per_class: int, stream: torch.Generator) -> torch.Tensor:
    """(count,) places in images sorted by class; `sizes` (K,) are the numbers of images of each class, none 0.

    `images_per_class` images of a class follow one another; all classes occur before one is repeated, in random order.
    """
    groups = count // images_per_class
    turns = torch.rand(-(-groups // len(sizes)), len(sizes), generator=stream).argsort(1)
    label = turns.flatten()[:groups].repeat_interleave(images_per_class)
    drawn = torch.rand(count, generator=stream, dtype=torch.float64)
    return (sizes.cumsum(0) - sizes)[label] + (drawn * sizes[label]).long()


def generator_losses(
    config: TrainCgn, fake: Picture, batch: Batch, *, discriminator: nn.Module, features: nn.Module | None
) -> dict[str, torch.Tensor]:
    """Weighted losses of the mechanisms, scalars; a weight of 0 skips its loss."""
    weights = config.losses
    losses: dict[str, torch.Tensor] = {}
    if weights.adversarial:
        validity = discriminator(fake.image, batch.causes.shape.label)
        losses["adversarial"] = weights.adversarial * generator_loss(validity)
    if weights.binary:
        losses["binary"] = weights.binary * binary_entropy(fake.mask)
    if (size := weights.mask_size).weight:
        hinge = size_hinge(fake.mask, smallest=size.smallest, largest=size.largest)
        losses["mask_size"] = size.weight * hinge.mean()
    if (border := weights.border).weight:
        losses["border"] = border.weight * border_hinge(fake.mask, width=border.width, largest=border.largest).mean()
    if weights.energy:
        distance = energy_distance(fake.image, batch.real, images_per_class=config.images_per_class)
        losses["energy"] = weights.energy * distance
    if features is not None:
        with torch.no_grad():
            target = features(batch.real)
        losses["perceptual"] = style(features(fake.image), target, weights=weights.perceptual.weights)
    return losses


def discriminator_losses(
    config: TrainCgn, fake: torch.Tensor, batch: Batch, *, discriminator: nn.Module
) -> dict[str, torch.Tensor]:
    """Targets: real 1, generated and mislabelled 0. One pass for each kind, because batch statistics must not mix."""
    real, generated = discriminator(batch.real, batch.label), discriminator(fake, batch.causes.shape.label)
    losses = {"discriminator": discriminator_loss(real, generated)}
    if weight := config.losses.mismatched:
        losses["mismatched"] = weight * mismatch_loss(discriminator(batch.real, batch.wrong_label))
    return losses


def discriminate(
    training: Training, config: TrainCgn, fake: torch.Tensor, batch: Batch, *, discriminator: nn.Module
) -> None:
    """Add the gradients of the discriminator's losses."""
    with training.fabric.autocast():
        losses = discriminator_losses(config, fake, batch, discriminator=discriminator)
    training.backward(losses)


def load_images(config: TrainCgn, data: Path) -> Images:
    """The training images. Raises ConfigError or ArtifactError if they are too few for a batch, or lack a class."""
    images = load_split(data, split="train")
    if len(images.pixels) < config.batch_size:
        raise ConfigError(f"train_cgn.batch_size is {config.batch_size}, but {data} has {len(images.pixels)} images")
    if config.images_per_class > 1 and (missing := set(range(CLASSES)) - set(images.labels["shape"].tolist())):
        raise ArtifactError(
            f"{data} has no training image of class {min(missing)}, but train_cgn.images_per_class is "
            f"{config.images_per_class}: raise prepare.train_images, or set train_cgn.images_per_class to 1 and "
            "train_cgn.losses.energy to 0"
        )
    return images


def generator_sizes(config: Mechanisms, *, image_size: int) -> dict[str, int]:
    """The arguments of `build_generator`, which the model file keeps."""
    widths = {"shape_width": config.shape_width, "tile_width": config.tile_width}
    return {**widths, "noise_size": config.noise_size, "image_size": image_size}


def initial_generator(config: Mechanisms, *, image_size: int) -> Generator:
    """The three mechanisms with their initial weights."""
    generator = build_generator(**generator_sizes(config, image_size=image_size))
    initialize(generator, kind=config.initialization, gain=config.gain)
    soften(generator, contrast=config.tile_contrast)
    return generator


def build_discriminator(config: Discriminator, *, image_size: int) -> nn.Module:
    """The discriminators whose width is above 0, untrained; the losses of several are averaged."""
    members: list[nn.Module] = []
    if config.linear:
        members.append(LinearDiscriminator(classes=CLASSES, width=config.linear, image_size=image_size))
    if config.conv:
        members.append(ConvDiscriminator(classes=CLASSES, width=config.conv))
        initialize(members[-1], kind="normal", gain=0.02)
    if config.projection:
        members.append(ProjectionDiscriminator(classes=CLASSES, width=config.projection))
    return MultiDiscriminator(members)


def load_features(name: str, *, assets: Path, device: torch.device) -> nn.Module | None:
    """The pretrained net of the perceptual loss, from its file in `assets`; None for "none"."""
    if name == "none":
        return None
    features: nn.Module
    if name == "squeezenet":
        path = assets / "squeezenet1_0_deepcompression_rgb.pth"
        features, weights = SqueezeFeatures(), squeezenet_weights(load_weights(path))
    else:
        path = assets / "vgg16-397923af.pth"
        features, weights = VggFeatures(), vgg_weights(load_weights(path))
    load_strictly(features, weights, source=str(path))
    return features.to(device).eval().requires_grad_(False)


def draw(training: Training, generator: Generator, *, prior: Prior, start: bool = False) -> None:
    """Draw a sheet of examples."""
    with evaluating(generator, fabric=training.fabric) as average:
        rows = example_rows(average, prior=prior, seed=training.seed)
    training.sheet(rows, start=start)


def example_rows(generator: Generator, *, prior: Prior, seed: int) -> Rows:
    """One column for each class: a factual image and its parts, then a counterfactual of the same label of shape."""
    device = next(generator.parameters()).device
    label = torch.arange(CLASSES)
    stream = torch_stream(seed, "sheet")
    causes = factual(label, prior=prior, stream=stream)
    mixed = counterfactual(shape=label, texture=label.roll(-3), background=label.roll(4), prior=prior, stream=stream)
    rows: list[tuple[str, torch.Tensor]] = []
    for name, inputs in (("factual", causes), ("counterfactual", mixed)):
        picture = generator(inputs.to(device))
        rows += [(name, picture.image), ("mask", picture.mask * 2 - 1)]
        rows += [("foreground", picture.foreground), ("background", picture.background)]
    return rows
