"""Rows of the results, and the clock: images a second after the warm-up, and the peak of memory."""

import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from cgn.core.seeding import torch_stream

WARM = 3
"""Calls before the clock starts: compilation, choice of kernels, allocation."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the results; `allowed` is the largest value that passes, `gib` the peak of memory."""

    part: str
    case: str
    value: float | None
    unit: str
    allowed: float | None = None
    gib: float | None = None
    warm_seconds: float | None = None
    note: str = ""

    @classmethod
    def judged(cls, part: str, case: str, value: float, unit: str, allowed: float) -> "Row":
        """A row of a check."""
        if not math.isfinite(value):
            return cls(part=part, case=case, value=None, unit=unit, allowed=allowed, note=f"failed: {value}")
        return cls(part=part, case=case, value=value, unit=unit, allowed=allowed)

    @property
    def passed(self) -> bool:
        """False for a value over what is allowed and for a case that failed."""
        if self.value is None:
            return self.note.startswith("not measured")
        return self.allowed is None or self.value <= self.allowed


def pace(part: str, case: str, call: Callable[[], object], *, images: int, device: torch.device, seconds: float) -> Row:
    """Images a second of a call that makes `images`, over at least `seconds` after the warm-up."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    warming = time.perf_counter()
    for _ in range(WARM):
        call()
    _finish(device)
    started, calls = time.perf_counter(), 0
    while calls < 2 or time.perf_counter() - started < seconds:  # one call more than the clock alone could see
        call()
        _finish(device)
        calls += 1
    taken = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else _resident()
    return Row(
        part=part,
        case=case,
        value=calls * images / taken,
        unit="images/s",
        gib=peak / 2**30,
        warm_seconds=started - warming,
    )


def smooth(count: int, pixels: int) -> torch.Tensor:
    """(count,3,pixels,pixels) uint8 images without sharp edges; the same on every machine."""
    coarse = torch.rand((count, 3, 8, 8), generator=torch_stream(0, "smooth", count))
    return functional.interpolate(coarse, size=(pixels, pixels), mode="bicubic").clamp(0, 1).mul(255).to(torch.uint8)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _resident() -> float:
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
