"""How far a long piece of work is: a bar in a terminal; elsewhere, as in a pipeline's log, a line a minute."""

import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 60.0


class Progress(Protocol):
    """Counts what is done."""

    def update(self, n: int = 1, /) -> object:
        """`n` more are done."""


def progress(*, total: int, initial: int = 0, unit: str, shown: bool = True) -> AbstractContextManager[Progress]:
    """Counts from `initial` to `total`, on stderr; not `shown` counts in silence. `unit`: a plural noun."""
    if sys.stderr.isatty() or not shown:
        return tqdm(initial=initial, total=total, unit=f" {unit}", mininterval=1.0, disable=not shown)
    return Lines(total=total, initial=initial, unit=unit)


def say(text: str) -> None:
    """A line on stderr, above the bar where there is one."""
    if sys.stderr.isatty():
        tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr, flush=True)


class Lines:
    """A line each SECONDS_BETWEEN_LINES while the work goes on, so short work prints none."""

    def __init__(self, *, total: int, initial: int, unit: str) -> None:
        self.total, self.initial, self.done, self.unit = total, initial, initial, unit
        self.started = self.printed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def update(self, n: int = 1, /) -> None:
        """`n` more are done."""
        self.done += n
        now = time.monotonic()
        if now - self.printed >= SECONDS_BETWEEN_LINES:
            self.printed = now
            seconds = (now - self.started) / max(self.done - self.initial, 1)
            left = tqdm.format_interval(seconds * (self.total - self.done))
            share = self.done / self.total
            say(f"{self.done:,} of {self.total:,} {self.unit} ({share:.0%}), {seconds:.3g} s each, {left} to go")
