"""Confusion matrices, and which cue a classifier followed: shape, texture or background.

Decided here: a cue's share is how many decisions equal its label. Where looks are drawn at random, the labels of two
cues coincide in one image of ten, so the shares overlap and need not add up to 1; an ignored cue ends near chance,
1 / classes. A cue whose label is the shape's on every image cannot be told from shape and is not listed.
"""

from typing import Any

import numpy as np
import pandas as pd

from cgn.evaluation.accuracy import Proportion

Matrix = np.ndarray[Any, np.dtype[np.int64]]
Shares = np.ndarray[Any, np.dtype[np.float64]]

CUES = {"shape": "label", "texture": "texture", "background": "background"}
"""Cue -> the column that holds its label."""


def confusion(rows: pd.DataFrame, *, classes: int, cue: str = "shape") -> Matrix:
    """(classes, classes) counts: at [i, j] the images whose label of `cue` is i and whose decision is j."""
    if cue not in CUES:
        raise ValueError(f"unknown cue {cue!r}; known: {', '.join(CUES)}")
    places = rows[CUES[cue]].to_numpy(np.int64) * classes + rows["decision"].to_numpy(np.int64)
    return np.bincount(places, minlength=classes * classes).reshape(classes, classes)


def separable(rows: pd.DataFrame) -> tuple[str, ...]:
    """Shape, and the cues whose labels differ from the shape's on some image."""
    return tuple(cue for cue, column in CUES.items() if cue == "shape" or bool((rows[column] != rows["label"]).any()))


def followed(rows: pd.DataFrame) -> dict[str, Proportion]:
    """For each separable cue the share of decisions equal to its label; shape's is the accuracy."""
    return {
        cue: Proportion(hits=int((rows["decision"] == rows[CUES[cue]]).sum()), images=len(rows))
        for cue in separable(rows)
    }


def largest_error(matrix: Matrix) -> tuple[int, int, float] | None:
    """(label, decision, share of the label's images) of the error made most often; None when there is no error."""
    shares = by_label(matrix)
    np.fill_diagonal(shares, 0.0)
    label, decision = np.unravel_index(int(shares.argmax()), shares.shape)
    share = float(shares[label, decision])
    return (int(label), int(decision), share) if share > 0 else None


def by_label(matrix: Matrix) -> Shares:
    """Every row divided by its sum, in [0,1]; a row without images stays 0."""
    sums = matrix.sum(axis=1, keepdims=True)
    shares: Shares = matrix / np.maximum(sums, 1)
    return shares
