"""The page of an MNIST variant: from its headline to its small print.

Decided here: the randomised test comes first, because it is the question; what a number can be compared with stands
beside it, and every setting in which the run departs from the published one is listed, whether or not it flatters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cgn.evaluation.results import Result, results
from cgn.mnist.arms import ARMS
from cgn.mnist.evidence import RANDOMISED, Evidence
from cgn.mnist.page_notes import notes
from cgn.mnist.page_pictures import confusions, examples, sheets
from cgn.mnist.page_results import ORDINARY, TRAINING, cue_table, own_note, result_cells, result_table
from cgn.mnist.published import published
from cgn.report.literature import cited, cited_in_markdown
from cgn.report.page import Html, document, element, join, paragraph, section, text
from cgn.report.page_settings import about, flat, resolved, shown
from cgn.report.wording import interval, markdown, percent
from cgn.stages.report import Page

TITLE = "Does it see the digit, or only its look?"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the cell knows of a run; `examples` is how many test images are shown with the decisions on them."""

    variant: str
    seed: int
    examples: int


def write(evidence: Evidence, *, run: Run) -> Page:
    """The whole page, and its main table as Markdown."""
    rows = results(
        evidence.decisions,
        arms=ARMS,
        randomised=RANDOMISED,
        trainings=evidence.trainings,
        published=published(run.variant),
    )
    body = [
        _results(rows, run=run, classes=evidence.decisions.classes),
        section(
            "Which cue does each classifier follow?", cue_table(rows, classes=evidence.decisions.classes), name="cues"
        ),
        examples(evidence, rows, count=run.examples),
        confusions(evidence, rows),
        sheets(evidence),
        section("What can be compared with what", notes(evidence, variant=run.variant), name="notes"),
        section("This run", _about(evidence, run=run), name="run"),
    ]
    html = document(
        title=f"mnist/{run.variant}, seed {run.seed}: results",
        description=f"Accuracy of classifiers trained on original and counterfactual images of mnist/{run.variant}",
        header=_header(rows, run=run, classes=evidence.decisions.classes, remarks=evidence.remarks),
        body=join(body, between="\n"),
        footer=paragraph(
            "Accuracies on this page are computed from decisions.parquet, one row per image and classifier."
        ),
    )
    markdown = _summary(rows, run=run, remarks=evidence.remarks)
    return Page(html=html, markdown=markdown, remarks=evidence.remarks)


def _header(rows: Sequence[Result], *, run: Run, classes: int, remarks: Sequence[str]) -> Html:
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
            *([paragraph(" ".join(remarks), class_="note")] if remarks else []),
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
    told = join([text("Published numbers: "), cited(sources), text(".")]) if sources else text(own_note(run.variant))
    return section("Results", result_table(rows, classes=classes), element("p", told, class_="note"), name="results")


def _about(evidence: Evidence, *, run: Run) -> Html:
    everything = resolved(flat(evidence.params), devices=evidence.devices)
    facts: list[tuple[str, object]] = [("Variant", f"mnist/{run.variant}"), ("Seed", run.seed)]
    conditions = evidence.decisions.rows.drop_duplicates(["condition", "image"]).groupby("condition").size()
    named = {TRAINING: "Training images", ORDINARY: "Test images, same looks", RANDOMISED: "Test images, random looks"}
    facts += [(named[name], f"{conditions[name]:,}") for name in named if name in conditions]
    known = {
        "prepare.digits": "Digits from",
        "prepare.image_size": "Image size",
        "train_cgn.updates": "Updates of the generative network",
        "train_cgn.losses.perceptual.features": "Features of the perceptual loss",
        "generate.counterfactual_images": "Counterfactual images",
        "train_classifier.epochs": "Epochs of each classifier",
    }
    facts += [(label, shown(everything[key], key=key)) for key, label in known.items() if key in everything]
    return about(facts, everything=everything)


def _summary(rows: Sequence[Result], *, run: Run, remarks: Sequence[str]) -> str:
    columns, cells = result_cells(rows)
    told = cited_in_markdown(row.source for row in published(run.variant))
    lines = [
        f"# mnist/{run.variant}, seed {run.seed}",
        "",
        markdown(columns, cells),
        "Accuracy in percent; in parentheses Wilson's 95 % interval for the finite set of images. The running accuracy",
        "is what training counted over its last epoch on its own images, as the published train accuracy is.",
        f"Published: {told}." if told else own_note(run.variant),
        *remarks,
    ]
    return "\n".join(lines) + "\n"
