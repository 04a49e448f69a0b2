"""Train the ImageNet counterfactual generative network (Sauer & Geiger, ICLR 2021, section 3.2).

Three mechanisms start as one pretrained cGAN, BigGAN, and are driven apart: the composite is to look like the cGAN's
image, the mask to be binary and of a plausible size, the foreground like patches from inside the object, and the
background not salient. It reads pretrained nets, no images. Each spectral norm makes its power iteration once an update
rather than once a batch: between two steps the weights stand still, so the outcome depends neither on the number of
processes nor on what is computed again in the backward pass. Batch norms keep the precomputed statistics (published).
Shapes: B batch, S image size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from cgn.config.imagenet.train_cgn import TrainCgn
from cgn.core.arguments import Input, Output
from cgn.core.checkpoints import save_model
from cgn.core.devices import keep_freed_memory, open_fabric
from cgn.core.launch import launch
from cgn.core.metrics import MetricSink
from cgn.core.seeding import derive, torch_stream
from cgn.imagenet.assets import open_nets
from cgn.imagenet.generator import copies, facts, net_of, saliency_tensors
from cgn.imagenet.silhouettes import mask_iou
from cgn.losses import Patches, binary_entropy, l1, patch_grid, saliency, size_hinge, style
from cgn.mechanisms import Causes, Generator, Picture, Prior, Shape, counterfactual, factual
from cgn.nets.biggan import Table
from cgn.nets.biggan_folded import fold
from cgn.nets.spectral import Spectral
from cgn.nets.u2net import U2Net, Widths
from cgn.training import EMA, MODEL, STATE, Rows, Training, adam, at_rest, finished, linear_decay

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Net = TypeVar("Net", bound=nn.Module)
COMPARED = ("iou/own",)
"""Of the final values, those that go to metrics.json; losses are curves."""
REMEDY = (
    "lower train_cgn.batch_size (and raise train_cgn.batches_per_update by as much), or set train_cgn.checkpointing "
    "to blocks"
)
COLUMNS = 10
"""Of a sheet, where there are that many classes."""


def train_cgn(config: TrainCgn, *, seed: int, variant: str, assets: Input, model: Output, sink: MetricSink) -> None:
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
        sink=sink,
    )
    (model / STATE).unlink(missing_ok=True)


def train(config: TrainCgn, sink: MetricSink, *, seed: int, variant: str, assets: Path, model: Path) -> None:
    """In each process: they hold the same weights, and the first one writes."""
    fabric = open_fabric(accelerator=config.accelerator, precision=config.precision, devices=config.devices)
    nets = build_nets(config, assets, device=fabric.device)
    generator = nets.generator
    ema = EMA(generator, decay=config.ema_decay)
    mechanisms = {role: net_of(getattr(generator, role)) for role in ("shape", "texture", "background")}
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
    if start:
        training.log_start(start)
    for update in training:
        settle_norms(generator)
        for number in training.batches():
            with fabric.autocast():
                batch = draw_batch(config, nets, update, number, seed=seed)
            with fabric.autocast():
                losses = batch_losses(config, nets, batch)
            training.backward(losses)
        rate_factor = linear_decay(update, updates=config.updates, fraction=config.rates.decay_fraction)
        training.step("shape", "texture", "background", rate_factor=rate_factor)
        ema.follow(update)
        if training.sheet_due:
            with at_rest(ema.module, fabric=fabric) as average:
                rows = example_rows(average, nets, seed=seed)
            training.sheet(rows)
            if measures_masks:
                training.log(measured_masks(ema, nets, fabric=fabric, seed=seed))

    if fabric.is_global_zero:
        values = {f"start/{name}": value for name, value in start.items()} | training.values
        sink.summary(values)
        # Last: a model file means a finished run.
        about = {**facts(variant=variant, table=nets.table, widths=nets.widths), "losses": values}
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
    table: Table
    widths: Widths
    """Layers of each BigGAN and of the saliency net."""

    @property
    def device(self) -> torch.device:
        """Of all of them."""
        return next(self.generator.parameters()).device


def build_nets(config: TrainCgn, assets: Path, *, device: torch.device) -> Nets:
    """The pretrained nets and three copies of BigGAN, on a device. Raises ArtifactError naming a file that is wrong."""
    if device.type == "cpu":
        keep_freed_memory()
    opened = open_nets(assets, nets=config.nets)
    table, truncation = opened.biggan.table, config.truncation
    generator = copies(opened.biggan, saliency=opened.saliency, truncation=truncation, recompute=config.checkpointing)
    return Nets(
        generator=_placed(generator, device),
        saliency=_placed(opened.saliency, device),
        cgan=fold(opened.biggan, truncation=truncation).to(device),
        features=_placed(opened.features, device),
        prior=Prior(noise_size=table.noise_size, truncation=truncation),
        table=table,
        widths=opened.widths,
    )


def _placed(net: Net, device: torch.device) -> Net:
    """On its device, in eval mode, weights channels last: as BigGAN's maps lie, and a fifth faster on a CPU."""
    placed: Net = net.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return placed


def settle_norms(generator: Generator) -> None:
    """Let the spectral norms follow the last step."""
    for module in generator.modules():
        if isinstance(module, Spectral):
            module.settle(1)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Factual pictures, what the frozen cGAN draws from the same causes, and patches from inside its objects.

    `target` and `grid` (B,3,S,S) are None where no loss compares with them.
    """

    picture: Picture
    target: torch.Tensor | None
    grid: torch.Tensor | None


def draw_batch(config: TrainCgn, nets: Nets, update: int, number: int, *, seed: int) -> Batch:
    """Factual pictures, each of a class of its own draw: a pure function of the weights and (seed, update, number)."""
    stream = torch_stream(seed, "batch", update, number)
    label = torch.randint(nets.table.classes, (config.batch_size,), generator=stream)
    causes = factual(label, prior=nets.prior, stream=stream).to(nets.device)
    picture = nets.generator(causes)
    weights = config.losses
    target = grid = None
    if weights.l1 or any(weights.perceptual) or any(weights.texture):
        with torch.no_grad():
            target = nets.cgan(causes.shape.noise, causes.shape.label).float()
    if any(weights.texture):
        assert target is not None
        grid = patch_grid(target, picture.mask.detach(), stream=stream, patches=Patches(**asdict(config.patches)))
    return Batch(picture=picture, target=target, grid=grid)


def batch_losses(config: TrainCgn, nets: Nets, batch: Batch) -> dict[str, torch.Tensor]:
    """Weighted losses, each a mean over the batch. A weight of 0 leaves out its loss, and the nets it alone calls."""
    weights, picture = config.losses, batch.picture
    losses: dict[str, torch.Tensor] = {}
    if weights.l1:
        assert batch.target is not None
        losses["l1"] = weights.l1 * l1(picture.image, batch.target)
    if any(weights.perceptual):
        assert batch.target is not None
        losses["perceptual"] = style_loss(nets, picture.image, batch.target, weights=weights.perceptual)
    if weights.binary:
        losses["binary"] = weights.binary * binary_entropy(picture.mask)
    if (size := weights.mask_size).weight:
        hinge = size_hinge(picture.mask, smallest=size.smallest, largest=size.largest)
        losses["mask_size"] = size.weight * hinge.mean()
    if any(weights.texture):
        assert batch.grid is not None
        losses["texture"] = style_loss(nets, picture.foreground, batch.grid, weights=weights.texture)
    if weights.background:
        shape = nets.generator.shape
        assert isinstance(shape, Shape)
        assert shape.segment is not None
        losses["background"] = weights.background * saliency(shape.segment(picture.background)).mean()
    return losses


def style_loss(nets: Nets, image: torch.Tensor, target: torch.Tensor, *, weights: Sequence[float]) -> torch.Tensor:
    """Weighted distance of grams by layer, in float32: half precision loses their small differences."""
    with torch.no_grad():
        wanted = nets.features(target)
    found = nets.features(image)
    with torch.autocast(nets.device.type, enabled=False):
        return style([maps.float() for maps in found], [maps.float() for maps in wanted], weights=weights)


def measured_masks(ema: EMA[Generator], nets: Nets, *, fabric: "Fabric", seed: int) -> Mapping[str, float]:
    """How far the averaged generator's masks are silhouettes of their class."""
    with at_rest(ema.module, fabric=fabric) as average:
        return mask_iou(average, image_size=nets.table.image_size, prior=nets.prior, seed=seed)


def example_rows(generator: Generator, nets: Nets, *, seed: int) -> Rows:
    """One column a class (ten of them at most): a factual picture and its parts, then a counterfactual and its own."""
    assert isinstance(generator.shape, Shape)
    classes, prior = nets.table.classes, nets.prior
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
