"""One file over HTTP: resumed after breaks, bounded in size, tries and slowness, verified at its end.

A download goes to a hidden `.part` file of its URL, so a broken connection, or a killed run, continues
where it stopped. Tries wait exponentially longer (urllib3's Retry until an answer comes; a loop of our own continues
after a stream that breaks midway), and every kind of break is bounded: in a row, in all, and by a least speed. A file
with a wrong checksum is removed and its URL named.
"""

import hashlib
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.exceptions import ConnectTimeoutError, HTTPError, MaxRetryError, NewConnectionError
from urllib3.util.retry import Retry

from cgn.download.sources import Asset
from cgn.download.verification import mismatch

BUSY = (429, 500, 502, 503, 504)
BLOCK_BYTES = 1 << 16
MOST_BYTES = 1 << 37
"""Of an asset whose size is not documented: 128 GiB, six times the largest."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a URL is tried: waits of backoff x 1, 2, 4, ... seconds. A break after new bytes counts as the first."""

    tries: int = 5
    """In a row that add no byte to the file."""
    requests: int = 40
    """Of one URL in one run, whatever they add."""
    backoff_seconds: float = 0.5
    timeout_seconds: float = 30.0
    """Without a byte."""
    least_bytes_per_second: float = 1000.0
    """On average over each window; a slower stream counts as a break that added nothing."""
    window_seconds: float = 30.0

    def retry(self) -> Retry:
        """For requests that get no answer or a busy one. An unreachable host is given up sooner."""
        return Retry(
            total=self.tries,
            connect=min(2, self.tries),
            status_forcelist=BUSY,
            backoff_factor=self.backoff_seconds,
            respect_retry_after_header=False,  # a server may ask for an hour; the next mirror is better
            raise_on_status=False,
        )


class DownloadRefusedError(Exception):
    """This URL does not return the asset; the message is the reason."""


class DownloadFailedError(DownloadRefusedError):
    """It does not return the asset now: it is busy, or breaks off."""


class UnavailableError(Exception):
    """No URL returns the asset; the message has every reason. `temporary`: one of them may return it later."""

    def __init__(self, message: str, *, temporary: bool) -> None:
        super().__init__(message)
        self.temporary = temporary


class BrokenError(Exception):
    """The stream ended early; the bytes so far are kept and the next try continues from there."""


class SlowError(BrokenError):
    """It was ended because it was too slow."""


class WrongRangeError(BrokenError):
    """The response is another range than the requested one: the next try starts from the first byte."""


@dataclass(kw_only=True)
class HttpClient:
    """The connections of one run; `unreachable` hosts are not asked a second time."""

    patience: Patience
    session: requests.Session = field(default_factory=requests.Session)
    unreachable: set[str] = field(default_factory=set)
    requests: int = 0
    """Sent for the current URL, those that urllib3 repeats among them."""

    def __enter__(self) -> "HttpClient":
        for scheme in ("https://", "http://"):
            self.session.mount(scheme, HTTPAdapter(max_retries=self.patience.retry()))
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()


def download_file(asset: Asset, target: Path, *, client: HttpClient) -> str:
    """Download from the first URL that returns the asset. Raises UnavailableError with every URL's reason."""
    reasons, temporary = [], False
    for url in asset.urls:
        partial = target.with_name(f".{target.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part")
        if urlsplit(url).netloc in client.unreachable:
            reasons.append(f"{url}: not asked, no connection to this host before")
            temporary = True
            continue
        try:
            _from_url(asset, url, partial, client=client)
        except (DownloadRefusedError, requests.RequestException, HTTPError, UnicodeError) as error:
            if _is_unreachable(error):
                client.unreachable.add(urlsplit(url).netloc)
            reasons.append(f"{url}: {_reason(error)}{_kept(partial)}")
            network = (DownloadFailedError, requests.ConnectionError, requests.Timeout, HTTPError)
            temporary |= isinstance(error, network)
            continue
        partial.replace(target)
        return url
    raise UnavailableError("; ".join(reasons) or "it has no public URL", temporary=temporary)


def _kept(partial: Path) -> str:
    if not _size(partial):
        partial.unlink(missing_ok=True)
        return ""
    return f" ({_size(partial):,} bytes are kept in {partial}: the next run goes on from there)"


def _from_url(asset: Asset, url: str, partial: Path, *, client: HttpClient) -> None:
    """Leave the verified asset in `partial`, or raise RefusedError; then only what can be continued is left."""
    pieced = partial.exists()
    pieced |= _stream(asset, url, partial, client=client)
    reason = mismatch(asset, partial)
    if reason is not None and pieced:  # what came earlier may be damaged, or the file has changed since
        partial.unlink(missing_ok=True)
        _stream(asset, url, partial, client=client)
        reason = mismatch(asset, partial)
    if reason is not None:
        partial.unlink(missing_ok=True)
        raise DownloadRefusedError(f"wrong file ({reason}), nothing of it was kept")


def _stream(asset: Asset, url: str, partial: Path, *, client: HttpClient) -> bool:
    """Download `url` into `partial` to its last byte, continuing after breaks; return whether there were any."""
    patience, failures, tries, farthest = client.patience, 0, 0, _size(partial)
    client.requests = 0
    while True:
        tries += 1
        try:
            _one_try(asset, url, partial, client=client)
        except BrokenError as error:
            added = _size(partial) > farthest and not isinstance(error, SlowError)
            failures = 1 if added else failures + 1
            farthest = max(farthest, _size(partial))
            if isinstance(error, WrongRangeError):
                partial.unlink(missing_ok=True)
            if failures >= patience.tries:
                raise DownloadFailedError(f"the connection broke {failures} times in a row ({error})") from None
            if client.requests >= patience.requests:
                raise DownloadFailedError(f"no whole file in {client.requests} requests ({error})") from None
            seconds = patience.backoff_seconds * 2 ** (failures - 1)
            message = f"warning: {url} broke off at byte {_size(partial):,} ({error}); going on in {seconds:g} s"
            print(message, file=sys.stderr, flush=True)
            time.sleep(seconds)
        else:
            return tries > 1


def _one_try(asset: Asset, url: str, partial: Path, *, client: HttpClient) -> None:
    """Write one response into `partial`. Raises BrokenError when it ended early."""
    have, patience = _size(partial), client.patience
    # Identity: the bytes of the file itself, not a transport encoding of them.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.session.get(url, headers=headers, stream=True, timeout=patience.timeout_seconds) as response:
        client.requests += 1 + len(response.raw.retries.history if response.raw.retries else ())
        if response.status_code == 416 and have:  # nothing follows these bytes: the file is complete, or another one
            return
        if response.status_code not in (200, 206):
            answered = f"HTTP {response.status_code} {response.reason}"
            if response.status_code in BUSY:
                raise DownloadFailedError(f"{answered} after {patience.tries + 1} tries")
            raise DownloadRefusedError(answered)
        start, total = _extent(response, have=have)
        most = asset.bytes or MOST_BYTES
        name = partial.name[1:].rsplit(".", 2)[0]
        bar = tqdm(total=total, initial=start, desc=name, unit="B", unit_scale=True, unit_divisor=1024, disable=None)
        with bar, partial.open("ab") as file:
            file.truncate(start)
            size = start
            for block in _blocks(response, patience=patience):
                size += len(block)
                if size > most:
                    break
                file.write(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())
    if size > most:
        partial.unlink()
        raise DownloadRefusedError(f"it sends more than {most:,} bytes, nothing of it was kept")
    if total is not None and size != total:
        raise BrokenError(f"it ended after {size:,} of {total:,} bytes")


def _blocks(response: requests.Response, *, patience: Patience) -> Iterator[bytes]:
    """The body in blocks of one read of the socket each, so that a slow stream is detected."""
    since, came = time.monotonic(), 0
    try:
        while block := response.raw.read1(BLOCK_BYTES, decode_content=True):
            yield block
            came += len(block)
            seconds = time.monotonic() - since
            if seconds >= patience.window_seconds:
                if came < patience.least_bytes_per_second * seconds:
                    least = f"{patience.least_bytes_per_second:,.0f} are the least"
                    raise SlowError(f"too slow: {came / seconds:,.0f} bytes/s over {seconds:.0f} s, {least}")
                since, came = time.monotonic(), 0
    except HTTPError as error:
        raise BrokenError(_reason(error)) from error


def _extent(response: requests.Response, *, have: int) -> tuple[int, int | None]:
    """(first byte of the body, size of the whole file where the response has it). A 200 ignores the range: from 0."""
    if response.status_code == 206:
        given = response.headers.get("Content-Range", "")
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", given)
        if not have:
            raise DownloadRefusedError(f"it answered a request for the whole file with Content-Range {given!r}")
        if found is None or int(found[1]) != have or (found[3] != "*" and int(found[2]) >= int(found[3])):
            raise WrongRangeError(f"it answered bytes {have}- with Content-Range {given!r}")
        return have, None if found[3] == "*" else int(found[3])
    length = response.headers.get("Content-Length", "")
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"  # then it counts other bytes
    return 0, int(length) if length.isdecimal() and not encoded else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_unreachable(error: Exception) -> bool:
    """Whether no connection could be made at all."""
    inner = error.args[0] if isinstance(error, requests.ConnectionError) and error.args else None
    return isinstance(inner, MaxRetryError) and isinstance(inner.reason, NewConnectionError | ConnectTimeoutError)


def _reason(error: Exception) -> str:
    """One line: the innermost message of a chain of network errors."""
    inner: BaseException = error
    while (deeper := inner.__cause__ or inner.__context__) is not None:
        inner = deeper
    text = str(error) if isinstance(error, DownloadRefusedError) else f"{type(error).__name__}: {inner}"
    return " ".join(text.split())
