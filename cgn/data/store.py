"""Shards in an object store: s3://bucket/folder, or any other URL that fsspec knows.

An object is named by its shard and its SHA-256, and never replaced. So every manifest, also an older one with another
seed, finds its own shards, and a stored shard is not uploaded again. S3 shows an object only when it is complete; other
stores may show a part, which has another size. A reader downloads each object once into the cache of this machine
(`cgn.data.cache`), checks size and SHA-256, and renames it there.
"""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgn.core.errors import ArtifactError
from cgn.core.files import explained, replacing, sha256
from cgn.data.cache import cache_folder, hold, make_room

if TYPE_CHECKING:
    from cgn.data.shards import Shard

REMEDIES = {
    "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write ~/.aws/credentials",
    "PermissionError": "the credentials may not read and write there: set others, or choose another folder",
    "ImportError": "start the command by `uv run --group cluster`; it installs s3fs, and other stores need others",
    "ValueError": "allowed: an URL that fsspec knows, such as s3://bucket/folder",
    "FileNotFoundError": "create the bucket or folder, or correct the URL",
}
"""Name of an error's class -> what to do."""
UNREACHABLE = "check the network, the URL, and AWS_ENDPOINT_URL for a store other than Amazon's; then run it again"


def refuse_unusable(store: str) -> None:
    """Raise ArtifactError for a store that cannot be written to, before anything is computed for it."""
    with _filesystem(store) as (files, root):
        files.pipe_file(f"{root}/writable", b"")


def upload(path: Path, shard: "Shard", *, store: str) -> None:
    """Copy the file of a shard into the store, unless it is there."""
    if holds(shard, store=store):
        return
    with _filesystem(store) as (files, root):
        files.put_file(str(path), f"{root}/{_name(shard)}")
    if not holds(shard, store=store):
        raise ArtifactError(f"{store}/{_name(shard)} was uploaded, but is not there as a whole: run the command again")


def holds(shard: "Shard", *, store: str) -> bool:
    """Whether the store has the shard, of the right size. The name has its SHA-256; readers check the content."""
    with _filesystem(store) as (files, root):
        try:
            return bool(files.info(f"{root}/{_name(shard)}")["size"] == shard.bytes)
        except FileNotFoundError:
            return False


def downloaded(shard: "Shard", *, store: str) -> Path:
    """The shard's file in the cache folder; a process that needs one which another downloads waits for it.

    Raises ArtifactError for an object that is missing or has other bytes than the manifest says.
    """
    cache, where = cache_folder(), f"{store}/{_name(shard)}"
    path = cache / _name(shard)
    with explained(cache):
        hold(path)
        if _whole(path, shard):
            return path
        (cache / "locks").mkdir(parents=True, exist_ok=True)
        lock = (cache / "locks" / path.stem).open("ab")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _whole(path, shard):
            return path
        for left in cache.glob(f".{path.name}.*.tmp"):  # by a process that was killed
            left.unlink()
        make_room(cache, shard.bytes)
        with replacing(path) as temporary, _filesystem(store) as (files, root):
            again = "run generate again, which makes what is missing"
            try:
                files.get_file(f"{root}/{_name(shard)}", str(temporary))
            except FileNotFoundError:
                raise ArtifactError(f"{where} is missing: {again}") from None
            if (size := temporary.stat().st_size) != shard.bytes:
                raise ArtifactError(f"{where} has {size:,} bytes, its manifest says {shard.bytes:,}: {again}")
            if sha256(temporary) != shard.sha256:
                raise ArtifactError(f"{where} has other bytes than its manifest says: remove it, then {again}")
    return path


def _whole(path: Path, shard: "Shard") -> bool:
    return path.is_file() and path.stat().st_size == shard.bytes


def _name(shard: "Shard") -> str:
    return f"{Path(shard.name).stem}-{shard.sha256[:16]}.tar"


@contextmanager
def _filesystem(store: str) -> Iterator[tuple[Any, str]]:
    """fsspec's file system of an URL and the path in it. Turns what it raises into an ArtifactError of one line."""
    from fsspec.core import url_to_fs

    options = {"auto_mkdir": True} if store.startswith("file:") else {}
    try:
        files, root = url_to_fs(store, use_listings_cache=False, **options)
        yield files, root.rstrip("/")
    except ArtifactError:
        raise
    except Exception as error:  # each store's library has errors of its own
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise  # `replacing` says what to do
        kind = next((name for base in type(error).__mro__ if (name := base.__name__) in REMEDIES), "")
        reason = " ".join(str(error).split()) or type(error).__name__
        remedy = REMEDIES.get(kind, UNREACHABLE)
        raise ArtifactError(f"the store {store} cannot be used ({reason}): {remedy}") from error
