"""The notes of an MNIST report: what can be compared with what, and where a run departs from the published settings."""

from collections.abc import Mapping
from typing import Any

from cgn.config.mnist import Mnist
from cgn.evaluation.predictions import Predictions
from cgn.mnist.colorings import BACKGROUND_COLORS, OBJECT_COLORS
from cgn.mnist.published import published
from cgn.report.page import Items, PageBlock
from cgn.report.run import Run
from cgn.report.settings import departure_blocks
from cgn.report.tables import percent

RANDOMISED = "test_random"
RUNNING, ON_ORIGINAL = "Running accuracy in training", "Original training set"
"""Two quantities that must not be confused; the first is the published train accuracy."""


def note_blocks(run: Run, stored: Predictions, variant: str) -> list[PageBlock]:
    """What can be compared with what, and the settings that differ from the published ones."""
    items = [
        "Intervals are Wilson's 95 % intervals for the finite number of test images. They belong to these trained "
        "classifiers; another seed trains others.",
        f"“{RUNNING}” is what training itself counted over its last epoch, on the images the "
        "classifier was trained on, while the weights still moved; the published code prints the same, so it is what "
        "stands beside the published train accuracy. Each classifier has training images of its own, so these numbers "
        "do not rank them.",
        f"“{ON_ORIGINAL}” is the finished classifier's accuracy on the original training images, whatever it "
        "was trained on itself. No source prints it.",
        "“Test, same looks” are unseen digits whose looks still follow the label. High numbers there say nothing about "
        "the cue. No source prints this test.",
        "“Test, random looks” are the same unseen digits with looks drawn at random. It is the test that is published.",
        "The arm “factual” was trained only on samples of this network that keep every correlation. The published GAN "
        "arm adds a GAN's samples to the originals, so the two are related, not equal.",
        *_variant_notes(variant),
        *_hidden_note(run.params, stored),
    ]
    blocks: list[PageBlock] = [Items(items=items)]
    if published(variant):
        blocks += departure_blocks(Mnist, shown_params(run))
    return blocks


def _variant_notes(variant: str) -> list[str]:
    if not published(variant):
        return [own_note(variant)]
    notes = [
        "The test digits are the last 10,000 of MNIST's training file, as in the published code, so accuracies on "
        "random looks can be set beside the published ones; the looks themselves are drawn anew. “Better” and “worse” "
        "mean that the whole interval is on one side of the published number, else they are equal within the "
        "interval; another seed is not allowed for.",
    ]
    if variant == "colored":
        notes.append(
            "The published colored images are hard to get. These are made again from the published mean colours, and "
            "the background is black for every digit, so there is no background cue."
        )
    return notes


def _hidden_note(params: Mapping[str, Mapping[str, Any]], stored: Predictions) -> list[str]:
    """Where object and background have the same ten colours, some random looks hide the digit."""
    if params.get("prepare", {}).get("look") != "double_colored":
        return []
    rows = stored.rows
    images = rows[rows["condition"] == RANDOMISED].drop_duplicates("image")
    hidden = sum(
        OBJECT_COLORS[texture] == BACKGROUND_COLORS[background]
        for texture, background in zip(images["texture"], images["background"], strict=True)
    )
    seen = 1 - hidden / max(len(images), 1) * (1 - 1 / stored.classes)
    return [
        f"In {hidden:,} of the {len(images):,} random looks the digit has its background's colour, but for the noise, "
        "because both are drawn from the same ten colours; it can hardly be seen. A classifier that knows all other "
        f"digits and guesses those is right in about {percent(seen)}."
    ]


def shown_params(run: Run) -> dict[str, Mapping[str, Any]]:
    """Without evaluate's only parameter, the size of its batches: it decides nothing."""
    return {verb: params for verb, params in run.params.items() if verb != "evaluate"}


def own_note(variant: str) -> str:
    """That nothing is published for a variant."""
    return (
        f"Nothing is published for mnist/{variant}: it is this project's own small benchmark, made so that the whole "
        "pipeline runs in minutes. Its numbers compare with one another only."
    )
