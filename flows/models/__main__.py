"""The registered models: which versions there are, and which one is the champion.

python -m flows.models list                   every version, with its gate's verdict and the alias
python -m flows.models promote NAME/VERSION   make a version the champion, if its gate has passed it
python -m flows.models save RUN FOLDER        write what `mlflow models serve -m FOLDER` serves, from a run's output
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from flows.mlflow_client import Client, RefusedError, address, shown
from flows.models.registry import CHAMPION, GATE, PASSED, SHA256, Registry
from flows.models.saving import read_weights, save
from flows.untracked import RUN, WEIGHTS, project_root

COLUMNS = ("version", "trained", "weights", "alias", "gate")


def show(registry: Registry) -> int:
    """Print every version of the project's registered models."""
    rows = [COLUMNS]
    for version in registry.versions():
        alias = CHAMPION if registry.is_champion(version) else ""
        tags = version.tags
        sha256, verdict = tags.get(SHA256, "")[:12], tags.get(GATE, "-")
        trained = time.strftime("%Y-%m-%d %H:%M", time.localtime(version.creation_timestamp / 1000))
        rows.append(
            (f"{version.name}/{version.version} {tags.get('arm', '')}".rstrip(), trained, sha256, alias, verdict)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    return 0


def promote(registry: Registry, given: str) -> int:
    """Make a version the champion. Raises ValueError for one that no gate has passed, or that does not exist."""
    name, _, number = given.rpartition("/")
    version = next((one for one in registry.versions() if (one.name, str(one.version)) == (name, number)), None)
    if version is None:
        raise ValueError(
            f"there is no version {given!r}: expected NAME/VERSION, as `python -m flows.models list` shows"
        )
    verdict = version.tags.get(GATE)
    if verdict != PASSED:
        stage = "reproduce the stage gate of its variant, after train_classifier and evaluate"
        reason = verdict or f"no gate has judged it; {stage}"
        raise ValueError(f"{given} cannot be the champion: {reason}")
    registry.promote(version, time=time.time())
    print(f"{given} is the champion")
    return 0


def write(run: Path, folder: Path) -> int:
    """Write a servable folder from an output of train_cgn or train_classifier."""
    if folder.exists():
        raise ValueError(f"{folder} exists: give another folder")
    try:
        weights = read_weights(run / WEIGHTS)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{run} is not what train_cgn or train_classifier wrote ({error})") from None
    record = run.with_name(f"{run.name}.log") / RUN
    versions = json.loads(record.read_text(encoding="utf-8"))["versions"] if record.is_file() else {}
    save(weights, folder, versions=versions)
    print(f"mlflow models serve -m {folder} --env-manager local --host 127.0.0.1 --port 5001")
    return 0


def main(argv: Sequence[str]) -> int:
    """Exit status: 0, 1 when MLflow cannot be used now, 2 for what is refused."""
    parser = argparse.ArgumentParser(prog="python -m flows.models")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every version, with its gate's verdict and the alias")
    promoting = commands.add_parser("promote", help="make a version the champion, if its gate has passed it")
    promoting.add_argument("version", metavar="NAME/VERSION")
    saving = commands.add_parser("save", help="write a folder that can be served, from a run's output")
    saving.add_argument("run", type=Path, metavar="RUN")
    saving.add_argument("folder", type=Path, metavar="FOLDER")
    given = parser.parse_args(argv)
    root = project_root()
    try:
        if given.command == "save":
            return write(given.run, given.folder)
        registry = Registry(Client(root=root))
        return show(registry) if given.command == "list" else promote(registry, given.version)
    except (ValueError, RefusedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        print(f"error: {shown(address(root))} cannot be used now: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
