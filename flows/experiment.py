"""A flow run with parameters of its own: a workspace beside the checkout, and the DVC experiment that it becomes.

The workspace is a git worktree in `.dvc/tmp/exps`, where DVC's own experiments run, with the checkout's cache: what
both have in common is restored, not computed again. It holds the checkout's tracked files as they are at the run's
start, edits included, and nothing that is changed there later. Its name comes from these files and the changed
parameters: `cgn-digits-seed-1-` and eight hex digits. So a run that failed or was killed continues in the same
workspace when it is started again, and two equal runs work one after the other. A run that ends well is saved as an
experiment of DVC (`dvc exp show`, `dvc exp apply NAME`), and its workspace is removed. (`dvc exp run --temp` would run
all stages in one process: no task for each, nothing to resume.)
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.untracked import END, OUTPUT, UNTRACKED, alone

PARAMS, ACTIVE = "params.yaml", "active"
WORKSPACES = Path(".dvc") / "tmp" / "exps"
MARK = Path(".dvc") / "tmp" / "whole"  # written last, so a workspace without it is not whole
LEAVE_SECONDS = 15.0
NAME_LENGTH = 40
_PINNED: ContextVar[tuple[str, str] | None] = ContextVar("pinned files", default=None)
NO_GIT = "overrides and variants need a git repository with a commit: DVC's experiments are kept in it"


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Where a flow run works: the checkout, or with a `name` an experiment's folder."""

    folder: Path
    root: Path
    name: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """The variables from which tracking reads the experiment, as in `dvc exp run`."""
        if not self.name:
            return {}
        return {"DVC_EXP_NAME": self.name, "DVC_EXP_BASELINE_REV": git(self.folder, "rev-parse", "HEAD")}

    def save(self, stages: Iterable[str], *, message: str, pipeline: str) -> None:
        """Save the outputs of `stages` as an experiment and remove the workspace; nothing for a run in the checkout.

        `pipeline` is the run's key in tracking, whose uploader reads outputs shortly after they are written.
        Raises RuntimeError with DVC's message where it cannot be saved; the workspace stays then.
        """
        if not self.name:
            return
        command = [sys.executable, "-m", "dvc", "exp", "save", "--force", "--name", self.name, "--message", message]
        done = subprocess.run([*command, *stages], cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"dvc exp save in {self.folder}: {_last_line(done.stderr)}")
        deadline = time.monotonic() + LEAVE_SECONDS
        runs = self.root / UNTRACKED / pipeline
        while any(not (end.parent / OUTPUT).exists() for end in runs.glob(f"*/{END}")) and time.monotonic() < deadline:
            time.sleep(0.2)
        remove(self.root, self.folder)


@contextmanager
def workspace(
    root: Path, *, overrides: Mapping[str, Any], variants: Sequence[str], log: Callable[[str], object]
) -> Iterator[Workspace]:
    """Where to run with `overrides` (values by dotted keys of params.yaml) and these `variants`; else the checkout.

    Raises ValueError for a name that is not there, and for values that the library refuses, saying what is allowed.
    """
    if not overrides and not variants:
        yield Workspace(folder=root, root=root)
        return
    files = _files(root)
    name = _name(root, files, overrides=overrides, variants=variants)
    folder = root / WORKSPACES / name
    lock = lock_file(root, name)
    try:
        with alone(lock, wait=False):
            pass
    except BlockingIOError:
        log(f"waiting for another run of the same experiment, in {folder}")
    with alone(lock):
        if (folder / MARK).is_file():
            log(f"continues the experiment {name} in {folder}")
        else:
            log(f"the experiment {name} runs in {folder}")
            _make(root, folder, files=files, overrides=overrides, variants=variants)
        yield Workspace(folder=folder, root=root, name=name)


def name_of(root: Path, *, overrides: Mapping[str, Any], variants: Sequence[str]) -> str:
    """The name of the experiment that `workspace` makes from the files as they are now."""
    return _name(root, _files(root), overrides=overrides, variants=variants)


@contextmanager
def pinned(root: Path) -> Iterator[None]:
    """All experiments that are named or made in the block start from the files as they are now."""
    token = _PINNED.set(_files(root))
    try:
        yield
    finally:
        _PINNED.reset(token)


def lock_file(root: Path, name: str) -> Path:
    """What the run that works in a workspace holds."""
    return root / ".dvc" / "tmp" / f"{name}.lock"


def changed(tree: dict[str, Any], *, overrides: Mapping[str, Any], variants: Sequence[str]) -> list[str]:
    """Set parameters in params.yaml's `tree`; the variants that it then builds, as track/variant.

    Raises ValueError for a variant or a section that is not there, with those that are.
    """
    if variants:
        chosen = [_variant(tree, name) for name in variants]
        tree[ACTIVE] = {track: [v for t, v in chosen if t == track] for track in tree[ACTIVE]}
    for key, value in overrides.items():
        _set(tree, key, value)
    active = {track: names for track, names in tree.get(ACTIVE, {}).items() if isinstance(names, list)}  # see `_check`
    return [f"{track}/{name}" for track, names in active.items() for name in names]


def remove(root: Path, folder: Path) -> None:
    """Remove a workspace, also half of one. No other one: that of a disk that is not mounted now comes back."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(ValueError):  # git does not know it
        git(root, "worktree", "remove", "--force", "--force", str(folder))


def git(folder: Path, *words: str) -> str:
    """What git prints. Raises ValueError with its last line where it fails."""
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{NO_GIT} (git {words[0]}: {_last_line(done.stderr)})")
    return done.stdout.strip()


def _files(root: Path) -> tuple[str, str]:
    """HEAD and the tracked files as they are now, as revisions; nothing is changed in the checkout."""
    if found := _PINNED.get():
        return found
    head = git(root, "rev-parse", "HEAD")
    return head, git(root, "stash", "create") or head


def _name(root: Path, files: tuple[str, str], *, overrides: Mapping[str, Any], variants: Sequence[str]) -> str:
    """What is changed, in words as far as they are short, and what identifies the experiment."""
    words = [*(name.rpartition("/")[2] for name in variants)]
    words += [f"{key.rpartition('.')[2]}-{value}" for key, value in overrides.items()]
    short = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(words))[:NAME_LENGTH].strip("-")
    return "-".join(filter(None, ["cgn", short, _digest(root, files, overrides=overrides, variants=variants)]))


def _digest(root: Path, files: tuple[str, str], *, overrides: Mapping[str, Any], variants: Sequence[str]) -> str:
    """Eight hex digits that identify the files and the changes."""
    head, snapshot = files
    what = [head, git(root, "rev-parse", f"{snapshot}^{{tree}}")]
    text = json.dumps([*what, dict(overrides), list(variants)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _make(
    root: Path, folder: Path, *, files: tuple[str, str], overrides: Mapping[str, Any], variants: Sequence[str]
) -> None:
    """Create the workspace. After an error there is no workspace."""
    from dvc.config import Config  # type: ignore[import-untyped]
    from dvc.utils.serialize import modify_yaml  # type: ignore[import-untyped]

    remove(root, folder)
    head, snapshot = files
    git(root, "worktree", "add", "--quiet", "--detach", str(folder), head)
    try:
        git(folder, "restore", f"--source={snapshot}", "--staged", "--worktree", "--", ":/")
        with modify_yaml(str(folder / PARAMS)) as tree:
            built = changed(tree, overrides=overrides, variants=variants)
        _check(folder, built)
        for name in ("dvc.lock", ".dvc/config.local"):
            if (root / name).is_file():
                shutil.copy(root / name, folder / name)
        cache = Config(str(root / ".dvc"))["cache"].get("dir") or root / ".dvc" / "cache"
        _restore_kept(folder, cache=Path(cache))
        with Config(str(folder / ".dvc")).edit("local") as config:
            config["cache"]["dir"] = str(cache)
        (folder / MARK).parent.mkdir(exist_ok=True)
        (folder / MARK).touch()
    except BaseException:
        remove(root, folder)
        raise


def _restore_kept(folder: Path, *, cache: Path) -> None:
    """Outputs that a stage continues (`persist`): DVC restores the others by itself when it comes to their stages."""
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]
    from dvc.repo import Repo  # type: ignore[import-untyped]

    with Repo(str(folder), config={"cache": {"dir": str(cache)}}) as repo:
        kept = [out.stage.addressing for out in repo.index.outs if out.persist and out.hash_info]
        with suppress(DvcException):  # what the cache lacks is computed again
            repo.checkout(targets=kept, allow_missing=True) if kept else None


def _last_line(text: str) -> str:
    return next(iter(text.strip().splitlines()[::-1]), "it printed nothing")


def _check(folder: Path, variants: Sequence[str]) -> None:
    """Have the library read all of params.yaml. Raises ValueError with what it refuses."""
    for variant in variants[:1]:
        command = [sys.executable, "-m", "cgn", "params", variant]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f"overrides: {done.stderr.strip().removeprefix('error: ')}")


def _variant(tree: Mapping[str, Any], name: str) -> tuple[str, str]:
    """The track and name of a variant, given as `track/variant` or, where one track has it, as `variant`."""
    known = [(track, variant) for track in tree.get(ACTIVE, {}) for variant in tree[track]]
    found = [(track, variant) for track, variant in known if name in (variant, f"{track}/{variant}")]
    if len(found) != 1:
        what = "several tracks have" if found else "there is no"
        raise ValueError(f"variants: {what} {name!r}; known: {', '.join('/'.join(pair) for pair in known) or 'none'}")
    return found[0]


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *path, leaf = key.split(".")
    branch: Any = tree
    for depth, name in enumerate(path):
        above = ".".join(path[:depth]) or PARAMS
        if depth < 2 and name not in branch:  # a section below a variant may be new: the library knows which there are
            known = [str(known) for known in branch if depth or known != ACTIVE]
            raise ValueError(f"overrides: {key!r} is unknown, {above} has no {name!r}; known: {', '.join(known)}")
        branch = branch.setdefault(name, {})
        if not isinstance(branch, dict):
            raise ValueError(f"overrides: {key!r} is unknown, {'.'.join(path[: depth + 1])} is {branch!r}, no section")
    if not path:
        raise ValueError(f"overrides: {key!r} is no dotted key, for example mnist.digits.train_classifier.epochs")
    branch[leaf] = value
