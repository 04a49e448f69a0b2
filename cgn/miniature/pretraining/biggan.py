"""The miniature's BigGAN from scratch: hinge loss against a projection discriminator, on factual scenes.

An update moves the discriminator, then the generator, on the same generated batch. A generated image has the causes of
a real one as its noise, and an L1 loss pulls it to that image, as in Isola et al. (CVPR 2017). With the adversarial
loss only, as BigGAN was trained, the generator drew one pose for each class in the minutes that a CPU is given here. A
batch has every class equally often. The norms use batch statistics; at the end the EMA gets standing statistics.

Legend: B batch, N scenes, S image size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cgn.core.devices import open_fabric
from cgn.core.images import to_bytes
from cgn.core.metrics import MetricSink
from cgn.core.seeding import derive, torch_stream
from cgn.losses import hinge_discriminator_loss, hinge_generator_loss
from cgn.mechanisms import Prior
from cgn.miniature.pretraining.biggan_statistics import batch_statistics, settle
from cgn.miniature.pretraining.config import BigGanTraining
from cgn.miniature.world.scenes import CLASSES, as_images, causes, index_batches, scene
from cgn.nets.biggan import BigGan
from cgn.nets.discriminators import ProjectionDiscriminator
from cgn.optimization import EMA, adam, evaluating, frozen, linear_decay
from cgn.training import Rows, Training, batch_indices

SHEET_ROWS = 6


def train_biggan(config: BigGanTraining, folder: Path, *, seed: int, sink: MetricSink) -> BigGan:
    """Train from the checkpoint in `folder`, or from the start; returns the EMA, with its statistics."""
    fabric = open_fabric(accelerator="cpu", precision=config.precision)
    seed = derive(seed, "pretraining", "biggan")
    scenes = factual_scenes(config.images, seed=seed, image_size=config.net.image_size)
    torch.manual_seed(derive(seed, "initialization"))
    generator = initialized(BigGan(config.net)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    discriminator = ProjectionDiscriminator(classes=config.net.classes, width=config.discriminator_width)
    discriminator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled: Callable[..., torch.Tensor] = torch.compile(generator, backend=config.compiler)
    ema: EMA[BigGan] = EMA(generator, decay=config.ema_decay)
    betas = (config.beta1, config.beta2)
    training = Training(
        folder,
        fabric=fabric,
        sink=sink,
        seed=seed,
        updates=config.updates,
        modules={"discriminator": discriminator, "generator": generator, "ema": ema.module},
        optimizers={
            "discriminator": adam(discriminator, rate=config.discriminator_rate, betas=betas),
            "generator": adam(generator, rate=config.generator_rate, betas=betas),
        },
        log_every=config.log_updates,
        checkpoint_every=config.checkpoint_updates,
        sheet_every=config.sheet_updates,
    )
    with batch_statistics(generator), batch_statistics(ema.module):
        for update in training:
            rate_factor = linear_decay(update, updates=config.updates, fraction=config.decay_fraction)
            chosen = balanced_indices(update, scenes, config=config, seed=seed)
            real, label = as_images(scenes.pixels[chosen]), scenes.labels[chosen]
            with fabric.autocast():
                generated = compiled(scenes.causes[chosen], label)

            with fabric.autocast():  # real above 1, generated below -1, in one batch
                images = torch.cat([real, generated.detach().float()])
                validity = discriminator(images, label.repeat(2)).float().chunk(2)
                loss = hinge_discriminator_loss(*validity)
            training.backward({"discriminator": loss})
            training.step("discriminator", rate_factor=rate_factor)

            with frozen(discriminator):
                with fabric.autocast():  # generated up, and each one near the scene whose causes it has
                    adversarial = hinge_generator_loss(discriminator(generated, label).float())
                    difference = difference_weight(config, update) * (generated.float() - real).abs().mean()
                training.backward({"generator": adversarial, "difference": difference})
            training.step("generator", rate_factor=rate_factor)

            ema.follow(update)
            if training.sheet_due:
                with evaluating(ema.module, fabric=fabric) as average:
                    rows = examples(average, seed=seed)
                training.sheet(rows)
    settle(ema.module, partial(statistics_batch, config, seed), batches=config.statistics_batches)
    return ema.module


@dataclass(frozen=True, kw_only=True)
class FactualScenes:
    """`pixels`: (N,S,S,3) uint8. `labels`: (N,) of all three parts, 0, 1, ..., 8, 0, ... `causes`: (N,32)."""

    pixels: torch.Tensor
    labels: torch.Tensor
    causes: torch.Tensor


def factual_scenes(count: int, *, seed: int, image_size: int) -> FactualScenes:
    """`count` scenes of a world of their own: none of them is in the sets that the track trains or evaluates on."""
    world = derive(seed, "pretraining", "scenes")
    pixels = np.empty((count, image_size, image_size, 3), dtype=np.uint8)
    labels = np.arange(count) % len(CLASSES)
    for index in index_batches(count):
        label = labels[index]
        pixels[index] = to_bytes(scene(label, label, label, seed=world, index=index, image_size=image_size).image)
    noise = causes(np.arange(count), seed=world)
    return FactualScenes(pixels=torch.from_numpy(pixels), labels=torch.from_numpy(labels), causes=noise)


def balanced_indices(update: int, scenes: FactualScenes, *, config: BigGanTraining, seed: int) -> torch.Tensor:
    """The indices of an update's scenes, (classes * images_per_class,), class after class."""
    classes = config.net.classes
    rounds = batch_indices(update, count=len(scenes.labels) // classes, batch_size=config.images_per_class, seed=seed)
    return (rounds * classes + torch.arange(classes)[:, None]).flatten()


def difference_weight(config: BigGanTraining, update: int) -> float:
    """The weight of the L1 loss: the first one until `growth_from`, then linearly to the last one."""
    share = max(0.0, (update - config.growth_from) / max(config.updates - config.growth_from, 1))
    return config.difference + share * (config.last_difference - config.difference)


def initialized(net: BigGan) -> BigGan:
    """Orthogonal weights, as in BigGAN; the spectral norms are estimated anew."""
    for module in net.modules():
        weight = getattr(module, "weight_orig", None)
        if weight is not None:
            nn.init.orthogonal_(weight)
            module.settle(15)  # type: ignore[operator]
    return net


def statistics_batch(
    config: BigGanTraining, seed: int, truncation: float, number: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise and labels for the standing statistics: every class equally often, the same noise for every truncation."""
    count = config.statistics_batch_size
    stream = torch_stream(seed, "statistics", number)
    noise = Prior(noise_size=config.net.noise_size, truncation=truncation).noise(count, stream)
    return noise, torch.arange(count) % config.net.classes


def examples(net: BigGan, *, seed: int, truncation: float = 1.0) -> Rows:
    """A sheet with one column for each class and a few noises for each."""
    classes = net.config.classes
    prior = Prior(noise_size=net.config.noise_size, truncation=truncation)
    noise = prior.noise(SHEET_ROWS * classes, torch_stream(seed, "sheet"))
    images = net(noise, torch.arange(classes).repeat(SHEET_ROWS), truncation=truncation)
    return [(f"{row + 1}", part) for row, part in enumerate(images.split(classes))]
