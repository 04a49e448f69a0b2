"""Shape bias as a picture: for every category a bar that is split between shape and texture decisions.

Decided here: a bar runs over all decisions for either cue, shape from the left, so 16 bars and their sum compare at a
glance; the number beside it is how many decisions it stands for, as some categories have a handful. The line across is
the bias over all pictures, the whisker on the last bar its 95 % interval. Below a panel's title stand that interval,
the count of decisions, and the shape accuracy on the conflicts beside its chance; the title of a head that is undecided
says so and quotes no bias. One panel a head, side by side. Shape and texture differ in lightness, so it survives print
and colour-blind eyes; two themes.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from cgn.evaluation.metrics import ShapeBias
from cgn.report.confusion_picture import LIGHT, Theme

ROW, BAR = 30, 20
NAMES, LENGTH, COUNTS = 120, 340, 64
TITLE, FOOT, GAP = 92, 54, 28
ALL = "all"


def bars(
    heads: Mapping[str, Mapping[str, ShapeBias]], *, undecided: Collection[str] = (), theme: Theme = LIGHT
) -> Image.Image:
    """A panel for each head (key) of its bars by category, in their order, with the sum below.

    All heads have the same categories. `undecided`: the heads whose bias must not be quoted. Meant to be shown at about
    half its pixels.
    """
    panels = [
        _panel(title, by_category, quoted=title not in undecided, theme=theme) for title, by_category in heads.items()
    ]
    width, height = panels[0].size
    page = Image.new("RGB", (len(panels) * (width + GAP) + GAP, height + 2 * GAP), theme.surface)
    for place, drawn in enumerate(panels):
        page.paste(drawn, (GAP + place * (width + GAP), GAP))
    return page


def headings(title: str, whole: ShapeBias, *, quoted: bool, categories: int) -> tuple[str, str, str]:
    """The title of a panel and the two lines below it."""
    if whole.bias is None or whole.accuracy is None:
        return f"{title}: neither cue", f"none of {whole.conflicts:,} decided", ""
    share = f"{100 * whole.bias.share:.1f} % shape" if quoted else "undecided"
    ends = f"{100 * whole.bias.low:.1f} to {100 * whole.bias.high:.1f} %"
    return (
        f"{title}: {share}",
        f"{ends}; {whole.shape + whole.texture:,} of {whole.conflicts:,} decided",
        f"shape accuracy {100 * whole.accuracy.share:.1f} %, chance {100 / categories:.1f} %",
    )


def _panel(title: str, by_category: Mapping[str, ShapeBias], *, quoted: bool, theme: Theme) -> Image.Image:
    whole = _sum(list(by_category.values()))
    rows = [*by_category.items(), (ALL, whole)]
    bottom = TITLE + len(rows) * ROW
    page = Image.new("RGB", (NAMES + LENGTH + COUNTS, bottom + FOOT), theme.surface)
    pen = ImageDraw.Draw(page)
    first, *below = headings(title, whole, quoted=quoted, categories=len(by_category))
    pen.text((NAMES, 22), first, fill=theme.ink, font=_font(22), anchor="lm")
    for line, words in enumerate(below):
        pen.text((NAMES, 48 + 22 * line), words, fill=theme.muted, font=_font(17), anchor="lm")
    for row, (name, counts) in enumerate(rows):
        _bar(pen, name, counts, middle=TITLE + row * ROW + ROW // 2, theme=theme)
    if whole.bias:
        across = NAMES + round(LENGTH * whole.bias.share)
        pen.line((across, TITLE, across, bottom), fill=theme.ink, width=2)
        _whisker(pen, whole.bias.low, whole.bias.high, middle=bottom - ROW // 2, theme=theme)
    pen.text((NAMES, bottom + 18), "shape", fill=theme.ramp[-1], font=_font(19), anchor="lm")
    pen.text((NAMES + LENGTH, bottom + 18), "texture", fill=theme.muted, font=_font(19), anchor="rm")
    pen.text((NAMES + LENGTH + 10, bottom + 18), "n", fill=theme.muted, font=_font(17), anchor="lm")
    return page


def _bar(pen: ImageDraw.ImageDraw, name: str, counts: ShapeBias, *, middle: int, theme: Theme) -> None:
    top, bottom = middle - BAR // 2, middle + BAR // 2
    ink = theme.ink if name == ALL else theme.muted
    pen.text((NAMES - 10, middle), name, fill=ink, font=_font(19), anchor="rm")
    if counts.bias:
        split = NAMES + round(LENGTH * counts.bias.share)
        pen.rectangle((NAMES, top, NAMES + LENGTH, bottom), fill=theme.ramp[1])
        if split > NAMES:
            pen.rectangle((NAMES, top, split, bottom), fill=theme.ramp[-1])
    else:
        pen.rectangle((NAMES, top, NAMES + LENGTH, bottom), outline=theme.ramp[1])
    decided = str(counts.shape + counts.texture)
    pen.text((NAMES + LENGTH + 10, middle), decided, fill=ink, font=_font(17), anchor="lm")


def _whisker(pen: ImageDraw.ImageDraw, low: float, high: float, *, middle: int, theme: Theme) -> None:
    left, right = NAMES + round(LENGTH * low), NAMES + round(LENGTH * high)
    pen.line((left, middle, right, middle), fill=theme.ramp[2], width=3)
    for end in (left, right):
        pen.line((end, middle - 6, end, middle + 6), fill=theme.ramp[2], width=3)


def _sum(counts: Sequence[ShapeBias]) -> ShapeBias:
    return ShapeBias(
        shape=sum(count.shape for count in counts),
        texture=sum(count.texture for count in counts),
        conflicts=sum(count.conflicts for count in counts),
    )


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
