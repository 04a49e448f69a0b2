"""Pictures of confusion matrices, drawn with Pillow alone: one panel, or a sheet of cues x classifiers.

Decided here: a cell's colour and its number are the share of the row (the images of one label) in percent, on one
scale from 0 to 100 for all panels, so that panels compare; numbers under one half percent are left out. Lightness
alone carries the scale, so it survives print and colour-blind eyes. Two themes: a page may be read in the dark.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from cgn.evaluation.metrics import Matrix, by_label

Colour = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Theme:
    """Colours of a panel; `ramp` runs from a share of 0 to a share of 1."""

    surface: Colour
    ink: Colour
    muted: Colour
    ramp: tuple[Colour, ...]
    ink_on_full: Colour
    """For numbers on cells whose share is above `turn`."""
    turn: float


LIGHT = Theme(
    surface=(255, 255, 255),
    ink=(28, 32, 38),
    muted=(91, 99, 110),
    ramp=((243, 245, 248), (158, 197, 238), (58, 128, 204), (16, 62, 120)),
    ink_on_full=(255, 255, 255),
    turn=0.5,
)
DARK = Theme(
    surface=(27, 31, 37),
    ink=(226, 231, 238),
    muted=(160, 169, 181),
    ramp=((36, 41, 49), (31, 72, 122), (66, 140, 214), (196, 224, 250)),
    ink_on_full=(12, 20, 30),
    turn=0.5,
)

CELL = 46
MARGIN = 54
TITLE = 44
GAP = 28


def panel(matrix: Matrix, *, title: str, rows: str, columns: str = "decision", theme: Theme = LIGHT) -> Image.Image:
    """One matrix (classes, classes) of counts with its axes named; meant to be shown at about half its pixels."""
    shares, classes = by_label(matrix), len(matrix)
    side = classes * CELL
    page = Image.new("RGB", (MARGIN + side + 8, TITLE + side + MARGIN), theme.surface)
    pen = ImageDraw.Draw(page)
    pen.text((MARGIN, TITLE // 2), title, fill=theme.ink, font=_font(25), anchor="lm")
    for row in range(classes):
        top = TITLE + row * CELL
        pen.text((MARGIN - 9, top + CELL // 2), str(row), fill=theme.muted, font=_font(20), anchor="rm")
        middle = (MARGIN + row * CELL + CELL // 2, TITLE + side + 14)
        pen.text(middle, str(row), fill=theme.muted, font=_font(20), anchor="mm")
        for column in range(classes):
            _cell(pen, float(shares[row, column]), left=MARGIN + column * CELL, top=top, theme=theme)
    pen.text((MARGIN + side // 2, TITLE + side + 39), columns, fill=theme.muted, font=_font(20), anchor="mm")
    _upright(page, rows, centre=(14, TITLE + side // 2), theme=theme)
    return page


def sheet(panels: Mapping[str, Sequence[Matrix]], *, titles: Sequence[str], theme: Theme = LIGHT) -> Image.Image:
    """A row of panels for each cue (key), one panel for each title; all matrices are of one size."""
    drawn = [
        [
            panel(matrix, title=title, rows=f"{cue} label", theme=theme)
            for matrix, title in zip(row, titles, strict=True)
        ]
        for cue, row in panels.items()
    ]
    width, height = drawn[0][0].size
    columns, rows = len(titles), len(drawn)
    size = (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP)
    page = Image.new("RGB", size, theme.surface)
    for row, line in enumerate(drawn):
        for column, picture in enumerate(line):
            page.paste(picture, (GAP + column * (width + GAP), GAP + row * (height + GAP)))
    return page


def shade(share: float, *, theme: Theme) -> Colour:
    """The ramp's colour at a share in [0,1], linear between its stops."""
    place = min(max(share, 0.0), 1.0) * (len(theme.ramp) - 1)
    stop = min(int(place), len(theme.ramp) - 2)
    low, high = theme.ramp[stop], theme.ramp[stop + 1]
    red, green, blue = (round(a + (b - a) * (place - stop)) for a, b in zip(low, high, strict=True))
    return red, green, blue


def _cell(pen: ImageDraw.ImageDraw, share: float, *, left: int, top: int, theme: Theme) -> None:
    pen.rectangle((left + 1, top + 1, left + CELL - 2, top + CELL - 2), fill=shade(share, theme=theme))
    if share >= 0.005:
        ink = theme.ink_on_full if share > theme.turn else theme.ink
        centre = (left + CELL // 2, top + CELL // 2)
        pen.text(centre, f"{100 * share:.0f}", fill=ink, font=_font(19), anchor="mm")


def _upright(page: Image.Image, words: str, *, centre: tuple[int, int], theme: Theme) -> None:
    font = _font(20)
    strip = Image.new("RGB", (int(font.getlength(words)) + 8, 28), theme.surface)
    ImageDraw.Draw(strip).text((strip.width // 2, 14), words, fill=theme.muted, font=font, anchor="mm")
    turned = strip.rotate(90, expand=True)
    page.paste(turned, (centre[0] - turned.width // 2, centre[1] - turned.height // 2))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
