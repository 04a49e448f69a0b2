"""A process has one name as long as it lives, whatever the clock says."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows.processes import alive, is_alive
from tests.flows.conftest import ROOT

linux = pytest.mark.skipif(sys.platform != "linux", reason="shifts psutil's boot time as Linux has it")


@linux
@pytest.mark.parametrize("seconds", [1, -1, 86400])
def test_a_process_keeps_its_name_when_the_clock_is_set(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    name, started = alive(os.getpid()), psutil.Process().create_time()
    boot = psutil.boot_time()
    monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: boot + seconds)
    assert abs(psutil.Process().create_time() - started) > 0.5  # the clock was set, as psutil sees it
    assert alive(os.getpid()) == name
    assert is_alive(name)


@linux
def test_dvc_is_found_above_a_stage_while_the_clock_is_set(tmp_path: Path) -> None:
    script = tmp_path / "stage.py"
    script.write_text(
        "import itertools, psutil\n"
        "from flows.processes import nearest_dvc\n"
        "clock = itertools.count(int(psutil.boot_time()), 60)\n"
        "psutil._psplatform.boot_time = lambda: next(clock)\n"
        "print(nearest_dvc())\n",
        encoding="utf-8",
    )
    below = f"{sys.executable} {script}; true"
    done = subprocess.run(
        ["bash", "-c", 'exec -a dvc bash -c "$0" repro', below],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() not in ("", "None"), done.stderr


@linux
def test_a_name_with_parentheses_hides_no_process() -> None:
    script = "import ctypes; ctypes.CDLL(None).prctl(15, b'a) Z 1 (b', 0, 0, 0); print(); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        name = alive(process.pid)
        assert is_alive(name)
        process.stdin.write(b"\n")
        process.stdin.close()
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        assert not is_alive(name)  # a zombie
    assert not is_alive(name)
    assert not is_alive("")
