"""What an interrupted examination had finished: one file of decisions for each piece of work, kept until all are there.

Decided here: a piece is a suite's condition, or one block of pictures under one corruption. The folder is continued by
the same definition and code only (`cgn.core.outputs.building`), so a note that can be read is right.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from cgn.core.errors import ArtifactError
from cgn.evaluation.predict import Predicted
from cgn.evaluation.predictions import read_table, schema, write_table

FOLDER = "notes"


class Notes:
    """The notes below an output folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER

    def kept(self, key: str, make: Callable[[], Predicted]) -> Predicted:
        """What an earlier run found under `key`, or what `make` finds, noted."""
        path = self.folder / f"{key.replace('/', '-')}.parquet"
        if path.is_file():
            try:
                rows, facts = read_table(path, schema=schema())
                return Predicted(rows=rows, unreadable=tuple(facts["unreadable"]))
            except (ArtifactError, KeyError):
                path.unlink()
        made = make()
        write_table(made.rows, path, schema=schema(), facts={"unreadable": list(made.unreadable)})
        return made

    def has(self, key: str) -> bool:
        """Whether there is a note of this name."""
        return (self.folder / f"{key.replace('/', '-')}.parquet").is_file()

    def clear(self) -> None:
        """Take all notes away."""
        shutil.rmtree(self.folder, ignore_errors=True)
