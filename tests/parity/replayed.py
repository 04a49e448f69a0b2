"""Random numbers as the published corruptions drew them: NumPy's old generator, images channels last."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, Any]


class Replayed:
    """The corruptions' `RandomNumbers` from one `RandomState` for each image."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.states = [np.random.RandomState(seed) for seed in seeds]

    def normal(self, *shape: int) -> torch.Tensor:
        return self._each(lambda state: _first(state.normal(size=_last(shape)), shape)).float()

    def uniform(self, *shape: int) -> torch.Tensor:
        return self._each(lambda state: np.asarray(state.uniform(size=shape))).float()

    def below(self, limits: Sequence[int], *shape: int) -> torch.Tensor:
        drawn = [state.randint(0, limit, size=shape) for limit, state in zip(limits, self.states, strict=True)]
        return torch.from_numpy(np.stack([np.asarray(one, dtype=np.int64) for one in drawn]))

    def poisson(self, rates: torch.Tensor) -> torch.Tensor:
        images = rates.double().permute(0, 2, 3, 1).numpy()
        drawn = [state.poisson(image) for image, state in zip(images, self.states, strict=True)]
        return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float()

    def _each(self, draw: Callable[[np.random.RandomState], Array]) -> torch.Tensor:
        return torch.from_numpy(np.stack([draw(state) for state in self.states]))


def _last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(3,H,W) -> (H,W,3); other shapes stay."""
    return (*shape[1:], 3) if len(shape) == 3 and shape[0] == 3 else shape


def _first(drawn: Array, shape: tuple[int, ...]) -> Array:
    return np.moveaxis(drawn, -1, 0) if drawn.shape != shape else drawn
