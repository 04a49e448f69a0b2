"""prepare: the images that a variant is trained and tested on, in one folder, and a sheet of examples.

Decided here: what is in the folder is the track's business, shards or folders of pictures; a manifest says what there
is, and the sheet shows it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from cgn.core.images import save_picture, sheet
from cgn.core.metrics import MetricSink
from cgn.core.roles import Input, Output

EXAMPLES = "examples.png"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What was written: images by set, and rows of examples, (B,3,H,W) in [-1,1] each."""

    images: Mapping[str, int]
    examples: Sequence[tuple[str, torch.Tensor]]


class Write(Protocol):
    """Writes everything, a manifest too, into the folder `data`."""

    def __call__(self, *, assets: Path, data: Path) -> Prepared: ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What prepare needs from a track."""

    write: Write


def prepare(parts: Parts, *, assets: Input, data: Output, sink: MetricSink) -> None:
    """Write the images, the manifest and `examples.png` into `data`."""
    prepared = parts.write(assets=assets, data=data)
    save_picture(sheet(prepared.examples), data / EXAMPLES)
    sink.picture(data / EXAMPLES)
    sink.summary({f"images/{name}": count for name, count in prepared.images.items()})
