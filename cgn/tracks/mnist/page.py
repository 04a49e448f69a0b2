"""The page of an MNIST variant: from its headline to its small print.

Decided here: the randomised test comes first, because it is the question; what a number can be compared with stands
beside it, and every setting in which the run departs from the published one is listed, whether or not it flatters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cgn.core.page import Html, document, element, join, paragraph, section, table, text
from cgn.evaluation.results import Result, interval, markdown, percent, results
from cgn.stages.report import Material, Page
from cgn.tracks.mnist.arms import ARMS
from cgn.tracks.mnist.page_notes import notes, shown
from cgn.tracks.mnist.page_pictures import confusions, examples, sheets
from cgn.tracks.mnist.page_results import ORDINARY, RANDOMISED, cue_table, own_note, result_cells, result_table
from cgn.tracks.mnist.published import LINKS, flat, published

TITLE = "Does it see the digit, or only its look?"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the cell knows of a run; `examples` is how many test images are shown with the decisions on them."""

    variant: str
    seed: int
    examples: int


def write(material: Material, *, run: Run) -> Page:
    """The whole page, and its main table as Markdown."""
    rows = results(
        material.decisions,
        arms=ARMS,
        randomised=RANDOMISED,
        trainings=material.trainings,
        published=published(run.variant),
    )
    body = [
        _results(rows, run=run, classes=material.decisions.classes),
        section(
            "Which cue does each classifier follow?", cue_table(rows, classes=material.decisions.classes), name="cues"
        ),
        examples(material, rows, count=run.examples),
        confusions(material, rows),
        sheets(material),
        section("What can be compared with what", notes(material, variant=run.variant), name="notes"),
        section("This run", _about(material, run=run), name="run"),
    ]
    html = document(
        title=f"mnist/{run.variant}, seed {run.seed}: results",
        description=f"Accuracy of classifiers trained on original and counterfactual images of mnist/{run.variant}",
        header=_header(rows, run=run, classes=material.decisions.classes),
        body=join(body, between="\n"),
        footer=paragraph(
            "Accuracies on this page are computed from decisions.parquet, one row per image and classifier."
        ),
    )
    return Page(html=html, markdown=_summary(rows, run=run))


def _header(rows: Sequence[Result], *, run: Run, classes: int) -> Html:
    heroes = [_hero(row) for row in rows if RANDOMISED in row.measured]
    lead = (
        "In the training images of this variant, looks give the digit away. Each classifier below is then tested on "
        "digits whose looks were drawn at random: only the shape still tells, and guessing is right in "
        f"{percent(1 / classes)}."
    )
    return join(
        [
            paragraph(f"Counterfactual generative network · mnist/{run.variant} · seed {run.seed}", class_="muted"),
            element("h1", text(TITLE)),
            paragraph(lead),
            element("dl", *heroes, class_="heroes"),
        ],
        between="\n",
    )


def _hero(row: Result) -> Html:
    measured = row.measured[RANDOMISED]
    return element(
        "div",
        element("dt", text(f"trained on {row.title}")),
        element("dd", text(percent(measured.share)), class_="number"),
        element("dd", text("right on random looks"), element("small", text(interval(measured))), class_="detail"),
    )


def _results(rows: Sequence[Result], *, run: Run, classes: int) -> Html:
    sources = [row.source for row in published(run.variant)]
    links = [element("a", text(source), href=LINKS[source]) for source in dict.fromkeys(sources)]
    told = (
        join([text("Published numbers: "), join(links, between="; "), text(".")])
        if links
        else text(own_note(run.variant))
    )
    return section("Results", result_table(rows, classes=classes), element("p", told, class_="note"), name="results")


def _about(material: Material, *, run: Run) -> Html:
    everything = flat(material.params)
    facts: list[tuple[str, object]] = [("Variant", f"mnist/{run.variant}"), ("Seed", run.seed)]
    conditions = material.decisions.rows.drop_duplicates(["condition", "index"]).groupby("condition").size()
    named = {"train": "Training images", ORDINARY: "Test images, same looks", RANDOMISED: "Test images, random looks"}
    facts += [(named[name], f"{conditions[name]:,}") for name in named if name in conditions]
    known = {
        "prepare.digits": "Digits from",
        "prepare.image_size": "Image size in pixels",
        "train_cgn.updates": "Updates of the generative network",
        "train_cgn.losses.perceptual.features": "Features of the perceptual loss",
        "generate.counterfactual_images": "Counterfactual images",
        "train_classifier.epochs": "Epochs of each classifier",
    }
    facts += [(label, shown(everything[key])) for key, label in known.items() if key in everything]
    rows = [[text(label), text(value)] for label, value in facts]
    blocks = [table(caption="What was run", columns=[text("Fact"), text("Value")], rows=rows, class_="settings")]
    if everything:
        cells = [[element("code", text(key)), text(shown(value))] for key, value in everything.items()]
        full = table(
            caption="All parameters", columns=[text("Parameter"), text("Value")], rows=cells, class_="settings"
        )
        blocks.append(element("details", element("summary", text("All parameters")), full))
    return join(blocks, between="\n")


def _summary(rows: Sequence[Result], *, run: Run) -> str:
    columns, cells = result_cells(rows)
    told = ", ".join(f"[{name}]({LINKS[name]})" for name in dict.fromkeys(row.source for row in published(run.variant)))
    lines = [
        f"# mnist/{run.variant}, seed {run.seed}",
        "",
        markdown(columns, cells),
        "Accuracy in percent; in parentheses Wilson's 95 % interval for the finite test set.",
        f"Published: {told}." if told else own_note(run.variant),
    ]
    return "\n".join(lines) + "\n"
