"""Show networks pictures and keep what each of their heads decides: rows of `cgn.evaluation.examination`.

Legend: B pictures of a batch, H height, W width, K classes.
Decided here: pictures are read in their order, without chance, so the rows are a function of networks and pictures; a
batch's size changes them by rounding only. Classes with equal answers are ranked by their number. Softmax is taken in
float64, so that no category's mean hangs on the order of its members. Pictures that cannot be read are left out of the
rows and named; a network that answers with anything but finite numbers is refused.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch

from cgn.core.devices import fits
from cgn.core.errors import ArtifactError
from cgn.core.loading import read_ahead
from cgn.evaluation.examination import NONE, TOPS
from cgn.evaluation.shape_bias import categories

Network = Callable[[torch.Tensor], Mapping[str, torch.Tensor]]
"""(B,3,H,W) -> for each head its logits (B,K)."""


class Pictures(Protocol):
    """N pictures: an item is (3,H,W) float32, or a sentence that says why it cannot be read."""

    @property
    def names(self) -> Sequence[str]:
        """(N,) a name of its own for each."""

    @property
    def labels(self) -> Mapping[str, Sequence[int]]:
        """(N,) under "shape", and under "texture" where it is known."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> torch.Tensor | str: ...


@dataclass(frozen=True, kw_only=True)
class Examined:
    """`rows` as in `cgn.evaluation.examination`; `unreadable`: a sentence for each picture that has none."""

    rows: pd.DataFrame
    unreadable: tuple[str, ...]


def examine(
    networks: Mapping[str, Network],
    *,
    pictures: Pictures,
    suite: str,
    condition: str,
    batch_size: int,
    members: Sequence[Sequence[int]] = (),
    device: torch.device | str = "cpu",
    workers: int = 0,
    advance: Callable[[int], object] = lambda _: None,
) -> Examined:
    """The decisions of every head of every network (by its name) on every picture, each of which is read once.

    `members`: the classes of each category (the sixteen's, for a network of 1000 classes); without, `category` is -1.
    `workers`: processes that decode. `advance` is told how many more pictures are done. Raises ArtifactError when no
    picture can be read or an answer is not finite.
    """
    tables: list[pd.DataFrame] = []
    unreadable: list[str] = []
    with fits(batch_size):
        for first, batch in batches(pictures, batch_size=batch_size, workers=workers):
            places = [first + place for place, picture in enumerate(batch) if not isinstance(picture, str)]
            unreadable += [f"{suite}/{condition}/{why}" for why in batch if isinstance(why, str)]
            if places:
                images = torch.stack([picture for picture in batch if not isinstance(picture, str)])
                shown = known(pictures, places, suite=suite, condition=condition)
                tables += decide(networks, images.to(device), shown=shown, members=members)
            advance(len(batch))
    if not tables:
        raise ArtifactError(f"nothing to examine in {suite}/{condition}: {_why(unreadable)}")
    rows = pd.concat(tables, ignore_index=True)
    ordered = rows.sort_values(["classifier", "head"], kind="stable", ignore_index=True)
    return Examined(rows=ordered, unreadable=tuple(unreadable))


def decide(
    networks: Mapping[str, Network],
    images: torch.Tensor,
    *,
    shown: pd.DataFrame,
    members: Sequence[Sequence[int]] = (),
) -> list[pd.DataFrame]:
    """A table for each head of each network: its decisions on images (B,3,H,W), prepared, of which `known` told."""
    tables = []
    for classifier, network in networks.items():
        assert not (isinstance(network, torch.nn.Module) and network.training), "a network is examined in eval mode"
        with torch.inference_mode():
            answers = network(images)
        for head, decided in _decisions(answers, members=members, classifier=classifier).items():
            tables.append(pd.concat([shown.assign(classifier=classifier, head=head), decided], axis=1))
    return tables


def known(pictures: Pictures, places: Sequence[int], *, suite: str, condition: str) -> pd.DataFrame:
    """What is known of the pictures at `places` before anyone decides."""
    names, labels = pictures.names, pictures.labels
    texture = labels.get("texture")
    columns = {
        "suite": suite,
        "condition": condition,
        "image": [names[place] for place in places],
        "label": np.array([labels["shape"][place] for place in places], dtype=np.int16),
        "texture": np.array([NONE if texture is None else texture[place] for place in places], dtype=np.int16),
    }
    return pd.DataFrame(columns)


def batches(pictures: Pictures, *, batch_size: int, workers: int) -> Iterator[tuple[int, Sequence[torch.Tensor | str]]]:
    """Each batch, as read, with the place of its first picture."""
    first = 0
    for batch in read_ahead(pictures, order=range(len(pictures)), batch_size=batch_size, workers=workers):
        yield first, batch
        first += len(batch)


def _decisions(
    answers: Mapping[str, torch.Tensor], *, members: Sequence[Sequence[int]], classifier: str
) -> dict[str, pd.DataFrame]:
    """For each head the columns that come from its logits (B,K)."""
    found = {}
    for head, logits in answers.items():
        if not bool(torch.isfinite(logits).all()):
            raise ArtifactError(
                f"the head {head} of {classifier} answers with numbers that are not finite: its weights are broken"
            )
        probabilities = logits.double().softmax(dim=1)
        best, ranked = probabilities.sort(dim=1, descending=True, stable=True)
        top = np.full((len(logits), len(TOPS)), NONE, dtype=np.int16)
        kept = min(len(TOPS), logits.shape[1])
        top[:, :kept] = ranked[:, :kept].cpu().numpy()
        columns: dict[str, Any] = {name: top[:, rank] for rank, name in enumerate(TOPS)}
        columns["category"] = NONE
        if members:
            columns["category"] = categories(probabilities, members=members).to(torch.int16).cpu().numpy()
        columns["probability"] = best[:, 0].float().cpu().numpy()
        found[head] = pd.DataFrame(columns)
    return found


def _why(unreadable: Sequence[str]) -> str:
    return f"none of {len(unreadable)} pictures can be read, the first: {unreadable[0]}" if unreadable else "empty"
