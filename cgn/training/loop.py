"""The loop that runs any list of phases, on Lightning Fabric, and can be killed at any moment.

Decided here: all randomness of update n is a function of (seed, n), so a checkpoint holds weights, optimizer states and
n, and a continued run equals an unbroken one to the bit on a CPU. A module that a phase does not move is frozen during
it, which halves the cost of the generator's step. Losses are checked before they move a weight. Of N processes, the
r-th takes batches r, r + N, ... of each update, gradients are summed over all, and the first one alone writes; so how
many there are changes nothing but the rounding.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from cgn.core.checkpoints import WRONG_FACTS, load_state, save_state
from cgn.core.errors import ArtifactError
from cgn.core.images import save_picture, sheet
from cgn.core.metrics import MetricSink, finite
from cgn.core.progress import Progress, progress, say
from cgn.core.seeding import derive, torch_stream
from cgn.training.phase import Drawn, Mover, Objective, Phase

if TYPE_CHECKING:
    from lightning_fabric import Fabric

STATE = "state.pt"
Seen = TypeVar("Seen")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long, and how often what happens; all in updates."""

    updates: int
    log: int
    checkpoint: int
    sheet: int


class Average:
    """A running average of a module's weights (buffers are copied); with decay 0 it is the module itself."""

    def __init__(self, module: torch.nn.Module, *, decay: float) -> None:
        self.source = module
        self.decay = decay
        self.module = copy.deepcopy(module).requires_grad_(False) if decay else module

    @torch.no_grad()
    def follow(self, update: int) -> None:
        """Take in the weights after `update`; early on the decay is lower, so that the start is forgotten."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + update) / (10 + update))
        torch._foreach_lerp_(list(self.module.parameters()), list(self.source.parameters()), 1 - decay)
        for kept, new in zip(self.module.buffers(), self.source.buffers(), strict=True):
            kept.copy_(new)


@dataclass(frozen=True, kw_only=True)
class Training(Generic[Drawn]):
    """A training run: an objective, its seed and schedule, and the average of the generator that will be saved."""

    fabric: "Fabric"
    objective: Objective[Drawn]
    average: Average
    seed: int
    schedule: Schedule

    def run(self, folder: Path, *, sink: MetricSink) -> dict[str, float]:
        """Train to the end, from the checkpoint in `folder` where there is one; what the last update showed."""
        start = self._resume(folder, sink=sink)
        values: dict[str, float] = {}
        total, first = self.schedule.updates, self.fabric.is_global_zero
        batches = self.objective.batches_per_update
        unit = "updates" if batches == 1 else f"batches ({batches:,} an update)"
        with progress(total=total * batches, initial=start * batches, unit=unit, shown=first) as bar:
            for update in range(start, total):
                values = self.update(update, bar=bar)
                done = update + 1
                last = done == total
                if not first:
                    continue
                if done % self.schedule.sheet == 0 or last:
                    sink.picture(self._draw_sheet(folder, update=done))
                    losses = ", ".join(f"{name.removeprefix('loss/')} {value:.3f}" for name, value in values.items())
                    say(f"update {done:,}/{total:,}: {losses}")
                    values |= self.measured()
                if done % self.schedule.log == 0 or last:
                    sink.log(values, step=done)
                if done % self.schedule.checkpoint == 0 and not last:
                    self.save(folder, update=done)
        self._check(self.schedule.updates)
        return values

    def measured(self) -> dict[str, float]:
        """What the objective measures of the averaged generator as it is now."""
        measure = self.objective.measure
        return {} if measure is None else dict(self._resting(measure))

    def _check(self, update: int) -> None:
        modules = {"average": self.average.module, **{n: m.module for n, m in self.objective.movers.items()}}
        for name, module in modules.items():
            total = torch.stack([tensor.detach().float().sum() for tensor in module.state_dict().values()]).sum()
            finite({f"the sum of the weights of {name}": float(total)}, update=update)

    def update(self, update: int, *, bar: Progress) -> dict[str, float]:
        """One update through all phases; `bar` counts its batches.

        Raises TrainingError before a loss that is not a number moves a weight.
        """
        self.objective.begin(update)
        values: dict[str, float] = {}
        drawn: Drawn | None = None
        for phase in self.objective.phases:
            moved = [self.objective.movers[name] for name in phase.movers]
            for mover in moved:
                mover.optimizer.zero_grad(set_to_none=True)
            told: dict[str, torch.Tensor] = {}
            for batch in range(self.fabric.global_rank, self.objective.batches_per_update, self.fabric.world_size):
                if phase is self.objective.phases[0]:
                    drawn = self._draw(update, batch=batch)
                assert drawn is not None
                with self._only(phase):
                    with self.fabric.autocast():
                        losses = phase.losses(drawn)
                    self.fabric.backward(torch.stack(list(losses.values())).sum())
                told = {name: loss.detach() + told.get(name, 0) for name, loss in losses.items()}
                if phase is self.objective.phases[-1]:
                    bar.update(min(self.fabric.world_size, self.objective.batches_per_update - batch))
            values |= self._told(told, update=update)
            for mover in moved:
                self._step(mover, update=update)
        self.average.follow(update)
        return values

    def _draw(self, update: int, *, batch: int) -> Drawn:
        place = (batch,) if batch else ()  # the first batch's stream has the name it had when there was one only
        torch.manual_seed(derive(self.seed, "global", update, *place))  # dropout draws from the global stream
        with self.fabric.autocast():
            return self.objective.draw(update, batch)

    def _told(self, sums: Mapping[str, torch.Tensor], *, update: int) -> dict[str, float]:
        """Each loss's mean over the update's batches, once it is known to be a number in every process."""
        total = torch.stack(list(sums.values())).float()
        if self.fabric.world_size > 1:
            self.fabric.all_reduce(total, reduce_op="sum")  # in place
        means = (total / self.objective.batches_per_update).tolist()
        named = {f"loss/{name}": value for name, value in zip(sums, means, strict=True)}
        finite(named, update=update + 1)
        return named

    def _step(self, mover: Mover, *, update: int) -> None:
        for group in mover.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * mover.factor(update)
            if self.fabric.world_size > 1:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self.fabric.all_reduce(parameter.grad, reduce_op="sum")
        mover.optimizer.step()

    @contextmanager
    def _only(self, phase: Phase[Drawn]) -> Iterator[None]:
        frozen = [mover.module for name, mover in self.objective.movers.items() if name not in phase.movers]
        for module in frozen:
            module.requires_grad_(False)
        try:
            yield
        finally:
            for module in frozen:
                module.requires_grad_(True)

    def _draw_sheet(self, folder: Path, *, update: int) -> Path:
        path = folder / "sheets" / f"{update:06d}.png"
        save_picture(sheet(self._resting(self.objective.sheet)), path)
        return path

    def _resting(self, look: Callable[[torch.nn.Module], Seen]) -> Seen:
        """`look` at the averaged generator in eval mode: that moves neither its statistics nor its mode."""
        module = self.average.module
        training = module.training
        with torch.no_grad(), self.fabric.autocast():
            seen = look(module.eval())
        module.train(training)
        return seen

    def save(self, folder: Path, *, update: int) -> None:
        """Write the state after `update` updates. Raises TrainingError rather than keep weights that are no numbers."""
        self._check(update)
        state: dict[str, Any] = {"update": update, "average": self.average.module.state_dict()}
        for name, mover in self.objective.movers.items():
            state[name] = {"module": mover.module.state_dict(), "optimizer": mover.optimizer.state_dict()}
        save_state(folder / STATE, state)

    def _resume(self, folder: Path, *, sink: MetricSink) -> int:
        if not (folder / STATE).is_file():
            sink.rewind(0)
            return 0
        state = load_state(folder / STATE)
        try:
            for name, mover in self.objective.movers.items():
                mover.module.load_state_dict(state[name]["module"])
                mover.optimizer.load_state_dict(state[name]["optimizer"])
            self.average.module.load_state_dict(state["average"])
            done = int(state["update"])
        except WRONG_FACTS as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ArtifactError(
                f"the checkpoint {folder / STATE} is of another training ({reason}): remove it and run the same "
                "command again"
            ) from None
        sink.rewind(done)
        if self.fabric.is_global_zero:
            say(f"continues after update {done:,} of {self.schedule.updates:,}, from {folder / STATE}")
        return done


def batch_indices(update: int, *, count: int, batch_size: int, seed: int) -> torch.Tensor:
    """The (batch_size,) indices of a batch: an epoch is a permutation of `count`, its incomplete end left out."""
    per_epoch = count // batch_size
    epoch, place = divmod(update, per_epoch)
    return _permutation(seed, epoch, count)[place * batch_size : (place + 1) * batch_size]


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> torch.Tensor:
    return torch.randperm(count, generator=torch_stream(seed, "epoch", epoch))
