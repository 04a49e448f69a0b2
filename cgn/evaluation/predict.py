"""Show networks pictures and store what each of their heads predicts: rows of `cgn.evaluation.predictions`.

Legend: B pictures of a batch, H height, W width, K classes.
Pictures are read in their order and without randomness, so the rows are a function of networks and pictures; the size
of a batch changes them by rounding only. Classes of equal score are ranked by their number. Softmax is taken in
float64, so that no category's mean depends on the order of its members. Pictures that cannot be read are left out of
the rows and named; a network that answers with anything but finite numbers is refused. On a CPU with several cores the
networks run side by side, and the next batch is read while they do (`cgn.core.parallel`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import pandas as pd
import torch

from cgn.core.devices import fits
from cgn.core.errors import ArtifactError
from cgn.core.loading import read_ahead
from cgn.core.parallel import ahead, concurrently
from cgn.evaluation.predictions import NONE, TOPS, Array, prediction_rows

Network = Callable[[torch.Tensor], Mapping[str, torch.Tensor]]
"""(B,3,H,W) -> for each head its logits (B,K)."""


class Pictures(Protocol):
    """N pictures: an item is (3,H,W) float32, or a sentence that says why it cannot be read."""

    @property
    def names(self) -> Sequence[str]:
        """(N,) a name of its own for each."""

    @property
    def labels(self) -> Mapping[str, Sequence[int]]:
        """Cue -> (N,): "shape" always, "texture" where it is known."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> torch.Tensor | str: ...


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """`rows` as in `cgn.evaluation.predictions`; `unreadable`: a sentence for each picture that has none."""

    rows: pd.DataFrame
    unreadable: tuple[str, ...]


def predict(
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
) -> Predicted:
    """The predictions of every head of every network (by its name) on every picture, each of which is read once.

    `members`: the classes of each category (the sixteen's, for a network of 1000 classes); without, `category` is -1.
    `workers`: processes that decode. `advance` is called with how many more pictures are done. Raises ArtifactError
    when no picture can be read or an answer is not finite.
    """
    tables: list[pd.DataFrame] = []
    unreadable: list[str] = []
    read = batches(pictures, batch_size=batch_size, workers=workers)
    if not workers:  # worker processes read ahead themselves
        read = ahead(read)
    with fits(batch_size):
        for first, batch in read:
            places = [first + place for place, picture in enumerate(batch) if not isinstance(picture, str)]
            unreadable += [f"{suite}/{condition}/{why}" for why in batch if isinstance(why, str)]
            if places:
                images = torch.stack([picture for picture in batch if not isinstance(picture, str)])
                shown = known(pictures, places, suite=suite, condition=condition)
                tables += decide(networks, images.to(device), shown=shown, members=members)
            advance(len(batch))
    if not tables:
        raise ArtifactError(f"nothing to evaluate in {suite}/{condition}: {_why(unreadable)}")
    rows = pd.concat(tables, ignore_index=True)
    ordered = rows.sort_values(["classifier", "head"], kind="stable", ignore_index=True)
    return Predicted(rows=ordered, unreadable=tuple(unreadable))


def decide(
    networks: Mapping[str, Network],
    images: torch.Tensor,
    *,
    shown: Mapping[str, Any],
    members: Sequence[Sequence[int]] = (),
) -> list[pd.DataFrame]:
    """A table for each head of each network: its predictions on prepared images (B,3,H,W), which `known` describes."""
    tables = []
    tasks = [partial(_answers, network, images) for network in networks.values()]
    for classifier, answers in zip(networks, concurrently(*tasks, device=images.device), strict=True):
        for head, logits in answers.items():
            if not bool(torch.isfinite(logits).all()):
                raise ArtifactError(
                    f"the head {head} of {classifier} answers with numbers that are not finite: its weights are broken"
                )
            probabilities = logits.double().softmax(dim=1)
            category = categories(probabilities, members=members).cpu().numpy() if members else NONE
            best, ranked = rank(probabilities)
            found = prediction_rows(
                classifier=classifier,
                head=head,
                **shown,
                tops=ranked,
                probability=best.float().cpu().numpy(),
                category=category,
            )
            tables.append(found)
    return tables


def _answers(network: Network, images: torch.Tensor) -> Mapping[str, torch.Tensor]:
    assert not (isinstance(network, torch.nn.Module) and network.training), "a network is evaluated in eval mode"
    with torch.inference_mode():
        return network(images)


def rank(scores: torch.Tensor) -> tuple[torch.Tensor, Array]:
    """Scores (B,K) -> the best score (B,), and the up to five best classes (B, min(5,K)), best first."""
    ordered, classes = scores.sort(dim=1, descending=True, stable=True)
    return ordered[:, 0], classes[:, : len(TOPS)].cpu().numpy()


def categories(probabilities: torch.Tensor, *, members: Sequence[Sequence[int]]) -> torch.Tensor:
    """(B,K) probabilities -> (B,) int64: the category whose members' probabilities have the largest mean.

    Geirhos et al., "ImageNet-trained CNNs are biased towards texture", ICLR 2019.
    """
    means = [probabilities[:, list(classes)].mean(dim=1) for classes in members]
    return torch.stack(means, dim=1).argmax(dim=1)


def known(pictures: Pictures, places: Sequence[int], *, suite: str, condition: str) -> dict[str, Any]:
    """What is known of the pictures at `places` before anything is predicted: arguments of `prediction_rows`."""
    names = pictures.names
    labels = {cue: [values[place] for place in places] for cue, values in pictures.labels.items()}
    return {
        "suite": suite,
        "condition": condition,
        "images": [names[place] for place in places],
        "labels": labels,
    }


def batches(pictures: Pictures, *, batch_size: int, workers: int) -> Iterator[tuple[int, Sequence[torch.Tensor | str]]]:
    """Each batch, as read, with the place of its first picture."""
    first = 0
    for batch in read_ahead(pictures, order=range(len(pictures)), batch_size=batch_size, workers=workers):
        yield first, batch
        first += len(batch)


def _why(unreadable: Sequence[str]) -> str:
    return f"none of {len(unreadable)} pictures can be read, the first: {unreadable[0]}" if unreadable else "empty"
