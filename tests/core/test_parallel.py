"""Independent computations side by side: their order, settings, errors, and that cores change no byte."""

import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest
import torch

from cgn.core import parallel
from cgn.core.parallel import Differentiated, ahead, concurrently, differentiate

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 4])
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test that uses it runs with 1, 2 and 4 cores."""
    monkeypatch.setattr(parallel, "usable_cores", lambda: request.param)


@pytest.mark.usefixtures("cores")
def test_results_come_in_the_order_of_the_tasks() -> None:
    def wait(number: int) -> int:
        time.sleep(0.02 * (5 - number))
        return number

    assert concurrently(*(partial(wait, number) for number in range(5)), device=CPU) == [0, 1, 2, 3, 4]
    assert concurrently(device=CPU) == []


def test_as_many_run_at_once_as_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=10)
    monkeypatch.setattr(parallel, "usable_cores", lambda: 2)
    concurrently(both.wait, both.wait, device=CPU)
    threads = concurrently(*[threading.get_ident] * 4, device=torch.device("cuda"))
    assert set(threads) == {threading.get_ident()}, "a GPU has one queue"


@pytest.mark.usefixtures("cores")
def test_tasks_may_start_tasks() -> None:
    def inner() -> list[int]:
        return concurrently(lambda: 1, lambda: 2, device=CPU)

    assert concurrently(*[inner] * 6, device=CPU) == [[1, 2]] * 6


@pytest.mark.usefixtures("cores")
def test_the_callers_settings_hold_in_every_task() -> None:
    def settings() -> tuple[bool, bool, torch.dtype, int]:
        time.sleep(0.01)
        return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), threads()

    def threads() -> int:
        return torch.get_num_threads()

    torch.set_num_threads(1)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert concurrently(*[settings] * 4, device=CPU) == [(False, True, torch.bfloat16, 1)] * 4
    assert concurrently(*[settings] * 4, device=CPU) == [(True, False, torch.bfloat16, 1)] * 4


@pytest.mark.usefixtures("cores")
def test_the_first_error_is_raised_once_nothing_runs_any_more() -> None:
    ended: list[int] = []

    def slow() -> None:
        time.sleep(0.05)
        ended.append(1)

    def fails(message: str) -> None:
        raise ValueError(message)

    with pytest.raises(ValueError, match="first"):
        concurrently(partial(fails, "first"), slow, partial(fails, "second"), device=CPU)
    before = len(ended)
    time.sleep(0.1)
    assert len(ended) == before


@pytest.mark.usefixtures("cores")
def test_a_loss_differentiated_in_a_task_follows_as_if_it_were_in_the_graph() -> None:
    stream = torch.Generator().manual_seed(0)
    weight = torch.randn(3, generator=stream, requires_grad=True)
    x = torch.randn(3, generator=stream)

    def losses(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return images.sin().mean(), images.square().sum()

    torch.autograd.backward(torch.stack(losses(weight * x)).sum())
    expected, weight.grad = weight.grad, None

    def known(place: int) -> Differentiated:
        return differentiate(lambda images: losses(images)[place], weight * x)

    values = [loss.follow(weight * x) for loss in concurrently(partial(known, 0), partial(known, 1), device=CPU)]
    assert torch.stack(values).equal(torch.stack(losses(weight * x)))
    torch.autograd.backward(2 * torch.stack(values).sum())
    assert expected is not None
    torch.testing.assert_close(weight.grad, 2 * expected)


@pytest.mark.usefixtures("cores")
def test_items_computed_ahead_are_the_same_and_end_and_fail_at_the_same_place() -> None:
    def items(count: int) -> Iterator[int]:
        yield from range(count)
        raise ValueError("after the last")

    assert list(ahead(iter(range(5)))) == [0, 1, 2, 3, 4]
    assert list(ahead(iter([]))) == []
    seen: list[int] = []
    with pytest.raises(ValueError, match="after the last"):
        seen.extend(ahead(items(3)))
    assert seen == [0, 1, 2]
