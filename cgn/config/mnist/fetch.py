"""mnist fetch: which assets a variant needs follows from its other parameters; there is nothing to set."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """No parameter of its own."""
