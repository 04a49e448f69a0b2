"""A listing's pictures, decoded and prepared one by one: what an examination of a network reads.

Decided here: a picture that cannot be decoded is handed on as the sentence that says why, in its place, so whoever
reads can count and name it and the numbers of all others stay. The record is picklable: a DataLoader's workers, each
with a copy, give the same pictures in the same order as none.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from cgn.core.errors import ArtifactError
from cgn.core.files import readable
from cgn.data.benchmarks import Listing
from cgn.data.decoding import decode
from cgn.data.transforms import Transform


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """A sequence of N items: (3,H,W) float32 from `transform`, or a sentence where a file cannot be read."""

    listing: Listing
    transform: Transform

    @property
    def names(self) -> tuple[str, ...]:
        """(N,) paths from the benchmark's folder."""
        return self.listing.names

    @property
    def labels(self) -> Mapping[str, tuple[int, ...]]:
        """Cue -> (N,) labels; "shape" always, "texture" where the benchmark has it."""
        return self.listing.labels

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, place: int) -> torch.Tensor | str:
        try:
            picture = decode(self.listing.path(place))
        except ArtifactError as error:
            return str(error).removeprefix(f"{readable(str(self.listing.root))}/")
        return self.transform(picture)
