"""A picture of corruption errors, drawn with Pillow alone: a panel for each corruption, a curve for each head.

Decided here: every panel has the same axes, error from 0 to 100 % over severities 0 (clean) to 5, so that panels
compare; without clean decisions a curve begins at 1. Curves differ in colour and in the mark on their points, so they
can be told apart in print and by colour-blind eyes. A mark's bar is Wilson's 95 % interval.
"""

from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from cgn.core.errors import ConfigError
from cgn.evaluation.corruption_error import SEVERITIES, CorruptionErrors
from cgn.report.confusion_picture import LIGHT, Colour, Theme

COLUMNS = 5
PLOT = (236, 160)
"""Width and height of the axes; meant to be shown at about half their pixels."""
LEFT, TOP, BOTTOM, GAP = 70, 40, 34, 22
MARK = 6
LEGEND_LINE = 36
CURVES: tuple[tuple[Colour, int], ...] = (
    ((0, 114, 178), 32),
    ((230, 120, 0), 4),
    ((0, 158, 115), 3),
    ((204, 80, 150), 5),
    ((140, 120, 40), 6),
    ((110, 110, 120), 8),
)
"""Colour (after Okabe & Ito) and corners of the mark."""

Point = tuple[float, float]


def curves(classifiers: Sequence[CorruptionErrors], *, theme: Theme = LIGHT) -> Image.Image:
    """Five panels a row, in the first classifier's order, above the legend.

    Raises ConfigError for more classifiers than there are colours, and for none.
    """
    if not 1 <= len(classifiers) <= len(CURVES):
        raise ConfigError(f"{len(classifiers)} classifiers in one picture of curves: allowed are 1 to {len(CURVES)}")
    names = list(dict.fromkeys(name for one in classifiers for name in one.errors))
    width, height = LEFT + PLOT[0] + GAP, TOP + PLOT[1] + BOTTOM
    columns = min(COLUMNS, max(1, len(names)))
    rows = -(-len(names) // columns)
    page = Image.new("RGB", (columns * width, rows * height + GAP + LEGEND_LINE * len(classifiers)), theme.surface)
    pen = ImageDraw.Draw(page)
    for number, name in enumerate(names):
        left, top = number % columns * width + LEFT, number // columns * height + TOP
        _axes(pen, name, left=left, top=top, theme=theme)
        for style, one in zip(CURVES, classifiers, strict=False):
            if name in one.errors:
                _curve(pen, one, name, left=left, top=top, style=style)
    for line, (style, one) in enumerate(zip(CURVES, classifiers, strict=False)):
        middle = rows * height + GAP // 2 + LEGEND_LINE * line + LEGEND_LINE // 2
        pen.line((LEFT, middle, LEFT + 56, middle), fill=style[0], width=3)
        _mark(pen, (LEFT + 28, middle), style)
        pen.text((LEFT + 72, middle), _told(one), fill=theme.ink, font=_font(21), anchor="lm")
    return page


def _told(one: CorruptionErrors) -> str:
    """The legend's words: the head and, where they can be computed, its plain mean error and its mCE."""
    told = one.title
    if one.mean_error is not None and one.mce is not None:
        told += f": mean error {100 * one.mean_error:.1f} %, mCE {100 * one.mce:.1f} %"
    return told


def _axes(pen: ImageDraw.ImageDraw, name: str, *, left: int, top: int, theme: Theme) -> None:
    pen.text((left, top - 20), name.replace("_", " "), fill=theme.ink, font=_font(21), anchor="lm")
    for percent in (0, 25, 50, 75, 100):
        _, y = _place(0, percent / 100, left=left, top=top)
        pen.line((left, y, left + PLOT[0], y), fill=theme.ramp[0] if percent else theme.muted, width=2)
        if percent % 50 == 0:
            pen.text((left - 8, y), f"{percent} %", fill=theme.muted, font=_font(17), anchor="rm")
    for severity in (0, *SEVERITIES):
        x, y = _place(severity, 0, left=left, top=top)
        told = f"{severity}" if severity else "clean"
        pen.text((x, y + 16), told, fill=theme.muted, font=_font(17), anchor="mm")


def _curve(
    pen: ImageDraw.ImageDraw, one: CorruptionErrors, name: str, *, left: int, top: int, style: tuple[Colour, int]
) -> None:
    measured = dict(zip(SEVERITIES, one.errors[name], strict=True))
    if one.clean is not None:
        measured = {0: one.clean, **measured}
    places = {severity: _place(severity, error.share, left=left, top=top) for severity, error in measured.items()}
    pen.line(list(places.values()), fill=style[0], width=3)
    for severity, error in measured.items():
        low, high = (_place(severity, end, left=left, top=top) for end in (error.low, error.high))
        pen.line((*low, *high), fill=style[0], width=2)
        _mark(pen, places[severity], style)


def _place(severity: int, share: float, *, left: int, top: int) -> Point:
    x = left + (severity + 0.5) * PLOT[0] / (len(SEVERITIES) + 1)
    return x, top + (1 - share) * PLOT[1]


def _mark(pen: ImageDraw.ImageDraw, centre: Point, style: tuple[Colour, int]) -> None:
    pen.regular_polygon((*centre, MARK), style[1], fill=style[0])


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
