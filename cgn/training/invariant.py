"""Training of the invariant classifiers and their baseline, on Lightning Fabric (Sauer & Geiger, ICLR 2021).

Legend: R real pictures and C counterfactuals in a batch, S image size, K classes.
Decided here: one forward pass takes both kinds, so their gradients meet in one SGD step and a trained BatchNorm sees
the mixture that it will keep the statistics of. The baseline is the same training of one head without counterfactuals.
Batches come from outside and are a function of the update, so a checkpoint holds weights, momenta and counts, and a
continued run equals an unbroken one to the bit on a CPU. Ranks see equal numbers of equal batches; what they measured
is averaged before it is looked at, so all of them stop at a NaN together. Nothing is saved before all losses and
weights that lead to it are known to be finite.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from tqdm import tqdm

from cgn.core.checkpoints import load_state, load_strictly, save_state
from cgn.core.devices import fits
from cgn.core.errors import ArtifactError
from cgn.core.metrics import MetricSink, finite
from cgn.core.seeding import derive
from cgn.losses.invariance import by_head, real
from cgn.training.plan import Batch, Outcome, Schedule

if TYPE_CHECKING:
    from lightning_fabric import Fabric

STATE = "state.pt"
"""The checkpoint's name in the folder being built; whoever saves the model removes it."""


class Invariant:
    """One training run of an ensemble of heads, which is moved in place."""

    def __init__(
        self,
        classifier: torch.nn.Module,
        *,
        pictures: int,
        batches: Callable[[int], Iterator[Batch]],
        prepare: Callable[[torch.Tensor], torch.Tensor],
        schedule: Schedule,
        seed: int,
        fabric: "Fabric",
    ) -> None:
        """`pictures`: real ones in an epoch. `batches(n)`: those of update n and all after it, this rank's part.

        `prepare`: (B,3,S,S) uint8 -> what the classifier wants. `seed`: of dropout, where the backbone has some.
        """
        self.pictures, self.batches, self.prepare = pictures, batches, prepare
        self.schedule, self.seed, self.fabric = schedule, seed, fabric
        self.classifier = classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(
            classifier.parameters(),
            lr=schedule.learning_rate,
            momentum=schedule.momentum,
            weight_decay=schedule.weight_decay,
            foreach=True,
        )
        self.module, self.stepper = cast(Any, fabric.setup(self.classifier, self.optimizer))
        self.updates = schedule.updates(pictures)
        self.update, self.images, self.seconds = 0, 0, 0.0
        self.names: tuple[str, ...] = ()
        self.lines: list[torch.Tensor] = []  # (M,) for each update since the last line of the log
        self.sums = torch.zeros(0, dtype=torch.float64)  # (M,) of the epoch until the last line
        self.summed = 0
        self.unreadable: dict[str, None] = {}

    def run(self, folder: Path, *, sink: MetricSink) -> Outcome:
        """Train to the end, from the checkpoint in `folder` where there is one."""
        self._resume(folder / STATE)
        sink.rewind(self.update)
        self.module.train()
        hidden = None if self.fabric.is_global_zero else True
        bar = tqdm(initial=self.update, total=self.updates, unit="update", mininterval=1.0, disable=hidden)
        with fits(self.schedule.batch_size), bar:
            started, logged = time.monotonic() - self.seconds, (time.monotonic(), self.images)
            for batch in self.batches(self.update) if self.update < self.updates else ():
                self._step(batch)
                bar.update()
                self.seconds = time.monotonic() - started
                ended = self.update == self.updates or self._epoch(self.update) > self._epoch(self.update - 1)
                if ended or self.update % self.schedule.log_updates == 0:
                    self._log(sink, since=logged)
                    logged = (time.monotonic(), self.images)
                if ended or self.update % self.schedule.checkpoint_updates == 0:
                    self._save(folder / STATE)
                if ended:
                    self._tell()
        assert self.update == self.updates, "the batches ended before the training"
        return Outcome(
            measured=self._measured(),
            unreadable=tuple(self.unreadable),
            images=self.images,
            updates=self.updates,
            seconds=self.seconds,
        )

    def _epoch(self, update: int) -> int:
        """The epoch in which the batch of `update` begins."""
        return update * self.schedule.batch_size // self.pictures

    def _step(self, batch: Batch) -> None:
        epoch = self._epoch(self.update)
        if self.update == 0 or epoch > self._epoch(self.update - 1):
            self.sums, self.summed = torch.zeros(0, dtype=torch.float64), 0
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(epoch)
        torch.manual_seed(derive(self.seed, "global", self.update, self.fabric.global_rank))
        device = self.fabric.device
        pixels, label = (held.to(device, non_blocking=True) for held in (batch.pixels, batch.label))
        labels = {head: values.to(device, non_blocking=True) for head, values in batch.labels.items()}
        answers = self.module(self.prepare(pixels).contiguous(memory_format=torch.channels_last))
        first = {head: answer[: len(label)] for head, answer in answers.items()}
        rest = {head: answer[len(label) :] for head, answer in answers.items()} if labels else {}
        losses = {"real": real(first, label), **by_head(rest, labels)}
        self.stepper.zero_grad()
        self.fabric.backward(torch.stack(list(losses.values())).sum())
        self.stepper.step()
        self._note(losses, hits={"real": _share(_mean(first), label), **{h: _share(rest[h], labels[h]) for h in rest}})
        for sentence in batch.unreadable:
            if sentence not in self.unreadable:
                tqdm.write(f"{sentence}; the next picture stands in for it", file=sys.stderr)
            self.unreadable[sentence] = None
        self.images += len(pixels) * self.fabric.world_size
        self.update += 1

    def _note(self, losses: Mapping[str, torch.Tensor], *, hits: Mapping[str, torch.Tensor]) -> None:
        self.names = (*(f"loss/{name}" for name in losses), *(f"accuracy/{name}" for name in hits))
        self.lines.append(torch.stack([value.detach().double() for value in (*losses.values(), *hits.values())]))

    def _checked(self) -> torch.Tensor:
        """(U,M) of the updates since the last line, means over the ranks. Raises TrainingError at a loss like NaN."""
        if not self.lines:
            return torch.zeros((0, len(self.names)), dtype=torch.float64)
        told = cast(torch.Tensor, self.fabric.all_reduce(torch.stack(self.lines), reduce_op="mean")).cpu()
        for place, row in enumerate(told.tolist()):
            finite(dict(zip(self.names, row, strict=True)), update=self.update - len(told) + place + 1)
        return told

    def _log(self, sink: MetricSink, *, since: tuple[float, int]) -> None:
        told = self._checked()
        self.lines = []
        self.sums = told.sum(0) + (self.sums if len(self.sums) else 0)
        self.summed += len(told)
        started, images = since
        speed = (self.images - images) / max(time.monotonic() - started, 1e-9)
        means = dict(zip(self.names, told.mean(0).tolist(), strict=True))
        rate = self.optimizer.param_groups[0]["lr"]
        sink.log({**means, "learning_rate": rate, "images_per_second": round(speed, 1)}, step=self.update)

    def _measured(self) -> dict[str, float]:
        return dict(zip(self.names, (self.sums / max(self.summed, 1)).tolist(), strict=True))

    def _tell(self) -> None:
        """One line an epoch, above the bar or, where there is none, in the pipeline's log."""
        if self.fabric.is_global_zero:
            epoch = min(self._epoch(self.update), self.schedule.epochs)
            told = ", ".join(f"{name} {value:.3f}" for name, value in self._measured().items())
            speed = self.images / max(self.seconds, 1e-9)
            tqdm.write(f"epoch {epoch}/{self.schedule.epochs}: {told}, {speed:,.0f} images/s", file=sys.stderr)

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
            self.sums, self.summed = state["sums"], int(state["summed"])
            self.images, self.seconds = int(state["images"]), float(state["seconds"])
            self.update = int(state["update"])
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"the checkpoint {path} is of another training ({error}): remove it and run the same command again"
            ) from None


def _mean(answers: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(answers.values())).mean(0)


def _share(answers: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of (B,K) answers the share that names its label."""
    return (answers.detach().argmax(1) == labels).double().mean()


def _gathered(told: tuple[str, ...], *, ranks: int) -> list[str]:
    """What the ranks tell, without repetition, sorted."""
    if ranks == 1:
        return sorted(set(told))
    everyone: list[tuple[str, ...]] = [()] * ranks
    torch.distributed.all_gather_object(everyone, told)
    return sorted({sentence for part in everyone for sentence in part})
