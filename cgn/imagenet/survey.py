"""What the user's folders hold, by names and sizes: the input by which the pipeline knows that a picture came or went.

    python -m cgn.imagenet.survey imagenet/mini --survey runs/imagenet/mini/survey

Decided here: this is no verb. It makes nothing that anybody looks at, takes seconds where hashing the pictures would
take an hour, and runs at every `dvc repro`; what depends on it runs only when a digest has changed. A variant without
folders has an empty survey. A variant's folders are looked at before anything is fetched for it as well.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cgn.config.load import load
from cgn.core.errors import CgnError
from cgn.core.files import write_json
from cgn.imagenet.folders import SURVEY, Named, user_sets


def survey(folders: Named | None, *, variant: str) -> dict[str, str]:
    """Set -> digest of names and sizes. Raises ConfigError with the dotted key of a folder that does not do."""
    found = user_sets(folders, variant=variant) if folders is not None else {}
    return {name: contents.digest for name, contents in found.items()}


def main(argv: Sequence[str]) -> int:
    """Exit status: 0, or 2 for what the user can fix."""
    parser = argparse.ArgumentParser(prog="python -m cgn.imagenet.survey", description=__doc__.splitlines()[0])
    parser.add_argument("target", metavar="imagenet/VARIANT")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    parser.add_argument("--survey", type=Path, required=True, metavar="OUTPUT", help="the folder to write")
    given = parser.parse_args(argv)
    try:
        record = load(given.params).variant(given.target)
        folders: Named | None = getattr(record.prepare, "folders", None)
        write_json(given.survey / SURVEY, survey(folders, variant=given.target.partition("/")[2]))
    except CgnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
