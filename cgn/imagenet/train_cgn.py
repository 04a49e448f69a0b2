"""Train the ImageNet counterfactual generative network (Sauer & Geiger, ICLR 2021, section 3.2).

Three mechanisms start as copies of a pretrained cGAN, BigGAN. The losses ask that the composite looks like the cGAN's
image, the mask is binary and of a plausible size, the foreground looks like patches from inside the object, and the
background is not salient. The training reads pretrained nets, no images. Batch norms keep their precomputed statistics
(published). The mechanisms are independent nets, so they are computed in parallel, each on a core.

Shapes: B batch, S image size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from cgn.config.imagenet import TrainCgn
from cgn.core.checkpoints import save_model
from cgn.core.devices import open_fabric
from cgn.core.errors import ConfigError
from cgn.core.launch import launch
from cgn.core.metrics import MetricSink
from cgn.core.parallel import Differentiated, concurrently, differentiate
from cgn.core.parameters import Cluster, Input, Output
from cgn.core.seeding import derive, torch_stream
from cgn.imagenet.generator import biggan_of, build_generator, model_facts, saliency_tensors
from cgn.imagenet.pretrained import load_pretrained
from cgn.losses import Patches, binary_entropy, l1, patch_grid, saliency, size_hinge, style
from cgn.mechanisms import Causes, Generator, Picture, Prior, Shape, counterfactual, factual
from cgn.miniature.world.scenes import silhouette_bank
from cgn.miniature.world.silhouettes import silhouette_iou
from cgn.nets.biggan import BigGanConfig
from cgn.nets.biggan_folded import fold
from cgn.nets.spectral import Spectral
from cgn.nets.u2net import U2Net, Widths
from cgn.optimization import EMA, adam, evaluating, linear_decay
from cgn.training import MODEL, STATE, Rows, Training, finished

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Net = TypeVar("Net", bound=nn.Module)
COMPARED = ("iou/own",)
"""Of the final values, those that go to metrics.json; losses are curves."""
REMEDY = (
    "lower train_cgn.batch_size (and raise train_cgn.batches_per_update by as much), or set train_cgn.checkpointing "
    "to blocks"
)
MASKS_PER_CLASS, SILHOUETTES_PER_CLASS = 20, 60
"""How many masks and silhouettes are compared, where the true silhouettes are known."""
COLUMNS = 10
"""Columns of a sheet, one for each class; fewer if there are fewer classes."""


def train_cgn(
    config: TrainCgn, *, seed: int, variant: str, assets: Input, model: Output, ray: Cluster = "", sink: MetricSink
) -> None:
    """Train from the nets in `assets`, a process for each device; write model.safetensors and sheets/ into `model`."""
    if finished(model, sink=sink):
        return
    work = partial(train, config, seed=derive(seed, "train_cgn"), variant=variant, assets=assets, model=model)
    launch(
        work,
        accelerator=config.accelerator,
        devices=config.devices,
        batch_size=config.batch_size,
        remedy=REMEDY,
        folder=model,
        ray=ray,
        sink=sink,
    )
    (model / STATE).unlink(missing_ok=True)


def train(config: TrainCgn, sink: MetricSink, *, seed: int, variant: str, assets: Path, model: Path) -> None:
    """The training in one process. All processes hold the same weights; the first one writes."""
    fabric = open_fabric(accelerator=config.accelerator, precision=config.precision, devices=config.devices)
    if fabric.world_size > config.batches_per_update:
        raise ConfigError(
            f"train_cgn.batches_per_update is {config.batches_per_update}, but {fabric.world_size} processes train: "
            "start fewer, or lower batch_size and raise batches_per_update by as much"
        )
    nets = build_nets(config, assets, device=fabric.device)
    generator = nets.generator
    ema = EMA(generator, decay=config.ema_decay)
    mechanisms = {role: biggan_of(getattr(generator, role)) for role in ("shape", "texture", "background")}
    betas = (config.rates.beta1, config.rates.beta2)
    measures_masks = config.nets == "miniature"  # whose silhouettes are known
    start = measured_masks(ema, nets, fabric=fabric, seed=seed) if measures_masks else {}
    training = Training(
        model,
        fabric=fabric,
        sink=sink,
        seed=seed,
        updates=config.updates,
        batches_per_update=config.batches_per_update,
        modules={**mechanisms, "ema": ema.module},
        optimizers={role: adam(net, rate=getattr(config.rates, role), betas=betas) for role, net in mechanisms.items()},
        log_every=config.intervals.log,
        checkpoint_every=config.intervals.checkpoint,
        sheet_every=config.intervals.sheet,
    )

    def draw(*, start: bool = False) -> None:
        with evaluating(ema.module, fabric=fabric) as average:
            rows = example_rows(average, nets, seed=seed)
        training.sheet(rows, start=start)

    if start:
        training.log_start(start)
    if training.starts:
        draw(start=True)
    for update in training:
        settle_norms(generator)
        for number in training.batches():
            with fabric.autocast():
                batch = draw_batch(config, nets, update, number, seed=seed)
                losses = batch_losses(config, nets, batch)
            training.backward(losses)
            batch.backward()
        rate_factor = linear_decay(update, updates=config.updates, fraction=config.rates.decay_fraction)
        training.step("shape", "texture", "background", rate_factor=rate_factor)
        ema.follow(update)
        if training.sheet_due:
            draw()
            if measures_masks:
                training.values |= measured_masks(ema, nets, fabric=fabric, seed=seed)

    if fabric.is_global_zero:
        values = {f"start/{name}": value for name, value in start.items()} | training.values
        sink.summary(values)
        # Last: a model file means a finished run.
        about = {**model_facts(variant=variant, table=nets.biggan_config, widths=nets.widths), "losses": values}
        save_model(model / MODEL, {**ema.module.state_dict(), **saliency_tensors(nets.saliency)}, facts=about)


@dataclass(frozen=True, kw_only=True)
class Nets:
    """`generator` is trained; the cGAN (noise, label -> images), the saliency net and the features are frozen."""

    generator: Generator
    cgan: nn.Module
    saliency: U2Net
    """What `generator.shape` segments with."""
    features: nn.Module
    prior: Prior
    biggan_config: BigGanConfig
    widths: Widths
    """The configs of each BigGAN and of the saliency net."""

    @property
    def device(self) -> torch.device:
        """The device of all nets."""
        return next(self.generator.parameters()).device


def build_nets(config: TrainCgn, assets: Path, *, device: torch.device) -> Nets:
    """The pretrained nets and three copies of BigGAN, on a device. Raises ArtifactError naming a file that is wrong."""
    opened = load_pretrained(assets, nets=config.nets)
    biggan, truncation = opened.biggan.config, config.truncation
    generator = build_generator(
        opened.biggan, saliency=opened.saliency, truncation=truncation, recompute=config.checkpointing
    )
    return Nets(
        generator=_on_device(generator, device),
        saliency=_on_device(opened.saliency, device),
        cgan=fold(opened.biggan, truncation=truncation).to(device),
        features=_on_device(opened.features, device),
        prior=Prior(noise_size=biggan.noise_size, truncation=truncation),
        biggan_config=biggan,
        widths=opened.widths,
    )


def _on_device(net: Net, device: torch.device) -> Net:
    """On its device, in eval mode, weights channels last like BigGAN's maps: a fifth faster on a CPU."""
    placed: Net = net.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return placed


def settle_norms(generator: Generator) -> None:
    """One power iteration of each spectral norm after the last step.

    Once for each update, not for each batch, so that the result depends neither on the number of processes nor on what
    the backward pass computes again.
    """
    for module in generator.modules():
        if isinstance(module, Spectral):
            module.settle(1)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Factual images, and the causes that they were drawn from; `stream` chooses the patches.

    `outputs` are the mechanisms' outputs, each with a graph of its own; `picture` has the same values without these
    graphs. So the gradients of all losses are complete before any of them is passed into its mechanism.
    """

    causes: Causes
    outputs: Picture
    picture: Picture
    stream: torch.Generator

    def backward(self) -> None:
        """Pass the gradients of `picture` into the mechanisms, in parallel: they share no parameters."""
        ends = [(getattr(self.outputs, part.name), getattr(self.picture, part.name).grad) for part in fields(Picture)]
        passes = [partial(torch.autograd.backward, output, grad) for output, grad in ends if grad is not None]
        concurrently(*passes, device=self.picture.mask.device)


def draw_batch(config: TrainCgn, nets: Nets, update: int, number: int, *, seed: int) -> Batch:
    """Factual images of random classes: a pure function of the weights and (seed, update, number)."""
    stream = torch_stream(seed, "batch", update, number)
    label = torch.randint(nets.biggan_config.classes, (config.batch_size,), generator=stream)
    causes = factual(label, prior=nets.prior, stream=stream).to(nets.device)
    generator = nets.generator
    mask, foreground, background = concurrently(
        partial(generator.shape, causes.shape),
        partial(generator.texture, causes.texture),
        partial(generator.background, causes.background),
        device=nets.device,
    )
    outputs = Picture(mask=mask, foreground=foreground, background=background)
    return Batch(causes=causes, outputs=outputs, picture=outputs.cut_off(), stream=stream)


def batch_losses(config: TrainCgn, nets: Nets, batch: Batch) -> dict[str, torch.Tensor]:
    """Weighted losses, each a mean over the batch. A weight of 0 skips its loss, and nets that only it calls."""
    weights, picture = config.losses, batch.picture
    salience, distances = concurrently(
        partial(background_losses, config, nets, picture),
        partial(target_losses, config, nets, batch),
        device=nets.device,
    )
    losses: dict[str, torch.Tensor] = {}
    for name in ("l1", "perceptual"):
        if name in distances:
            losses[name] = distances[name].follow(picture.image)
    if weights.binary:
        losses["binary"] = weights.binary * binary_entropy(picture.mask)
    if (size := weights.mask_size).weight:
        hinge = size_hinge(picture.mask, smallest=size.smallest, largest=size.largest)
        losses["mask_size"] = size.weight * hinge.mean()
    if "texture" in distances:
        losses["texture"] = distances["texture"].follow(picture.foreground)
    if "background" in salience:
        losses["background"] = salience["background"].follow(picture.background)
    return losses


def background_losses(config: TrainCgn, nets: Nets, picture: Picture) -> dict[str, Differentiated]:
    """How salient the backgrounds are."""
    weight, shape = config.losses.background, nets.generator.shape
    assert isinstance(shape, Shape)
    segment = shape.segment
    assert segment is not None
    if not weight:
        return {}
    return {"background": differentiate(lambda image: weight * saliency(segment(image)).mean(), picture.background)}


def target_losses(config: TrainCgn, nets: Nets, batch: Batch) -> dict[str, Differentiated]:
    """Distances of the composite, and of the foreground's patches, to the frozen cGAN's images of the same causes."""
    weights, picture = config.losses, batch.picture
    losses: dict[str, Differentiated] = {}
    if not (weights.l1 or any(weights.perceptual) or any(weights.texture)):
        return losses
    image, target = picture.image.detach(), cgan_images(nets, batch.causes)
    if weights.l1:
        losses["l1"] = differentiate(lambda image: weights.l1 * l1(image, target), image)
    if any(weights.perceptual):
        losses["perceptual"] = differentiate(style_loss(nets, target, weights=weights.perceptual), image)
    if any(weights.texture):
        mask, patches = picture.mask.detach(), Patches(**config.patches.model_dump())
        grid = patch_grid(target, mask, stream=batch.stream, patches=patches)
        losses["texture"] = differentiate(style_loss(nets, grid, weights=weights.texture), picture.foreground)
    return losses


@torch.no_grad()
def cgan_images(nets: Nets, causes: Causes) -> torch.Tensor:
    """(B,3,S,S) in [-1,1]: the frozen cGAN's images from the noise and the labels of factual causes."""
    images: torch.Tensor = nets.cgan(causes.shape.noise, causes.shape.label)
    return images.float()


def style_loss(nets: Nets, target: torch.Tensor, *, weights: Sequence[float]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Images -> weighted distance of grams to the target's, by layer.

    In float32: half precision loses their small differences.
    """
    with torch.no_grad():
        target_features = [maps.float() for maps in nets.features(target)]

    def loss(image: torch.Tensor) -> torch.Tensor:
        features = nets.features(image)
        with torch.autocast(nets.device.type, enabled=False):
            return style([maps.float() for maps in features], target_features, weights=weights)

    return loss


def measured_masks(ema: EMA[Generator], nets: Nets, *, fabric: "Fabric", seed: int) -> dict[str, float]:
    """How well the averaged generator's masks match silhouettes of their own class.

    `iou/own`, `iou/others` and `iou/nearest` with the true silhouettes, and `mask/mean`.
    """
    label = torch.arange(nets.biggan_config.classes).repeat_interleave(MASKS_PER_CLASS)
    cause = factual(label, prior=nets.prior, stream=torch_stream(seed, "silhouettes")).to(nets.device).shape
    with evaluating(ema.module, fabric=fabric) as average:
        mask = average.shape(cause)
        found = silhouette_iou(mask, cause.label, bank=_true_silhouettes(nets.biggan_config.image_size).to(nets.device))
    scores = {"iou/own": found.own, "iou/others": found.others, "iou/nearest": found.nearest}
    return scores | {"mask/mean": mask.mean().item()}


@lru_cache(maxsize=1)
def _true_silhouettes(image_size: int) -> torch.Tensor:
    """The true silhouettes of all classes; the same for every seed of training, so that runs can be compared."""
    return silhouette_bank(seed=0, per_class=SILHOUETTES_PER_CLASS, image_size=image_size)


def example_rows(generator: Generator, nets: Nets, *, seed: int) -> Rows:
    """One column for each class, at most ten: a factual picture and its parts, then a counterfactual and its parts."""
    assert isinstance(generator.shape, Shape)
    classes, prior = nets.biggan_config.classes, nets.prior
    label = torch.linspace(0, classes - 1, min(classes, COLUMNS)).round().long()
    stream = torch_stream(seed, "sheet")
    causes = factual(label, prior=prior, stream=stream).to(nets.device)
    cause = causes.shape
    rows = [("cGAN", nets.cgan(cause.noise, cause.label)), *_parts("factual", generator, causes)]
    rows.insert(2, ("pre-mask", generator.shape.net(cause.noise, cause.label)))
    mixed = counterfactual(
        shape=label, texture=label.roll(-3), background=label.roll(4), prior=prior, stream=stream
    ).to(nets.device)
    return [*rows, *_parts("counterfactual", generator, mixed)]


def _parts(name: str, generator: Generator, causes: Causes) -> Rows:
    picture = generator(causes)
    parts = (("mask", picture.mask * 2 - 1), ("foreground", picture.foreground), ("background", picture.background))
    return [(name, picture.image), *parts]
