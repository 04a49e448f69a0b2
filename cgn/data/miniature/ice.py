"""Frozen panes for the miniature's corruption `frost`, drawn by formula as the rest of that world is.

Decided here: as many as the corruption draws among, twice as large as the images, so that crops differ. Veins of white
lie along the middle heights of a fractal landscape, on a bluish pane; real photographs are used where there are any.
"""

import torch

from cgn.data.corruptions.draws import draws_for
from cgn.data.corruptions.ice import DRAWN
from cgn.data.corruptions.weather import plasma

PANE, VEIN = (70.0, 95.0, 120.0), (235.0, 245.0, 255.0)
"""RGB in 0..255."""
DECAY, SHARPNESS = 1.9, 3.0


def drawn_ice(*, seed: int, height: int, width: int) -> tuple[torch.Tensor, ...]:
    """(3,S,S) uint8 each, S a power of two of at least twice `height` and `width`."""
    size = 2 ** (2 * max(height, width) - 1).bit_length()
    draws = draws_for(range(DRAWN), name="ice", severity=0, seed=seed, device=torch.device("cpu"))
    heights = plasma(size, decay=DECAY, draws=draws)
    veins = (1 - (2 * heights - 1).abs()).pow(SHARPNESS)[:, None]
    pane, vein = (torch.tensor(colour)[:, None, None] for colour in (PANE, VEIN))
    return tuple((pane + (vein - pane) * veins).round().to(torch.uint8))
