"""The page of an ImageNet variant: from its headline to its small print.

Decided here: what changed against the baseline comes first, then every table of the paper with ours, the baseline's and
the published numbers side by side; one sentence above all of them says whether they can be compared at all.
"""

from dataclasses import dataclass

from cgn.core.errors import ArtifactError
from cgn.core.files import MANIFEST
from cgn.data.prepared_sets import PreparedSets, read_prepared_sets
from cgn.evaluation.predictions import CLEAN, CUE_CONFLICT, IMAGENET_C, IN9, STYLIZED
from cgn.evaluation.suites import span
from cgn.imagenet.evidence import Evidence
from cgn.imagenet.page_accuracy import accuracy_section, accuracy_tables
from cgn.imagenet.page_backgrounds import background_section, background_tables
from cgn.imagenet.page_changes import change_section, change_table, changes, heroes
from cgn.imagenet.page_corruptions import comparable, corruption_section, corruption_tables
from cgn.imagenet.page_examples import examples_section
from cgn.imagenet.page_network import network_section, network_tables
from cgn.imagenet.page_notes import (
    NAMES,
    by_condition,
    comparisons,
    first_limit,
    missing,
    notes_section,
    preparation_tables,
    shown_suites,
)
from cgn.imagenet.page_style import STYLE
from cgn.imagenet.page_times import times_section, times_table
from cgn.report.literature import LINKS, cited, cited_in_markdown
from cgn.report.page import Html, document, element, join, paragraph, section, text
from cgn.report.page_settings import about, flat, resolved, shown
from cgn.stages.report import Page

TITLE = "Does it see the object, or only its surface?"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the cell knows of a run; `examples` is how many stimuli are shown with the decisions on them."""

    variant: str
    seed: int
    examples: int


def write(evidence: Evidence, *, run: Run) -> Page:
    """The whole page, and its tables as Markdown."""
    collection = _collection(evidence)
    sections = [
        change_section(evidence),
        accuracy_section(evidence),
        examples_section(evidence, collection, count=run.examples),
        background_section(evidence, collection),
        corruption_section(evidence),
        network_section(evidence, collection),
        times_section(evidence),
        notes_section(evidence),
        section("This run", about(_facts(evidence, run=run), everything=_everything(evidence)), name="run"),
    ]
    html = document(
        title=f"imagenet/{run.variant}, seed {run.seed}: results",
        description=f"Shape bias, backgrounds and corruptions: classifiers of imagenet/{run.variant}",
        header=_header(evidence, run=run),
        body=join([part for part in sections if part is not None], between="\n"),
        footer=paragraph(
            "Numbers of classifiers on this page are computed from decisions.parquet, one row per picture and head."
        ),
        style=STYLE,
    )
    return Page(html=html, markdown=_summary(evidence, run=run), remarks=evidence.remarks)


def _header(evidence: Evidence, *, run: Run) -> Html:
    lead = (
        "A classifier may tell a class by its shape, its texture or its background. Counterfactual images, in which "
        "the three are of different classes, teach an ensemble of three heads to follow one of them each."
    )
    return join(
        [
            paragraph(f"Counterfactual generative network · imagenet/{run.variant} · seed {run.seed}", class_="muted"),
            element("h1", text(TITLE)),
            paragraph(lead),
            heroes(changes(evidence)),
            element("p", text(first_limit(evidence)), class_="limit"),
            *([element("p", text(" ".join(evidence.remarks)), class_="limit")] if evidence.remarks else []),
            element("p", text("Published numbers: "), cited(LINKS), text("."), class_="note"),
        ],
        between="\n",
    )


def _everything(evidence: Evidence) -> dict[str, object]:
    return resolved(flat(evidence.params), devices=evidence.devices)


def _facts(evidence: Evidence, *, run: Run) -> list[tuple[str, object]]:
    everything = _everything(evidence)
    facts: list[tuple[str, object]] = [("Variant", f"imagenet/{run.variant}"), ("Seed", run.seed)]
    facts.append(("Classes", f"{evidence.classes:,}"))
    for suite in (CLEAN, IN9, CUE_CONFLICT, STYLIZED, IMAGENET_C):
        if counts := by_condition(evidence, suite):
            told = f"{sum(counts):,} pictures"
            told += f" in {len(counts)} conditions, {span(counts)} each" if len(counts) > 1 else ""
            facts.append((NAMES[suite].capitalize(), told))
    known = {
        "train_cgn.updates": "Updates of the generative network",
        "train_cgn.batch_size": "Images in a batch",
        "train_cgn.batches_per_update": "Batches summed for an update",
        "generate.weights": "Network that drew the images",
        "generate.counterfactual_images": "Counterfactual images",
        "generate.truncation": "Truncation of the noise",
        "train_classifier.backbone": "Backbone of the classifiers",
        "train_classifier.pretrained": "Its first weights",
        "train_classifier.epochs": "Epochs of each classifier",
    }
    return facts + [(label, shown(everything[key], key=key)) for key, label in known.items() if key in everything]


def _collection(evidence: Evidence) -> PreparedSets | None:
    """The sets that prepare left; None where they are not at hand."""
    if not (evidence.material.data / MANIFEST).is_file():
        return None
    try:
        return read_prepared_sets(evidence.material.data)
    except ArtifactError:
        return None


def _summary(evidence: Evidence, *, run: Run) -> str:
    found = changes(evidence)
    tables = [
        *([change_table(found)] if found else []),
        *accuracy_tables(evidence),
        *background_tables(evidence),
        *corruption_tables(evidence),
        *network_tables(evidence),
        *preparation_tables(evidence),
        times_table(evidence),
    ]
    unreadable = len(evidence.examination.facts["unreadable"])
    blocks = [f"# imagenet/{run.variant}, seed {run.seed}", *(table.markdown().rstrip("\n") for table in tables)]
    limits = [
        *evidence.remarks,
        *comparisons(evidence),
        *([comparable(evidence)] if corruption_tables(evidence) else []),
    ]
    blocks.append("\n".join(f"- {item}" for item in limits))
    if suites := shown_suites(evidence):
        blocks.append("Shown:\n\n" + "\n".join(f"- {item}" for item in suites))
    blocks.append("Missing:\n\n" + "\n".join(f"- {item}" for item in [*missing(evidence), _read(unreadable)]))
    blocks.append(f"Published: {cited_in_markdown(LINKS)}.")
    return "\n\n".join(blocks) + "\n"


def _read(unreadable: int) -> str:
    if not unreadable:
        return "Every picture could be read."
    return f"Not read: {unreadable:,} pictures, which are in no number; the page names them."
