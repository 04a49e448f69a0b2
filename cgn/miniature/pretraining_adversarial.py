"""The miniature's BigGAN from scratch: hinge loss against a projection discriminator, on factual scenes.

An update moves the discriminator, then the generator, on the same generated batch. Legend: B batch, S image size.
Decided here: a generated image has the causes of a real one as its noise (`cgn.miniature.causes`), and is drawn
towards it as in Isola et al. (CVPR 2017). With the adversarial loss alone, as BigGAN was trained, the generator drew
one pose a class in the minutes that a CPU is given here. A batch has every class equally often; one generated batch
serves both. The norms use the batch's statistics until the end, when the averaged weights get their own rows.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from cgn.core.devices import open_fabric
from cgn.core.metrics import MetricSink
from cgn.core.seeding import derive, torch_stream
from cgn.losses import hinge_discriminator_loss, hinge_generator_loss
from cgn.mechanisms import Prior
from cgn.miniature.factual import Scenes, drawn
from cgn.miniature.pretraining_configs import Adversarial
from cgn.nets.biggan import BigGan
from cgn.nets.biggan_statistics import batch_statistics, settle
from cgn.nets.discriminators import ProjectionDiscriminator
from cgn.training import EMA, Rows, Training, adam, at_rest, batch_indices, frozen, linear_decay

SHEET_ROWS = 6


def difference_weight(recipe: Adversarial, update: int) -> float:
    """The recipe's first weight, then linearly to its last."""
    share = max(0.0, (update - recipe.growth_from) / max(recipe.updates - recipe.growth_from, 1))
    return recipe.difference + share * (recipe.last_difference - recipe.difference)


def train(recipe: Adversarial, folder: Path, *, seed: int, sink: MetricSink) -> BigGan:
    """Train from the checkpoint in `folder`, or from the start; the average, with its statistics."""
    fabric = open_fabric(accelerator="cpu", precision=recipe.precision)
    seed = derive(seed, "pretraining", "biggan")
    scenes = drawn(recipe.images, seed=seed, image_size=recipe.table.image_size)
    torch.manual_seed(derive(seed, "initialization"))
    generator = initialized(BigGan(recipe.table)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    discriminator = ProjectionDiscriminator(classes=recipe.table.classes, width=recipe.discriminator_width)
    discriminator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled: Callable[..., torch.Tensor] = torch.compile(generator, backend=recipe.compiler)
    ema: EMA[BigGan] = EMA(generator, decay=recipe.ema_decay)
    betas = (recipe.beta1, recipe.beta2)
    training = Training(
        folder,
        fabric=fabric,
        sink=sink,
        seed=seed,
        updates=recipe.updates,
        modules={"discriminator": discriminator, "generator": generator, "ema": ema.module},
        optimizers={
            "discriminator": adam(discriminator, rate=recipe.discriminator_rate, betas=betas),
            "generator": adam(generator, rate=recipe.generator_rate, betas=betas),
        },
        log_every=recipe.log_updates,
        checkpoint_every=recipe.checkpoint_updates,
        sheet_every=recipe.sheet_updates,
    )
    with batch_statistics(generator), batch_statistics(ema.module):
        for update in training:
            rate_factor = linear_decay(update, updates=recipe.updates, fraction=recipe.decay_fraction)
            chosen = balanced(update, scenes, classes=recipe.table.classes, each=recipe.images_per_class, seed=seed)
            real, label = scenes.batch(chosen), scenes.labels[chosen]
            with fabric.autocast():
                generated = compiled(scenes.causes[chosen], label)

            with fabric.autocast():  # real above 1, generated below -1, in one batch
                images = torch.cat([real, generated.detach().float()])
                validity = discriminator(images, label.repeat(2)).float().chunk(2)
                loss = hinge_discriminator_loss(*validity)
            training.backward({"discriminator": loss})
            training.step("discriminator", rate_factor=rate_factor)

            with frozen(discriminator):
                with fabric.autocast():  # generated up, and each near the scene whose causes it has
                    fooled = hinge_generator_loss(discriminator(generated, label).float())
                    difference = difference_weight(recipe, update) * (generated.float() - real).abs().mean()
                training.backward({"generator": fooled, "difference": difference})
            training.step("generator", rate_factor=rate_factor)

            ema.follow(update)
            if training.sheet_due:
                with at_rest(ema.module, fabric=fabric) as average:
                    rows = sheet(average, seed=seed)
                training.sheet(rows)
    settle(ema.module, partial(statistics_batch, recipe, seed), batches=recipe.statistics_batches)
    return ema.module


def balanced(update: int, scenes: Scenes, *, classes: int, each: int, seed: int) -> torch.Tensor:
    """(classes * each,) places of an update's scenes, class after class; they lie in turn."""
    turn = batch_indices(update, count=len(scenes.labels) // classes, batch_size=each, seed=seed)
    return (turn * classes + torch.arange(classes)[:, None]).flatten()


def initialized(net: BigGan) -> BigGan:
    """Orthogonal weights, as BigGAN begins (its spectral norms found anew)."""
    for module in net.modules():
        weight = getattr(module, "weight_orig", None)
        if weight is not None:
            nn.init.orthogonal_(weight)
            module.settle(15)  # type: ignore[operator]
    return net


def statistics_batch(
    recipe: Adversarial, seed: int, truncation: float, number: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch for the standing statistics: every class equally often, the same noise for every truncation."""
    count = recipe.statistics_batch_size
    stream = torch_stream(seed, "statistics", number)
    noise = Prior(noise_size=recipe.table.noise_size, truncation=truncation).noise(count, stream)
    return noise, torch.arange(count) % recipe.table.classes


def sheet(net: BigGan, *, seed: int, truncation: float = 1.0) -> Rows:
    """One column a class, a few noises down."""
    classes = net.table.classes
    prior = Prior(noise_size=net.table.noise_size, truncation=truncation)
    noise = prior.noise(SHEET_ROWS * classes, torch_stream(seed, "sheet"))
    images = net(noise, torch.arange(classes).repeat(SHEET_ROWS), truncation=truncation)
    return [(f"{row + 1}", part) for row, part in enumerate(images.split(classes))]
