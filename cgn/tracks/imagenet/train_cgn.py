"""imagenet train_cgn: the cell that fills in what train_cgn needs. It reads pretrained nets, no images."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from cgn.config.imagenet.train_cgn import Rates, TrainCgn
from cgn.core.heap import keep_freed_memory
from cgn.core.seeding import derive
from cgn.losses import Patches
from cgn.mechanisms import Generator, Prior, Shape
from cgn.nets.biggan_folded import fold
from cgn.stages.train_cgn import Made, Parts
from cgn.tracks.imagenet.assets import open_nets
from cgn.tracks.imagenet.mechanisms import copies, facts, net_of, saliency_tensors
from cgn.tracks.imagenet.objective import Distilling, example_rows
from cgn.tracks.imagenet.silhouettes import mask_iou
from cgn.training.loop import Schedule
from cgn.training.phase import Mover, Objective, Phase, adam, linear_decay

Net = TypeVar("Net", bound=nn.Module)
COMPARED = ("iou/own",)
"""Of the final values, those that go to metrics.json; losses are curves."""
REMEDY = (
    "lower train_cgn.batch_size (and raise train_cgn.batches_per_update by as much), or set train_cgn.checkpointing "
    "to blocks"
)


def parts(params: TrainCgn, *, seed: int, variant: str) -> Parts:
    """Parameters of a variant -> what the stage needs."""
    seed = derive(seed, "train_cgn")
    return Parts(
        seed=seed,
        accelerator=params.accelerator,
        devices=params.devices,
        precision=params.precision,
        batch_size=params.batch_size,
        remedy=REMEDY,
        schedule=Schedule(updates=params.updates, **asdict(params.intervals)),
        ema_decay=params.ema_decay,
        make=partial(_make, params, seed=seed, variant=variant),
    )


def _make(params: TrainCgn, *, seed: int, variant: str, assets: Path, data: Path | None, device: torch.device) -> Made:
    del data  # nothing of it is needed: the pretrained nets are all that is learned from
    if device.type == "cpu":
        keep_freed_memory()
    nets = open_nets(assets, nets=params.nets)
    table = nets.biggan.table
    model = copies(nets.biggan, saliency=nets.saliency, truncation=params.truncation, recompute=params.checkpointing)
    model = _placed(model, device)
    _placed(nets.saliency, device)
    cgan = fold(nets.biggan, truncation=params.truncation).to(device)
    assert isinstance(model.shape, Shape)
    assert model.shape.segment is not None
    prior = Prior(noise_size=table.noise_size, truncation=params.truncation)
    distilling = Distilling(
        generator=model,
        cgan=cgan,
        segment=model.shape.segment,
        features=_placed(nets.features, device),
        losses=params.losses,
        patches=Patches(**asdict(params.patches)),
        batch_size=params.batch_size,
        prior=prior,
        classes=table.classes,
        seed=seed,
        device=device,
    )
    measured = partial(mask_iou, image_size=table.image_size, prior=prior, seed=seed)
    objective = Objective(
        generator=model,
        movers=_movers(params.rates, model=model, updates=params.updates),
        phases=[Phase(name="mechanisms", losses=distilling.weighted, movers=("shape", "texture", "background"))],
        draw=distilling.draw,
        batches_per_update=params.batches_per_update,
        begin=distilling.begin,
        sheet=partial(example_rows, cgan=cgan, classes=table.classes, prior=prior, seed=seed),
        measure=measured if params.nets == "miniature" else None,
    )
    told = facts(variant=variant, table=table, widths=nets.widths)
    return Made(objective=objective, facts=told, fixed=saliency_tensors(nets.saliency))


def _placed(net: Net, device: torch.device) -> Net:
    """On its device, in eval mode, weights channels last: as BigGAN's maps lie, and a fifth faster on a CPU."""
    placed: Net = net.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return placed


def _movers(rates: Rates, *, model: Generator, updates: int) -> dict[str, Mover]:
    factor = linear_decay(updates=updates, fraction=rates.decay_fraction)
    roles: dict[str, tuple[nn.Module, float]] = {
        "shape": (model.shape, rates.shape),
        "texture": (model.texture, rates.texture),
        "background": (model.background, rates.background),
    }
    betas = (rates.beta1, rates.beta2)
    return {
        name: Mover(module=net_of(role), optimizer=adam(net_of(role), rate=rate, betas=betas), factor=factor)
        for name, (role, rate) in roles.items()
    }
