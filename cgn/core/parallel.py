"""Independent computations side by side, one core each: `concurrently(f, g, h)`.

Each is computed by one thread (`cgn.core.devices`), so the bytes do not depend on how many run side by side, or whether
any do. To keep it so, tasks must not draw from torch's global stream, and no two of them may add to one tensor's
gradient, or the order of a sum would be chance. Neither may they build one graph together, because autograd works in
the order in which a thread made its nodes: a task's graph ends in the task (`differentiate`) or has a backward pass of
its own.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar, cast

import torch

from cgn.core.devices import THREADS, usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def concurrently(*tasks: Callable[[], Result], device: torch.device) -> list[Result]:
    """What the tasks return, in their order; put long ones first. What the first that fails raises is raised here.

    They have the caller's grad mode and autocast. One after the other where there is one core, and on a GPU, which
    works through a single queue anyway.
    """
    workers = min(usable_cores(), len(tasks)) - 1
    if workers < 1 or device.type != "cpu":
        return [task() for task in tasks]
    pool = _pool(os.getpid(), usable_cores() - 1)
    grad, autocast, dtype = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def run(task: Callable[[], Result]) -> Result:
        with torch.set_grad_enabled(grad), torch.autocast("cpu", enabled=autocast, dtype=dtype):
            return task()

    waiting: list[Future[Result]] = [pool.submit(run, task) for task in tasks[1:]]
    try:
        results = [tasks[0]()]
        for task, future in zip(tasks[1:], waiting, strict=True):
            results.append(task() if future.cancel() else future.result())  # nobody has begun it: the caller does
    finally:
        for future in waiting:
            if not future.cancel():
                future.exception()  # nothing runs on when this returns
    return results


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; where there is a second core, each is made while the one before it is used."""
    if usable_cores() == 1:
        yield from items
        return
    pool, end = _pool(os.getpid(), usable_cores() - 1), object()
    coming = pool.submit(next, items, end)
    while (item := coming.result()) is not end:
        coming = pool.submit(next, items, end)
        yield cast(Item, item)


@dataclass(frozen=True, kw_only=True)
class Differentiated:
    """A scalar loss of x, and its gradient with respect to x, which is known before the rest of the graph is built."""

    value: torch.Tensor
    gradient: torch.Tensor

    def follow(self, x: torch.Tensor) -> torch.Tensor:
        """The loss as a part of x's graph."""
        loss: torch.Tensor = _KnownGradient.apply(x, self.value, self.gradient)  # type: ignore[no-untyped-call]
        return loss


def differentiate(loss: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> Differentiated:
    """loss(x), a scalar, and its gradient, both computed at once."""
    start = x.detach().requires_grad_()
    with torch.enable_grad():
        value = loss(start)
    with torch.autocast(x.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(value, start)
    return Differentiated(value=value.detach(), gradient=gradient)


class _KnownGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, value: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        del x
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream[0] * gradient, None, None


@lru_cache(maxsize=1)
def _pool(process: int, workers: int) -> ThreadPoolExecutor:
    """Of this process: a forked child has none of its parent's threads."""
    del process
    return ThreadPoolExecutor(workers, thread_name_prefix="cgn", initializer=lambda: torch.set_num_threads(THREADS))
