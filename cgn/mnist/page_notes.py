"""The small print of the page: what can be compared with what, and where the run departs from the published settings.

Decided here: whatever limits a number is told on the page that shows it, and departures are found by comparing.
"""

from cgn.mnist.colorings import BACKGROUND_COLORS, OBJECT_COLORS
from cgn.mnist.evidence import RANDOMISED, Evidence
from cgn.mnist.page_results import own_note
from cgn.mnist.published import published, settings
from cgn.report.page import Html, element, join, paragraph, text
from cgn.report.page_settings import departure_table, departures
from cgn.report.wording import percent


def notes(evidence: Evidence, *, variant: str) -> Html:
    """The list of notes, and the table of settings that differ from the published ones."""
    items = [
        "Intervals are Wilson's 95 % intervals for the finite number of test images. They belong to these trained "
        "classifiers; another seed trains others.",
        "“Running accuracy in training” is what training itself counted over its last epoch, on the images the "
        "classifier was trained on, while the weights still moved; the published code prints the same, so it is what "
        "stands beside the published train accuracy. Each classifier has training images of its own, so these numbers "
        "do not rank them.",
        "“Original training set” is the finished classifier's accuracy on the original training images, whatever it "
        "was trained on itself. No source prints it.",
        "“Test, same looks” are unseen digits whose looks still follow the label. High numbers there say nothing about "
        "the cue. No source prints this test.",
        "“Test, random looks” are the same unseen digits with looks drawn at random. It is the test that is published.",
        "The arm “factual” was trained only on samples of this network that keep every correlation. The published GAN "
        "arm adds a GAN's samples to the originals, so the two are related, not equal.",
    ]
    items += _variant_notes(variant) + _hidden_note(evidence)
    items += evidence.remarks
    blocks = [element("ul", *(element("li", text(item)) for item in items))]
    differing = departures(settings(variant), evidence.params)
    if differing:
        blocks.append(departure_table(differing))
    elif settings(variant) and evidence.params:
        blocks.append(paragraph("Every published setting that this run's folders tell of was kept."))
    return join(blocks, between="\n")


def _variant_notes(variant: str) -> list[str]:
    if not published(variant):
        return [own_note(variant)]
    notes = [
        "The test digits are the last 10,000 of MNIST's training file, as in the published code, so accuracies on "
        "random looks can be set beside the published ones; the looks themselves are drawn anew. “Better” and “worse” "
        "mean that the whole interval lies on one side of the published number, else they are equal within the "
        "interval; another seed is not allowed for.",
    ]
    if variant == "colored":
        notes.append(
            "The published colored images are hard to get. These are made again from the published mean colours, and "
            "the background is black for every digit, so there is no background cue."
        )
    return notes


def _hidden_note(evidence: Evidence) -> list[str]:
    """Where object and background draw on the same colours, some random looks hide the digit."""
    if evidence.params.get("prepare", {}).get("look") != "double_colored":
        return []
    rows = evidence.decisions.rows
    images = rows[rows["condition"] == RANDOMISED].drop_duplicates("image")
    hidden = sum(
        OBJECT_COLORS[texture] == BACKGROUND_COLORS[background]
        for texture, background in zip(images["texture"], images["background"], strict=True)
    )
    seen = 1 - hidden / max(len(images), 1) * (1 - 1 / evidence.decisions.classes)
    return [
        f"In {hidden:,} of the {len(images):,} random looks the digit has its background's colour, but for the noise, "
        "because both draw on the same ten colours; it can hardly be seen. A classifier that knows all other digits "
        f"and guesses those is right in about {percent(seen)}."
    ]
