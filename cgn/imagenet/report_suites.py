"""The suites of an ImageNet report: shape bias and accuracy, single stimuli, backgrounds, corruptions.

What was measured here is bold with its interval; what others print is muted and written as they print it. A CE divides
by AlexNet's error on ImageNet-C, which other images than its 50,000 do not share; so the plain error stands in every
cell and the section says what its mCE can be compared with. Images are shown only of an embedded world, never copied
from somebody's photographs, but for the stimuli of the cue-conflict test.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd

from cgn.core.files import on_disk
from cgn.core.images import png
from cgn.data.decoding import decode
from cgn.data.image_folders import VARIATIONS
from cgn.data.prepared_sets import PreparedSets
from cgn.evaluation.corruption_error import ALEXNET, ALEXNET_CLEAN, SEVERITIES
from cgn.evaluation.metrics import CHANCE, RANDOM, SAME
from cgn.evaluation.predictions import CUE_CONFLICT, IN9, STYLIZED
from cgn.evaluation.suites import span
from cgn.imagenet.heads import AVERAGE, BASELINE, SHAPE, Head, Results
from cgn.imagenet.published import (
    ACCURACY,
    BACKGROUNDS,
    DECISIONS,
    ELSEWHERE,
    IMAGENET_C_IMAGES,
    SHORT,
    PublishedRow,
    published,
)
from cgn.imagenet.report_answers import UNDECIDED, gap_cell, grounds, shape_bias_cell
from cgn.report.figures import CURVES, LEGEND, curve_panels, shape_bias_panel
from cgn.report.page import PAPER, REPLICATION, Block, Figure, Group, Heading, Image, Text, image
from cgn.report.tables import DASH, Cell, Row, Table, interval, percent, printed, share_cell, table, with_interval

SHOWN = {
    "original": "as it is",
    "mixed_same": "background of its class",
    "mixed_rand": "background of any class",
    "mixed_next": "background of the next",
    "only_fg": "object alone",
    "no_fg": "object cut out",
    "only_bg_b": "its box black",
    "only_bg_t": "its box filled",
}
CHOSEN = (BASELINE, AVERAGE, SHAPE)
"""The heads of the table by corruption and of the curves, where they were evaluated."""
GOLDEN = 0.618034


def accuracy_blocks(results: Results) -> list[Block]:
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
    blocks: list[Block] = [Text(words=words)]
    if any(head.clean or head.bias for head in results.heads):
        blocks.append(_accuracy_table(results))
    blocks.append(Text(words=note, style="note"))
    blocks.append(_stylized(results))
    panels = [Figure(svg=_bars(head)) for head in results.heads if head.bias and head.bias.conflicts]
    if not panels:
        missing = "The cue-conflict test was not run, so there are no bars by category."
        return [*blocks, Text(words=missing, style="muted")]
    caption = "Decisions by the class of the shape: for shape from the left, for texture from the right; n counts them."
    return [*blocks, Heading(title="By class"), Text(words=caption), Group(blocks=panels)]


def example_blocks(results: Results, collection: PreparedSets | None, *, count: int) -> list[Block]:
    """Stimuli of the cue-conflict test as columns, heads as rows; none without decisions or images.

    Stimuli are taken evenly from the list of those whose cues differ.
    """
    rows = results.stored.of(CUE_CONFLICT)
    conflicts = rows[rows["label"] != rows["texture"]]
    names = results.stored.facts["categories"]
    if collection is None or not collection.has("cue_conflict"):
        return []
    folder = collection.folder("cue_conflict")
    chosen = _evenly(sorted(set(map(str, conflicts["image"]))), count=count)
    cues = {row["image"]: (names[row["label"]], names[row["texture"]]) for row in conflicts.to_dict("records")}
    heads = {
        name: image(
            _png(folder / on_disk(name)),
            alt=f"stimulus: shape {shape}, texture {texture}",
            caption=f"{shape} in {texture}",
        )
        for name, (shape, texture) in ((name, cues[name]) for name in chosen)
        if (folder / on_disk(name)).is_file()
    }
    if not heads:
        return []
    titles = {name: f"stimulus {number}" for number, name in enumerate(heads, start=1)}
    lines: list[Row] = [
        {"Head": head.title, **{titles[name]: cell for name, cell in _decisions(conflicts, head, heads, names).items()}}
        for head in results.heads
    ]
    words = (
        "Stimuli taken evenly from the list by a fixed rule, none selected. Below each stand its shape and its "
        "texture, and for every head what it decided: for the shape, for the texture, or for neither."
    )
    pictures = {titles[name]: shown for name, shown in heads.items()}
    found = table("Decisions on single stimuli", lines, style="examples", heads=pictures, summary=False)
    return [Text(words=words), found]


def background_blocks(results: Results, collection: PreparedSets | None) -> list[Block]:
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
        _variations(heads, pictures=_scene(results, collection) if collection else {}),
    ]


def corruption_blocks(results: Results) -> list[Block]:
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


def _accuracy_table(results: Results) -> Table:
    rows = []
    for head in results.heads:
        first, fifth = head.clean or (None, None)
        cue = head.key[1] if head.key[1] in ("shape", "texture", "background") else ""
        rows.append(
            {
                "Classifier": _name(head),
                **_beside("Shape bias", shape_bias_cell(head, cue=cue), ACCURACY, head.key, column="bias"),
                **_beside("Top-1", share_cell(first, chance=1 / results.classes), ACCURACY, head.key, column="top_1"),
                **_beside(
                    "Top-5", share_cell(fifth, chance=min(5 / results.classes, 1)), ACCURACY, head.key, column="top_5"
                ),
            }
        )
    columns = {"Shape bias": "bias", "Top-1": "top_1", "Top-5": "top_5"}
    rows += [_alone(row, columns) for row in ACCURACY if row.key is None]
    return table("Shape bias, top-1 and top-5, with 95 % intervals", rows, style="dense")


def _stylized(results: Results) -> Block:
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


def _evenly(images: Sequence[str], *, count: int) -> list[str]:
    """`count` of them, one from each of as many equal parts of the list, each time from another place in its part."""
    if len(images) <= count:
        return list(images)
    block = len(images) / count
    return [images[int(block * (place + place * GOLDEN % 1))] for place in range(count)]


def _decisions(
    rows: pd.DataFrame, head: Head, images: Sequence[str] | dict[str, Image], names: Sequence[str]
) -> dict[str, Cell]:
    """Image -> the category that the head decided for, and whose cue it is."""
    own = rows[(rows["classifier"] == head.key[0]) & (rows["head"] == head.key[1])]
    decided = {row["image"]: row for row in own.to_dict("records")}
    cells = {}
    for name in images:
        if name not in decided:
            cells[name] = Cell(value=DASH)
            continue
        category, shape, texture = (decided[name][column] for column in ("category", "label", "texture"))
        cue = {shape: "shape", texture: "texture"}.get(category, "neither")
        word = names[category] if 0 <= category < len(names) else "none"
        cells[name] = Cell(value=word, detail=cue, style="shape" if cue == "shape" else "other")
    return cells


def _gaps(heads: Sequence[Head]) -> Table:
    columns = {"original": "original", SAME: SAME, RANDOM: RANDOM}
    rows = []
    for head in heads:
        row: dict[str, Cell | str | None] = {"Classifier": _name(head)}
        for variation in columns:
            cell = share_cell(head.variations.get(variation), chance=CHANCE)
            row |= _beside(variation, cell, BACKGROUNDS, head.key, column=variation)
        rows.append(row | _beside("BG-gap", gap_cell(head), BACKGROUNDS, head.key, column="gap", unit="pt"))
    rows += [_alone(row, columns | {"BG-gap": "gap"}) for row in BACKGROUNDS if row.key is None]
    return table("ImageNet-9: accuracy and background gap, with 95 % intervals", rows, style="dense")


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


def _scene(results: Results, collection: PreparedSets) -> dict[str, Image]:
    """One scene of an embedded world in every variation: the first image that all of them show."""
    if not results.run.params.get("prepare", {}).get("world") or not collection.has("imagenet9"):
        return {}
    parts = results.stored.of(IN9).groupby("condition")
    by_variation = {str(variation): sorted(set(part["image"])) for variation, part in parts}
    folder, found = collection.folder("imagenet9"), {}
    for original in by_variation.get("original", [])[:1]:
        for variation, images in by_variation.items():
            same = [name for name in images if name == original or _foreground(name) == Path(original).stem]
            path = folder / variation / "val" / on_disk(same[0]) if same else None
            if path and path.is_file():
                found[variation] = image(_png(path), alt=f"one scene as {variation}", caption=SHOWN[variation])
    return found


def _foreground(name: str) -> str:
    """`fg_<stem>_bg_<stem>` -> the foreground's stem."""
    return Path(name).stem.removeprefix("fg_").partition("_bg_")[0]


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


def _curves(heads: Sequence[Head]) -> list[Block]:
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


def _beside(
    title: str, here: Cell, rows: tuple[PublishedRow, ...], key: tuple[str, str], *, column: str, unit: str = "%"
) -> dict[str, Cell | str | None]:
    """One quantity of a head: here, in the paper, in the replication."""
    others = {
        f"{title}: {SHORT[source]}": printed(published(rows, key, source=source, column=column), unit=unit)
        for source in (PAPER, REPLICATION)
    }
    return {f"{title}: here": here, **others}


def _alone(row: PublishedRow, columns: dict[str, str]) -> dict[str, Cell | str | None]:
    """The row of a published network that has no counterpart among our heads; `columns`: title -> the row's column."""
    cells: dict[str, Cell | str | None] = {"Classifier": Cell(value=row.title, style="muted")}
    for title, column in columns.items():
        unit = "pt" if column == "gap" else "%"
        cells[f"{title}: {SHORT[row.source]}"] = printed(row.values.get(column), unit=unit)
    return cells


def _png(path: Path) -> bytes:
    return png(np.asarray(decode(path)))
