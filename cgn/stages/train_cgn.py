"""train_cgn: assets and data -> the counterfactual generative network, with sheets of its progress.

Decided here: the model that is handed on is the average of the generator's weights (the last weights where the decay is
0), with all that rebuilds it in the file's header; the training state is dropped once it is written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cgn.core.checkpoints import load_model, save_model
from cgn.core.devices import fabric
from cgn.core.metrics import MetricSink
from cgn.core.roles import Input, Output
from cgn.training.loop import STATE, Average, Schedule, Training
from cgn.training.phase import Objective

MODEL = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a track makes of its assets and data: the objective, and the facts that rebuild its generator."""

    objective: Objective[Any]
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What train_cgn needs from a track."""

    seed: int
    accelerator: str
    precision: str
    cpu_threads: int | None
    schedule: Schedule
    ema_decay: float
    make: Callable[..., Made]
    """(assets=Path, data=Path, device=torch.device) -> objective and facts."""


def train_cgn(parts: Parts, *, assets: Input, data: Input, model: Output, sink: MetricSink) -> None:
    """Train from the checkpoint in `model` (or from the start) to the end; write model.safetensors and sheets/."""
    if (model / MODEL).is_file():
        _, facts = load_model(model / MODEL)  # finished by an earlier run of the same definition: only check it
        sink.summary(facts["losses"])
        (model / STATE).unlink(missing_ok=True)
        return
    device = fabric(accelerator=parts.accelerator, precision=parts.precision, cpu_threads=parts.cpu_threads)
    made = parts.make(assets=assets, data=data, device=device.device)
    average = Average(made.objective.generator, decay=parts.ema_decay)
    training = Training(
        fabric=device, objective=made.objective, average=average, seed=parts.seed, schedule=parts.schedule
    )
    final = training.run(model, sink=sink)
    sink.summary(final)
    # Last: a model file means a finished run.
    save_model(model / MODEL, average.module.state_dict(), facts={**made.facts, "losses": final})
    (model / STATE).unlink(missing_ok=True)
