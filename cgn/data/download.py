"""Bring assets into a folder: from a mirror folder, else over HTTP; verified, whole or absent.

Decided here: what CGN_MIRROR holds is looked at first, by file name at any depth; a file there with another checksum
is named and passed over. A download goes to a hidden `.part` file of its URL, so a broken connection, or a killed run,
goes on where it stopped. Tries wait exponentially longer (urllib3's Retry until an answer comes; a loop of our own goes
on after a stream that breaks midway), and every kind of break is bounded: in a row, in all, and by a least speed. What
has the wrong checksum is removed and its URL named. An asset without any documented digest must be of its kind
(`cgn.data.contents`) and is then held against its own first file: `<name>.sha256` beside it, in the form that
`sha256sum --check` reads, lasts as long as the folder. One file that cannot be had does not keep the others from
coming; all that are missing are named at once. Nothing is unpacked or unpickled.
"""

import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.exceptions import ConnectTimeoutError, HTTPError, MaxRetryError, NewConnectionError
from urllib3.util.retry import Retry

from cgn.core.errors import ArtifactError
from cgn.core.files import checksum, explained, replacing, user_path, write_text
from cgn.data.sources import Asset, mismatch

MIRROR = "CGN_MIRROR"
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


class _RefusedError(Exception):
    """This URL does not give the asset; the message is the reason."""


class _UnavailableError(Exception):
    """No URL gives the asset; the message has every reason."""


class _BrokenError(Exception):
    """The stream ended early; what came is kept and the next try goes on from there."""


class _SlowError(_BrokenError):
    """It was ended because it was too slow."""


class _ForeignRangeError(_BrokenError):
    """The answer is another range than the one asked for: the next try starts from the first byte."""


State = Literal["present", "mirror", "download", "unavailable"]


@dataclass(frozen=True, kw_only=True)
class Found:
    """Where an asset is, or would come from: a path, or the first URL; empty where it is unavailable."""

    asset: Asset
    state: State
    source: str

    @property
    def bytes(self) -> int | None:
        """Its size; None where it is not here and no source documents it."""
        return Path(self.source).stat().st_size if self.state in ("present", "mirror") else self.asset.bytes


def look(assets: Sequence[Asset], folder: Path, *, mirror: Path | None = None) -> list[Found]:
    """Where each asset is or would come from, as `bring` would find it. Downloads and writes nothing."""
    expected = [_pinned(asset, folder) for asset in assets]
    missing = {asset.name for asset in expected if _wrong(asset, folder / asset.name) is not None}
    mirrored = _mirrored(mirror or _environment(), missing)
    return [_found(asset, folder, missing=missing, candidates=mirrored.get(asset.name, ())) for asset in expected]


def _found(asset: Asset, folder: Path, *, missing: set[str], candidates: Sequence[Path]) -> Found:
    if asset.name not in missing:
        return Found(asset=asset, state="present", source=str(folder / asset.name))
    for candidate in candidates:
        if _unfit(asset, candidate) is None:
            return Found(asset=asset, state="mirror", source=str(candidate))
    state: State = "download" if asset.urls else "unavailable"
    return Found(asset=asset, state=state, source=next(iter(asset.urls), ""))


def bring(
    assets: Sequence[Asset], folder: Path, *, mirror: Path | None = None, patience: Patience | None = None
) -> None:
    """Put every asset into `folder` under its name. What is there and right stays.

    `mirror` is a folder to look into first; by default the environment's CGN_MIRROR. When assets cannot be had, the
    others come all the same; then ArtifactError lists each of them with each URL and its reason.
    """
    expected = [_pinned(asset, folder) for asset in assets]
    missing = [asset for asset in expected if _wrong(asset, folder / asset.name) is not None]
    mirrored = _mirrored(mirror or _environment(), [asset.name for asset in missing])
    unavailable: dict[str, str] = {}
    with explained(folder), _Client(patience=patience or Patience()) as client:
        folder.mkdir(parents=True, exist_ok=True)
        for asset in expected:
            if asset not in missing:
                _note_digest(asset, folder)
        for asset in sorted(missing, key=lambda asset: not mirrored.get(asset.name) and bool(asset.urls)):
            try:
                _one(asset, folder, candidates=mirrored.get(asset.name, ()), client=client)
            except _UnavailableError as error:
                unavailable[asset.name] = str(error)
                print(f"warning: cannot get {asset.name}: {error}", file=sys.stderr, flush=True)
    if unavailable:
        raise ArtifactError(_summary([(asset.name, unavailable.get(asset.name)) for asset in expected]))


def _summary(reasons: Sequence[tuple[str, str | None]]) -> str:
    lacking = [(name, reason) for name, reason in reasons if reason is not None]
    if len(lacking) == 1:
        ((name, reason),) = lacking
        what, named = f"{name}: {reason}", "a file of this name"
    else:
        each = "; ".join(f"({number}) {name}: {reason}" for number, (name, reason) in enumerate(lacking, start=1))
        what, named = f"{len(lacking)} of {len(reasons)} files: {each}", "files of these names"
    return f"cannot get {what}. Try again later, or set {MIRROR} to a folder that holds {named}"


def _one(asset: Asset, folder: Path, *, candidates: Sequence[Path], client: "_Client") -> None:
    target = folder / asset.name
    source = _copied(asset, candidates, target) or _downloaded(asset, target, client=client)
    for left in folder.glob(f".{asset.name}.*.part"):  # begun at another URL, or before there was a mirror
        left.unlink()
    _note_digest(asset, folder)
    verified = "verified" if asset.documented else "no digest is documented: its own is recorded"
    print(f"{asset.name}: {target.stat().st_size:,} bytes, {verified}, from {source}", flush=True)


def _note_digest(asset: Asset, folder: Path) -> None:
    if not asset.documented:
        digest = checksum(folder / asset.name, algorithm="sha256")
        write_text(_record(asset, folder), f"{digest}  {asset.name}\n")


def _wrong(asset: Asset, path: Path) -> str | None:
    """Why `path` is not `asset`; None when it is, or may be where no digest is known."""
    reason = mismatch(asset, path)
    if reason is None and not asset.documented:
        from cgn.data import contents  # it opens weights with torch, which most calls do without

        return contents.fault(asset, path)
    return reason


def _environment() -> Path | None:
    return user_path(os.environ[MIRROR]) if os.environ.get(MIRROR) else None


def _record(asset: Asset, folder: Path) -> Path:
    return folder / f"{asset.name}.sha256"


def _pinned(asset: Asset, folder: Path) -> Asset:
    """The asset with the digest that an earlier run recorded, where no source documents one."""
    record = _record(asset, folder)
    if asset.documented or not record.exists():
        return asset
    told = record.read_bytes().split()
    try:
        return replace(asset, sha256=told[0].decode())
    except (IndexError, ValueError):
        raise ArtifactError(f"{record} holds no SHA-256: remove it to record the digest of {asset.name} anew") from None


def _mirrored(mirror: Path | None, names: Iterable[str]) -> Mapping[str, Sequence[Path]]:
    """Where the mirror has files of these names; one walk, in sorted order."""
    if mirror is None:
        return {}
    if not mirror.is_dir():
        raise ArtifactError(f"{MIRROR} is {mirror}: expected a folder; unset it to download instead")
    found: dict[str, list[Path]] = {name: [] for name in names}
    for parent, folders, files in os.walk(mirror):
        folders.sort()
        for name in found.keys() & set(files):
            found[name].append(Path(parent, name))
    return found


def _copied(asset: Asset, candidates: Sequence[Path], target: Path) -> Path | None:
    for candidate in candidates:
        reason = _unfit(asset, candidate)
        if reason is None:
            with replacing(target) as temporary:
                shutil.copyfile(candidate, temporary)
            return candidate
        print(f"warning: {candidate} is not {asset.name} ({reason}): passed over", file=sys.stderr, flush=True)
    return None


def _unfit(asset: Asset, candidate: Path) -> str | None:
    try:
        return _wrong(asset, candidate)
    except OSError as error:
        return str(error)


@dataclass(kw_only=True)
class _Client:
    """The connections of one run; `unreachable` hosts are not asked a second time."""

    patience: Patience
    session: requests.Session = field(default_factory=requests.Session)
    unreachable: set[str] = field(default_factory=set)
    requests: int = 0
    """Sent for the current URL, those that urllib3 repeats among them."""

    def __enter__(self) -> "_Client":
        for scheme in ("https://", "http://"):
            self.session.mount(scheme, HTTPAdapter(max_retries=self.patience.retry()))
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()


def _downloaded(asset: Asset, target: Path, *, client: _Client) -> str:
    """Try the URLs in order. Returns the one that gave the asset, or raises _UnavailableError with every reason."""
    reasons = []
    for url in asset.urls:
        partial = target.with_name(f".{target.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part")
        if urlsplit(url).netloc in client.unreachable:
            reasons.append(f"{url}: not asked, no connection to this host before")
            continue
        try:
            _from_url(asset, url, partial, client=client)
        except (_RefusedError, requests.RequestException, HTTPError, UnicodeError) as error:
            if _is_unreachable(error):
                client.unreachable.add(urlsplit(url).netloc)
            reasons.append(f"{url}: {_reason(error)}{_kept(partial)}")
            continue
        partial.replace(target)
        return url
    message = "; ".join(reasons) or "it has no public URL"
    if (record := _record(asset, target.parent)).exists():
        message += f". Its digest was recorded when it first came; to accept another file, remove {record}"
    raise _UnavailableError(message)


def _kept(partial: Path) -> str:
    if not _size(partial):
        partial.unlink(missing_ok=True)
        return ""
    return f" ({_size(partial):,} bytes are kept in {partial}: the next run goes on from there)"


def _from_url(asset: Asset, url: str, partial: Path, *, client: _Client) -> None:
    """Leave the verified asset in `partial`, or raise _RefusedError; then only what can be continued is there."""
    pieced = partial.exists()
    pieced |= _stream(asset, url, partial, client=client)
    reason = _wrong(asset, partial)
    if reason is not None and pieced:  # what came earlier may be damaged, or the file has changed since
        partial.unlink(missing_ok=True)
        _stream(asset, url, partial, client=client)
        reason = _wrong(asset, partial)
    if reason is not None:
        partial.unlink(missing_ok=True)
        raise _RefusedError(f"wrong file ({reason}), nothing of it was kept")


def _stream(asset: Asset, url: str, partial: Path, *, client: _Client) -> bool:
    """Download `url` into `partial` to its last byte, going on after breaks; whether there were any."""
    patience, failures, tries, farthest = client.patience, 0, 0, _size(partial)
    client.requests = 0
    while True:
        tries += 1
        try:
            _one_try(asset, url, partial, client=client)
        except _BrokenError as error:
            added = _size(partial) > farthest and not isinstance(error, _SlowError)
            failures = 1 if added else failures + 1
            farthest = max(farthest, _size(partial))
            if isinstance(error, _ForeignRangeError):
                partial.unlink(missing_ok=True)
            if failures >= patience.tries:
                raise _RefusedError(f"the connection broke {failures} times in a row ({error})") from None
            if client.requests >= patience.requests:
                raise _RefusedError(f"no whole file in {client.requests} requests ({error})") from None
            seconds = patience.backoff_seconds * 2 ** (failures - 1)
            message = f"warning: {url} broke off at byte {_size(partial):,} ({error}); going on in {seconds:g} s"
            print(message, file=sys.stderr, flush=True)
            time.sleep(seconds)
        else:
            return tries > 1


def _one_try(asset: Asset, url: str, partial: Path, *, client: _Client) -> None:
    """One answer into `partial`. Raises _BrokenError when it ended early."""
    have, patience = _size(partial), client.patience
    # Identity: the bytes of the file as it lies there, not a transport encoding of them.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.session.get(url, headers=headers, stream=True, timeout=patience.timeout_seconds) as response:
        client.requests += 1 + len(response.raw.retries.history if response.raw.retries else ())
        if response.status_code == 416 and have:  # nothing follows what is here: it is whole, or not this file
            return
        if response.status_code not in (200, 206):
            tried = f" after {patience.tries + 1} tries" if response.status_code in BUSY else ""
            raise _RefusedError(f"HTTP {response.status_code} {response.reason}{tried}")
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
        raise _RefusedError(f"it sends more than {most:,} bytes, nothing of it was kept")
    if total is not None and size != total:
        raise _BrokenError(f"it ended after {size:,} of {total:,} bytes")


def _blocks(response: requests.Response, *, patience: Patience) -> Iterator[bytes]:
    """The body as it comes: a block is what one read of the socket gave, so that a slow stream is seen as one."""
    since, came = time.monotonic(), 0
    try:
        while block := response.raw.read1(BLOCK_BYTES, decode_content=True):
            yield block
            came += len(block)
            seconds = time.monotonic() - since
            if seconds >= patience.window_seconds:
                if came < patience.least_bytes_per_second * seconds:
                    least = f"{patience.least_bytes_per_second:,.0f} are the least"
                    raise _SlowError(f"too slow: {came / seconds:,.0f} bytes/s over {seconds:.0f} s, {least}")
                since, came = time.monotonic(), 0
    except HTTPError as error:
        raise _BrokenError(_reason(error)) from error


def _extent(response: requests.Response, *, have: int) -> tuple[int, int | None]:
    """(first byte of the body, size of the whole file where the answer says it). A 200 ignores the range: from 0."""
    if response.status_code == 206:
        given = response.headers.get("Content-Range", "")
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", given)
        if not have:
            raise _RefusedError(f"it answered a request for the whole file with Content-Range {given!r}")
        if found is None or int(found[1]) != have or (found[3] != "*" and int(found[2]) >= int(found[3])):
            raise _ForeignRangeError(f"it answered bytes {have}- with Content-Range {given!r}")
        return have, None if found[3] == "*" else int(found[3])
    length = response.headers.get("Content-Length", "")
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"  # then it counts other bytes
    return 0, int(length) if length.isdecimal() and not encoded else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_unreachable(error: Exception) -> bool:
    """Whether no connection came about at all."""
    inner = error.args[0] if isinstance(error, requests.ConnectionError) and error.args else None
    return isinstance(inner, MaxRetryError) and isinstance(inner.reason, NewConnectionError | ConnectTimeoutError)


def _reason(error: Exception) -> str:
    """One line: the innermost words of a chain of network errors."""
    inner: BaseException = error
    while (deeper := inner.__cause__ or inner.__context__) is not None:
        inner = deeper
    text = str(error) if isinstance(error, _RefusedError) else f"{type(error).__name__}: {inner}"
    return " ".join(text.split())
