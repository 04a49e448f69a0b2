"""Downloads from a real HTTP server on this machine that breaks off, is busy, sends rubbish or ignores ranges."""

import errno
import hashlib
import http.server
import io
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cgn.core.errors import ArtifactError
from cgn.data.download import MIRROR, Patience, bring
from cgn.data.sources import Asset

CONTENT = bytes(range(256)) * 1200  # 300 KiB: several blocks
QUICK = Patience(tries=3, backoff_seconds=0.01, timeout_seconds=5)


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT under every path; `behave` may answer in its place. `ranges` notes what was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave: Callable[[Handler], bool] = lambda _: False
        self.ranges: list[str | None] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers["Range"])
        if not self.server.behave(self):
            self.give(CONTENT, start=self.start())

    def start(self) -> int:
        asked = self.headers["Range"]
        return int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0

    def give(self, content: bytes, *, start: int = 0, cut: int | None = None) -> bool:
        """All from `start`; with `cut` the connection is dropped before that byte. True: an answer was given."""
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start:cut])
        self.close_connection = True
        return True

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in [MIRROR, *(n for n in os.environ if n.lower().endswith("_proxy"))]:
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def asset(*urls: str, content: bytes = CONTENT) -> Asset:
    digest = hashlib.sha256(content).hexdigest()
    return Asset(name="data.bin", urls=urls, sha256=digest, bytes=len(content), licence="none")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_download_is_verified_and_alone_in_its_folder(server: Server, tmp_path: Path) -> None:
    bring([asset(server.url("data.bin"))], tmp_path, patience=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert files(tmp_path) == ["data.bin"]
    bring([asset(server.url("data.bin"))], tmp_path, patience=QUICK)
    assert server.ranges == [None]  # what is there and right is not fetched again


def test_a_dropped_connection_is_resumed(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.behave = lambda request: len(server.ranges) == 1 and request.give(CONTENT, cut=200_000)
    bring([asset(server.url("data.bin"))], tmp_path, patience=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    first, second = server.ranges
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 200_000
    assert "broke off at byte" in capsys.readouterr().err
    assert files(tmp_path) == ["data.bin"]


def test_a_server_that_ignores_ranges_starts_from_the_first_byte(server: Server, tmp_path: Path) -> None:
    server.behave = lambda r: r.give(CONTENT, cut=100_000 if len(server.ranges) == 1 else None)
    bring([asset(server.url("data.bin"))], tmp_path, patience=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.ranges[1] is not None


def test_a_killed_runs_part_is_continued_by_the_next_run(server: Server, tmp_path: Path) -> None:
    url = server.url("data.bin")
    part = tmp_path / f".data.bin.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part"
    part.write_bytes(CONTENT[:150_000])
    bring([asset(url)], tmp_path, patience=QUICK)
    assert server.ranges == ["bytes=150000-"]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("length", [1000, len(CONTENT), len(CONTENT) + 5])
def test_a_damaged_part_of_an_earlier_run_is_thrown_away(server: Server, tmp_path: Path, length: int) -> None:
    def behave(request: Handler) -> bool:
        if request.start() < len(CONTENT):
            return False
        request.send_error(416)
        return True

    server.behave = behave
    url = server.url("data.bin")
    part = tmp_path / f".data.bin.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part"
    part.write_bytes(b"\0" * length)
    bring([asset(url)], tmp_path, patience=QUICK)
    assert server.ranges == [f"bytes={length}-", None]
    assert files(tmp_path) == ["data.bin"]


def busy(times: int, server: Server) -> Callable[[Handler], bool]:
    def behave(request: Handler) -> bool:
        if len(server.ranges) > times:
            return False
        request.send_error(503)
        return True

    return behave


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.behave = busy(2, server)
    bring([asset(server.url("data.bin"))], tmp_path, patience=QUICK)
    assert len(server.ranges) == 3


def test_a_server_that_stays_busy_is_given_up(server: Server, tmp_path: Path) -> None:
    server.behave = busy(99, server)
    with pytest.raises(ArtifactError, match=r"HTTP 503 .* after 4 tries"):
        bring([asset(server.url("data.bin"))], tmp_path, patience=QUICK)
    assert len(server.ranges) == 4


def test_a_server_that_always_breaks_off_is_given_up(server: Server, tmp_path: Path) -> None:
    server.behave = lambda request: request.give(CONTENT, cut=0)
    with pytest.raises(ArtifactError, match="broke 3 times"):
        bring([asset(server.url("data.bin"))], tmp_path, patience=QUICK)


def test_wrong_bytes_keep_nothing_and_the_next_mirror_serves(server: Server, tmp_path: Path) -> None:
    server.behave = lambda request: request.path == "/bad/data.bin" and request.give(b"<html>" + CONTENT[6:])
    bring([asset(server.url("bad/data.bin"), server.url("good/data.bin"))], tmp_path, patience=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert files(tmp_path) == ["data.bin"]


def test_when_all_fail_every_url_and_reason_is_told(server: Server, tmp_path: Path) -> None:
    def behave(request: Handler) -> bool:
        if request.path == "/gone/data.bin":
            request.send_error(404)
        else:
            request.give(b"<html>" + CONTENT[6:])
        return True

    server.behave = behave
    nobody = "http://127.0.0.1:9/data.bin"  # the discard port: nothing listens
    wrong, gone = server.url("bad/data.bin"), server.url("gone/data.bin")
    with pytest.raises(ArtifactError) as caught:
        bring([asset(wrong, gone, nobody)], tmp_path, patience=QUICK)
    told = str(caught.value)
    assert f"{wrong}: wrong file (sha256 " in told
    assert "HTML page" in told
    assert f"{gone}: HTTP 404" in told
    assert f"{nobody}: ConnectionError" in told
    assert MIRROR in told
    assert files(tmp_path) == []


def test_a_relative_mirror_starts_at_the_users_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As folders do: a stage may run in a temporary copy."""
    (tmp_path / "copy").mkdir()
    (tmp_path / "mine" / "mirror").mkdir(parents=True)
    (tmp_path / "mine" / "mirror" / "data.bin").write_bytes(CONTENT)
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("CGN_ROOT", str(tmp_path / "mine"))
    monkeypatch.setenv(MIRROR, "mirror")
    bring([asset()], tmp_path / "out")
    assert (tmp_path / "out" / "data.bin").read_bytes() == CONTENT


def test_the_mirror_comes_first_and_a_wrong_file_there_is_passed_over(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror, out = tmp_path / "mirror", tmp_path / "out"
    (mirror / "a").mkdir(parents=True)
    (mirror / "b" / "c").mkdir(parents=True)
    (mirror / "a" / "data.bin").write_bytes(CONTENT[:-1] + b"x")
    monkeypatch.setenv(MIRROR, str(mirror))
    bring([asset(server.url("data.bin"))], out, patience=QUICK)
    assert server.ranges == [None]
    assert f"{mirror / 'a' / 'data.bin'} is not data.bin (sha256" in capsys.readouterr().err

    (out / "data.bin").unlink()
    (mirror / "b" / "c" / "data.bin").write_bytes(CONTENT)
    bring([asset()], out, patience=QUICK)
    assert (out / "data.bin").read_bytes() == CONTENT
    assert server.ranges == [None]


def test_a_mirror_that_is_no_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MIRROR, str(tmp_path / "nowhere"))
    with pytest.raises(ArtifactError, match=r"CGN_MIRROR is .*nowhere"):
        bring([asset()], tmp_path, patience=QUICK)


def test_an_asset_without_url_asks_for_a_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MIRROR, raising=False)
    with pytest.raises(ArtifactError, match=r"cannot get data\.bin: it has no public URL.*CGN_MIRROR"):
        bring([asset()], tmp_path, patience=QUICK)


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "data.bin").write_bytes(CONTENT)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(ArtifactError, match="no space is left"):
        bring([asset()], tmp_path / "out", mirror=tmp_path / "mirror", patience=QUICK)
    assert files(tmp_path / "out") == []


def test_a_full_disk_in_a_download_is_told(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ArtifactError, match="no space is left"):
        bring([asset(server.url("data.bin"))], tmp_path, patience=QUICK)


def test_a_folder_below_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"a file, not a folder|in the way"):
        bring([asset()], tmp_path / "file" / "out", patience=QUICK)


def test_a_terminal_sees_a_progress_bar(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    bring([asset(server.url("data.bin"))], tmp_path, patience=QUICK)
    assert "data.bin: 100%" in terminal.getvalue()


def undocumented(*urls: str) -> Asset:
    return Asset(name="data.bin", urls=urls, sha256=None, licence="none")


def test_a_file_without_a_documented_digest_is_held_against_its_first(server: Server, tmp_path: Path) -> None:
    bring([undocumented(server.url("x"))], tmp_path, patience=QUICK)
    record = tmp_path / "data.bin.sha256"
    assert record.read_text() == f"{hashlib.sha256(CONTENT).hexdigest()}  data.bin\n"
    assert files(tmp_path) == ["data.bin", "data.bin.sha256"]
    bring([undocumented(server.url("x"))], tmp_path, patience=QUICK)
    assert len(server.ranges) == 1

    (tmp_path / "data.bin").write_bytes(CONTENT[:-1])  # damaged: mended by the same file
    bring([undocumented(server.url("x"))], tmp_path, patience=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT

    (tmp_path / "data.bin").unlink()
    server.behave = lambda request: request.give(CONTENT[:-1] + b"x")
    with pytest.raises(ArtifactError, match=r"expected \w{64}.*recorded when it first came; .* remove .*bin\.sha256"):
        bring([undocumented(server.url("x"))], tmp_path, patience=QUICK)
    record.unlink()
    bring([undocumented(server.url("x"))], tmp_path, patience=QUICK)
    assert record.read_text().startswith(hashlib.sha256(CONTENT[:-1] + b"x").hexdigest())


def test_a_page_is_never_recorded(server: Server, tmp_path: Path) -> None:
    server.behave = lambda request: request.give(b"\n<!DOCTYPE html><html>Quota exceeded</html>")
    with pytest.raises(ArtifactError, match=r"wrong file \(it looks like an HTML page\)"):
        bring([undocumented(server.url("x"))], tmp_path, patience=QUICK)
    assert files(tmp_path) == []


def test_what_a_killed_run_left_unrecorded_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(CONTENT)
    bring([undocumented()], tmp_path, patience=QUICK)
    assert files(tmp_path) == ["data.bin", "data.bin.sha256"]


@pytest.mark.parametrize("content", [b"", b"none", b"\xff\xff"])
def test_a_broken_record_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.bin.sha256").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"data\.bin\.sha256 holds no SHA-256: remove it"):
        bring([undocumented()], tmp_path, patience=QUICK)
