"""python -m flows.clean: list what is stale in runs/, in DVC's cache and among MLflow's artifacts; --yes removes it.

    runs/             what `python -m cgn clean` finds: begun with other parameters or code, records of nothing; and
                      the cache of shards from object stores
    experiments       folders of experiments that did not end, which are kept without --experiments
    DVC's cache       objects that no workspace, branch, tag or experiment of this checkout names (`dvc gc`)
    MLflow            runs that were deleted there, whose artifacts stay until `mlflow gc`

A cache outside the checkout may serve other checkouts, and a server's artifacts are the server's: both are left alone.
"""

import argparse
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from flows.database import ARTIFACTS, local_path, sqlite_file
from flows.experiment import MARK, WORKSPACES, lock_file
from flows.experiment import remove as remove_workspace
from flows.mlflow_client import address, shown
from flows.untracked import alone, project_root

GC = (sys.executable, "-m", "dvc", "gc", "--workspace")
RUN = re.compile("[0-9a-f]{32}")
NAMED_IN_GIT = ("--all-branches", "--all-tags", "--all-experiments")


def main(argv: Sequence[str]) -> int:
    """Exit status: 0, or 1 where a part could not be listed or removed."""
    parser = argparse.ArgumentParser(prog="python -m flows.clean", description="free disk space of the pipeline")
    parser.add_argument("--yes", action="store_true", help="remove what is stale; without, it is only listed")
    what = "experiments that did not end are stale, too, unless a run works on them"
    parser.add_argument("--experiments", action="store_true", help=what)
    parser.add_argument("--params", default="params.yaml", help="default: %(default)s")
    given = parser.parse_args(argv)
    remove: bool = given.yes
    from cgn.__main__ import main as cgn

    print("runs/", flush=True)
    failed = cgn(["clean", "--params", given.params, *(["--yes"] if remove else [])]) != 0
    print("experiments", flush=True)
    clean_experiments(project_root(), remove=remove, unfinished=given.experiments)
    print("DVC's cache", flush=True)
    failed |= not clean_cache(remove=remove)
    print("MLflow", flush=True)
    failed |= not clean_store(project_root(), remove=remove)
    return 1 if failed else 0


def clean_experiments(root: Path, *, remove: bool, unfinished: bool) -> None:
    """List the workspaces of experiments, and `remove` half-made ones; `unfinished`: also what a run would continue.

    What a run works in is kept.
    """
    for folder in sorted((root / WORKSPACES).glob("cgn-*/")):
        size, word, what = _bytes(folder), "kept", "an experiment at work"
        with suppress(BlockingIOError), alone(lock_file(root, folder.name), wait=False):
            if whole := (folder / MARK).is_file():
                what = "an experiment that did not end; the same run continues it, --experiments --yes removes it"
            else:
                what = "the beginning of an experiment"
            if unfinished or not whole:
                word = "removed" if remove else "stale"
                if remove:
                    remove_workspace(root, folder)
        _say(word, size, f"{folder}: {what}")


def clean_cache(*, remove: bool) -> bool:
    """List what `dvc gc` would remove, with its size; whether that, and its removal, went well."""
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]
    from dvc.repo import Repo  # type: ignore[import-untyped]
    from dvc.scm import NoSCM  # type: ignore[import-untyped]

    try:
        with Repo() as repo:
            root, cache, named = Path(repo.root_dir), Path(repo.cache.local.path), not isinstance(repo.scm, NoSCM)
    except DvcException as error:
        print(f"error: {error}", file=sys.stderr)
        return False
    if not cache.resolve().is_relative_to(root.resolve()):
        _say("kept", 0, f"{cache}: outside this checkout, others may use it: dvc gc --projects names them")
        return True
    unfinished = [str(mark.parents[2]) for mark in root.glob(str(WORKSPACES / "*" / MARK))]  # they use this cache
    words = [*GC, *(NAMED_IN_GIT if named else ()), *(["--projects", *unfinished] if unfinished else ())]
    listed = subprocess.run([*words, "--dry"], capture_output=True, text=True, check=False)
    if listed.returncode:
        print(listed.stderr.strip(), file=sys.stderr)
        return False
    lines = [line.removeprefix("Removing ") for line in listed.stdout.splitlines() if line.startswith("Removing ")]
    found = [path for path in map(Path, lines) if path.exists()]
    size = sum(_bytes(path) for path in found)
    if found and remove and subprocess.run([*words, "--force", "--quiet"], check=False).returncode:
        return False
    if found:
        what = f"{cache}: {len(found):,} objects that no workspace, branch, tag or experiment names"
        _say("removed" if remove else "stale", size, what)
    return True


def clean_store(root: Path, *, remove: bool) -> bool:
    """The same for MLflow's runs, where the store is a file of this project."""
    uri = address(root)
    file = sqlite_file(uri)
    if file is None:
        _say("kept", 0, f"{shown(uri)}: a server's, which frees them itself (mlflow gc)")
        return True
    if not file.is_file():
        return True
    deleted = _deleted(file)
    for run, folder in list(deleted.items()):
        if folder and not folder.resolve().is_relative_to(file.parent):  # the store was copied: they are the original's
            _say("kept", _bytes(folder), f"{folder}: of a run that was deleted, but outside {file.parent}")
            del deleted[run]
            continue
        what = f"{folder}: of a run that was deleted" if folder else "a run that was deleted, without artifacts here"
        _say("removed" if remove else "stale", _bytes(folder) if folder else 0, what)
    for folder in _orphans(file):
        _say("kept", _bytes(folder), f"{folder}: of no run in {file.name}; remove it if no other copy of that knows it")
    if remove and deleted:
        gc = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri, "--tracking-uri", uri]
        return (
            subprocess.run([*gc, "--run-ids", ",".join(deleted)], stdout=subprocess.DEVNULL, check=False).returncode
            == 0
        )
    return True


def _deleted(file: Path) -> dict[str, Path | None]:
    """Run -> the folder of its artifacts, None where it has none here; of the runs that were deleted."""
    rows = _rows(file, "SELECT run_uuid, artifact_uri FROM runs WHERE lifecycle_stage = 'deleted'")
    folders = {run: local_path(uri) for run, uri in rows}
    return {run: folder.parent if folder and folder.is_dir() else None for run, folder in folders.items()}


def _orphans(file: Path) -> Iterator[Path]:
    """Folders of runs beside the store that it does not know: of a copy of it, or of runs that are no more."""
    known = {run for run, _ in _rows(file, "SELECT run_uuid, '' FROM runs")}
    for artifacts in sorted((file.parent / ARTIFACTS).glob("*/artifacts")):
        if RUN.fullmatch(run := artifacts.parent.name) and run not in known:
            yield artifacts.parent


def _rows(file: Path, query: str) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=30)) as database:
        return list(database.execute(query))


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())


def _say(word: str, size: int, what: str) -> None:
    print(f"{word:8}{size / 1e6:12,.1f} MB  {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
