"""Types of a verb's arguments: what each of them is to the front door.

A verb is `def verb(config, *, seed: int, variant: str, sink: MetricSink, <inputs>: Input, <output>: Output, ...)`. Its
command line, the checks before the first step and the definition of its output follow from these types. `seed`,
`variant` and `sink` are given to a verb that names them and are no options. Any other keyword argument of a plain type
(str, int) is an option that defines the output.
"""

from pathlib import Path
from typing import Annotated

INPUT = "input"
OUTPUT = "output"
SPEED = "speed"
PARAMETER = "parameter"

Input = Annotated[Path, INPUT]
"""A finished folder of an earlier stage, or a file: it must exist; its digest is part of what defines the output."""

OptionalInput = Annotated[Path | None, INPUT]
"""An input that not every variant needs; a verb that needs it refuses its absence. The default must be None."""

Inputs = Annotated[tuple[Path, ...], INPUT]
"""Several inputs: the option is repeated."""

Output = Annotated[Path, OUTPUT]
"""The one folder that the verb writes: built under a temporary name, moved into place at the end."""

Speed = Annotated[int, SPEED]
"""A number that changes how fast a verb works, never what it writes: it is no part of the output's definition."""

Cluster = Annotated[str, SPEED]
"""The address of a Ray cluster, which is a matter of pace as well."""

Parameter = Annotated[str, PARAMETER]
"""A value from another section of params.yaml. The front door gives it by its name; it is no option."""
