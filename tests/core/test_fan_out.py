"""fan_out in this process and in local processes: every item once, few queued, plain errors."""

import sys
from functools import partial
from pathlib import Path

import pytest

from cgn.core.errors import ConfigError, WorkerError
from cgn.core.fan_out import QUEUED, choose_workers, fan_out
from tests.support.fan_out_tasks import Counted, failing, killed_always, most_ahead, nothing, square, unopened


@pytest.mark.parametrize("count", [1, 2])
def test_every_item_has_its_result(count: int) -> None:
    workers = choose_workers("cpu", workers=count)
    assert dict(fan_out(square, range(20), workers=workers)) == {number: number**2 for number in range(20)}
    assert list(fan_out(square, [], workers=workers)) == []


@pytest.mark.parametrize("count", [1, 2])
def test_few_items_are_queued_at_a_time(count: int) -> None:
    items = Counted(200)
    assert most_ahead(fan_out(nothing, items, workers=choose_workers("cpu", workers=count)), items) <= QUEUED * count


@pytest.mark.parametrize("count", [1, 2])
def test_what_an_item_raises_is_raised(count: int) -> None:
    with pytest.raises(ValueError, match="as it is"):
        list(fan_out(partial(failing, message="as it is"), range(9), workers=choose_workers("cpu", workers=count)))


def test_what_opening_raises_in_a_worker_is_raised() -> None:
    with pytest.raises(ValueError, match="no model here"):
        list(fan_out(unopened, range(4), workers=choose_workers("cpu", workers=2)))


def test_a_killed_worker_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    opening = partial(killed_always, folder=tmp_path)
    with pytest.raises(WorkerError, match=r"a worker process was killed.*--workers.*same command again"):
        list(fan_out(opening, range(9), workers=choose_workers("cpu", workers=2)))


def test_ray_is_named_by_the_option_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert choose_workers("cpu").ray == ""
    assert choose_workers("cpu", ray="local", workers=3).at_most == 3
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert choose_workers("cpu").ray == "10.0.0.1:6379"
    assert choose_workers("cpu", ray="local").ray == "local"


def test_ray_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"Ray is not installed here.*uv run --group cluster"):
        list(fan_out(square, range(2), workers=choose_workers("cpu", ray="10.0.0.1:6379")))
