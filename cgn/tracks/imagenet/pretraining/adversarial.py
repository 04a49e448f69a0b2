"""The miniature's BigGAN from scratch: hinge loss against a projection discriminator, on factual scenes.

Phases: `discriminator`, then `generator`, both on the same generated batch. Legend: B batch, S image size.
Decided here: a generated image has the causes of a real one as its noise (`cgn.data.miniature.causes`), and is drawn
towards it as in Isola et al. (CVPR 2017). With the adversarial loss alone, as BigGAN was trained, the generator drew
one pose a class in the minutes that a CPU is given here. A batch has every class equally often; one generated batch
serves both phases. The norms use the batch's statistics until the end, when the averaged weights get their own rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from cgn.core.devices import fabric
from cgn.core.metrics import MetricSink
from cgn.core.seeding import derive, torch_stream
from cgn.losses import hinge_discriminator_loss, hinge_generator_loss
from cgn.mechanisms import Prior
from cgn.nets.biggan import BigGan
from cgn.nets.biggan_statistics import batch_statistics, settle
from cgn.nets.discriminators import ProjectionDiscriminator
from cgn.tracks.imagenet.pretraining.factual import Scenes, drawn
from cgn.tracks.imagenet.pretraining.recipes import Adversarial
from cgn.training.loop import Average, Schedule, Training, batch_indices
from cgn.training.phase import Mover, Objective, Phase, Rows, adam, linear_decay

SHEET_ROWS = 6


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A real and a generated batch, (B,3,S,S) in [-1,1], with the same labels (B,), class after class."""

    real: torch.Tensor
    generated: torch.Tensor
    label: torch.Tensor
    weight: float
    """Of the difference between the two."""


@dataclass(frozen=True, kw_only=True)
class Duel:
    """The two nets, what they are shown, and their losses."""

    generator: BigGan
    render: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """The generator, compiled."""
    discriminator: nn.Module
    scenes: Scenes
    images_per_class: int
    weight: Callable[[int], float]
    """The update -> the weight of the difference."""
    seed: int

    def draw(self, update: int, _batch: int) -> Drawn:
        """The update's real batch, and as many generated images of the same labels and causes."""
        classes, each = self.generator.table.classes, self.images_per_class
        turn = batch_indices(update, count=len(self.scenes.labels) // classes, batch_size=each, seed=self.seed)
        chosen = (turn * classes + torch.arange(classes)[:, None]).flatten()  # classes lie in turn
        label = self.scenes.labels[chosen]
        generated = self.render(self.scenes.causes[chosen], label)
        return Drawn(real=self.scenes.batch(chosen), generated=generated, label=label, weight=self.weight(update))

    def discriminator_losses(self, drawn: Drawn) -> dict[str, torch.Tensor]:
        """Real above 1, generated below -1, in one batch."""
        images = torch.cat([drawn.real, drawn.generated.detach().float()])
        real, generated = self.discriminator(images, drawn.label.repeat(2)).float().chunk(2)
        return {"discriminator": hinge_discriminator_loss(real, generated)}

    def generator_losses(self, drawn: Drawn) -> dict[str, torch.Tensor]:
        """Generated up, and each near the scene whose causes it has."""
        validity = self.discriminator(drawn.generated, drawn.label).float()
        difference = (drawn.generated.float() - drawn.real).abs().mean()
        return {"generator": hinge_generator_loss(validity), "difference": drawn.weight * difference}


def difference_weight(recipe: Adversarial, update: int) -> float:
    """The recipe's first weight, then linearly to its last."""
    share = max(0.0, (update - recipe.growth_from) / max(recipe.updates - recipe.growth_from, 1))
    return recipe.difference + share * (recipe.last_difference - recipe.difference)


def train(recipe: Adversarial, folder: Path, *, seed: int, sink: MetricSink) -> BigGan:
    """Train from the checkpoint in `folder`, or from the start; the average, with its statistics."""
    device = fabric(accelerator="cpu", precision=recipe.precision)
    seed = derive(seed, "pretraining", "biggan")
    scenes = drawn(recipe.images, seed=seed, image_size=recipe.table.image_size)
    torch.manual_seed(derive(seed, "initialization"))
    generator = initialized(BigGan(recipe.table)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    discriminator = ProjectionDiscriminator(classes=recipe.table.classes, width=recipe.discriminator_width)
    duel = Duel(
        generator=generator,
        render=torch.compile(generator, backend=recipe.compiler),
        discriminator=discriminator.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        scenes=scenes,
        images_per_class=recipe.images_per_class,
        weight=partial(difference_weight, recipe),
        seed=seed,
    )
    average = Average(generator, decay=recipe.ema_decay)
    training = Training(
        fabric=device,
        objective=_objective(recipe, duel),
        average=average,
        seed=seed,
        schedule=_schedule(recipe),
    )
    with batch_statistics(generator), batch_statistics(average.module):
        training.run(folder, sink=sink)
    kept = average.module
    assert isinstance(kept, BigGan)
    settle(kept, partial(statistics_batch, recipe, seed), batches=recipe.statistics_batches)
    return kept


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


def sheet(net: nn.Module, *, seed: int, truncation: float = 1.0) -> Rows:
    """One column a class, a few noises down."""
    assert isinstance(net, BigGan)
    classes = net.table.classes
    prior = Prior(noise_size=net.table.noise_size, truncation=truncation)
    noise = prior.noise(SHEET_ROWS * classes, torch_stream(seed, "sheet"))
    images = net(noise, torch.arange(classes).repeat(SHEET_ROWS), truncation=truncation)
    return [(f"{row + 1}", part) for row, part in enumerate(images.split(classes))]


def _objective(recipe: Adversarial, duel: Duel) -> Objective[Drawn]:
    factor = linear_decay(updates=recipe.updates, fraction=recipe.decay_fraction)
    betas = (recipe.beta1, recipe.beta2)
    rates = {
        "discriminator": (duel.discriminator, recipe.discriminator_rate),
        "generator": (duel.generator, recipe.generator_rate),
    }
    return Objective(
        generator=duel.generator,
        movers={
            name: Mover(module=module, optimizer=adam(module, rate=rate, betas=betas), factor=factor)
            for name, (module, rate) in rates.items()
        },
        phases=[
            Phase(name="discriminator", losses=duel.discriminator_losses, movers=("discriminator",)),
            Phase(name="generator", losses=duel.generator_losses, movers=("generator",)),
        ],
        draw=duel.draw,
        sheet=partial(sheet, seed=duel.seed),
    )


def _schedule(recipe: Adversarial) -> Schedule:
    return Schedule(
        updates=recipe.updates,
        log=recipe.log_updates,
        checkpoint=recipe.checkpoint_updates,
        sheet=recipe.sheet_updates,
    )
