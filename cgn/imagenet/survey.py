"""python -m cgn survey imagenet/mini --survey runs/imagenet/mini/survey: note which images the user's folders hold.

The pipeline runs it at every `dvc repro` and so sees that an image was added, removed or changed. It reads names and
sizes, which takes seconds where hashing the images would take an hour, and what depends on it runs only when a digest
has changed. It is a command and no verb: nobody looks at what it writes, and it has no record of its own.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cgn.config.load import load
from cgn.core.files import write_json
from cgn.imagenet.folders import SURVEY, CheckedFolders, user_sets


def survey(argv: Sequence[str]) -> None:
    """Write survey.json, the digest of the names and sizes in each folder of a variant; {} where it has no folders.

    Raises ConfigError with the dotted key of a folder that cannot be used.
    """
    parser = argparse.ArgumentParser(prog="python -m cgn survey", description=survey.__doc__)
    parser.add_argument("target", metavar="imagenet/VARIANT")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    parser.add_argument("--survey", type=Path, required=True, metavar="OUTPUT", help="the folder to write")
    given = parser.parse_args(argv)
    record = load(given.params).variant(given.target)
    folders: CheckedFolders | None = getattr(record.prepare, "folders", None)
    write_json(given.survey / SURVEY, folder_digests(folders, variant=given.target.partition("/")[2]))


def folder_digests(folders: CheckedFolders | None, *, variant: str) -> dict[str, str]:
    """Set -> digest of names and sizes; none for a variant without folders."""
    found = user_sets(folders, variant=variant) if folders is not None else {}
    return {name: contents.digest for name, contents in found.items()}
