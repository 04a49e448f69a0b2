"""The cache of shards stays below its limit, and loses none that a living process reads."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cgn.core.errors import ConfigError
from cgn.data.cache import LIMIT, contents, hold, make_room

READER = "import sys; from pathlib import Path; from cgn.data.cache import hold; hold(Path(sys.argv[1])); input()"


@pytest.fixture(autouse=True)
def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, "3e2")


def shard(cache: Path, name: str, *, age: float) -> Path:
    """A shard of 100 bytes that was used some seconds ago."""
    cache.mkdir(exist_ok=True)
    path = cache / f"{name}.tar"
    path.write_bytes(bytes(100))
    os.utime(path, (time.time() - age,) * 2)
    return path


def names(cache: Path) -> set[str]:
    return {path.stem for path in cache.glob("*.tar")}


def test_what_was_not_used_for_the_longest_time_makes_room(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "old", "oldest")):
        shard(tmp_path, name, age=age * 60)
    assert make_room(tmp_path, 0) == 0
    assert make_room(tmp_path, 150) == 200
    assert names(tmp_path) == {"new"}


def test_without_a_limit_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIMIT)
    shard(tmp_path, "old", age=60)
    assert make_room(tmp_path, 10**15) == 0
    assert names(tmp_path) == {"old"}


@pytest.mark.parametrize("text", ["200 GB", "-1", "nan", "inf"])
def test_a_limit_that_is_no_number_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(LIMIT, text)
    with pytest.raises(ConfigError, match=f"CGN_CACHE_BYTES is '{text}'; allowed: a number of bytes, such as 200e9"):
        make_room(tmp_path, 0)


def test_what_a_living_process_reads_stays_and_counts_as_used(tmp_path: Path) -> None:
    paths = [shard(tmp_path, name, age=age) for name, age in (("read", 180), ("old", 120), ("new", 60))]
    with subprocess.Popen([sys.executable, "-c", READER, str(paths[0])], stdin=subprocess.PIPE) as process:
        while not any(one.held for one in contents(tmp_path)):
            assert process.poll() is None
            time.sleep(0.05)
        assert make_room(tmp_path, 250) == 200
        assert names(tmp_path) == {"read"}
        process.kill()
    shard(tmp_path, "later", age=30)
    assert make_room(tmp_path, 200) == 100
    assert names(tmp_path) == {"read"}, "it was used after the other"
    assert not list((tmp_path / "readers").iterdir()), "the list of a dead process is removed"
    assert make_room(tmp_path, 300) == 100


def test_a_shard_is_held_before_it_is_there(tmp_path: Path) -> None:
    """Else one might go between the look and the opening."""
    hold(tmp_path / "cache" / "coming.tar")
    shard(tmp_path / "cache", "coming", age=60)
    shard(tmp_path / "cache", "other", age=0)
    assert make_room(tmp_path / "cache", 300) == 100
    assert names(tmp_path / "cache") == {"coming"}
