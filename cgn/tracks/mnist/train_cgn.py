"""mnist train_cgn: the cell that fills in what train_cgn needs."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import nn

from cgn.config.mnist.train_cgn import Discriminator, Mechanisms, TrainCgn
from cgn.core.checkpoints import load_strictly, load_weights
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.seeding import derive
from cgn.data.shards import Images, load
from cgn.mechanisms import Prior
from cgn.nets.discriminators import ConvDiscriminator, LinearDiscriminator, MultiDiscriminator, ProjectionDiscriminator
from cgn.nets.features import SqueezeFeatures, VggFeatures, squeezenet_weights, vgg_weights
from cgn.stages.train_cgn import Made, Parts
from cgn.tracks.mnist.constants import CLASSES
from cgn.tracks.mnist.mechanisms import facts, generator, initialize, soften
from cgn.tracks.mnist.objective import Adversarial, example_rows
from cgn.training.loop import Schedule
from cgn.training.phase import Mover, Objective, Phase, adam, linear_decay

State = dict[str, torch.Tensor]
FEATURES: dict[str, tuple[Callable[[], nn.Module], Callable[[State], State], str]] = {
    "squeezenet": (SqueezeFeatures, squeezenet_weights, "squeezenet1_0_deepcompression_rgb.pth"),
    "vgg16": (VggFeatures, vgg_weights, "vgg16-397923af.pth"),
}


def parts(params: TrainCgn, *, seed: int, variant: str) -> Parts:
    """Parameters of a variant -> what the stage needs."""
    seed = derive(seed, "train_cgn")

    return Parts(
        seed=seed,
        accelerator=params.accelerator,
        devices=1,
        precision=params.precision,
        batch_size=params.batch_size,
        remedy="lower batch_size or set accelerator to cpu",
        schedule=Schedule(updates=params.updates, **asdict(params.intervals)),
        ema_decay=params.ema_decay,
        make=partial(_make, params, seed=seed, variant=variant),
    )


def _make(params: TrainCgn, *, seed: int, variant: str, assets: Path, data: Path | None, device: torch.device) -> Made:
    images = _images(params, data)
    size = images.pixels.shape[1]
    torch.manual_seed(derive(seed, "initialization"))  # modules draw their initial weights from the global stream
    net = _net(params.mechanisms, image_size=size)
    model = generator(**net)
    initialize(model, kind=params.mechanisms.initialization, gain=params.mechanisms.gain)
    soften(model, contrast=params.mechanisms.tile_contrast)
    discriminator = _discriminator(params.discriminator, image_size=size).to(device)
    prior = Prior(noise_size=params.mechanisms.noise_size, tile_size=size)
    adversarial = Adversarial(
        generator=model.to(device),
        discriminator=discriminator,
        features=_features(params.losses.perceptual.features, assets=assets, device=device),
        losses=params.losses,
        pixels=images.pixels,
        labels=images.labels["shape"],
        batch_size=params.batch_size,
        images_per_class=params.images_per_class,
        prior=prior,
        classes=CLASSES,
        seed=seed,
        device=device,
    )
    objective = Objective(
        generator=model,
        movers=_movers(params, model=model, discriminator=discriminator),
        phases=[
            Phase(name="generator", losses=adversarial.generator_losses, movers=("generator",)),
            Phase(name="discriminator", losses=adversarial.discriminator_losses, movers=("discriminator",)),
        ],
        draw=adversarial.draw,
        sheet=partial(example_rows, classes=CLASSES, prior=prior, seed=seed),
    )
    return Made(objective=objective, facts=facts(variant=variant, net=net))


def _images(params: TrainCgn, data: Path | None) -> Images:
    if data is None:
        raise ArtifactError("mnist's train_cgn needs --data, the folder that prepare made: give it")
    images = load(data, split="train")
    if len(images.pixels) < params.batch_size:
        raise ConfigError(f"train_cgn.batch_size is {params.batch_size}, but {data} has {len(images.pixels)} images")
    if params.images_per_class > 1 and (missing := set(range(CLASSES)) - set(images.labels["shape"].tolist())):
        raise ArtifactError(
            f"{data} has no training image of class {min(missing)}, but train_cgn.images_per_class is "
            f"{params.images_per_class}: raise prepare.train_images, or set train_cgn.images_per_class to 1 and "
            "train_cgn.losses.energy to 0"
        )
    return images


def _net(mechanisms: Mechanisms, *, image_size: int) -> dict[str, int]:
    widths = {"shape_width": mechanisms.shape_width, "tile_width": mechanisms.tile_width}
    return {**widths, "noise_size": mechanisms.noise_size, "image_size": image_size}


def _movers(params: TrainCgn, *, model: nn.Module, discriminator: nn.Module) -> dict[str, Mover]:
    optimizer = params.optimizer
    betas = (optimizer.beta1, optimizer.beta2)
    factor = linear_decay(updates=params.updates, fraction=optimizer.decay_fraction)
    rates = {
        "generator": (model, optimizer.generator_rate),
        "discriminator": (discriminator, optimizer.discriminator_rate),
    }
    return {
        name: Mover(module=module, optimizer=adam(module, rate=rate, betas=betas), factor=factor)
        for name, (module, rate) in rates.items()
    }


def _discriminator(params: Discriminator, *, image_size: int) -> nn.Module:
    members: list[nn.Module] = []
    if params.linear:
        members.append(LinearDiscriminator(classes=CLASSES, width=params.linear, image_size=image_size))
    if params.conv:
        members.append(ConvDiscriminator(classes=CLASSES, width=params.conv))
        initialize(members[-1], kind="normal", gain=0.02)
    if params.projection:
        members.append(ProjectionDiscriminator(classes=CLASSES, width=params.projection))
    return MultiDiscriminator(members)


def _features(name: str, *, assets: Path, device: torch.device) -> nn.Module | None:
    if name == "none":
        return None
    make, weights_of, file = FEATURES[name]
    module = make()
    load_strictly(module, weights_of(load_weights(assets / file)), source=str(assets / file))
    frozen: nn.Module = module.to(device).eval().requires_grad_(False)
    return frozen
