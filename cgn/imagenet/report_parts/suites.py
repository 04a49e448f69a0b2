"""The suites of an ImageNet report: shape bias and accuracy, single stimuli, backgrounds, corruptions.

What was measured here is bold with its interval; what others print is muted and written as they print it. A CE divides
by AlexNet's error on ImageNet-C, which other images than its 50,000 do not share; so the plain error stands in every
cell and the section says what its mCE can be compared with. Images are shown only of an embedded world, never copied
from somebody's photographs, but for the stimuli of the cue-conflict test.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from cgn.evaluation.corruption_error import ALEXNET, ALEXNET_CLEAN, SEVERITIES
from cgn.evaluation.metrics import CHANCE, RANDOM, SAME
from cgn.evaluation.predictions import STYLIZED
from cgn.evaluation.suites import span
from cgn.imagenet.data.image_folders import VARIATIONS
from cgn.imagenet.data.prepared_sets import PreparedSets
from cgn.imagenet.report_parts.answers import UNDECIDED, gap_cell, grounds, shape_bias_cell
from cgn.imagenet.report_parts.examples import SHOWN, scene
from cgn.imagenet.report_parts.heads import AVERAGE, BASELINE, SHAPE, Head, Results
from cgn.imagenet.report_parts.published import (
    ACCURACY,
    BACKGROUNDS,
    DECISIONS,
    ELSEWHERE,
    IMAGENET_C_IMAGES,
    SHORT,
    PublishedRow,
    published,
)
from cgn.report.figures import CURVES, LEGEND, curve_panels, shape_bias_panel
from cgn.report.page import REPLICATION, Figure, Group, Heading, Image, PageBlock, Text
from cgn.report.tables import Cell, Row, Table, interval, percent, printed, share_cell, table, with_interval

CHOSEN = (BASELINE, AVERAGE, SHAPE)
"""The heads of the table by corruption and of the curves, where they were evaluated."""


def accuracy_blocks(results: Results) -> list[PageBlock]:
    """Shape bias, top-1 and top-5 of each head, Stylized-ImageNet, and the bars by category."""
    words = (
        "On the cue-conflict test an image has one class's shape and another's texture. The shape bias is the share "
        "of decisions for the shape among those for either cue; the shape accuracy is their share among all stimuli "
        "whose cues differ. Somebody who guesses has a shape bias of 50 %, so a head is undecided where it is no "
        "better than chance on clean images, or where the interval of its bias holds 50 %. The ensemble's heads were "
        "trained to follow one cue each; the mean of heads is the prediction that one would use."
    )
    decisions = ", ".join(f"{who} {share}" for who, share in DECISIONS.items())
    note = (
        "Top-1 and top-5 are of the clean validation images; the dotted line is chance. For orientation: in the "
        f"decisions published with the original stimuli (Geirhos et al., ICLR 2019) the shape bias is: {decisions}; "
        "1,200 stimuli have cues that differ."
    )
    blocks: list[PageBlock] = [Text(words=words)]
    if any(head.clean or head.bias for head in results.heads):
        blocks.append(_accuracies(results))
    blocks.append(Text(words=note, style="note"))
    blocks.append(_stylized(results))
    panels = [Figure(svg=_bars(head)) for head in results.heads if head.bias and head.bias.conflicts]
    if not panels:
        missing = "The cue-conflict test was not run, so there are no bars by category."
        return [*blocks, Text(words=missing, style="muted")]
    caption = "Decisions by the class of the shape: for shape from the left, for texture from the right; n counts them."
    return [*blocks, Heading(title="By class"), Text(words=caption), Group(blocks=panels)]


def background_blocks(results: Results, collection: PreparedSets | None) -> list[PageBlock]:
    """Background gap and accuracies of each head on ImageNet-9."""
    heads = [head for head in results.heads if head.variations]
    words = (
        "ImageNet-9 exchanges backgrounds. The background gap is the accuracy on mixed_same minus that on mixed_rand: "
        "what is lost where the background is of another class. The paper reports the shape and texture heads together."
    )
    if not heads:
        return [Text(words=words), Text(words="ImageNet-9 was not run.", style="muted")]
    note = (
        f"Chance is {100 * CHANCE:.1f} %. In the published sets a decision for a class outside the nine is wrong. The "
        "gap's interval is Newcombe's from the two Wilson intervals."
    )
    return [
        Text(words=words),
        _gaps(heads),
        Text(words=note, style="note"),
        _variations(heads, pictures=scene(results, collection) if collection else {}),
    ]


def corruption_blocks(results: Results) -> list[PageBlock]:
    """Errors under corruption: means, by corruption, curves, and every severity folded."""
    heads = corrupted(results)
    if not heads:
        return [Text(words="No corrupted images were evaluated.", style="muted")]
    words = (
        "Each corruption is applied at five severities. CE is the mean error over them as a share of AlexNet's on "
        "ImageNet-C, mCE its mean over the fifteen corruptions; the relative ones count only what corruption adds to "
        "the clean error. No source prints them for the ensemble."
    )
    chosen = sorted((head for head in heads if head.key in CHOSEN), key=lambda head: CHOSEN.index(head.key))
    chosen = chosen or heads[: len(CHOSEN)]
    return [
        Text(words=words),
        _means(heads),
        Text(words=comparable(results), style="note", summary=True),
        Heading(title="Error by severity"),
        Group(blocks=_curves(chosen), style="small"),
        Group(title="Every corruption", blocks=[_by_corruption(chosen)]),
        Group(title="Every corruption and severity", blocks=[_severities(heads)]),
    ]


def comparable(results: Results) -> str:
    """What this run's mCE can be compared with."""
    heads = [head.corruptions for head in corrupted(results) if head.corruptions]
    counts = [error.images for found in heads for errors in found.errors.values() for error in errors]
    source = _corrupted_by(results)
    if {IMAGENET_C_IMAGES} == set(counts) and source != "here":
        return "These are ImageNet-C's own images, so mCE can be compared with published ones."
    made = {
        "here": "the corrupted images were made here from",
        "fetch": "the corrupted images are ImageNet-C's own, but only of",
        "user": "the corrupted images were read from a folder of the user, of",
    }[source]
    return (
        f"Not comparable with any published mCE: {made} {span(counts)} images, while AlexNet's errors are of "
        f"ImageNet-C's {IMAGENET_C_IMAGES:,}. AlexNet only sets the scale here; the plain errors can be compared among "
        "the classifiers of this page."
    )


def corrupted(results: Results) -> list[Head]:
    """The heads that were evaluated on corrupted images."""
    return [head for head in results.heads if head.corruptions and head.estimates]


def _accuracies(results: Results) -> Table:
    def top(head: Head, place: int, *, kept: int) -> Cell:
        return share_cell(head.clean[place] if head.clean else None, chance=min(kept / results.classes, 1))

    def bias(head: Head) -> Cell:
        return shape_bias_cell(head, cue=head.key[1] if head.key[1] in ("shape", "texture", "background") else "")

    caption = "Shape bias, top-1 and top-5, with 95 % intervals"
    columns: dict[str, tuple[str, Callable[[Head], Cell]]] = {
        "Shape bias": ("bias", bias),
        "Top-1": ("top_1", lambda head: top(head, 0, kept=1)),
        "Top-5": ("top_5", lambda head: top(head, 1, kept=5)),
    }
    return _beside_published(caption, results.heads, ACCURACY, columns=columns)


def _gaps(heads: Sequence[Head]) -> Table:
    def accuracy(variation: str) -> Callable[[Head], Cell]:
        return lambda head: share_cell(head.variations.get(variation), chance=CHANCE)

    columns = {variation: (variation, accuracy(variation)) for variation in ("original", SAME, RANDOM)}
    caption = "ImageNet-9: accuracy and background gap, with 95 % intervals"
    return _beside_published(caption, heads, BACKGROUNDS, columns=columns | {"BG-gap": ("gap", gap_cell)})


def _stylized(results: Results) -> PageBlock:
    """Stylized-ImageNet with the replication's numbers, or what the replication found where it was not run."""
    published_tops = {BASELINE: ELSEWHERE[-1][1], AVERAGE: ELSEWHERE[-1][2]}
    rows = [
        {
            "Classifier": _name(head),
            "here: Top-1": share_cell(head.stylized[0], chance=1 / results.classes),
            "here: Top-5": share_cell(head.stylized[1], chance=min(5 / results.classes, 1.0)),
            f"{SHORT[REPLICATION]}: Top-1": printed(published_tops.get(head.key)),
        }
        for head in results.heads
        if head.stylized
    ]
    if rows:
        return table("Stylized-ImageNet: top-1 and top-5, with 95 % intervals", rows)
    found = "; ".join(f"{suite} {before} % before, {after} % after" for suite, before, after in ELSEWHERE)
    words = (
        f"Counterfactuals do not help everywhere. The replication (35,000 training images) prints top-1 of {found}. "
        f"None of these was measured here: the suite {STYLIZED} was not run, and the other two are no suites of this "
        "project."
    )
    return Text(words=words, style="note")


def _bars(head: Head) -> str:
    """Shape against texture decisions, by the shape's category."""
    assert head.bias
    whole = "no decision for either cue"
    if head.bias.bias:
        number = f"{UNDECIDED} ({interval(head.bias.bias)})" if head.undecided else with_interval(head.bias.bias)
        whole = "; ".join([f"{number} over all", *grounds(head)])
    each = ", ".join(
        f"{category} {counts.shape} of {counts.shape + counts.texture}"
        for category, counts in head.by_category.items()
        if counts.bias
    )
    alt = f"Shape bias of {head.title}: {whole}. Decisions for the shape among those for either cue, by class: {each}"
    return shape_bias_panel(head.title, head.by_category, quoted=not head.undecided).svg(alt=alt)


def _variations(heads: Sequence[Head], *, pictures: dict[str, Image]) -> Table:
    present = [variation for variation in VARIATIONS if any(variation in head.variations for head in heads)]
    rows = [
        {
            "Classifier": _name(head),
            **{each: share_cell(head.variations.get(each), chance=CHANCE) for each in present},
        }
        for head in heads
    ]
    shown = {each: pictures.get(each, SHOWN[each]) for each in present}
    return table("ImageNet-9: accuracy on every variation, with 95 % intervals", rows, style="dense", heads=shown)


def _corrupted_by(results: Results) -> str:
    """Who made the corrupted images, as the decisions say; older ones do not, so their parameters do."""
    if (said := results.preparation.get("corrupted_by")) in ("here", "fetch", "user"):
        return str(said)
    folders = results.run.params.get("prepare", {}).get("folders") or {}
    return "user" if folders.get("imagenet_c") else "here"


def _means(heads: Sequence[Head]) -> Table:
    rows = []
    for head in heads:
        assert head.corruptions
        assert head.estimates
        rows.append(
            {
                "Classifier": _name(head),
                "Clean error": share_cell(head.corruptions.clean),
                "Mean error": share_cell(head.estimates.mean_error),
                "mCE": share_cell(head.estimates.mce, bar=False),
                "Relative mCE": share_cell(head.estimates.relative_mce, bar=False),
            }
        )
    alexnet = [f"{100 * error:.1f}" for error in (ALEXNET_CLEAN, fmean(ALEXNET.values()), 1.0, 1.0)]
    title = Cell(value="AlexNet on ImageNet-C, published", style="muted")
    columns = ["Clean error", "Mean error", "mCE", "Relative mCE"]
    rows.append({"Classifier": title, **dict(zip(columns, map(printed, alexnet), strict=True))})
    small = ("the same images", "fifteen corruptions", "over the fifteen", "over the fifteen")
    heads_of = dict(zip(columns, small, strict=True))
    return table("Errors under corruption, with 95 % intervals", rows, heads=heads_of)


def _by_corruption(heads: Sequence[Head]) -> Table:
    rows = []
    for name in _names(heads):
        row: dict[str, Cell | str | None] = {
            "Corruption": name.replace("_", " "),
            "AlexNet: error": printed(f"{100 * ALEXNET[name]:.1f}" if name in ALEXNET else None),
        }
        for head in heads:
            assert head.estimates
            row[f"{head.title}: error"] = share_cell(head.estimates.errors.get(name))
            row[f"{head.title}: CE"] = share_cell(head.estimates.ce.get(name), bar=False)
        rows.append(row)
    return table("Mean error over five severities and CE, with 95 % intervals", rows, style="dense")


def _severities(heads: Sequence[Head]) -> Table:
    rows = [
        {
            "Corruption, severity": f"{name.replace('_', ' ')}, {severity}",
            **{head.title: _error(head, name, severity) for head in heads},
        }
        for name in _names(heads)
        for severity in SEVERITIES
    ]
    return table("Plain error, with 95 % intervals", rows, style="dense settings", summary=False)


def _error(head: Head, corruption: str, severity: int) -> Cell | None:
    if not head.corruptions or corruption not in head.corruptions.errors:
        return None
    return share_cell(head.corruptions.errors[corruption][severity - 1], bar=False)


def _names(heads: Sequence[Head]) -> list[str]:
    return list(dict.fromkeys(name for head in heads if head.corruptions for name in head.corruptions.errors))


def _curves(heads: Sequence[Head]) -> list[PageBlock]:
    """The panels with the titles that the page uses."""
    errors = [
        replace(head.corruptions, classifier=head.title, head=head.owner or head.key[1])
        for head in heads
        if head.corruptions
    ][: len(CURVES)]
    alt = {
        name: f"Error over the severity of {name.replace('_', ' ')}. Mean errors: "
        + "; ".join(f"{one.classifier} {percent(one.mean(name))}" for one in errors if name in one.errors)
        for name in _names(heads)
    }
    alt[LEGEND] = f"Legend of the curves: {'; '.join(one.title for one in errors)}"
    return [Figure(svg=panel.svg(alt=alt[name])) for name, panel in curve_panels(errors).items()]


def _name(head: Head) -> Cell:
    return Cell(value=head.title, detail=head.owner)


def _beside_published(
    caption: str,
    heads: Sequence[Head],
    rows: tuple[PublishedRow, ...],
    *,
    columns: Mapping[str, tuple[str, Callable[[Head], Cell]]],
) -> Table:
    """Each head's cells beside what is published for it; below them the published networks that no head is like.

    `columns`: title -> the column of the published rows, and our cell of a head.
    """

    pairs = [(title, column, source) for title, (column, _) in columns.items() for source in SHORT]
    order = [f"{title}: {place}" for title in columns for place in ("here", *SHORT.values())]
    lines: list[Row] = []
    for head in heads:
        line = {f"{title}: here": here(head) for title, (_, here) in columns.items()}
        for title, column, source in pairs:
            value = published(rows, head.key, source=source, column=column)
            line[f"{title}: {SHORT[source]}"] = printed(value, unit=_unit(column))
        lines.append({"Classifier": _name(head), **{name: line[name] for name in order}})
    for row in rows:
        if row.key is None:
            alone = {
                f"{title}: {SHORT[row.source]}": printed(row.values.get(column), unit=_unit(column))
                for title, (column, _) in columns.items()
            }
            lines.append({"Classifier": Cell(value=row.title, style="muted"), **alone})
    return table(caption, lines, style="dense")


def _unit(column: str) -> str:
    return "pt" if column == "gap" else "%"
