"""The loop of every training: its checkpoints, log lines and example sheets. It can be stopped at any moment.

    training = Training(folder, fabric=fabric, sink=sink, seed=seed, updates=1800, modules={...}, optimizers={...}, ...)
    for update in training:             # from the last checkpoint (or 0) to the last update
        losses = ...                    # the algorithm is written out by the verb that trains
        training.backward(losses)
        training.step("generator", rate_factor=linear_decay(update, ...))

Update n is a function of (seed, n). A checkpoint therefore holds only weights, optimizer states and n, and on a CPU a
resumed run equals an uninterrupted one to the bit. Losses and weights are checked to be finite before they are saved.
All processes hold the same weights; the first one writes. An update may have several batches: process r of N takes
batches r, r + N, ..., and their gradients are summed, as published for ImageNet, whose loss weights depend on it. So
the number of processes changes only the rounding. A classifier's gradients are averaged over processes by Fabric.
"""

import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from cgn.core.checkpoints import WRONG_FACTS, load_model, load_state, save_state
from cgn.core.devices import refuse_unshared
from cgn.core.errors import ArtifactError
from cgn.core.files import read_object
from cgn.core.images import save_image, sheet
from cgn.core.metrics import MetricSink, finite
from cgn.core.parallel import concurrently
from cgn.core.progress import progress, say
from cgn.core.seeding import derive, torch_stream

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MODEL, TRAINING, STATE = "model.safetensors", "training.json", "state.pt"
"""Files in a training's folder: the network, written last; a classifier's values; the checkpoint, until the end."""
Rows = Sequence[tuple[str, torch.Tensor]]
"""The named rows of a sheet of examples: (B,1 or 3,H,W) images in [-1,1]."""


class Training:
    """One training run in `folder`, iterable over its updates; `update` counts those that are done."""

    def __init__(
        self,
        folder: Path,
        *,
        fabric: "Fabric",
        sink: MetricSink,
        seed: int,
        updates: int,
        modules: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        log_every: int,
        checkpoint_every: int,
        sheet_every: int = 0,
        batches_per_update: int = 1,
        epoch_ends: Sequence[int] = (),
    ) -> None:
        """Continue from the checkpoint in `folder`, if it has one; `modules` must be on their device already.

        `epoch_ends`: the number of updates after which each epoch ends, ascending; the last one is `updates`. Each end
        of an epoch also logs a line and writes a checkpoint. Raises ArtifactError for a checkpoint that is broken or of
        another training.
        """
        self.folder, self.fabric, self.sink, self.seed = folder, fabric, sink, seed
        self.updates, self.batches_per_update, self.epoch_ends = updates, batches_per_update, epoch_ends
        self.modules, self.optimizers = modules, optimizers
        self.log_every, self.checkpoint_every, self.sheet_every = log_every, checkpoint_every, sheet_every
        self.update, self.seconds, self.means = 0, 0.0, RunningMeans(fabric)
        self.values: dict[str, float] = {}  # of the last update: its losses, and what else its line of the log shows
        self._sums: dict[str, torch.Tensor] = {}
        if fabric.world_size > 1:
            refuse_unshared(folder, fabric=fabric)
        self._resume()

    def __iter__(self) -> Iterator[int]:
        """Yield each update's number; after the update, log a line and write a checkpoint where they are due."""
        batches, first = self.batches_per_update, self.fabric.is_global_zero
        unit = "updates" if batches == 1 else f"batches ({batches:,} an update)"
        self.sink.rewind(self.update)
        started, self._logged = time.monotonic() - self.seconds, (time.monotonic(), self.means.images)
        with progress(total=self.updates * batches, initial=self.update * batches, unit=unit, shown=first) as self._bar:
            for update in range(self.update, self.updates):
                self.values = {}
                if update in self.epoch_ends:
                    self.means.begin_epoch()
                self.seed_global()
                yield update
                self.update = update + 1
                if batches == 1:
                    self._bar.update(1)
                self.seconds = time.monotonic() - started
                self._record()
        self._check_weights()

    def seed_global(self, *place: int) -> None:
        """Seed torch's global stream, from which dropout draws, for this update (and a batch or process in it)."""
        torch.manual_seed(derive(self.seed, "global", self.update, *place))

    def batches(self) -> Iterator[int]:
        """The numbers of this process's batches of the update; their gradients are summed."""
        ranks = self.fabric.world_size
        for batch in range(self.fabric.global_rank, self.batches_per_update, ranks):
            if batch:  # the first one has the update's own stream
                self.seed_global(batch)
            yield batch
            if self.batches_per_update > 1:
                self._bar.update(min(ranks, self.batches_per_update - batch))

    def backward(self, losses: Mapping[str, torch.Tensor]) -> None:
        """Add the gradients of the sum of a batch's weighted losses, which are scalars."""
        self.fabric.backward(self.total(losses))

    def total(self, losses: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The sum of weighted losses, which are scalars; each is logged, and checked before the next step."""
        self._sums |= {name: loss.detach() + self._sums.get(name, 0) for name, loss in losses.items()}
        return torch.stack(list(losses.values())).sum()

    def step(self, *names: str, rate_factor: float) -> None:
        """Step these optimizers, at `rate_factor` times their initial learning rates, and clear their gradients.

        Raises TrainingError, in every process, before a loss that is not a finite number moves a weight.
        """
        self.values |= self._losses()
        optimizers = [self.optimizers[name] for name in names]
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = group["initial_lr"] * rate_factor
            if self.fabric.world_size > 1:
                self._sum_gradients(group["params"])
        concurrently(*(optimizer.step for optimizer in optimizers), device=self.fabric.device)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum the gradients over all processes, in one message."""
        if gradients := [parameter.grad for parameter in parameters if parameter.grad is not None]:
            total = torch.cat([gradient.flatten() for gradient in gradients])
            self.fabric.all_reduce(total, reduce_op="sum")  # in place
            for gradient, part in zip(gradients, torch.split(total, [g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def log_start(self, values: Mapping[str, float]) -> None:
        """Log at step 0 what is measured before the first update; a resumed run does not log it again."""
        if self.starts:
            self.sink.rewind(-1)
            self.sink.log(values, step=0)

    @property
    def starts(self) -> bool:
        """Whether this process writes what there is before the first update; a resumed run has written it already."""
        return self.fabric.is_global_zero and self.update == 0

    @property
    def sheet_due(self) -> bool:
        """Whether this process draws a sheet of examples at the end of this update."""
        done = self.update + 1
        return self.fabric.is_global_zero and (done % self.sheet_every == 0 or done == self.updates)

    def sheet(self, rows: Rows, *, start: bool = False) -> None:
        """Save labelled rows of images in sheets/, and print a line of progress. `start`: before the first update."""
        done = 0 if start else self.update + 1
        path = self.folder / "sheets" / f"{done:06d}.png"
        save_image(sheet(rows), path)
        self.sink.picture(path)
        losses = ", ".join(f"{name.removeprefix('loss/')} {value:.3f}" for name, value in self.values.items())
        say(f"update {done:,}/{self.updates:,}: {losses or 'the untrained network is drawn'}")

    @property
    def epoch(self) -> int:
        """The number (0, 1, ...) of the epoch that the next update begins in."""
        return bisect_right(self.epoch_ends, self.update)

    @property
    def pace(self) -> dict[str, float]:
        """How fast the whole training was, over all processes, checkpoints included."""
        return {"images_per_second": self.means.images / max(self.seconds, 1e-9), "seconds": self.seconds}

    def _losses(self) -> dict[str, float]:
        """Each loss's mean over the update's batches, once it is known to be finite."""
        total = torch.stack(list(self._sums.values())).float()
        self.fabric.all_reduce(total, reduce_op="sum")  # in place
        means = (total / self.batches_per_update).tolist()
        losses = {f"loss/{name}": value for name, value in zip(self._sums, means, strict=True)}
        self._sums = {}
        finite(losses, update=self.update + 1)
        return losses

    def _record(self) -> None:
        """Write the log's line, the checkpoint and the epoch's line where they are due."""
        epoch_ends = self.update in self.epoch_ends
        ends = epoch_ends or self.update == self.updates
        if ends or self.update % self.log_every == 0:
            line = self.values | self.means.line(update=self.update)
            if self.means.names:
                started, images = self._logged
                speed = (self.means.images - images) / max(time.monotonic() - started, 1e-9)
                (rate, *_) = (group["lr"] for optimizer in self.optimizers.values() for group in optimizer.param_groups)
                line |= {"learning_rate": rate, "images_per_second": round(speed, 1)}
            self.sink.log(line, step=self.update)
            self._logged = (time.monotonic(), self.means.images)
        if ends or self.update % self.checkpoint_every == 0:
            self.save()
        if epoch_ends and self.fabric.is_global_zero:
            shown = ", ".join(f"{name} {value:.3f}" for name, value in self.means.epoch().items())
            say(f"epoch {self.epoch}/{len(self.epoch_ends)}: {shown}, {self.pace['images_per_second']:,.0f} images/s")

    def _check_weights(self) -> None:
        for name, module in self.modules.items():
            weights = module.state_dict()
            sums = torch.stack([tensor.detach().float().sum() for tensor in weights.values()]).tolist()
            finite({f"{name}.{key}": value for key, value in zip(weights, sums, strict=True)}, update=self.update)

    def save(self) -> None:
        """Write the checkpoint. Raises TrainingError if a weight is not finite."""
        self._check_weights()
        state = {
            "update": self.update,
            "seconds": self.seconds,
            "values": self.values,
            "means": self.means.state_dict(update=self.update),
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }
        if self.fabric.is_global_zero:
            save_state(self.folder / STATE, state)

    def _resume(self) -> None:
        if not (path := self.folder / STATE).is_file():
            return
        state = load_state(path)
        try:
            for name, module in self.modules.items():
                module.load_state_dict(state["modules"][name])
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])
            self.means.load_state_dict(state["means"])
            self.values, self.seconds = dict(state["values"]), float(state["seconds"])
            self.update = int(state["update"])
        except WRONG_FACTS as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ArtifactError(
                f"the checkpoint {path} is of another training ({reason}): remove it and run the same command again"
            ) from None
        if self.fabric.is_global_zero:
            say(f"continues after update {self.update:,} of {self.updates:,}, from {path}")


class RunningMeans:
    """A classifier's training losses and accuracies as means over images: since the last log line, and of an epoch.

    Values stay on the device until a line is logged or saved, so that a GPU does not wait for them. They are averaged
    over processes before they are checked, so that all processes stop together at a value that is not finite.
    """

    def __init__(self, fabric: "Fabric") -> None:
        self.fabric = fabric
        self.names: tuple[str, ...] = ()
        self.images = 0  # of all updates and processes
        self.unreadable: dict[str, None] = {}
        self._lines: list[torch.Tensor] = []  # (M+1,) for each update since the last line of the log, images last
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Start the means of a new epoch."""
        self._sums, self._summed = torch.zeros(0, dtype=torch.float64), 0.0  # (M,) over so many images

    def add(self, values: Mapping[str, torch.Tensor], *, images: int, unreadable: Sequence[str] = ()) -> None:
        """Add an update's scalars, which are means over its `images`; the names must be the same each time.

        `unreadable`: a sentence for each image that was replaced by the next one.
        """
        self.names = tuple(values)
        count = next(iter(values.values())).new_full((), images, dtype=torch.float64)  # on the device: no waiting
        self._lines.append(torch.stack([value.detach().double() for value in (*values.values(), count)]))
        self.images += images * self.fabric.world_size
        for sentence in unreadable:
            if sentence not in self.unreadable:
                say(f"{sentence}; the next image is used instead")
            self.unreadable[sentence] = None

    def line(self, *, update: int) -> dict[str, float]:
        """Means since the last line; empty if no values were added. Raises TrainingError for NaN or infinity."""
        if not self.names:
            return {}
        rows = self._checked(update)
        self._lines = []
        sums, summed = (rows[:, :-1] * rows[:, -1:]).sum(0), float(rows[:, -1].sum())
        self._sums, self._summed = sums + (self._sums if len(self._sums) else 0), self._summed + summed
        return dict(zip(self.names, (sums / summed).tolist(), strict=True))

    def epoch(self) -> dict[str, float]:
        """Means from the epoch's start to the last line of the log."""
        return dict(zip(self.names, (self._sums / max(self._summed, 1.0)).tolist(), strict=True))

    def _checked(self, update: int) -> torch.Tensor:
        """(U,M+1) of the updates since the last line, means over processes."""
        if not self._lines:
            return torch.zeros((0, len(self.names) + 1), dtype=torch.float64)
        rows = cast(torch.Tensor, self.fabric.all_reduce(torch.stack(self._lines), reduce_op="mean")).cpu()
        for place, row in enumerate(rows[:, :-1].tolist()):
            finite(dict(zip(self.names, row, strict=True)), update=update - len(rows) + place + 1)
        return rows

    def state_dict(self, *, update: int) -> dict[str, Any]:
        """The values for a checkpoint. Raises TrainingError if one is not finite."""
        lines, everyone = self._checked(update), [tuple(self.unreadable)] * self.fabric.world_size
        if self.fabric.world_size > 1:
            torch.distributed.all_gather_object(everyone, tuple(self.unreadable))
        self.unreadable = dict.fromkeys(sorted({sentence for part in everyone for sentence in part}))
        state = {"names": list(self.names), "images": self.images, "unreadable": list(self.unreadable)}
        return {**state, "lines": lines, "sums": self._sums, "summed": self._summed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.names, self.unreadable = tuple(state["names"]), dict.fromkeys(state["unreadable"])
        self._lines = list(state["lines"].to(self.fabric.device))
        self._sums, self._summed, self.images = state["sums"], float(state["summed"]), int(state["images"])


def batch_indices(update: int, *, count: int, batch_size: int, seed: int) -> torch.Tensor:
    """The (batch_size,) indices of a batch: an epoch is a permutation of `count` without its last incomplete batch."""
    epoch, place = divmod(update, count // batch_size)
    return permutation(count, seed=seed, epoch=epoch)[place * batch_size : (place + 1) * batch_size]


@lru_cache(maxsize=2)
def permutation(count: int, *, seed: int, epoch: int) -> torch.Tensor:
    """(count,): an epoch's order, a pure function of count, seed and epoch."""
    return torch.randperm(count, generator=torch_stream(seed, "epoch", epoch))


def batch_accuracy(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """(B,K), (B,) -> the share of rows whose largest logit is the label's."""
    return (logits.detach().argmax(1) == label).double().mean()


def finished(folder: Path, *, sink: MetricSink, **facts: str) -> bool:
    """Whether an earlier run of the same definition wrote the network; if so, check it and report its values again."""
    if not (folder / MODEL).is_file():
        return False
    _, found = load_model(folder / MODEL, **facts)
    values = found["losses"] if "losses" in found else read_object(folder / TRAINING)
    sink.summary({name: value for name, value in values.items() if isinstance(value, float)})
    (folder / STATE).unlink(missing_ok=True)
    return True
