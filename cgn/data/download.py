"""Bring assets into a folder: from a mirror folder, else over HTTP; verified, whole or absent.

Decided here: what CGN_MIRROR holds is looked at first, by file name at any depth; a file there with another checksum
is named and passed over. A download goes to a hidden `.part` file of its URL, so a broken connection, or a killed run,
goes on where it stopped. Tries wait exponentially longer (urllib3's Retry until an answer comes; a loop of our own goes
on after a stream that breaks midway). What has the wrong checksum is removed and its URL named. An asset without any
documented digest is held against its own first file: `<name>.sha256` beside it, in the form that `sha256sum --check`
reads, lasts as long as the folder. Nothing is unpacked or unpickled.
"""

import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.util.retry import Retry

from cgn.core.errors import ArtifactError
from cgn.core.files import checksum, explained, replacing, user_path, write_text
from cgn.data.sources import Asset, mismatch

MIRROR = "CGN_MIRROR"
BUSY = (429, 500, 502, 503, 504)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a URL is tried: waits of backoff x 1, 2, 4, ... seconds. A break after new bytes counts as the first."""

    tries: int = 5
    backoff_seconds: float = 0.5
    timeout_seconds: float = 30.0

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


class _BrokenError(Exception):
    """The stream ended early; what came is kept and the next try goes on from there."""


def bring(
    assets: Sequence[Asset], folder: Path, *, mirror: Path | None = None, patience: Patience | None = None
) -> None:
    """Put every asset into `folder` under its name. What is there and right stays.

    `mirror` is a folder to look into first; by default the environment's CGN_MIRROR. Raises ArtifactError listing each
    URL and its reason when an asset cannot be had.
    """
    mirror = mirror or (user_path(os.environ[MIRROR]) if os.environ.get(MIRROR) else None)
    patience = patience or Patience()
    expected = [_pinned(asset, folder) for asset in assets]
    missing = [asset for asset in expected if mismatch(asset, folder / asset.name) is not None]
    mirrored = _mirrored(mirror, [asset.name for asset in missing])
    with explained(folder), requests.Session() as session:
        folder.mkdir(parents=True, exist_ok=True)
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(max_retries=patience.retry()))
        for asset in missing:
            target = folder / asset.name
            source = _copied(asset, mirrored.get(asset.name, ()), target) or _downloaded(
                asset, target, session=session, patience=patience
            )
            for left in folder.glob(f".{asset.name}.*.part"):  # begun at another URL, or before there was a mirror
                left.unlink()
            verified = "verified" if asset.documented else "no digest is documented: its own is recorded"
            print(f"{asset.name}: {target.stat().st_size:,} bytes, {verified}, from {source}", flush=True)
        for asset in expected:
            if not asset.documented:
                digest = checksum(folder / asset.name, algorithm="sha256")
                write_text(_record(asset, folder), f"{digest}  {asset.name}\n")


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
        try:
            reason = mismatch(asset, candidate)
        except OSError as error:
            reason = str(error)
        if reason is None:
            with replacing(target) as temporary:
                shutil.copyfile(candidate, temporary)
            return candidate
        print(f"warning: {candidate} is not {asset.name} ({reason}): passed over", file=sys.stderr, flush=True)
    return None


def _downloaded(asset: Asset, target: Path, *, session: requests.Session, patience: Patience) -> str:
    """Try the URLs in order. Returns the one that gave the asset, or raises ArtifactError with every reason."""
    reasons = []
    for url in asset.urls:
        partial = target.with_name(f".{target.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part")
        try:
            _from_url(asset, url, partial, session=session, patience=patience)
        except (_RefusedError, requests.RequestException) as error:
            reasons.append(f"{url}: {_reason(error)}")
            continue
        partial.replace(target)
        return url
    told = "; ".join(reasons) or "it has no public URL"
    if (record := _record(asset, target.parent)).exists():
        told += f". Its digest was recorded when it first came; to accept another file, remove {record}"
    raise ArtifactError(
        f"cannot get {asset.name}: {told}. Try again later, or set {MIRROR} to a folder that holds a file of this name"
    )


def _from_url(asset: Asset, url: str, partial: Path, *, session: requests.Session, patience: Patience) -> None:
    """Leave the verified asset in `partial`, or nothing there and raise _RefusedError."""
    continued = partial.exists()
    _stream(url, partial, session=session, patience=patience)
    reason = mismatch(asset, partial)
    if reason is not None and continued:  # what an earlier run left may be damaged, or the file has changed since
        partial.unlink()
        _stream(url, partial, session=session, patience=patience)
        reason = mismatch(asset, partial)
    if reason is not None:
        partial.unlink()
        raise _RefusedError(f"wrong file ({reason}), nothing of it was kept")


def _stream(url: str, partial: Path, *, session: requests.Session, patience: Patience) -> None:
    """Bring `url` into `partial` to its last byte, going on after breaks."""
    failures = 0
    while True:
        before = _size(partial)
        try:
            return _one_try(url, partial, session=session, patience=patience)
        except _BrokenError as error:
            failures = 1 if _size(partial) > before else failures + 1
            if failures >= patience.tries:
                raise _RefusedError(
                    f"the connection broke {failures} times without bringing a byte ({error})"
                ) from None
            seconds = patience.backoff_seconds * 2 ** (failures - 1)
            told = f"warning: {url} broke off at byte {_size(partial):,} ({error}); going on in {seconds:g} s"
            print(told, file=sys.stderr, flush=True)
            time.sleep(seconds)


def _one_try(url: str, partial: Path, *, session: requests.Session, patience: Patience) -> None:
    have = _size(partial)
    # Identity: the bytes of the file as it lies there, not a transport encoding of them.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with session.get(url, headers=headers, stream=True, timeout=patience.timeout_seconds) as response:
        if response.status_code == 416:  # nothing follows what is here: it is whole, or not this file
            return
        if response.status_code not in (200, 206):
            tried = f" after {patience.tries + 1} tries" if response.status_code in BUSY else ""
            raise _RefusedError(f"HTTP {response.status_code} {response.reason}{tried}")
        start, total = _extent(response, have=have)
        name = partial.name[1:].rsplit(".", 2)[0]
        bar = tqdm(total=total, initial=start, desc=name, unit="B", unit_scale=True, unit_divisor=1024, disable=None)
        with bar, partial.open("ab") as file:
            file.truncate(start)
            for block in _blocks(response):
                file.write(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())


def _blocks(response: requests.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_content(1 << 16)
    except requests.RequestException as error:
        raise _BrokenError(_reason(error)) from error


def _extent(response: requests.Response, *, have: int) -> tuple[int, int | None]:
    """(first byte that the body brings, size of the whole file where told). A 200 ignores the range: from 0."""
    if response.status_code == 206:
        told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if told is None or int(told[1]) != have:
            raise _RefusedError(
                f"it answered bytes {have}- with Content-Range {response.headers.get('Content-Range')!r}"
            )
        return have, None if told[2] == "*" else int(told[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    """One line: the innermost words of a chain of network errors."""
    inner: BaseException = error
    while (deeper := inner.__cause__ or inner.__context__) is not None:
        inner = deeper
    text = str(error) if isinstance(error, _RefusedError) else f"{type(error).__name__}: {inner}"
    return " ".join(text.split())
