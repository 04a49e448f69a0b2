"""A toy project with real DVC, real MLflow and a real Prefect server, each in folders of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from flows import untracked
from flows.mlflow_client import PATIENCE

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent
KEPT = ("HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "LD_LIBRARY_PATH", "PYTHONDONTWRITEBYTECODE", "NO_PROXY")


@dataclass(frozen=True, kw_only=True)
class Project:
    """A checkout with the toy's stages, and how to run commands in it."""

    folder: Path
    environment: dict[str, str]

    def run(self, *words: str, status: int = 0, timeout: float = 120, **extra: str) -> str:
        """Output of a command that must end with `status`."""
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment | extra,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == status, f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    @contextmanager
    def running(self, *words: str, **extra: str) -> Iterator["subprocess.Popen[bytes]"]:
        """A command in a process group of its own, which is ended in the end."""
        log = self.folder / "running.log"
        with log.open("ab") as file:
            process = subprocess.Popen(
                words,
                cwd=self.folder,
                env=self.environment | extra,
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            end_group(process)

    def params(self, verb: str, **values: Any) -> None:
        """Change parameters."""
        file = self.folder / "params.yaml"
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
        tree[verb] |= values
        file.write_text(yaml.safe_dump(tree), encoding="utf-8")

    def ran(self) -> list[str]:
        """The outputs of the stages that ran, in the order of their starts."""
        file = self.folder / "ran.txt"
        return [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []

    def forget(self) -> None:
        """Count stages from here on."""
        (self.folder / "ran.txt").unlink(missing_ok=True)

    def processes(self) -> list[str]:
        """Command lines of what still works in this folder."""
        found = []
        for process in psutil.process_iter():
            try:
                if Path(process.cwd()).is_relative_to(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """End a process started in a session of its own, with all below it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(5)
        except (ProcessLookupError, PermissionError):
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait(5)


def until(true: Callable[[], Any], *, seconds: float = 600, what: str = "") -> Any:
    """Wait until something holds, and return it. The bound is for what never comes, on a machine that is busy."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := true():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what or true}")


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    """Whether a server answers a GET."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def environment(folder: Path) -> dict[str, str]:
    """The environment of the commands in a project: this interpreter, nothing of the user's."""
    return {name: os.environ[name] for name in KEPT if name in os.environ} | {
        "PATH": os.pathsep.join([str(SCRIPTS), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(folder / ".prefect"),
        "DO_NOT_TRACK": "true",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_{what}": "toy@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }


def make_project(folder: Path) -> Project:
    """The toy project, committed, with this checkout's platform linked in."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in (ROOT / "tests/flows/toy").glob("*.*"):
        shutil.copy(file, folder)
    (folder / "pipeline.yaml").rename(
        folder / "dvc.yaml"
    )  # under that name DVC would take it for a part of this project
    for name in ("pyproject.toml", "pipelines.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    (folder / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(ROOT / ".dvc" / name, folder / ".dvc")
    for name in ("cgn", "flows"):
        (folder / name).symlink_to(ROOT / name)
    project = Project(folder=folder, environment=environment(folder))
    with (folder / ".gitignore").open("a", encoding="utf-8") as ignored:
        ignored.write("/ran.txt\n/running.log\n/.prefect\n")
    project.run("git", "init", "-q")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "toy")
    return project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A fresh toy project."""
    return make_project(tmp_path / "project")


@pytest.fixture
def isolated_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's settings, and no uploader: `sync` sends."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "CGN_MODEL_MB"):
        monkeypatch.delenv(name, raising=False)
    for name, value in PATIENCE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(untracked, "start_uploader", lambda *_, **__: None)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new SQLite store: making one takes seconds."""
    from tests.flows.stored import runs

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    assert runs(f"sqlite:///{file}") == {}
    return file


@pytest.fixture
def root(tmp_path: Path, empty_store: Path, isolated_mlflow: None, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: ARG001 sets up
    """A checkout with an empty store, which is the current folder."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(empty_store, folder)
    monkeypatch.chdir(folder)
    return folder
