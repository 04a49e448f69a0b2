"""Get assets into a folder: from a mirror folder, else over HTTP; verified, complete or absent.

The folder CGN_MIRROR is searched first, by file name at any depth; a file there with another checksum is
named and skipped. An asset without any documented digest must be of its kind (`cgn.download.verification`) and is then
compared with the first file that was: `<name>.sha256` beside it, in the form that `sha256sum --check` reads, lasts as
long as the folder. One file that is not available does not keep the others from coming; all that are missing are named
at once. Nothing is unpacked or unpickled.
"""

import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cgn.core.errors import ArtifactError, DownloadError
from cgn.core.files import checksum, explained, replacing, user_path, write_text
from cgn.download.http import HttpClient, Patience, UnavailableError, download_file
from cgn.download.sources import Asset
from cgn.download.verification import mismatch

MIRROR = "CGN_MIRROR"
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


def locate_assets(assets: Sequence[Asset], folder: Path, *, mirror: Path | None = None) -> list[Found]:
    """Where each asset is or would come from, as `fetch_assets` would find it. Downloads and writes nothing."""
    expected = [_pinned(asset, folder) for asset in assets]
    missing = {asset.name for asset in expected if mismatch(asset, folder / asset.name) is not None}
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


def fetch_assets(
    assets: Sequence[Asset], folder: Path, *, mirror: Path | None = None, patience: Patience | None = None
) -> None:
    """Put every asset into `folder` under its name. A correct file that exists is kept.

    `mirror` is a folder to search first; by default the environment's CGN_MIRROR. When assets are not available, the
    others are fetched all the same; then ArtifactError lists each missing one with each URL and its reason, or its
    DownloadError where all of them may be available later.
    """
    expected = [_pinned(asset, folder) for asset in assets]
    missing = [asset for asset in expected if mismatch(asset, folder / asset.name) is not None]
    mirrored = _mirrored(mirror or _environment(), [asset.name for asset in missing])
    unavailable: dict[str, str] = {}
    temporary = True
    with explained(folder), HttpClient(patience=patience or Patience()) as client:
        folder.mkdir(parents=True, exist_ok=True)
        for asset in expected:
            if asset not in missing:
                _note_digest(asset, folder)
        for asset in sorted(missing, key=lambda asset: not mirrored.get(asset.name) and bool(asset.urls)):
            try:
                _one(asset, folder, candidates=mirrored.get(asset.name, ()), client=client)
            except UnavailableError as error:
                unavailable[asset.name] = reason = f"{error}{_recorded(asset, folder)}"
                temporary &= error.temporary
                print(f"warning: cannot get {asset.name}: {reason}", file=sys.stderr, flush=True)
    if unavailable:
        kind = DownloadError if temporary else ArtifactError
        raise kind(_summary([(asset.name, unavailable.get(asset.name)) for asset in expected]))


def _summary(reasons: Sequence[tuple[str, str | None]]) -> str:
    lacking = [(name, reason) for name, reason in reasons if reason is not None]
    if len(lacking) == 1:
        ((name, reason),) = lacking
        what, named = f"{name}: {reason}", "a file of this name"
    else:
        each = "; ".join(f"({number}) {name}: {reason}" for number, (name, reason) in enumerate(lacking, start=1))
        what, named = f"{len(lacking)} of {len(reasons)} files: {each}", "files of these names"
    return f"cannot get {what}. Try again later, or set {MIRROR} to a folder that holds {named}"


def _one(asset: Asset, folder: Path, *, candidates: Sequence[Path], client: HttpClient) -> None:
    target = folder / asset.name
    source = _copied(asset, candidates, target) or download_file(asset, target, client=client)
    for left in folder.glob(f".{asset.name}.*.part"):  # begun at another URL, or before a mirror was set
        left.unlink()
    _note_digest(asset, folder)
    verified = "verified" if asset.documented else "no digest is documented: its own is recorded"
    print(f"{asset.name}: {target.stat().st_size:,} bytes, {verified}, from {source}", flush=True)


def _note_digest(asset: Asset, folder: Path) -> None:
    if not asset.documented:
        digest = checksum(folder / asset.name, algorithm="sha256")
        write_text(_record(asset, folder), f"{digest}  {asset.name}\n")


def _environment() -> Path | None:
    return user_path(os.environ[MIRROR]) if os.environ.get(MIRROR) else None


def _recorded(asset: Asset, folder: Path) -> str:
    """What to do where the reason may be that an earlier run recorded the digest of another file."""
    record = _record(asset, folder)
    if not record.exists():
        return ""
    return f". Its digest was recorded when it first came; to accept another file, remove {record}"


def _record(asset: Asset, folder: Path) -> Path:
    return folder / f"{asset.name}.sha256"


def _pinned(asset: Asset, folder: Path) -> Asset:
    """The asset with the digest that an earlier run recorded, where no source documents one."""
    record = _record(asset, folder)
    if asset.documented or not record.exists():
        return asset
    words = record.read_bytes().split()
    try:
        return replace(asset, sha256=words[0].decode())
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
        return mismatch(asset, candidate)
    except OSError as error:
        return str(error)
