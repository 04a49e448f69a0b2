"""The marks by which a verb's signature tells the front door what its arguments are.

A verb is `def verb(parts, *, <inputs>: Input, <output>: Output, sink: MetricSink, ...)`; the command line's options,
the checks before the first step and the definition of the output all come from these marks.
"""

from pathlib import Path
from typing import Annotated

INPUT = "input"
OUTPUT = "output"

Input = Annotated[Path, INPUT]
"""A finished folder of an earlier stage, or a file: it must exist; its digest is part of what defines the output."""

OptionalInput = Annotated[Path | None, INPUT]
"""The same for what not every track needs; a track that does refuses its absence. Its default must be None."""

Inputs = Annotated[tuple[Path, ...], INPUT]
"""Several of them: the option is repeated."""

Output = Annotated[Path, OUTPUT]
"""The one folder that the verb makes: built under another name, moved into place at the end."""

PACE = "pace"

Pace = Annotated[int, PACE]
"""A number that changes how fast a verb works, never what it makes: it is no part of the definition."""
