"""Supervised training of a classifier on images in memory, on Lightning Fabric; it can be killed at any moment.

Legend: N images, B batch, H height, W width.
Decided here: an epoch is a permutation that is a pure function of (seed, epoch), its incomplete last batch included, so
a checkpoint holds weights, optimizer state and counts, and a continued run equals an unbroken one to the bit on a CPU.
Images stay uint8 until their batch; losses stay on the device until something is logged or saved, so a GPU never waits
in between. Nothing is saved before all losses and weights that lead to it are known to be finite. Channels-last maps
make an update on one core a quarter cheaper; floats made once instead of a batch at a time would gain nothing.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from tqdm import tqdm

from cgn.core.checkpoints import load_state, load_strictly, save_state
from cgn.core.devices import fits
from cgn.core.errors import ArtifactError
from cgn.core.metrics import MetricSink, finite
from cgn.core.seeding import torch_stream

if TYPE_CHECKING:
    from lightning_fabric import Fabric

STATE = "state.pt"
"""The checkpoint's name in the folder being built; whoever saves the model removes it."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Adadelta's rate, and how often what happens."""

    learning_rate: float
    decay_per_epoch: float
    batch_size: int
    epochs: int
    log_updates: int
    checkpoint_updates: int


@dataclass(frozen=True, kw_only=True)
class Examples:
    """`pixels`: (N,H,W,3) uint8. `labels`: (N,) int64."""

    pixels: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the last epoch measured of itself while it trained, and what the whole training took."""

    train_accuracy: float
    loss: float
    images: int
    updates: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Over the whole training, checkpoints included."""
        return self.images / max(self.seconds, 1e-9)


class Supervised:
    """One training run. The classifier maps (B,3,H,W) in [-1,1] to log-probabilities (B,K) and is moved in place."""

    def __init__(
        self, classifier: torch.nn.Module, *, examples: Examples, schedule: Schedule, seed: int, fabric: "Fabric"
    ) -> None:
        self.schedule, self.seed, self.fabric = schedule, seed, fabric
        self.examples = _near(examples, device=fabric.device)
        self.updates_per_epoch = -(-len(examples.labels) // schedule.batch_size)
        self.updates = self.updates_per_epoch * schedule.epochs
        self.classifier = classifier.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.Adadelta(classifier.parameters(), lr=schedule.learning_rate, foreach=True)
        self.order = torch.empty(0, dtype=torch.int64)
        self.update = 0
        self.losses: list[torch.Tensor] = []  # one for each update since the last line of the log
        self._start_counts()
        self.seconds = 0.0

    def run(self, folder: Path, *, sink: MetricSink) -> Outcome:
        """Train to the end, from the checkpoint in `folder` where there is one."""
        self._resume(folder / STATE)
        sink.rewind(self.update)
        self.classifier.train()
        bar = tqdm(initial=self.update, total=self.updates, unit="update", mininterval=1.0, disable=None)
        with fits(self.schedule.batch_size), bar:
            started, logged = time.monotonic() - self.seconds, (time.monotonic(), self.update)
            while self.update < self.updates:
                self._step()
                bar.update()
                self.seconds = time.monotonic() - started
                ended = self.update % self.updates_per_epoch == 0
                if ended or self.update % self.schedule.log_updates == 0:
                    self._log(sink, since=logged)
                    logged = (time.monotonic(), self.update)
                if ended or self.update % self.schedule.checkpoint_updates == 0:
                    self._save(folder / STATE)
                if ended:
                    self._tell()
        return Outcome(
            train_accuracy=self._accuracy(),
            loss=float(self.loss_sum) / self.seen,
            images=len(self.examples.labels) * self.schedule.epochs,
            updates=self.updates,
            seconds=self.seconds,
        )

    def _step(self) -> None:
        epoch, place = divmod(self.update, self.updates_per_epoch)
        if place == 0:
            self._start_counts()
        if place == 0 or not len(self.order):
            self._start_epoch(epoch)
        chosen = self.order[place * self.schedule.batch_size : (place + 1) * self.schedule.batch_size]
        pixels, labels = (held.index_select(0, chosen) for held in (self.examples.pixels, self.examples.labels))
        images = pixels.to(self.fabric.device).permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1)
        labels = labels.to(self.fabric.device)
        self.optimizer.zero_grad()
        with self.fabric.autocast():
            answers = self.classifier(images)
            loss = functional.nll_loss(answers, labels)
        self.fabric.backward(loss)
        self.optimizer.step()
        self.losses.append(loss.detach())
        self.loss_sum += loss.detach().double() * len(labels)
        self.hits += (answers.detach().argmax(dim=1) == labels).sum()
        self.seen += len(labels)
        self.update += 1

    def _start_epoch(self, epoch: int) -> None:
        count = len(self.examples.labels)
        order = torch.randperm(count, generator=torch_stream(self.seed, "epoch", epoch))
        self.order = order.to(self.examples.labels.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate * self.schedule.decay_per_epoch**epoch

    def _start_counts(self) -> None:
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.fabric.device)
        self.hits = torch.zeros((), dtype=torch.int64, device=self.fabric.device)
        self.seen = 0

    def _accuracy(self) -> float:
        return int(self.hits) / self.seen

    def _checked(self) -> list[float]:
        """The losses since the last line of the log. Raises TrainingError naming the first that is not a number."""
        told: list[float] = torch.stack(self.losses).tolist() if self.losses else []
        for place, loss in enumerate(told):
            finite({"loss": loss}, update=self.update - len(told) + place + 1)
        return told

    def _log(self, sink: MetricSink, *, since: tuple[float, int]) -> None:
        losses = self._checked()
        self.losses = []
        started, first = since
        place = first % self.updates_per_epoch
        left = len(self.examples.labels) - place * self.schedule.batch_size
        images = min((self.update - first) * self.schedule.batch_size, left)  # a line never spans epochs
        values = {
            "loss": sum(losses) / len(losses),
            "train_accuracy": self._accuracy(),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "images_per_second": round(images / max(time.monotonic() - started, 1e-9), 1),
        }
        sink.log(values, step=self.update)

    def _tell(self) -> None:
        """One line an epoch, above the bar or, where there is none, in the pipeline's log."""
        epoch = self.update // self.updates_per_epoch
        speed = self.update * self.schedule.batch_size / max(self.seconds, 1e-9)
        tqdm.write(
            f"epoch {epoch}/{self.schedule.epochs}: loss {float(self.loss_sum) / self.seen:.4f}, "
            f"train accuracy {100 * self._accuracy():.2f} %, {speed:,.0f} images/s",
            file=sys.stderr,
        )

    def _save(self, path: Path) -> None:
        losses = self._checked()
        weights = self.classifier.state_dict()
        sums = torch.stack([tensor.sum().float() for tensor in weights.values()]).tolist()
        finite(dict(zip(weights, sums, strict=True)), update=self.update)
        state: dict[str, Any] = {
            "update": self.update,
            "seconds": self.seconds,
            "classifier": weights,
            "optimizer": self.optimizer.state_dict(),
            "counts": {"loss_sum": self.loss_sum, "hits": self.hits, "seen": self.seen},
            "losses": torch.tensor(losses, dtype=torch.float32),
        }
        save_state(path, state)

    def _resume(self, path: Path) -> None:
        if not path.is_file():
            return
        state = load_state(path)
        try:
            load_strictly(self.classifier, state["classifier"], source=str(path))
            self.optimizer.load_state_dict(state["optimizer"])
            counts = state["counts"]
            self.loss_sum, self.hits = (counts[name].to(self.fabric.device) for name in ("loss_sum", "hits"))
            self.seen, self.seconds = int(counts["seen"]), float(state["seconds"])
            self.losses = list(state["losses"].to(self.fabric.device))
            self.update = int(state["update"])
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"the checkpoint {path} is of another training ({error}): remove it and run the same command again"
            ) from None


def _near(examples: Examples, *, device: torch.device) -> Examples:
    """On a GPU when they take at most half of its free memory; else batches are gathered on the CPU."""
    if device.type != "cuda" or examples.pixels.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
        return examples
    return Examples(pixels=examples.pixels.to(device), labels=examples.labels.to(device))
