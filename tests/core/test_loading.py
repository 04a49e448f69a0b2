"""Reading ahead: in order for any number of workers, without shared memory, and never waiting for a lost worker."""

import os
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from cgn.core import loading
from cgn.core.errors import ArtifactError
from cgn.core.loading import read_ahead

ROOT = Path(__file__).parents[2]


class Pictures:
    """Tensors whose values are their place; a few are sentences, one kills its reader, one never comes."""

    def __init__(self, *, count: int = 24, deadly: int = -1, endless: int = -1, wrong: int = -1) -> None:
        self.count, self.deadly, self.endless, self.wrong = count, deadly, endless, wrong
        self.main = os.getpid()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> Any:
        if place == self.deadly and os.getpid() != self.main:
            os.kill(os.getpid(), signal.SIGKILL)
        if place == self.endless:
            time.sleep(3600)
        if place == self.wrong:
            raise RuntimeError("a fault of the dataset")
        return f"{place} cannot be read" if place % 7 == 3 else torch.full((3, 4, 4), place)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "usable_cores", lambda: 2)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_any_number_of_workers_reads_the_same_batches(workers: int) -> None:
    alone, found = (
        list(read_ahead(Pictures(), order=range(5, 24), batch_size=6, workers=count)) for count in (0, workers)
    )
    assert [len(batch) for batch in found] == [6, 6, 6, 1]
    for one, other in zip(chain(*alone), chain(*found), strict=True):
        assert one == other if isinstance(one, str) else torch.equal(one, other)


def test_there_are_never_more_workers_than_usable_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    class Loader(torch.utils.data.DataLoader[Any]):
        def __init__(self, dataset: Any, **options: Any) -> None:
            started.append(options["num_workers"])
            super().__init__(dataset, **options)

    monkeypatch.setattr(torch.utils.data, "DataLoader", Loader)
    for workers in (0, 1, 8):
        list(read_ahead(Pictures(count=3), order=range(3), workers=workers))
    assert started == [0, 1, 2]


def test_a_killed_worker_ends_the_reading_with_one_line() -> None:
    started = time.monotonic()
    with pytest.raises(ArtifactError, match=r"was lost .*(Killed|exited unexpectedly).*set workers lower") as caught:
        list(read_ahead(Pictures(deadly=9), order=range(24), batch_size=4, workers=2))
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 30


@pytest.mark.long
def test_a_worker_that_never_delivers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PATIENCE_SECONDS", 1.0)
    with pytest.raises(ArtifactError, match="timed out after 1"):
        list(read_ahead(Pictures(endless=9), order=range(24), batch_size=4, workers=2))


def test_what_the_dataset_raises_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="a fault of the dataset"):
        list(read_ahead(Pictures(wrong=9), order=range(24), workers=2))


SMALL = """
import torch
from cgn.core.loading import read_ahead

class Large:
    def __len__(self): return 390
    def __getitem__(self, place): return torch.full((3, 224, 224), float(place))

import cgn.core.loading as loading
loading.usable_cores = lambda: 8
batches = read_ahead(Large(), order=range(390), batch_size=128, workers=8)
seen = [float(picture[0, 0, 0]) for batch in batches for picture in batch]
assert seen == [float(place) for place in range(390)]
print("all of", len(seen))
"""


@pytest.mark.long
@pytest.mark.parametrize("size", ["64m", "1m"])
def test_a_small_shared_memory_stops_nothing(size: str) -> None:
    """390 pictures in batches of 128 by 8 workers, as in a container with the default /dev/shm of 64 MB."""
    mount = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec {sys.executable} -c "$0"'
    inside = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, SMALL]
    if subprocess.run(["unshare", "--mount", "--map-root-user", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespaces here, in which /dev/shm could be small")
    found = subprocess.run(inside, check=False, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert found.stdout.strip() == "all of 390", found.stderr[-2000:]
