"""Cores and threads by affinity, cgroup and CGN_CORES; one thread in every verb; freed memory is used again."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cgn.config.load import load
from cgn.core import devices
from cgn.core.devices import limit_threads, usable_cores
from cgn.core.errors import ConfigError
from cgn.core.fan_out import Workers
from cgn.core.metrics import Silent

ROOT = Path(__file__).parents[2]


@pytest.fixture
def sixteen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 16 cores without any limit; the folder of its cgroup."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(devices, "CGROUP", tmp_path)
    monkeypatch.delenv(devices.CORES, raising=False)
    return tmp_path


def test_the_affinity_mask_decides_not_the_cores_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5})
    assert usable_cores() == 1


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "250000 100000"}, 3),
        ({"cpu.max": "max 100000"}, 16),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 16),
    ],
)
def test_the_quota_of_a_cgroup_limits_the_cores(sixteen: Path, files: dict[str, str], cores: int) -> None:
    for name, text in files.items():
        (sixteen / name).parent.mkdir(exist_ok=True)
        (sixteen / name).write_text(text)
    assert usable_cores() == cores


def test_the_variable_limits_the_usable_cores(sixteen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del sixteen
    monkeypatch.setenv(devices.CORES, "4")
    assert usable_cores() == 4
    monkeypatch.setenv(devices.CORES, "99")
    assert usable_cores() == 16
    for wrong in ("0", "-2", "four", ""):
        monkeypatch.setenv(devices.CORES, wrong)
        with pytest.raises(ConfigError, match=r"CGN_CORES is .*a whole number from 1"):
            usable_cores()


def test_threads_are_limited_before_and_after_torch_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in devices.THREAD_VARIABLES:
        monkeypatch.setenv(name, "7")
    torch.set_num_threads(2)
    limit_threads()
    assert torch.get_num_threads() == 1
    assert {os.environ[name] for name in devices.THREAD_VARIABLES} == {"1"}


@pytest.mark.long
@pytest.mark.parametrize("threads", ["1", "8"])
def test_a_verb_computes_with_one_thread_whatever_the_environment_says(threads: str) -> None:
    """For any verb: what the front door does before it reads its command line."""
    code = (
        "import sys, cgn.__main__ as front\n"
        "try: front.run(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules\n"
        "import torch; print(torch.get_num_threads())"
    )
    environment = {**os.environ, **dict.fromkeys(devices.THREAD_VARIABLES, threads)}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert found.stdout.splitlines()[-1] == "1", found.stderr


@pytest.mark.parametrize("target", ["mnist/digits", "imagenet/miniature"])
def test_generate_starts_as_many_workers_as_it_may_use_cores(
    target: str, sixteen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sixteen / "cpu.max").write_text("300000 100000")
    track, _, name = target.partition("/")
    config = load(ROOT / "params.yaml").variant(target).generate
    module = importlib.import_module(f"cgn.{track}.generate")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found: list[torch.device] = []

    def interrupted(*_: object, workers: Workers, **__: object) -> None:
        found.extend(workers.devices)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "render_shards", interrupted)
    monkeypatch.setattr(module, "Renderer", lambda *_, **__: SimpleNamespace(classes=9))
    with pytest.raises(KeyboardInterrupt):
        module.generate(config, seed=0, variant=name, model=sixteen, images=sixteen, sink=Silent())
    assert found == [torch.device("cpu")] * 3


SCRIPT = """
import resource
import numpy as np
from cgn.core.devices import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        np.ones(1 << 26, dtype=np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

plain = faults()
keep_freed_memory()
faults()  # takes the block that is then kept
print(plain, faults())
"""


def test_blocks_are_used_again() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    plain, kept = map(int, done.stdout.split())
    assert kept < plain / 10, (plain, kept)
