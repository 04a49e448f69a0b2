"""python -m cgn doctor: each check sees what is wrong, and says what to do."""

import os
import resource
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from cgn import __main__ as front
from cgn import doctor
from cgn.download import sources
from cgn.mnist import fetch as mnist_fetch

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CGN_MIRROR", "CGN_CORES", "PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def examined(tmp_path: Path, **active: list[str]) -> dict[str, doctor.Finding]:
    """The last finding of each name, of params.yaml with these variants active."""
    return {finding.what: finding for finding in all_of(tmp_path, **active)}


def all_of(tmp_path: Path, **active: list[str]) -> list[doctor.Finding]:
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    tree["active"] = {"mnist": [], "imagenet": [], **active}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return doctor.examine(tmp_path / "params.yaml", runs=tmp_path / "runs")


def test_a_good_machine_passes_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(["doctor", "--params", str(ROOT / "params.yaml"), "--runs", str(tmp_path / "runs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    named = {line.split()[1] for line in lines if not line.lstrip().startswith("->")}
    assert {"cores", "memory", "disk", "mnist/digits", "imagenet/miniature", "Prefect", "MLflow"} <= named
    assert not [line for line in lines if line.startswith("problem")]
    assert not list(tmp_path.iterdir())


def test_a_problem_ends_with_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CGN_MIRROR", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match="1"):
        front.main(["doctor", "--params", str(ROOT / "params.yaml")])
    assert "create it, or unset CGN_MIRROR" in capsys.readouterr().out


def test_wrong_parameters_and_cores_are_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CGN_CORES", "many")
    found = {finding.what: finding for finding in doctor.examine(tmp_path / "none.yaml", runs=tmp_path)}
    assert found["variants"].level == found["cores"].level == "problem"
    assert "none.yaml is missing" in found["variants"].found
    assert "CGN_CORES" in found["cores"].found


@pytest.mark.parametrize(("free", "level"), [(6e9, "ok"), (3e9, "warning"), (1e8, "problem")])
def test_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, level: str) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    found = examined(tmp_path)["disk"]
    assert found.level == level
    assert (found.remedy == "") == (level == "ok")
    assert f"at {tmp_path}" in found.found, "the folder above runs, which is not there yet"


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert examined(tmp_path)["disk"].level == "problem"


def test_a_folder_that_may_not_be_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Path) -> bool:
        raise PermissionError(13, "Permission denied", "/root/runs")

    monkeypatch.setattr(Path, "exists", refused)
    (found,) = [one for one in doctor.examine(tmp_path / "none.yaml", runs=tmp_path) if one.what == "disk"]
    assert found.level == "problem"
    assert "/root/runs" in found.found


@pytest.mark.parametrize("files", list(doctor.CGROUPS.items()))
def test_the_cgroups_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: tuple[str, str]) -> None:
    monkeypatch.setattr(doctor, "CGROUP", tmp_path)
    for name, count in zip(files, (3_000_000_000, 2_000_000_000), strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{count}\n")
    found = examined(tmp_path)["memory"]
    assert (found.level, found.found) == ("warning", "1.0 GB available by the cgroup's limit, less than 4 GB")
    (tmp_path / files[0]).write_text("max\n")
    assert "cgroup" not in examined(tmp_path)["memory"].found


def test_few_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    found = examined(tmp_path)["open files"]
    assert (found.level, found.remedy) == ("warning", "ulimit -n 1024 (up to 4,096 is allowed)")


def test_packages_that_are_absent_are_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda _: None)
    found = examined(tmp_path)["optional packages"]
    assert found.level == "ok"
    assert "no ray (for Ray)" in found.found
    assert "--group cluster" in found.found


def test_files_without_a_public_address_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asset = sources.Asset(name="private.npz", urls=(), sha256="0" * 64, licence="none", bytes=7)
    monkeypatch.setitem(mnist_fetch.DIGITS, "scikit-learn", (asset,))
    found = examined(tmp_path, mnist=["digits"])["mnist/digits"]
    assert (found.level, found.remedy) == ("problem", "set CGN_MIRROR to a folder that holds private.npz")


def test_all_that_a_variant_lacks_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU, the user's images, and what it would download."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    gpu, folders, files = [one for one in all_of(tmp_path, imagenet=["full"]) if one.what == "imagenet/full"]
    assert gpu.level == folders.level == "problem"
    assert "finds no CUDA GPU" in gpu.found
    assert "imagenet.full.prepare.folders" in folders.found
    assert "to get:" in files.found


@pytest.fixture
def server() -> Iterator[SimpleNamespace]:
    """A server that answers /health with `status`."""
    state = SimpleNamespace(status=200, asked=[])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            self.send_response(state.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://user:secret@127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.05,))
    thread.start()
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_servers_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: SimpleNamespace) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PREFECT_API_URL", f"{server.url}/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    found = examined(tmp_path)
    assert (found["Prefect"].level, found["MLflow"].level) == ("ok", "ok")
    assert server.asked == ["/api/health", "/health"]
    assert "secret" not in found["Prefect"].found
    server.status = 503
    found = examined(tmp_path)
    assert (found["Prefect"].level, found["MLflow"].level) == ("problem", "warning")
    assert "answers with status 503" in found["Prefect"].found


def test_a_server_that_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    found = examined(tmp_path)["MLflow"]
    assert (found.level, "does not answer" in found.found) == ("warning", True)
    assert "flows.tracking sync" in found.remedy
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    assert examined(tmp_path)["MLflow"].level == "ok"
