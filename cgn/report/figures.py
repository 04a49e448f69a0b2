"""Figures, drawn with matplotlib: as SVG inside a page, and as PNG beside evaluate's results.

An SVG's text stays text and its colours are the page's CSS variables, so it follows light and dark. Each panel is a
figure of its own, narrow enough for a phone; the page sets them side by side. Equal numbers give equal bytes.
Lightness, line style or place carries every meaning as well as colour does, for print and colour-blind readers.
"""

import io
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

from cgn.core.errors import ConfigError
from cgn.evaluation.corruption_error import SEVERITIES, CorruptionErrors, corruption_errors
from cgn.evaluation.metrics import Matrix, ShapeBias, by_label, by_shape, largest_error
from cgn.evaluation.predictions import CUE_CONFLICT, Predictions
from cgn.evaluation.suites import why_undecided
from cgn.report.tables import Measure, interval, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

COLOURS = {
    "ink": "#1c2026", "muted": "#5b636e", "line": "#dfe3e8", "card": "#ffffff",
    "shape": "#1f63b5", "texture": "#b3591d", "background": "#1b7f63", "cell": "#5b8fd0",
}  # fmt: skip
"""CSS variable of style.css -> its value on a light page, in which figures are drawn."""
INK, MUTED, LINE, CARD, SHAPE, TEXTURE, BACKGROUND, CELL = COLOURS.values()
CURVES = ((INK, "-"), (SHAPE, "--"), (TEXTURE, "-."), (BACKGROUND, ":"), (MUTED, "--"), (MUTED, ":"))
"""Colour and style of the lines of one figure, in order."""
FONT = 11
WIDTH = 370
"""Pixels of a panel in the page: a phone's width."""
PNG_SCALE = 2
LEGEND = "legend"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One drawing, its words for who does not see it, and its size in pixels; `left` and `right` are shares of it."""

    draw: "Callable[[Axes], None]"
    alt: str
    height: int
    left: float
    right: float
    top: int
    bottom: int
    width: int = WIDTH

    @property
    def svg(self) -> str:
        """As SVG for a page."""
        buffer = io.BytesIO()
        self._save(buffer, format="svg", metadata={"Date": None})
        text = re.sub(
            r"<(metadata|defs)>.*?</\1>|<defs/>|<!--.*?-->|</?g[^>]*>", "", buffer.getvalue().decode(), flags=re.S
        )
        body = text[text.index(">", text.index("<svg")) + 1 :]
        body = re.sub(r' id="[^"]*"| transform="rotate\(-0 [^"]*"| font-family: [^;]*;', "", body)
        for name, colour in COLOURS.items():
            body = body.replace(colour, f"var(--{name})")
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        start = (
            f'<svg class="plot" role="img" aria-label="{escape(self.alt)}" {size} xmlns="http://www.w3.org/2000/svg">'
        )
        return start + re.sub(r"\s*\n\s*", "\n", body).strip()

    def image(self) -> "Image.Image":
        """As an image on white, PNG_SCALE pixels for each pixel of a page."""
        from PIL import Image

        buffer = io.BytesIO()
        self._save(buffer, format="png", dpi=72 * PNG_SCALE, facecolor=CARD)
        return Image.open(buffer).convert("RGB")

    def _save(self, buffer: io.BytesIO, **options: Any) -> None:
        import matplotlib
        from matplotlib.figure import Figure

        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cgn", "font.size": FONT}):
            figure = Figure(figsize=(self.width / 72, self.height / 72), dpi=72)
            figure.patch.set_visible(options["format"] == "png")
            height = 1 - (self.top + self.bottom) / self.height
            self.draw(figure.add_axes((self.left, self.bottom / self.height, self.right - self.left, height)))
            figure.savefig(buffer, **options)


def bars(title: str, rows: Mapping[str, Measure], *, chance: float) -> Panel:
    """A bar with its 95 % interval for each row, of an undecided one the interval alone; a dotted line at `chance`."""
    kept = {name: (row, row.of) for name, row in rows.items() if row.of}
    unit = next(iter(rows.values())).unit

    def draw(axes: "Axes") -> None:
        lowest = min(0.0, *(max(found.low, -1.0) for _, found in kept.values()))
        axes.set(xlim=(lowest, 1.0), ylim=(len(kept) - 0.5, -0.5))
        axes.axvline(chance, color=INK, linewidth=2, linestyle=":", clip_on=False)
        beside: dict[str, Any] = {"va": "center", "color": INK, "transform": axes.get_yaxis_transform()}
        for place, (name, (row, found)) in enumerate(kept.items()):
            if row.quoted:
                axes.barh(place, found.value, height=0.5, color=COLOURS[row.cue or "shape"], clip_on=False)
            ends = [max(found.low, -1.0), min(found.high, 1.0)]
            axes.plot(ends, [place, place], color=INK, linewidth=1.5, clip_on=False)
            counted = f" of {row.counted}" if row.quoted and row.counted is not None else ""
            axes.text(1.02, place, row.number + counted, **beside)
            axes.text(-0.02, place, name, ha="right", **beside)
        axes.set_title(title, loc="left", x=-0.9, color=INK, fontsize=FONT + 1, fontweight="bold")
        _labels(axes, x={0: f"0 {unit}", 0.5: "50", 1: "100"})

    alt = ". ".join([title, *(f"{name}: {row}" for name, (row, _) in kept.items())])
    return Panel(draw=draw, alt=alt, height=48 + 24 * len(kept), left=0.36, right=0.74, top=28, bottom=20)


def shape_bias_panel(title: str, by_category: Mapping[str, ShapeBias], *, quoted: bool) -> Panel:
    """Decisions for shape and for texture by the shape's category; `quoted`: whether the bias is decided."""
    whole = ShapeBias(
        shape=sum(counts.shape for counts in by_category.values()),
        texture=sum(counts.texture for counts in by_category.values()),
        conflicts=sum(counts.conflicts for counts in by_category.values()),
    )
    words = headings(title, whole, quoted=quoted, categories=len(by_category))
    draw = partial(_draw_shape_bias, words=words, rows={**by_category, "all": whole})
    each = ", ".join(f"{name} {of.shape} of {of.shape + of.texture}" for name, of in by_category.items() if of.bias)
    alt = f"Shape bias of {'; '.join(words)}. Decisions for the shape among those for either cue, by class: {each}"
    return Panel(draw=draw, alt=alt, height=113 + 21 * len(by_category), left=0.3, right=0.88, top=62, bottom=22)


def headings(title: str, whole: ShapeBias, *, quoted: bool, categories: int) -> tuple[str, str, str]:
    """The title of a panel and the two lines below it: a shape bias with its interval, count and shape accuracy."""
    if whole.bias is None or whole.accuracy is None:
        return f"{title}: neither cue", f"none of {whole.conflicts:,} decided", ""
    return (
        f"{title}: {percent(whole.bias.share) + ' shape' if quoted else 'undecided'}",
        f"{interval(whole.bias)} %; {whole.shape + whole.texture:,} of {whole.conflicts:,} decided",
        f"shape accuracy {percent(whole.accuracy.share)}, chance {percent(1 / categories)}",
    )


def curve_panels(classifiers: Sequence[CorruptionErrors]) -> dict[str, Panel]:
    """Corruption -> error over the severity, in the first classifier's order; the last panel, LEGEND, names the lines.

    Raises ConfigError for more classifiers than there are line styles, and for none.
    """
    if not 1 <= len(classifiers) <= len(CURVES):
        raise ConfigError(f"{len(classifiers)} classifiers in one picture of curves: allowed are 1 to {len(CURVES)}")
    names = list(dict.fromkeys(name for one in classifiers for name in one.errors))
    size: dict[str, Any] = {"width": 176, "height": 130, "left": 0.2, "right": 0.97, "top": 24, "bottom": 20}
    panels = {}
    for name in names:
        means = "; ".join(f"{one.title} {percent(one.mean(name))}" for one in classifiers if name in one.errors)
        alt = f"Error over the severity of {name.replace('_', ' ')}. Mean errors: {means}"
        panels[name] = Panel(draw=partial(_draw_curves, name=name, classifiers=classifiers), alt=alt, **size)
    alt = f"Legend of the curves: {'; '.join(one.title for one in classifiers)}"
    draw, height = partial(_draw_legend, classifiers=classifiers), 20 * len(classifiers) + 8
    panels[LEGEND] = Panel(draw=draw, alt=alt, height=height, left=0.01, right=0.99, top=4, bottom=4)
    return panels


def confusion_panel(matrix: Matrix, *, title: str, cue: str) -> Panel:
    """One matrix (classes, classes) of counts by the cue's label; cells are percentages of their row."""
    equal = percent(float(matrix.trace() / max(int(matrix.sum()), 1)))
    alt = f"Confusion matrix, {title}, by {cue} label: {equal} are on the diagonal"
    if error := largest_error(matrix):
        alt += f"; most often off it, {cue} {error[0]} was called {error[1]} ({percent(error[2])} of its images)"
    draw = partial(_draw_confusion, matrix=matrix, title=title, cue=cue)
    return Panel(draw=draw, alt=alt, height=WIDTH, left=0.13, right=0.98, top=30, bottom=48)


def pictures(predictions: Predictions) -> "dict[str, Image.Image]":
    """File name -> shape-bias bars and corruption curves, one of each for every classifier that has their suite."""
    found, errors = {}, corruption_errors(predictions)
    for classifier in predictions.classifiers:
        stimuli = {
            head: rows
            for head in predictions.heads(classifier)
            if len(rows := predictions.of(CUE_CONFLICT, classifier=classifier, head=head))
        }
        if stimuli:
            biases = {head: by_shape(rows, names=predictions.facts["categories"]) for head, rows in stimuli.items()}
            undecided = [head for head, rows in stimuli.items() if why_undecided(rows, predictions)]
            found[f"shape_bias-{classifier}.png"] = shape_bias_figure(biases, undecided=undecided)
        if corrupted := [one for one in errors if one.classifier == classifier and one.errors]:
            found[f"corruptions-{classifier}.png"] = curves(corrupted)
    return found


def shape_bias_figure(
    heads: Mapping[str, Mapping[str, ShapeBias]], *, undecided: Collection[str] = ()
) -> "Image.Image":
    """A panel for each head (key) side by side, as an image; the bias of those that are `undecided` is not quoted."""
    panels = [shape_bias_panel(title, of, quoted=title not in undecided) for title, of in heads.items()]
    return _tiled([panel.image() for panel in panels], columns=len(panels))


def curves(classifiers: Sequence[CorruptionErrors]) -> "Image.Image":
    """The panels of `curve_panels`, five in a row above their legend, as an image."""
    *panels, legend = (panel.image() for panel in curve_panels(classifiers).values())
    return _tiled([_tiled(panels, columns=min(5, len(panels))), legend], columns=1)


def _tiled(images: "Sequence[Image.Image]", *, columns: int) -> "Image.Image":
    """Images in rows on white; all but the last one of a column are of one size."""
    from PIL import Image

    rows = -(-len(images) // columns)
    width, height = max(image.width for image in images), images[0].height
    page = Image.new("RGB", (columns * width, (rows - 1) * height + images[-1].height), CARD)
    for place, image in enumerate(images):
        page.paste(image, (place % columns * width, place // columns * height))
    return page


def _draw_shape_bias(axes: "Axes", *, words: Sequence[str], rows: Mapping[str, ShapeBias]) -> None:
    """The last of `rows` is their sum."""
    last, whole = len(rows) - 1, rows["all"].bias
    axes.set(xlim=(0, 1), ylim=(last + 0.5, -0.5))
    for place, (name, counts) in enumerate(rows.items()):
        colour = INK if name == "all" else MUTED
        axes.text(-0.03, place, name, va="center", ha="right", color=colour)
        axes.text(1.03, place, str(counts.shape + counts.texture), va="center", color=colour)
        if counts.bias:
            axes.barh(place, counts.bias.share, height=0.7, color=SHAPE, clip_on=False)
            rest = 1 - counts.bias.share
            axes.barh(place, rest, left=counts.bias.share, height=0.7, color=TEXTURE, alpha=0.45, clip_on=False)
        else:
            axes.barh(place, 1, height=0.7, color="none", edgecolor=LINE, clip_on=False)
    if whole:
        axes.axvline(whole.share, color=INK, linewidth=1.5, clip_on=False)
        axes.plot([whole.low, whole.high], [last, last], color=INK, linewidth=2.5, clip_on=False)
    for line, text in enumerate(words):
        bold: dict[str, Any] = {"fontweight": "bold", "color": INK} if line == 0 else {"color": MUTED}
        axes.annotate(text, (0, 1), (0, 46 - 17 * line), xycoords="axes fraction", textcoords="offset points", **bold)
    foot: dict[str, Any] = {"va": "top", "transform": axes.transAxes}
    axes.text(0, -0.02, "shape", color=SHAPE, **foot)
    axes.text(1, -0.02, "texture", color=TEXTURE, ha="right", **foot)
    axes.text(1.03, -0.02, "n", color=MUTED, **foot)
    _labels(axes)


def _draw_curves(axes: "Axes", *, name: str, classifiers: Sequence[CorruptionErrors]) -> None:
    axes.set(xlim=(-0.3, 5.3), ylim=(0, 1))
    for height in (0, 0.5, 1):
        axes.axhline(height, color=LINE, linewidth=1, clip_on=False)
    for (colour, style), one in zip(CURVES, classifiers, strict=False):
        if name not in one.errors:
            continue
        measured = dict(zip(SEVERITIES, one.errors[name], strict=True))
        measured = measured if one.clean is None else {0: one.clean, **measured}
        shares = [error.share for error in measured.values()]
        axes.plot(list(measured), shares, color=colour, linestyle=style, linewidth=1.8, clip_on=False)
        for severity, error in measured.items():
            axes.plot([severity, severity], [error.low, error.high], color=colour, linewidth=1, clip_on=False)
    axes.set_title(name.replace("_", " "), loc="left", color=INK, fontsize=FONT)
    names = {0: "clean"} | {severity: str(severity) for severity in SEVERITIES}
    _labels(axes, x=names, y={0: "0 %", 0.5: "50", 1: "100"})


def _draw_legend(axes: "Axes", *, classifiers: Sequence[CorruptionErrors]) -> None:
    axes.set(xlim=(0, 1), ylim=(len(classifiers) - 0.5, -0.5))
    for place, ((colour, style), one) in enumerate(zip(CURVES, classifiers, strict=False)):
        axes.plot([0, 0.1], [place, place], color=colour, linestyle=style, linewidth=1.8, clip_on=False)
        words = one.title
        if one.mean_error is not None and one.mce is not None:
            words += f": mean error {100 * one.mean_error:.1f} %, mCE {100 * one.mce:.1f} %"
        axes.text(0.12, place, words, va="center", color=INK)
    _labels(axes)


def _draw_confusion(axes: "Axes", *, matrix: Matrix, title: str, cue: str) -> None:
    from matplotlib.patches import Rectangle

    shares, classes = by_label(matrix), len(matrix)

    def box(corner: tuple[float, float], side: float, **style: Any) -> None:
        axes.add_artist(Rectangle(corner, side, side, linewidth=0, clip_on=False, **style))

    box((-0.5, -0.5), classes, color=LINE, alpha=0.5)
    axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5))
    for row, line in enumerate(shares):
        for column, share in enumerate(line):
            if share >= 0.005:
                box((column - 0.47, row - 0.47), 0.94, color=CELL, alpha=float(share))
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=INK)
    axes.set_title(title, loc="left", color=INK, fontsize=FONT + 1, fontweight="bold")
    outside: Any = {"xycoords": "axes fraction", "textcoords": "offset points", "color": MUTED}
    axes.annotate("decision", (0.5, 0), (0, -22), ha="center", va="top", **outside)
    axes.annotate(f"{cue} label", (0, 0.5), (-26, 0), ha="right", va="center", rotation=90, **outside)
    names = {place: str(place) for place in range(classes)}
    _labels(axes, x=names, y=names)


def _labels(axes: "Axes", *, x: Mapping[Any, str] = {}, y: Mapping[Any, str] = {}) -> None:
    """Labels below and beside the axes, without frame, marks and background; faster than matplotlib's ticks."""
    axes.set_axis_off()
    near: dict[str, Any] = {"textcoords": "offset points", "color": MUTED}
    for place, words in x.items():
        axes.annotate(words, (place, 0), (0, -5), xycoords=axes.get_xaxis_transform(), ha="center", va="top", **near)
    for place, words in y.items():
        axes.annotate(words, (0, place), (-5, 0), xycoords=axes.get_yaxis_transform(), ha="right", va="center", **near)
