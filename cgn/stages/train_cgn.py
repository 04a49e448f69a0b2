"""train_cgn: assets and data -> the counterfactual generative network, with sheets of its progress.

Decided here: the model that is handed on is the average of the generator's weights (the last weights where the decay is
0), with all that rebuilds it in the file's header; the training state is dropped once it is written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cgn.core.checkpoints import load_model, save_model
from cgn.core.devices import at_hand, fabric, fits
from cgn.core.metrics import MetricSink
from cgn.core.ranks import together
from cgn.core.roles import Input, OptionalInput, Output
from cgn.training.loop import STATE, Average, Schedule, Training
from cgn.training.phase import Objective

MODEL = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a track makes of its assets and data: the objective, and the facts that rebuild its generator.

    `fixed` tensors go into the model file beside the generator's own: nets that it draws with and does not train.
    """

    objective: Objective[Any]
    facts: Mapping[str, Any]
    fixed: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What train_cgn needs from a track. Everything here travels to other processes where `devices` is above 1."""

    seed: int
    accelerator: str
    devices: int
    precision: str
    batch_size: int
    remedy: str
    """What to lower in the parameters when a GPU's memory is too small."""
    schedule: Schedule
    ema_decay: float
    make: Callable[..., Made]
    """(assets=Path, data=Path or None, device=torch.device) -> objective and facts."""


def train_cgn(parts: Parts, *, assets: Input, model: Output, sink: MetricSink, data: OptionalInput = None) -> None:
    """Train from the checkpoint in `model` (or from the start) to the end; write model.safetensors and sheets/.

    `data` is what prepare made, for a track that trains on images; ImageNet's learns from its pretrained nets alone.
    """
    if (model / MODEL).is_file():
        _, facts = load_model(model / MODEL)  # finished by an earlier run of the same definition: only check it
        sink.summary(facts["losses"])
        (model / STATE).unlink(missing_ok=True)
        return
    at_hand(parts.accelerator, devices=parts.devices)  # refused here, before any process starts
    work = partial(_train, parts, assets=assets, data=data, model=model)
    together(work, processes=parts.devices, sink=sink)
    (model / STATE).unlink(missing_ok=True)


def _train(parts: Parts, sink: MetricSink, *, assets: Path, data: Path | None, model: Path) -> None:
    """In one process or in each of several: they hold the same weights, and the first one writes."""
    device = fabric(
        accelerator=parts.accelerator,
        precision=parts.precision,
        devices=parts.devices,
    )
    with fits(parts.batch_size, remedy=parts.remedy):
        made = parts.make(assets=assets, data=data, device=device.device)
        average = Average(made.objective.generator, decay=parts.ema_decay)
        training = Training(
            fabric=device, objective=made.objective, average=average, seed=parts.seed, schedule=parts.schedule
        )
        start = _started(training, model=model, sink=sink)
        final = start | training.run(model, sink=sink)
    if not device.is_global_zero:
        return
    sink.summary(final)
    # Last: a model file means a finished run.
    tensors = {**average.module.state_dict(), **made.fixed}
    save_model(model / MODEL, tensors, facts={**made.facts, "losses": final})


def _started(training: Training[Any], *, model: Path, sink: MetricSink) -> dict[str, float]:
    """What is measured before the first update, also by a run that continues: it begins from the same weights."""
    if training.objective.measure is None or not training.fabric.is_global_zero:
        return {}
    measured = training.measured()
    if not (model / STATE).is_file():
        sink.rewind(-1)
        sink.log(measured, step=0)
    return {f"start/{name}": value for name, value in measured.items()}
