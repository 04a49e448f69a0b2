"""The loop that trains a classifier, on Lightning Fabric; it can be killed at any moment.

What it learns and from what comes from outside: a plan, the batches, an optimizer, and a judge that has the classifier
answer a batch. Decided here: batches are a function of the update, so a checkpoint holds weights, optimizer state and
counts, and a continued run equals an unbroken one to the bit on a CPU. What is measured stays on the device until it is
logged or saved, so a GPU never waits in between. Ranks see equal numbers of equal batches; what they measured is
averaged before it is looked at, so all of them stop at a NaN together. Nothing is saved before all losses and weights
that lead to it are known to be finite. Torch's global stream is seeded for each update: dropout draws from it.
Channels-last maps make an update on one core a quarter cheaper.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import torch

from cgn.core.checkpoints import WRONG_FACTS, load_state, load_strictly, save_state
from cgn.core.devices import fits
from cgn.core.errors import ArtifactError
from cgn.core.metrics import MetricSink, finite
from cgn.core.progress import progress, say
from cgn.core.seeding import derive

if TYPE_CHECKING:
    from lightning_fabric import Fabric

STATE = "state.pt"
"""The checkpoint's name in the folder being built; whoever saves the model removes it."""

Held = TypeVar("Held")
"""A batch; only its judge looks inside."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long, how fast, and how often what happens."""

    updates: int
    epochs: int
    epoch: Callable[[int], int]
    """An update -> the epoch (0, 1, ...) in which its batch begins."""
    rate: Callable[[int], float]
    """An epoch -> the learning rate."""
    batch_size: int
    log_updates: int
    checkpoint_updates: int


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What one batch showed."""

    loss: torch.Tensor
    """A scalar with its gradient: what the optimizer goes down."""
    told: Mapping[str, torch.Tensor]
    """Means over the batch, scalars that the loop detaches; the same names for each batch."""
    images: int
    unreadable: Sequence[str] = ()
    """A sentence for each file that another one stood in for."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the last epoch measured of itself while it trained, and what the whole training took."""

    measured: Mapping[str, float]
    unreadable: tuple[str, ...]
    images: int
    """Of all updates and ranks."""
    updates: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Over the whole training, checkpoints included."""
        return self.images / max(self.seconds, 1e-9)


class Classifying(Generic[Held]):
    """One training run of a classifier, which is moved in place."""

    def __init__(
        self,
        classifier: torch.nn.Module,
        *,
        optimizer: torch.optim.Optimizer,
        plan: Plan,
        batches: Callable[[int], Iterator[Held]],
        judge: Callable[[torch.nn.Module, Held], Judged],
        seed: int,
        fabric: "Fabric",
    ) -> None:
        """`batches(n)`: those of update n and all after it, this rank's part. `seed`: of dropout, where there is some.

        `judge` brings a batch to the device and calls the module, the classifier on Fabric, in training mode.
        """
        self.classifier = classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer, self.plan, self.batches, self.judge = optimizer, plan, batches, judge
        self.seed, self.fabric = seed, fabric
        self.module, self.stepper = cast(Any, fabric.setup(self.classifier, optimizer))
        self.update, self.images, self.seconds = 0, 0, 0.0
        self.names: tuple[str, ...] = ()
        self.lines: list[torch.Tensor] = []  # (M+1,) for each update since the last line of the log, images last
        self.sums = torch.zeros(0, dtype=torch.float64)  # (M,) over the images of the epoch until the last line
        self.summed = 0.0  # so many images
        self.unreadable: dict[str, None] = {}

    def run(self, folder: Path, *, sink: MetricSink) -> Outcome:
        """Train to the end, from the checkpoint in `folder` where there is one."""
        self._resume(folder / STATE)
        sink.rewind(self.update)
        self.module.train()
        plan, shown = self.plan, self.fabric.is_global_zero
        with (
            fits(plan.batch_size),
            progress(initial=self.update, total=plan.updates, unit="updates", shown=shown) as bar,
        ):
            started, logged = time.monotonic() - self.seconds, (time.monotonic(), self.images)
            for batch in self.batches(self.update) if self.update < plan.updates else ():
                self._step(batch)
                bar.update()
                self.seconds = time.monotonic() - started
                ended = self.update == plan.updates or self._begins(self.update)
                if ended or self.update % plan.log_updates == 0:
                    self._log(sink, since=logged)
                    logged = (time.monotonic(), self.images)
                if ended or self.update % plan.checkpoint_updates == 0:
                    self._save(folder / STATE)
                if ended:
                    self._tell()
        assert self.update == plan.updates, "the batches ended before the training"
        return Outcome(
            measured=self._measured(),
            unreadable=tuple(self.unreadable),
            images=self.images,
            updates=self.update,
            seconds=self.seconds,
        )

    def _begins(self, update: int) -> bool:
        """Whether an epoch begins with `update`."""
        return update == 0 or self.plan.epoch(update) > self.plan.epoch(update - 1)

    def _step(self, batch: Held) -> None:
        if self._begins(self.update):
            self.sums, self.summed = torch.zeros(0, dtype=torch.float64), 0.0
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(self.plan.epoch(self.update))
        torch.manual_seed(derive(self.seed, "global", self.update, self.fabric.global_rank))
        judged = self.judge(self.module, batch)
        self.stepper.zero_grad()
        self.fabric.backward(judged.loss)
        self.stepper.step()
        self.names = tuple(judged.told)
        images = judged.loss.new_full((), judged.images, dtype=torch.float64)  # filled there: a GPU does not wait
        self.lines.append(torch.stack([value.detach().double() for value in (*judged.told.values(), images)]))
        for sentence in judged.unreadable:
            if sentence not in self.unreadable:
                say(f"{sentence}; the next picture stands in for it")
            self.unreadable[sentence] = None
        self.images += judged.images * self.fabric.world_size
        self.update += 1

    def _checked(self) -> torch.Tensor:
        """(U,M+1) of the updates since the last line, means over ranks. Raises TrainingError at a value like NaN."""
        if not self.lines:
            return torch.zeros((0, len(self.names) + 1), dtype=torch.float64)
        told = cast(torch.Tensor, self.fabric.all_reduce(torch.stack(self.lines), reduce_op="mean")).cpu()
        for place, row in enumerate(told[:, :-1].tolist()):
            finite(dict(zip(self.names, row, strict=True)), update=self.update - len(told) + place + 1)
        return told

    def _log(self, sink: MetricSink, *, since: tuple[float, int]) -> None:
        told = self._checked()
        self.lines = []
        sums, summed = (told[:, :-1] * told[:, -1:]).sum(0), float(told[:, -1].sum())
        self.sums, self.summed = sums + (self.sums if len(self.sums) else 0), self.summed + summed
        started, images = since
        speed = (self.images - images) / max(time.monotonic() - started, 1e-9)
        means = dict(zip(self.names, (sums / summed).tolist(), strict=True))
        rate = self.optimizer.param_groups[0]["lr"]
        sink.log({**means, "learning_rate": rate, "images_per_second": round(speed, 1)}, step=self.update)

    def _measured(self) -> dict[str, float]:
        return dict(zip(self.names, (self.sums / max(self.summed, 1.0)).tolist(), strict=True))

    def _tell(self) -> None:
        """One line an epoch, above the bar or, where there is none, in the pipeline's log."""
        if self.fabric.is_global_zero:
            done = self.update == self.plan.updates
            epoch = self.plan.epochs if done else self.plan.epoch(self.update)
            told = ", ".join(f"{name} {value:.3f}" for name, value in self._measured().items())
            speed = self.images / max(self.seconds, 1e-9)
            say(f"epoch {epoch}/{self.plan.epochs}: {told}, {speed:,.0f} images/s")

    def _save(self, path: Path) -> None:
        lines = self._checked()
        weights = self.classifier.state_dict()
        sums = torch.stack([tensor.sum().float() for tensor in weights.values()]).tolist()
        finite(dict(zip(weights, sums, strict=True)), update=self.update)
        self.unreadable = dict.fromkeys(_gathered(tuple(self.unreadable), ranks=self.fabric.world_size))
        state: dict[str, Any] = {
            "update": self.update,
            "images": self.images,
            "seconds": self.seconds,
            "classifier": weights,
            "optimizer": self.optimizer.state_dict(),
            "names": list(self.names),
            "lines": lines,
            "sums": self.sums,
            "summed": self.summed,
            "unreadable": list(self.unreadable),
        }
        if self.fabric.is_global_zero:
            save_state(path, state)

    def _resume(self, path: Path) -> None:
        if not path.is_file():
            return
        state = load_state(path)
        try:
            load_strictly(self.classifier, state["classifier"], source=str(path))
            self.optimizer.load_state_dict(state["optimizer"])
            self.names, self.unreadable = tuple(state["names"]), dict.fromkeys(state["unreadable"])
            self.lines = list(state["lines"].to(self.fabric.device))
            self.sums, self.summed = state["sums"], float(state["summed"])
            self.images, self.seconds = int(state["images"]), float(state["seconds"])
            self.update = int(state["update"])
        except WRONG_FACTS as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ArtifactError(
                f"the checkpoint {path} is of another training ({reason}): remove it and run the same command again"
            ) from None
        if self.fabric.is_global_zero:
            say(f"continues after update {self.update:,} of {self.plan.updates:,}, from {path}")


def share(answers: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of (B,K) answers the share that names its (B,) label."""
    return (answers.detach().argmax(1) == labels).double().mean()


def _gathered(told: tuple[str, ...], *, ranks: int) -> list[str]:
    """What the ranks tell, without repetition, sorted."""
    if ranks == 1:
        return sorted(set(told))
    everyone: list[tuple[str, ...]] = [()] * ranks
    torch.distributed.all_gather_object(everyone, told)
    return sorted({sentence for part in everyone for sentence in part})
