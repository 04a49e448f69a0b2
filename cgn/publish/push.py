"""python -m cgn push: a finished run as a repository of models or of generated images, in a folder or on the Hub.

    python -m cgn push imagenet/miniature model --to DIR
    python -m cgn push mnist/digits dataset --to hf://ORGANISATION/NAME

A repository of models has README.md, config.json, classifier/ and generator/; one of images has README.md,
croissant.json, manifest.json and the shards. `cgn.json` lists the files with their SHA-256: what it does not list is
not ours, and is never overwritten or removed. The same command again writes nothing. Each file is written under a
temporary name and moved.
"""

import argparse
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cgn.core.errors import ArtifactError, ConfigError, DownloadError
from cgn.core.files import MANIFEST, read_object, replacing, sha256
from cgn.data.shards import read_manifest
from cgn.publish import cards
from cgn.publish.cards import RunFolders

MARK = "cgn.json"
HUB = "hf://"
KINDS = ("model", "dataset")
Content = Path | bytes
"""Of a file: a file to be copied, or the bytes."""


def push(argv: Sequence[str]) -> None:
    """Write a repository. Raises ConfigError and ArtifactError for what a user can fix."""
    parser = argparse.ArgumentParser(prog="python -m cgn push", description=push.__doc__)
    parser.add_argument("target", metavar="TRACK/VARIANT", help="for example imagenet/miniature")
    parser.add_argument("kind", choices=KINDS, help="the trained networks, or the generated images")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--to", required=True, metavar="DIR|hf://ORGANISATION/NAME", help="where to write")
    given = parser.parse_args(argv)
    track, _, variant = given.target.partition("/")
    if track not in ("mnist", "imagenet") or not variant:
        raise ConfigError(f"{given.target} is not TRACK/VARIANT, such as imagenet/miniature; tracks: mnist, imagenet")
    try:
        import huggingface_hub  # noqa: F401
        import mlcroissant  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed here; run the command by `uv run --group publish`") from None
    run = RunFolders(root=given.runs / track / variant, track=track, variant=variant)
    files = model_files(run) if given.kind == "model" else dataset_files(run)
    if given.to.startswith(HUB):
        to_hub(files, repository=given.to.removeprefix(HUB), kind=given.kind, run=run)
    else:
        to_folder(files, Path(given.to), kind=given.kind, run=run)


def model_files(run: RunFolders) -> dict[str, Content]:
    """The files of a repository of models, by name."""
    return {
        "README.md": cards.model_card(run).encode(),
        "config.json": _json(cards.config(run)),
        f"classifier/{cards.MODEL}": run.classifier / cards.MODEL,
        f"generator/{cards.MODEL}": run.root / "train_cgn" / cards.MODEL,
    }


def dataset_files(run: RunFolders) -> dict[str, Content]:
    """The files of a repository of images, by name. Raises ArtifactError where the shards are in an object store."""
    from cgn.publish.croissant import croissant

    folder = run.root / "generate"
    manifest = read_manifest(folder)
    if manifest.store is not None:
        raise ArtifactError(
            f"the shards of {folder} are in {manifest.store}: copy them from there, push takes local ones"
        )
    files: dict[str, Content] = {
        "README.md": cards.dataset_card(run).encode(),
        "croissant.json": _json(croissant(run)),
        MANIFEST: folder / MANIFEST,
    }
    return files | {shard.name: manifest.path(shard) for shard in manifest.shards}


def to_folder(files: Mapping[str, Content], folder: Path, *, kind: str, run: RunFolders) -> None:
    """Bring a folder up to date. Raises ArtifactError, before anything is written, for what is not ours."""
    known = _listed(folder, kind=kind, run=run)
    digests = {name: _digest(content) for name, content in files.items()}
    present = {name: sha256(folder / name) for name in {*files, *known} if (folder / name).is_file()}
    for name, digest in present.items():
        if digest not in (known.get(name), digests.get(name)):
            raise ArtifactError(f"{folder / name} is not what this command wrote: nothing was touched; move it")
    changed = [name for name, digest in digests.items() if present.get(name) != digest]
    for name in changed:
        content = files[name]
        with replacing(folder / name) as temporary:
            if isinstance(content, Path):
                shutil.copyfile(content, temporary)
            else:
                temporary.write_bytes(content)
    stale = sorted(known.keys() & present.keys() - files.keys())
    for name in stale:
        (folder / name).unlink()
    mark = _json(_mark(digests, kind=kind, run=run))
    if not (folder / MARK).is_file() or (folder / MARK).read_bytes() != mark:
        with replacing(folder / MARK) as temporary:
            temporary.write_bytes(mark)
    print(f"{folder}: {len(changed)} of {len(files)} files written, {len(stale)} removed", flush=True)


def to_hub(files: Mapping[str, Content], *, repository: str, kind: str, run: RunFolders) -> None:
    """Bring a repository on the Hub up to date, in one commit. Raises ArtifactError for one that is not ours."""
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        api.create_repo(repository, repo_type=kind, exist_ok=True)
        there = set(api.list_repo_files(repository, repo_type=kind)) - {".gitattributes"}
        with tempfile.TemporaryDirectory() as temporary:
            folder, old = Path(temporary, "new"), Path(temporary, "old")
            if MARK in there:
                api.hf_hub_download(repository, MARK, repo_type=kind, local_dir=old)
            known = _listed(old, kind=kind, run=run)
            if foreign := sorted(there - known.keys() - {MARK}):
                raise ArtifactError(
                    f"{HUB}{repository} holds {foreign[0]}, which this command did not write: name another"
                )
            digests = {name: _digest(content) for name, content in files.items()}
            if known == digests:
                print(f"{HUB}{repository}: up to date", flush=True)
                return
            to_folder(files, folder, kind=kind, run=run)
            stale = sorted(known.keys() - files.keys())
            api.upload_folder(
                repo_id=repository,
                repo_type=kind,
                folder_path=folder,
                commit_message=f"Push {run.target}",
                delete_patterns=stale or None,
            )
    except HFValidationError as error:
        raise ConfigError(f"--to {HUB}{repository}: {error}") from None
    except HfHubHTTPError as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(f"{HUB}{repository} is refused: {reason}; `hf auth login` logs in") from None
    except (httpx.HTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DownloadError(f"{HUB}{repository} cannot be written now: {reason}; try again later") from None
    print(f"{HUB}{repository}: {len(files)} files", flush=True)


def _listed(folder: Path, *, kind: str, run: RunFolders) -> dict[str, str]:
    """SHA-256 by name of the files that an earlier push wrote. Raises ArtifactError for a folder of anything else."""
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder} is a file: give a folder")
    if not (folder / MARK).is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise ArtifactError(f"{folder} holds files that this command did not write: give an empty or a new folder")
        return {}
    mark = read_object(folder / MARK)
    for name, expected in _mark({}, kind=kind, run=run).items():
        if name != "files" and mark.get(name) != expected:
            raise ArtifactError(
                f"{folder} is a repository of {name} {mark.get(name)!r}, not {expected!r}: give another"
            )
    files: dict[str, str] = mark["files"]
    return files


def _mark(digests: Mapping[str, str], *, kind: str, run: RunFolders) -> dict[str, Any]:
    return {"kind": kind, "track": run.track, "variant": run.variant, "files": dict(digests)}


def _digest(content: Content) -> str:
    if isinstance(content, Path):
        if not content.is_file():
            raise ArtifactError(f"{content} is missing: run the stage that makes {content.parent}")
        return sha256(content)
    return hashlib.sha256(content).hexdigest()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, default=str) + "\n").encode()
