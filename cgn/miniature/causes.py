"""The causes of a scene, as noise: what a generator of the miniature can be told of the picture that it is to draw.

Decided here: they are the first numbers that the shape, the texture and the background of an image are drawn from
(place, size, turn, mirroring and pose; scale and turn; horizon and colours), which are uniform and independent. Each
is taken to a normal truncated to [-2,2], so a scene's causes are a draw of the noise that a BigGAN is given.
"""

import math

import numpy as np
import torch

from cgn.miniature.draws import Draws, Labels

COUNTS = {"shape": 15, "texture": 6, "background": 11}
"""How many numbers of each stream are told. A silhouette draws 15 at most."""
NOISE_SIZE = sum(COUNTS.values())
LIMIT = 2.0
"""Where the normal is cut off, in standard deviations."""


def causes(index: Labels, *, seed: int) -> torch.Tensor:
    """(B,) image numbers of the world `seed` -> (B,32) noise in [-2,2]."""
    numbers = []
    for stream, count in COUNTS.items():
        draws = Draws(index, seed=seed, stream=stream)
        numbers += [draws.between(0.0, 1.0)[:, 0, 0] for _ in range(count)]
    below = 0.5 * (1 + math.erf(-LIMIT / math.sqrt(2)))
    share = torch.from_numpy(np.stack(numbers, axis=1)).double()
    normal: torch.Tensor = torch.special.ndtri(below + (1 - 2 * below) * share)
    return normal.clamp(-LIMIT, LIMIT).float()
