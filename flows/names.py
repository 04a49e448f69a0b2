"""python -m flows.names: refuse a stage whose name is not made of plain words. The first command of every stage.

DVC writes a variant's name into a stage's command as it stands, and a shell reads the command. This one
names no variant: it reads the name that DVC leaves in the environment, where no shell expands it, and when it fails DVC
does not start the stage's next command. The rule is that of `cgn.config.load`.
"""

import os
import re
import sys

STAGE = re.compile(r"(?:[^@:]*dvc\.yaml:)?[A-Za-z0-9_-]+(?:@[A-Za-z][A-Za-z0-9_-]*)?")


def main(stage: str) -> int:
    """Exit status: 0, or 2 for a name that is refused, with the rule."""
    if STAGE.fullmatch(stage):
        return 0
    name = stage.partition("@")[2]
    rule = "a variant's name is text: a letter, then letters, digits, _ and -; rename it in params.yaml"
    print(f"error: the stage {stage!r} has the variant {name!r}: {rule}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(os.environ.get("DVC_STAGE", "by-hand")))
