"""imagenet report: the stored decisions and the sheets of a run -> index.html and summary.md.

Every number of a classifier is computed again from decisions.parquet; no network is loaded. What the counterfactuals
changed against the baseline comes first; every table of the paper follows, ours beside the published numbers, and one
sentence says whether they can be compared at all.
"""

from cgn.config.imagenet import ImageNet, Report
from cgn.core.arguments import Input, Output
from cgn.core.errors import ArtifactError
from cgn.core.files import MANIFEST
from cgn.core.metrics import MetricSink
from cgn.evaluation.expected import remarks
from cgn.imagenet.data.prepared_sets import PreparedSets, read_prepared_sets
from cgn.imagenet.report_parts.answers import answer, change_table, figures
from cgn.imagenet.report_parts.examples import example_blocks
from cgn.imagenet.report_parts.heads import headlines, read_results
from cgn.imagenet.report_parts.network import network_blocks
from cgn.imagenet.report_parts.notes import first_limit, image_counts, note_blocks, shown_blocks, time_blocks
from cgn.imagenet.report_parts.suites import accuracy_blocks, background_blocks, corruption_blocks
from cgn.report.page import LINKS, Group, PageBlock, Section, Sources, Text, sheets, write_page
from cgn.report.run import Run, read_run
from cgn.report.settings import settings

KNOWN = {
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
"""Parameters that the page shows unfolded."""


def report(
    config: Report,
    *,
    seed: int,
    variant: str,
    sink: MetricSink,
    data: Input,
    model: Input,
    images: Input,
    decisions: Input,
    page: Output,
) -> None:
    """Write index.html and summary.md.

    Raises ArtifactError for decisions that are missing, broken or another variant's, and for broken sheets.
    """
    target = f"imagenet/{variant}"
    run = read_run(target, data=data, model=model, images=images, decisions=decisions)
    results = read_results(run)
    collection = _collection(run)
    expected = remarks(headlines(results.heads), target=target, params=run.params)
    changes = change_table(results)
    caption = "Counterfactual images: shape, texture and background of different classes"
    lead: list[PageBlock] = [
        Text(words=answer(results), style="answer", summary=True),
        *sheets([(images / "examples.png", caption)]),
        *([changes] if changes else []),
        Text(words=first_limit(results), style="limit"),
        Group(blocks=figures(results)),
        *([Text(words=" ".join(expected), style="limit", summary=True)] if expected else []),
        Sources(names=list(LINKS)),
    ]
    facts = {"Variant": target, "Seed": seed, "Classes": f"{results.classes:,}", **image_counts(results)}
    parts: dict[str, tuple[str, list[PageBlock]]] = {
        "shape-bias": ("Shape bias and accuracy", accuracy_blocks(results)),
        "examples": ("What the heads decided", example_blocks(results, collection, count=config.examples)),
        "backgrounds": ("Backgrounds", background_blocks(results, collection)),
        "corruptions": ("Corruptions", corruption_blocks(results)),
        "network": ("The generative network", network_blocks(run, collection)),
        "notes": ("What can be compared with what", note_blocks(results)),
        "shown": ("How images were shown, and what is missing", shown_blocks(results)),
        "times": ("Time and cost", time_blocks(results)),
        "run": ("Settings of this run", settings(ImageNet, run.params, devices=run.devices, facts=facts, known=KNOWN)),
    }
    write_page(
        page,
        target=target,
        seed=seed,
        title="Does it see the object, or only its surface?",
        description=f"Shape bias, backgrounds and corruptions: classifiers of {target}",
        lead=lead,
        sections=[Section(title=title, name=name, blocks=blocks) for name, (title, blocks) in parts.items() if blocks],
        footer="Numbers of classifiers on this page are computed from decisions.parquet, one row per image and head.",
    )
    for remark in expected:
        print(remark, flush=True)
    sink.picture(page / "index.html")


def _collection(run: Run) -> PreparedSets | None:
    """The sets that prepare made; None where they are absent or cannot be read: the page then shows no images."""
    if not (run.data / MANIFEST).is_file():
        return None
    try:
        return read_prepared_sets(run.data)
    except ArtifactError:
        return None
