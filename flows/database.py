"""MLflow's SQLite file: created completely or not at all, and adopted where a checkout was copied or moved.

MLflow creates its tables by some fifty migrations, and two processes that do so at once leave a file that nothing opens
any more. So a new file is created under another name and linked to its own one when it is whole; whoever opens it,
`mlflow ui` too, sees none or all of it. MLflow stores the locations of artifacts as absolute paths, and its client
cannot change them: a copied store would write artifacts into the folder that it was copied from. So `adopt` changes
them, in one transaction.
"""

import os
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

ARTIFACTS = "mlartifacts"
OTHERS_SECONDS = 10.0  # since the last change of a file that another program is creating
BUSY_SECONDS = 20.0

LOCATIONS = (
    (
        "SELECT run_uuid, artifact_uri, status = 'RUNNING' FROM runs WHERE experiment_id = ?",
        "UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?",
    ),
    (
        "SELECT model_id, artifact_location, status = 1 FROM logged_models WHERE experiment_id = ?",  # 1: pending
        "UPDATE logged_models SET artifact_location = ? WHERE model_id = ?",
    ),
    (
        "SELECT versions.name, version, storage_location, 0 FROM model_versions AS versions JOIN logged_models "
        "ON source = 'models:/' || model_id WHERE experiment_id = ?",
        "UPDATE model_versions SET storage_location = ? WHERE name = ? AND version = ?",
    ),
)
"""Where artifacts of an experiment are: a query for keys, location, and whether more is written; how it is changed."""


def sqlite_file(uri: str) -> Path | None:
    """The file of an absolute SQLite tracking URI (`flows.mlflow_client.address`); None for any other store."""
    scheme, separator, path = uri.partition(":///")
    path = unquote(path.partition("?")[0])
    if not separator or not scheme.startswith("sqlite") or not path or path.startswith((":memory:", "file:")):
        return None
    return Path(path).resolve()


def create(file: Path) -> None:
    """Create MLflow's tables if there is no file; wait while another program creates them. Call it under a lock.

    Raises RuntimeError for a file whose creation was interrupted: MLflow can neither use nor finish it.
    """
    if not file.exists():
        _link_new(file)
    head = _head()
    while (found := _revision(file)) != head and time.time() - file.stat().st_mtime < OTHERS_SECONDS:
        time.sleep(0.1)
    if found != head and (left := _leftovers(file)):
        raise RuntimeError(
            f"{file} is unusable, MLflow's creation or upgrade of it was interrupted (it left {left[0]}): "
            "move the file away, or restore its backup"
        )


def adopt(file: Path, *, experiment: str, home: str | None) -> None:
    """Write an experiment's artifacts beside the store again, as before the store was copied or moved.

    home: the path of the store's file when the experiment was used last, None where that was not recorded. Artifacts of
    earlier runs are looked for in the new place where they are there, else in the old one.
    """
    with closing(sqlite3.connect(file, timeout=BUSY_SECONDS)) as database, database:
        (location,) = database.execute(
            "SELECT artifact_location FROM experiments WHERE experiment_id = ?", (experiment,)
        ).fetchone()
        old = local_path(location)
        if old is None:
            return
        base = Path(home).parent if home else (old.parent if old.name == ARTIFACTS else file.parent)
        if base == file.parent or not old.is_relative_to(base):
            return
        new = (file.parent / old.relative_to(base)).as_uri()
        database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (new, experiment))
        for select, update in LOCATIONS:
            for *key, uri, unfinished in database.execute(select, (experiment,)).fetchall():
                if not uri.startswith(f"{location}/"):
                    continue
                moved = new + uri.removeprefix(location)
                if unfinished or _exists(moved) or not _exists(uri):
                    database.execute(update, (moved, *key))
    print(f"note: MLflow's artifacts are now written to {new}, no longer to {location}", file=sys.stderr, flush=True)


def _link_new(file: Path) -> None:
    """Create the tables in a file of another name, then give it its own, unless another program was faster."""
    from mlflow import MlflowClient

    partial = file.with_name(f"{file.name}.partial-{os.getpid()}")
    partial.unlink(missing_ok=True)
    try:
        MlflowClient(f"sqlite:///{partial}").get_experiment("0")
        try:
            file.hardlink_to(partial)  # a move would replace a file that another program has created meanwhile
        except FileExistsError:
            return
        except OSError:  # a file system without links
            partial.rename(file)
    finally:
        partial.unlink(missing_ok=True)


def _head() -> str:
    """The revision of the tables that the installed MLflow wants: private, pyproject.toml holds MLflow's version."""
    from mlflow.store.db.utils import _get_latest_schema_revision

    return str(_get_latest_schema_revision())  # type: ignore[no-untyped-call]


def _revision(file: Path) -> str | None:
    rows = _rows(file, "SELECT version_num FROM alembic_version")
    return rows[0] if rows else None


def _leftovers(file: Path) -> list[str]:
    """Tables that a migration creates and removes again."""
    return _rows(file, r"SELECT name FROM sqlite_master WHERE name LIKE '\_alembic\_tmp\_%' ESCAPE '\'")


def _rows(file: Path, query: str) -> list[str]:
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)) as database:
            return [row[0] for row in database.execute(query)]
    except sqlite3.OperationalError:  # no such table yet
        return []


def local_path(location: str) -> Path | None:
    """A path or file URI as a path; None for a place elsewhere."""
    parts = urlsplit(location)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(url2pathname(parts.path))
    return Path(location) if parts.scheme == "" and location.startswith("/") else None


def _exists(location: str) -> bool:
    path = local_path(location)
    return path is not None and path.exists()
