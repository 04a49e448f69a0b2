"""Randomness is passed in: every stream of random numbers has a name and comes from the one seed.

A stream is a pure function of (seed, names), so nothing has to be saved to resume: update 1,234 of a
training draws the same numbers whether the run reached it in one go or was killed and continued.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called `names`; equal arguments give equal seeds on every machine."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_stream(seed: int, *names: str | int) -> "torch.Generator":
    """A CPU torch generator for the stream called `names`."""
    import torch

    return torch.Generator().manual_seed(derive(seed, *names))


def numpy_stream(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator for the stream called `names`."""
    return np.random.default_rng(derive(seed, *names))
