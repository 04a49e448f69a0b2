"""What the ensemble of invariant classifiers is trained with (Sauer & Geiger, ICLR 2021).

Heads answer with logits (B,K). On a real picture all heads are asked together; on a counterfactual, whose shape,
texture and background are of different classes, each head is asked for its own mechanism's label alone.
"""

from collections.abc import Mapping

import torch
from torch.nn import functional


def real(logits: Mapping[str, torch.Tensor], label: torch.Tensor) -> torch.Tensor:
    """(B,K) of each head and labels (B,) -> cross entropy of the mean of the heads' logits."""
    return functional.cross_entropy(torch.stack(list(logits.values())).mean(0), label)


def counterfactual(logits: Mapping[str, torch.Tensor], labels: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """(B,K) of each head and a label (B,) for each head's mechanism -> the sum of their cross entropies.

    Raises ValueError when a head has no label.
    """
    return torch.stack(list(by_head(logits, labels).values())).sum()


def by_head(logits: Mapping[str, torch.Tensor], labels: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As `counterfactual`, each head's cross entropy by itself."""
    if lacking := sorted(logits.keys() - labels.keys()):
        raise ValueError(f"no labels for the heads {', '.join(lacking)}; there are: {', '.join(sorted(labels))}")
    return {head: functional.cross_entropy(answer, labels[head]) for head, answer in logits.items()}
