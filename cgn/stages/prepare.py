"""prepare: the images that a variant is trained and tested on, in one folder, and a sheet of examples.

Decided here: what is in the folder is the track's business, shards or folders of pictures; a manifest says what there
is, and the sheet shows it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from cgn.core.arguments import Input, OptionalInput, Output
from cgn.core.images import save_image, sheet
from cgn.core.metrics import MetricSink

EXAMPLES = "examples.png"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What was written: images by set, and rows of examples, (B,3,H,W) in [-1,1] each."""

    images: Mapping[str, int]
    examples: Sequence[tuple[str, torch.Tensor]]


class Write(Protocol):
    """Writes everything, a manifest too, into the folder `data`."""

    def __call__(self, *, assets: Path, data: Path, survey: Path | None) -> Prepared: ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What prepare needs from a track."""

    write: Write


def prepare(parts: Parts, *, assets: Input, data: Output, sink: MetricSink, survey: OptionalInput = None) -> None:
    """Write the images, the manifest and `examples.png` into `data`.

    `survey`: of the user's folders, for a track that reads some; the pipeline makes it anew each time, so that a folder
    that changed is prepared again.
    """
    prepared = parts.write(assets=assets, data=data, survey=survey)
    save_image(sheet(prepared.examples), data / EXAMPLES)
    sink.picture(data / EXAMPLES)
    sink.summary({f"images/{name}": count for name, count in prepared.images.items()})
