"""Downloads from a real HTTP server on this machine that breaks off, is busy, sends rubbish or ignores ranges."""

import errno
import gzip
import hashlib
import http.server
import io
import os
import shutil
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from cgn.core.errors import ArtifactError, DownloadError
from cgn.download.fetching import MIRROR, fetch_assets, locate_assets
from cgn.download.http import Patience
from cgn.download.sources import Asset, AssetKind

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
    fetch_assets([asset(server.url("data.bin"))], tmp_path, patience=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert files(tmp_path) == ["data.bin"]
    fetch_assets([asset(server.url("data.bin"))], tmp_path, patience=QUICK)
    assert server.ranges == [None]  # what is there and right is not fetched again


def test_a_dropped_connection_is_resumed(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.behave = lambda request: len(server.ranges) == 1 and request.give(CONTENT, cut=200_000)
    fetch_assets([asset(server.url("data.bin"))], tmp_path, patience=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    first, second = server.ranges
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 200_000
    assert "broke off at byte" in capsys.readouterr().err
    assert files(tmp_path) == ["data.bin"]


def test_a_server_that_ignores_ranges_starts_from_the_first_byte(server: Server, tmp_path: Path) -> None:
    server.behave = lambda r: r.give(CONTENT, cut=100_000 if len(server.ranges) == 1 else None)
    fetch_assets([asset(server.url("data.bin"))], tmp_path, patience=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.ranges[1] is not None


def test_a_killed_runs_part_is_continued_by_the_next_run(server: Server, tmp_path: Path) -> None:
    url = server.url("data.bin")
    part = tmp_path / f".data.bin.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part"
    part.write_bytes(CONTENT[:150_000])
    fetch_assets([asset(url)], tmp_path, patience=QUICK)
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
    fetch_assets([asset(url)], tmp_path, patience=QUICK)
    assert server.ranges == [f"bytes={length}-", None]
    assert files(tmp_path) == ["data.bin"]


def busy(times: int, server: Server) -> Callable[[Handler], bool]:
    def behave(request: Handler) -> bool:
        if len(server.ranges) > times:
            return False
        request.send_error(503)
        return True

    return behave


def not_found(request: Handler) -> bool:
    request.send_error(404)
    return True


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.behave = busy(2, server)
    fetch_assets([asset(server.url("data.bin"))], tmp_path, patience=QUICK)
    assert len(server.ranges) == 3


def test_a_server_that_stays_busy_is_given_up(server: Server, tmp_path: Path) -> None:
    server.behave = busy(99, server)
    with pytest.raises(DownloadError, match=r"HTTP 503 .* after 4 tries"):
        fetch_assets([asset(server.url("data.bin"))], tmp_path, patience=QUICK)
    assert len(server.ranges) == 4


def test_a_server_that_always_breaks_off_is_given_up(server: Server, tmp_path: Path) -> None:
    server.behave = lambda request: request.give(CONTENT, cut=0)
    with pytest.raises(DownloadError, match="broke 3 times"):
        fetch_assets([asset(server.url("data.bin"))], tmp_path, patience=QUICK)


@pytest.mark.parametrize(
    ("urls", "kind"),
    [(["closed"], DownloadError), (["gone"], ArtifactError), (["closed", "gone"], DownloadError), ([], ArtifactError)],
)
def test_only_what_may_be_available_later_is_worth_another_try(
    server: Server, tmp_path: Path, urls: list[str], kind: type[ArtifactError]
) -> None:
    server.behave = not_found
    places = {"closed": "http://127.0.0.1:9/data.bin", "gone": server.url("gone/data.bin")}
    with pytest.raises(ArtifactError) as caught:
        fetch_assets([asset(*(places[url] for url in urls))], tmp_path, patience=QUICK)
    assert caught.type is kind
    assert caught.value.exit_status == (75 if kind is DownloadError else 2)


def test_wrong_bytes_keep_nothing_and_the_next_mirror_serves(server: Server, tmp_path: Path) -> None:
    server.behave = lambda request: request.path == "/bad/data.bin" and request.give(b"<html>" + CONTENT[6:])
    fetch_assets([asset(server.url("bad/data.bin"), server.url("good/data.bin"))], tmp_path, patience=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert files(tmp_path) == ["data.bin"]


def test_when_all_fail_every_url_and_reason_is_reported(server: Server, tmp_path: Path) -> None:
    def behave(request: Handler) -> bool:
        if request.path == "/gone/data.bin":
            request.send_error(404)
        else:
            request.give(b"<html>" + CONTENT[6:])
        return True

    server.behave = behave
    closed = "http://127.0.0.1:9/data.bin"  # the discard port: nothing listens
    wrong, gone = server.url("bad/data.bin"), server.url("gone/data.bin")
    with pytest.raises(ArtifactError) as caught:
        fetch_assets([asset(wrong, gone, closed)], tmp_path, patience=QUICK)
    message = str(caught.value)
    assert f"{wrong}: wrong file (sha256 " in message
    assert "HTML page" in message
    assert f"{gone}: HTTP 404" in message
    assert f"{closed}: ConnectionError" in message
    assert MIRROR in message
    assert files(tmp_path) == []


def test_a_relative_mirror_starts_at_the_users_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As folders do: a stage may run in a temporary copy."""
    (tmp_path / "copy").mkdir()
    (tmp_path / "mine" / "mirror").mkdir(parents=True)
    (tmp_path / "mine" / "mirror" / "data.bin").write_bytes(CONTENT)
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("CGN_ROOT", str(tmp_path / "mine"))
    monkeypatch.setenv(MIRROR, "mirror")
    fetch_assets([asset()], tmp_path / "out")
    assert (tmp_path / "out" / "data.bin").read_bytes() == CONTENT


def test_the_mirror_comes_first_and_a_wrong_file_there_is_passed_over(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror, out = tmp_path / "mirror", tmp_path / "out"
    (mirror / "a").mkdir(parents=True)
    (mirror / "b" / "c").mkdir(parents=True)
    (mirror / "a" / "data.bin").write_bytes(CONTENT[:-1] + b"x")
    monkeypatch.setenv(MIRROR, str(mirror))
    fetch_assets([asset(server.url("data.bin"))], out, patience=QUICK)
    assert server.ranges == [None]
    assert f"{mirror / 'a' / 'data.bin'} is not data.bin (sha256" in capsys.readouterr().err

    (out / "data.bin").unlink()
    (mirror / "b" / "c" / "data.bin").write_bytes(CONTENT)
    fetch_assets([asset()], out, patience=QUICK)
    assert (out / "data.bin").read_bytes() == CONTENT
    assert server.ranges == [None]


def test_a_mirror_that_is_no_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MIRROR, str(tmp_path / "nowhere"))
    with pytest.raises(ArtifactError, match=r"CGN_MIRROR is .*nowhere"):
        fetch_assets([asset()], tmp_path, patience=QUICK)


def test_an_asset_without_url_asks_for_a_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MIRROR, raising=False)
    with pytest.raises(ArtifactError, match=r"cannot get data\.bin: it has no public URL.*CGN_MIRROR"):
        fetch_assets([asset()], tmp_path, patience=QUICK)


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "data.bin").write_bytes(CONTENT)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(ArtifactError, match="no space is left"):
        fetch_assets([asset()], tmp_path / "out", mirror=tmp_path / "mirror", patience=QUICK)
    assert files(tmp_path / "out") == []


def test_a_full_disk_in_a_download_is_reported(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ArtifactError, match="no space is left"):
        fetch_assets([asset(server.url("data.bin"))], tmp_path, patience=QUICK)


def test_a_folder_below_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"a file, not a folder|in the way"):
        fetch_assets([asset()], tmp_path / "file" / "out", patience=QUICK)


def test_a_terminal_sees_a_progress_bar(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    fetch_assets([asset(server.url("data.bin"))], tmp_path, patience=QUICK)
    assert "data.bin: 100%" in terminal.getvalue()


def undocumented(*urls: str, kind: AssetKind = "tar.gz", holds: tuple[str, ...] = ("cats/",)) -> Asset:
    return Asset(name="data.bin", urls=urls, sha256=None, licence="none", kind=kind, holds=holds)


@cache  # gzip writes the time: two calls give other bytes
def tar(content: bytes = CONTENT, *, name: str = "box/cats/1.png", mode: str = "w:gz") -> bytes:
    """A tar archive of one file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def weights(tensors: object) -> bytes:
    file = io.BytesIO()
    torch.save(tensors, file)
    return file.getvalue()


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


NET = {"f_shape.weight": torch.arange(4096.0)}
WHOLE: dict[AssetKind, bytes] = {
    "gzip": gzip.compress(CONTENT),
    "tar": tar(mode="w"),
    "tar.gz": tar(),
    "zip": zipped("cats/1.png", CONTENT),
    "weights": weights(NET),
    "safetensors": safetensors.torch.save(NET),
    "image": picture("JPEG"),
}
HOLDS: dict[AssetKind, tuple[str, ...]] = {
    "tar": ("cats/",), "tar.gz": ("cats/",), "zip": ("cats/",), "weights": ("f_shape.",), "safetensors": ("f_shape.",),
}  # fmt: skip


def given(server: Server, content: bytes, *, length: bool = True) -> None:
    """Let the server answer with `content`, without a Content-Length if need be: the body ends with the connection."""

    def behave(request: Handler) -> bool:
        if length:
            return request.give(content)
        request.send_response(200)
        request.end_headers()
        request.wfile.write(content)
        request.close_connection = True
        return True

    server.behave = behave


def test_a_file_without_a_documented_digest_is_compared_with_the_first_download(server: Server, tmp_path: Path) -> None:
    first, other = tar(CONTENT), tar(CONTENT[:-1])
    given(server, first)
    fetch_assets([undocumented(server.url("x"))], tmp_path, patience=QUICK)
    record = tmp_path / "data.bin.sha256"
    assert record.read_text() == f"{hashlib.sha256(first).hexdigest()}  data.bin\n"
    assert files(tmp_path) == ["data.bin", "data.bin.sha256"]
    fetch_assets([undocumented(server.url("x"))], tmp_path, patience=QUICK)
    assert len(server.ranges) == 1

    (tmp_path / "data.bin").write_bytes(first[:-1])  # damaged: replaced by the same file
    fetch_assets([undocumented(server.url("x"))], tmp_path, patience=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == first

    (tmp_path / "data.bin").unlink()
    given(server, other)
    with pytest.raises(ArtifactError, match=r"expected \w{64}.*recorded when it first came; .* remove .*bin\.sha256"):
        fetch_assets([undocumented(server.url("x"))], tmp_path, patience=QUICK)
    record.unlink()
    fetch_assets([undocumented(server.url("x"))], tmp_path, patience=QUICK)
    assert record.read_text().startswith(hashlib.sha256(other).hexdigest())


@pytest.mark.parametrize("kind", WHOLE)
def test_a_whole_file_of_its_kind_is_accepted(server: Server, tmp_path: Path, kind: AssetKind) -> None:
    given(server, WHOLE[kind])
    fetch_assets([undocumented(server.url("x"), kind=kind, holds=HOLDS.get(kind, ()))], tmp_path, patience=QUICK)
    assert files(tmp_path) == ["data.bin", "data.bin.sha256"]


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_body_cut_short_without_a_length_is_never_recorded(
    server: Server, tmp_path: Path, kind: AssetKind, cut: float
) -> None:
    given(server, WHOLE[kind][: int(len(WHOLE[kind]) * cut)], length=False)
    with pytest.raises(ArtifactError, match="wrong file"):
        fetch_assets([undocumented(server.url("x"), kind=kind, holds=HOLDS.get(kind, ()))], tmp_path, patience=QUICK)
    assert files(tmp_path) == []


PAGE = b"\n<!DOCTYPE html><html>Quota exceeded</html>"
BOMB = bytes(1 << 28)


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("content", [b"", b'{"error": "quota"}', PAGE, b"Not found", WHOLE["zip"][:4] + bytes(600)])
def test_an_answer_that_is_no_file_is_never_recorded(
    server: Server, tmp_path: Path, kind: AssetKind, content: bytes
) -> None:
    given(server, content)
    with pytest.raises(ArtifactError, match="wrong file") as caught:
        fetch_assets([undocumented(server.url("x"), kind=kind, holds=HOLDS.get(kind, ()))], tmp_path, patience=QUICK)
    assert ("it looks like an HTML page" in str(caught.value)) == (content == PAGE)
    assert ("the file is empty" in str(caught.value)) == (content == b"")
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "content", "reason"),
    [
        ("tar.gz", tar(name="box/dogs/1.png"), "nothing in it is called cats/"),
        ("zip", zipped("dogs/1.png", CONTENT), "nothing in it is called cats/"),
        ("weights", weights({"g.weight": torch.ones(1)}), "nothing in it is called f_shape"),
        ("weights", weights({"f_shape.weight": "text"}), "torch.save(net.state_dict()"),
        ("safetensors", safetensors.torch.save({"g": torch.ones(1)}), "nothing in it is called f_shape"),
        ("tar", tar(mode="w")[: 512 + len(CONTENT)], "cut short before its closing block"),
        ("gzip", gzip.compress(BOMB), "unpacks to more than"),
        ("zip", zipped("cats/1.png", BOMB), "unpacks to 268,435,456 bytes"),
        ("weights", zipped("archive/data.pkl", BOMB), "unpacks to 268,435,456 bytes"),
        ("tar.gz", tar(BOMB), "more than the .* that it may unpack to"),
    ],
)
def test_another_or_a_hostile_file_of_the_kind_is_never_recorded(
    tmp_path: Path, kind: AssetKind, content: bytes, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "data.bin").write_bytes(content)
    wanted = undocumented(kind=kind, holds=HOLDS.get(kind, ()))
    with pytest.raises(ArtifactError, match="no public URL"):
        fetch_assets([wanted], tmp_path / "out", mirror=tmp_path / "mirror", patience=QUICK)
    warning = capsys.readouterr().err
    assert "passed over" in warning
    assert reason.partition(" .* ")[0] in warning
    assert files(tmp_path / "out") == []


def test_what_a_killed_run_left_unrecorded_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(tar())
    fetch_assets([undocumented()], tmp_path, patience=QUICK)
    assert files(tmp_path) == ["data.bin", "data.bin.sha256"]


def test_half_a_file_that_a_killed_run_left_unrecorded_is_not_recorded(server: Server, tmp_path: Path) -> None:
    given(server, tar())
    (tmp_path / "data.bin").write_bytes(tar()[:-100])
    fetch_assets([undocumented(server.url("x"))], tmp_path, patience=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == tar()


@pytest.mark.parametrize("content", [b"", b"none", b"\xff\xff"])
def test_a_broken_record_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.bin.sha256").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"data\.bin\.sha256 holds no SHA-256: remove it"):
        fetch_assets([undocumented()], tmp_path, patience=QUICK)


def part_of(url: str, folder: Path) -> Path:
    return folder / f".data.bin.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part"


@pytest.mark.parametrize("status", [416, 204, 304])
def test_a_status_without_a_file_is_a_reason_and_no_traceback(server: Server, tmp_path: Path, status: int) -> None:
    def behave(request: Handler) -> bool:
        request.send_response(status)
        request.end_headers()
        return True

    server.behave = behave
    with pytest.raises(ArtifactError, match=rf"x: HTTP {status}"):
        fetch_assets([asset(server.url("x"))], tmp_path, patience=QUICK)
    assert files(tmp_path) == []


def test_416_after_a_break_starts_anew(server: Server, tmp_path: Path) -> None:
    def behave(request: Handler) -> bool:
        if request.headers["Range"]:
            request.send_error(416)
            return True
        return request.give(CONTENT, cut=100_000 if len(server.ranges) == 1 else None)

    server.behave = behave
    fetch_assets([asset(server.url("x"))], tmp_path, patience=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert len(server.ranges) == 3


@pytest.mark.parametrize(
    "answer", ["bytes 0-307199/307200", "bytes 7-307199/307200", "bytes 150000-307200/307200", "150000-/307200", None]
)
def test_a_foreign_range_is_started_anew_from_the_first_byte(
    server: Server, tmp_path: Path, answer: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    def behave(request: Handler) -> bool:
        if not request.headers["Range"]:
            return False
        request.send_response(206)
        request.send_header("Content-Length", "0")
        if answer is not None:
            request.send_header("Content-Range", answer)
        request.end_headers()
        return True

    server.behave = behave
    url = server.url("x")
    part_of(url, tmp_path).write_bytes(CONTENT[:150_000])
    fetch_assets([asset(url)], tmp_path, patience=QUICK)
    assert server.ranges == ["bytes=150000-", None]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert "Content-Range" in capsys.readouterr().err


def test_a_range_that_nobody_asked_for_is_refused(server: Server, tmp_path: Path) -> None:
    def behave(request: Handler) -> bool:
        request.send_response(206)
        request.send_header("Content-Range", "bytes 5-9/10")
        request.send_header("Content-Length", "5")
        request.end_headers()
        request.wfile.write(b"12345")
        return True

    server.behave = behave
    with pytest.raises(ArtifactError, match=r"whole file with Content-Range 'bytes 5-9/10'"):
        fetch_assets([asset(server.url("x"))], tmp_path, patience=QUICK)
    assert files(tmp_path) == []


def breaks_alternately(server: Server) -> Callable[[Handler], bool]:
    return lambda request: request.give(CONTENT, cut=100_000 if len(server.ranges) % 2 else 200_000)


def breaks_a_little_later(server: Server) -> Callable[[Handler], bool]:
    return lambda request: request.give(CONTENT, cut=1000 * len(server.ranges))


def breaks_and_is_busy_in_turns(server: Server) -> Callable[[Handler], bool]:
    def behave(request: Handler) -> bool:
        if len(server.ranges) % 2:
            request.send_error(503)
            return True
        return request.give(CONTENT, cut=1000 * len(server.ranges))

    return behave


@pytest.mark.parametrize("behaviour", [breaks_alternately, breaks_a_little_later, breaks_and_is_busy_in_turns])
def test_a_server_that_breaks_for_ever_is_given_up_and_the_part_is_named(
    server: Server, tmp_path: Path, behaviour: Callable[[Server], Callable[[Handler], bool]]
) -> None:
    server.behave = behaviour(server)
    patience = Patience(tries=3, requests=12, backoff_seconds=0.001, timeout_seconds=5)
    url = server.url("x")
    with pytest.raises(ArtifactError) as caught:
        fetch_assets([asset(url)], tmp_path, patience=patience)
    assert len(server.ranges) <= 13
    left = part_of(url, tmp_path)
    assert f"{left.stat().st_size:,} bytes are kept in {left}: the next run goes on from there" in str(caught.value)


@pytest.mark.parametrize("length", ["length", "chunked", "none"])
def test_a_download_that_is_too_slow_is_given_up_with_its_speed(server: Server, tmp_path: Path, length: str) -> None:
    def behave(request: Handler) -> bool:
        request.send_response(206 if request.start() else 200)
        if request.start():
            request.send_header("Content-Range", f"bytes {request.start()}-{len(CONTENT) - 1}/{len(CONTENT)}")
        if length == "length":
            request.send_header("Content-Length", str(len(CONTENT) - request.start()))
        if length == "chunked":
            request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        try:
            for _ in range(1000):
                request.wfile.write(b"A\r\n0123456789\r\n" if length == "chunked" else b"0123456789")
                request.wfile.flush()
                time.sleep(0.02)
        except OSError:
            pass
        request.close_connection = True
        return True

    server.behave = behave
    patience = Patience(tries=2, backoff_seconds=0.01, timeout_seconds=5, window_seconds=0.3)
    begun = time.monotonic()
    with pytest.raises(ArtifactError, match=r"too slow: \d+ bytes/s over \d+ s, 1,000 are the least"):
        fetch_assets([asset(server.url("x"))], tmp_path, patience=patience)
    assert time.monotonic() - begun < 10


def test_a_body_longer_than_documented_is_cut_off(server: Server, tmp_path: Path) -> None:
    given(server, CONTENT * 4, length=False)
    with pytest.raises(ArtifactError, match=r"it sends more than 307,200 bytes, nothing of it was kept"):
        fetch_assets([asset(server.url("x"))], tmp_path, patience=QUICK)
    assert files(tmp_path) == []


def named(name: str, *urls: str) -> Asset:
    return Asset(name=name, urls=urls, sha256=hashlib.sha256(CONTENT).hexdigest(), bytes=len(CONTENT), licence="none")


def test_all_files_that_cannot_be_fetched_are_listed_at_once_and_the_others_are_fetched(
    server: Server, tmp_path: Path
) -> None:
    def behave(request: Handler) -> bool:
        if request.path == "/gone":
            request.send_error(404)
        return request.path == "/gone"

    server.behave = behave
    closed = "http://127.0.0.1:9/"
    wanted = [
        named("gone", server.url("gone")),
        named("good", server.url("good")),
        named("mine"),
        named("dead", closed + "dead"),
        named("down", closed + "down"),
    ]
    with pytest.raises(ArtifactError) as caught:
        fetch_assets(wanted, tmp_path, patience=QUICK)
    message = str(caught.value)
    assert message.startswith("cannot get 4 of 5 files: (1) gone: ")
    assert "(2) mine: it has no public URL" in message
    assert f"(3) dead: {closed}dead: ConnectionError" in message
    assert f"(4) down: {closed}down: not asked, no connection to this host before" in message
    assert message.count(MIRROR) == 1
    assert "\n" not in message
    assert files(tmp_path) == ["good"]


def test_present_files_and_sources_of_missing_ones_are_listed_without_a_request(server: Server, tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    for place in ("mirror/b", "mirror/c", "here"):
        (tmp_path / place).write_bytes(CONTENT)
    (tmp_path / "mirror" / "c").write_bytes(CONTENT[:-1])  # another file of the name
    wanted = [named("here"), named("b", "http://x/b"), named("c", "http://x/c", "http://y/c"), named("d")]
    before = files(tmp_path)
    found = locate_assets(wanted, tmp_path, mirror=tmp_path / "mirror")
    assert [(file.asset.name, file.state, file.source) for file in found] == [
        ("here", "present", str(tmp_path / "here")),
        ("b", "mirror", str(tmp_path / "mirror" / "b")),
        ("c", "download", "http://x/c"),
        ("d", "unavailable", ""),
    ]
    assert files(tmp_path) == before
    assert server.ranges == []
