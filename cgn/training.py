"""Training that can be killed at any moment: what every training needs and no paper describes.

    training = Training(folder, fabric=fabric, sink=sink, seed=seed, updates=1800, modules={...}, optimizers={...}, ...)
    for update in training:                        # from the last checkpoint (or 0) to the last update
        losses = ...                               # the algorithm, written out by the verb that trains
        training.backward(losses)
        training.step("generator", rate_factor=linear_decay(update, ...))

Update n is a function of (seed, n), so a checkpoint holds weights, optimizer states and n, and a resumed run equals an
uninterrupted one to the bit on a CPU. Nothing is saved before all losses and weights that lead to it are known to be
finite. Of several processes all hold the same weights and the first one alone writes. A generator's update may have
several batches: process r of N takes batches r, r + N, ..., and gradients are summed over all of them (published for
ImageNet, whose loss weights depend on it), so the number of processes changes nothing but the rounding. A classifier's
gradients are averaged over processes, by the module that Fabric wraps.
"""

import copy
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import torch
from torch import nn

from cgn.core.checkpoints import WRONG_FACTS, load_model, load_state, save_state
from cgn.core.errors import ArtifactError
from cgn.core.images import save_image, sheet
from cgn.core.metrics import MetricSink, finite
from cgn.core.progress import progress, say
from cgn.core.seeding import derive, torch_stream

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MODEL, STATE = "model.safetensors", "state.pt"
"""In a training's folder: the trained network, written last, and until then the checkpoint."""
Net = TypeVar("Net", bound=nn.Module)
Rows = Sequence[tuple[str, torch.Tensor]]
"""A sheet: named rows of (B,1 or 3,H,W) images in [-1,1]."""


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
        """Continue from the checkpoint in `folder` where there is one; `modules` are on their device.

        `epoch_ends`: after so many updates each epoch ends, rising to `updates`; a line is logged and a checkpoint is
        written then, too. Raises ArtifactError for a checkpoint that is broken or of another training.
        """
        self.folder, self.fabric, self.sink, self.seed = folder, fabric, sink, seed
        self.updates, self.batches_per_update, self.epoch_ends = updates, batches_per_update, epoch_ends
        self.modules, self.optimizers = modules, optimizers
        self.log_every, self.checkpoint_every, self.sheet_every = log_every, checkpoint_every, sheet_every
        self.update, self.seconds = 0, 0.0
        self.values: dict[str, float] = {}
        """What the last update's losses were and what was logged with them."""
        self.means = Means(fabric)
        self._sums: dict[str, torch.Tensor] = {}
        self._resume()

    def __iter__(self) -> Iterator[int]:
        """Each update's number; after it come the log's line and the checkpoint that are due."""
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
        self.fabric.backward(torch.stack(list(losses.values())).sum())
        self._sums = {name: loss.detach() + self._sums.get(name, 0) for name, loss in losses.items()}

    def step(self, *names: str, rate_factor: float) -> None:
        """Move what these optimizers hold, at `rate_factor` times their initial rates, and clear their gradients.

        Raises TrainingError, in every process, before a loss that is not a finite number moves a weight.
        """
        self.values |= self._losses()
        for optimizer in (self.optimizers[name] for name in names):
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate_factor
                if self.fabric.world_size > 1:
                    for parameter in group["params"]:
                        if parameter.grad is not None:
                            self.fabric.all_reduce(parameter.grad, reduce_op="sum")
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def log(self, values: Mapping[str, float]) -> None:
        """Add to what is logged of this update."""
        self.values |= values

    def log_start(self, values: Mapping[str, float]) -> None:
        """Log at step 0 what is measured before the first update; a run that continues has logged it."""
        if self.fabric.is_global_zero and self.update == 0:
            self.sink.rewind(-1)
            self.sink.log(values, step=0)

    @property
    def sheet_due(self) -> bool:
        """Whether a sheet of examples is to be drawn at the end of this update, by this process."""
        done = self.update + 1
        return self.fabric.is_global_zero and (done % self.sheet_every == 0 or done == self.updates)

    def sheet(self, rows: Rows) -> None:
        """Save labelled rows of images in sheets/, and say in a line how far the training is."""
        done = self.update + 1
        path = self.folder / "sheets" / f"{done:06d}.png"
        save_image(sheet(rows), path)
        self.sink.picture(path)
        losses = ", ".join(f"{name.removeprefix('loss/')} {value:.3f}" for name, value in self.values.items())
        say(f"update {done:,}/{self.updates:,}: {losses}")

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
        if self.fabric.world_size > 1:
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
        """Write the checkpoint. Raises TrainingError rather than keep what is not finite."""
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
        path = self.folder / STATE
        if not path.is_file():
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


class Means:
    """Means over images of what a classifier shows while it trains: of a line of the log, and of an epoch.

    Values stay on the device until a line is logged or saved, so a GPU does not wait in between; they are averaged over
    processes before they are checked, so all stop together at one that is not finite.
    """

    def __init__(self, fabric: "Fabric") -> None:
        self.fabric = fabric
        self.names: tuple[str, ...] = ()
        self.images = 0  # of all updates and processes
        self.unreadable: dict[str, None] = {}
        self._lines: list[torch.Tensor] = []  # (M+1,) for each update since the last line of the log, images last
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Forget the epoch before."""
        self._sums, self._summed = torch.zeros(0, dtype=torch.float64), 0.0  # (M,) over so many images

    def add(self, values: Mapping[str, torch.Tensor], *, images: int, unreadable: Sequence[str] = ()) -> None:
        """Scalars of an update, means over its `images`; the same names each time.

        `unreadable`: a sentence for each picture that another one stood in for.
        """
        self.names = tuple(values)
        count = next(iter(values.values())).new_full((), images, dtype=torch.float64)  # made there: no waiting
        self._lines.append(torch.stack([value.detach().double() for value in (*values.values(), count)]))
        self.images += images * self.fabric.world_size
        for sentence in unreadable:
            if sentence not in self.unreadable:
                say(f"{sentence}; the next picture stands in for it")
            self.unreadable[sentence] = None

    def line(self, *, update: int) -> dict[str, float]:
        """Means since the last line; empty where nothing is added. Raises TrainingError for a value like NaN."""
        if not self.names:
            return {}
        rows = self._checked(update)
        self._lines = []
        sums, summed = (rows[:, :-1] * rows[:, -1:]).sum(0), float(rows[:, -1].sum())
        self._sums, self._summed = sums + (self._sums if len(self._sums) else 0), self._summed + summed
        return dict(zip(self.names, (sums / summed).tolist(), strict=True))

    def epoch(self) -> dict[str, float]:
        """Means of the epoch until the last line."""
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
        """What a checkpoint holds of it, once it is known to be finite."""
        lines = self._checked(update)
        self.unreadable = dict.fromkeys(self._gathered())
        state = {"names": list(self.names), "images": self.images, "unreadable": list(self.unreadable)}
        return {**state, "lines": lines, "sums": self._sums, "summed": self._summed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.names, self.unreadable = tuple(state["names"]), dict.fromkeys(state["unreadable"])
        self._lines = list(state["lines"].to(self.fabric.device))
        self._sums, self._summed, self.images = state["sums"], float(state["summed"]), int(state["images"])

    def _gathered(self) -> list[str]:
        """The sentences of all processes, without repetition, sorted."""
        everyone: list[tuple[str, ...]] = [tuple(self.unreadable)] * self.fabric.world_size
        if self.fabric.world_size > 1:
            torch.distributed.all_gather_object(everyone, tuple(self.unreadable))
        return sorted({sentence for part in everyone for sentence in part})


class EMA(Generic[Net]):
    """An exponential moving average of a module's weights (buffers are copied); with decay 0, the module itself."""

    def __init__(self, source: Net, *, decay: float) -> None:
        self.source, self.decay = source, decay
        self.module: Net = copy.deepcopy(source).requires_grad_(False) if decay else source

    @torch.no_grad()
    def follow(self, update: int) -> None:
        """Take in the weights after `update`; early on the decay is lower, so that the start is forgotten."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + update) / (10 + update))
        torch._foreach_lerp_(list(self.module.parameters()), list(self.source.parameters()), 1 - decay)
        for kept, new in zip(self.module.buffers(), self.source.buffers(), strict=True):
            kept.copy_(new)


@contextmanager
def at_rest(module: Net, *, fabric: "Fabric") -> Iterator[Net]:
    """The module in eval mode, without gradients: to look at it moves neither its statistics nor its mode."""
    mode = module.training
    with torch.no_grad(), fabric.autocast():
        yield module.eval()
    module.train(mode)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for the module's parameters: halves the cost of a step that only passes through it."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def adam(module: nn.Module, *, rate: float, betas: tuple[float, float]) -> torch.optim.Adam:
    """Adam over a module's parameters, its initial rate kept beside the current one."""
    return torch.optim.Adam(
        [{"params": list(module.parameters()), "initial_lr": rate}], lr=rate, betas=betas, fused=True
    )


def linear_decay(update: int, *, updates: int, fraction: float) -> float:
    """The learning rate's factor: 1, then linearly to 0 over the last `fraction` of the updates."""
    start = updates * (1 - fraction)
    return 1.0 if update < start or not fraction else (updates - update) / (updates - start)


def batch_indices(update: int, *, count: int, batch_size: int, seed: int) -> torch.Tensor:
    """The (batch_size,) indices of a batch: an epoch is a permutation of `count`, its incomplete end left out."""
    epoch, place = divmod(update, count // batch_size)
    return permutation(count, seed=seed, epoch=epoch)[place * batch_size : (place + 1) * batch_size]


@lru_cache(maxsize=2)
def permutation(count: int, *, seed: int, epoch: int) -> torch.Tensor:
    """The order of an epoch: a pure function of all three."""
    return torch.randperm(count, generator=torch_stream(seed, "epoch", epoch))


def accuracy(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """(B,K), (B,) -> the share of rows whose largest logit is the label's."""
    return (logits.detach().argmax(1) == label).double().mean()


def finished(model: Path, *, sink: MetricSink) -> bool:
    """Whether an earlier run of the same definition has written the generator; it is checked, and summarized again."""
    if not (model / MODEL).is_file():
        return False
    _, facts = load_model(model / MODEL)
    sink.summary(facts["losses"])
    (model / STATE).unlink(missing_ok=True)
    return True
