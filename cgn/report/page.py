"""A self-contained HTML page: pictures inside it, styles inside it, nothing fetched, nothing run.

Decided here: markup is its own type, so text cannot reach a page unescaped without the type checker saying so. The
first cell of a table's row is its header, tables scroll inside their own frame on a narrow screen, and colours follow
the reader's light or dark setting.
"""

import base64
import html
import struct
from collections.abc import Iterable, Sequence
from typing import NewType

from cgn.core.errors import ArtifactError
from cgn.report.page_style import STYLE

Html = NewType("Html", str)

VOID = frozenset({"img", "meta", "source", "link", "br"})
PNG_START = b"\x89PNG\r\n\x1a\n"


def text(value: object) -> Html:
    """`value` as text: what HTML would read as markup is escaped."""
    return Html(html.escape(str(value), quote=False))


def join(parts: Iterable[Html], *, between: str = "") -> Html:
    """Markup one after the other."""
    return Html(between.join(parts))


def element(tag: str, /, *children: Html, **attributes: str | int | None) -> Html:
    """<tag ...>children</tag>. `class_` is written class, `aria_label` aria-label; None leaves an attribute out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if tag in VOID:
        assert not children, tag
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{''.join(children)}</{tag}>")


def paragraph(words: str, *, class_: str | None = None) -> Html:
    """<p> of plain text."""
    return element("p", text(words), class_=class_)


def picture(png: bytes, *, alt: str, dark: bytes | None = None, enlarged: int = 1, source: str = "picture") -> Html:
    """A PNG inside the page, with another one for dark screens where given; `source` names it in errors.

    `enlarged` multiplies the shown size, without blur when it is above 1.
    """
    width, height = png_size(png, source=source)
    image = element(
        "img",
        src=_data_uri(png),
        alt=alt,
        width=width * enlarged,
        height=height * enlarged,
        class_="pixels" if enlarged > 1 else None,
    )
    if dark is None:
        return image
    return element("picture", element("source", srcset=_data_uri(dark), media="(prefers-color-scheme: dark)"), image)


def png_size(png: bytes, *, source: str) -> tuple[int, int]:
    """(width, height) from a PNG's header. Raises ArtifactError when it is none."""
    if len(png) < 24 or not png.startswith(PNG_START) or png[12:16] != b"IHDR":
        raise ArtifactError(f"{source} is no PNG picture: run the stage that makes it again")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def film(gif: bytes, *, still: bytes, alt: str, source: str = "film") -> Html:
    """A GIF inside the page; who asked for less motion sees the PNG `still`. `source` names the GIF in errors."""
    width, height = gif_size(gif, source=source)
    image = element("img", src=_data_uri(gif, kind="gif"), alt=alt, width=width, height=height)
    calm = element("source", srcset=_data_uri(still), media="(prefers-reduced-motion: reduce)")
    return element("picture", calm, image)


def gif_size(gif: bytes, *, source: str) -> tuple[int, int]:
    """(width, height) from a GIF's header. Raises ArtifactError when it is none."""
    if len(gif) < 10 or gif[:6] not in (b"GIF87a", b"GIF89a"):
        raise ArtifactError(f"{source} is no GIF picture: run the stage that makes it again")
    width, height = struct.unpack("<HH", gif[6:10])
    return width, height


def figure(content: Html, *, caption: Html, class_: str | None = None) -> Html:
    """<figure> with its caption below."""
    return element("figure", content, element("figcaption", caption), class_=class_)


def table(
    *,
    caption: str,
    columns: Sequence[Html],
    rows: Sequence[Sequence[Html]],
    class_: str | None = None,
    groups: Sequence[tuple[str, int]] = (),
) -> Html:
    """A table in a frame that scrolls; the first column holds the rows' headers.

    `groups`: a line above the columns, each title with the number of columns that it spans; "" spans without a title.
    """
    head = [element("tr", *(element("th", column, scope="col") for column in columns))]
    if groups:
        spans = [
            element("th", text(title), scope="colgroup", colspan=count) if title else element("td", colspan=count)
            for title, count in groups
        ]
        head.insert(0, element("tr", *spans, class_="groups"))
    body = [
        element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in rest))
        for first, *rest in rows
    ]
    whole = element(
        "table", element("caption", text(caption)), element("thead", *head), element("tbody", *body), class_=class_
    )
    return element("div", whole, class_="scroll", role="region", aria_label=caption, tabindex=0)


def section(title: str, *content: Html, name: str) -> Html:
    """<section> with a heading; `name` is its anchor."""
    return element("section", element("h2", text(title), id=name), *content, aria_labelledby=name)


def document(*, title: str, description: str, header: Html, body: Html, footer: Html, style: str = "") -> str:
    """The whole page; `style` is CSS of its own after the common one."""
    head = join(
        [
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("meta", name="description", content=description),
            element("link", rel="icon", href="data:,"),
            element("title", text(title)),
            element("style", Html(f"\n{STYLE.strip()}\n{style.lstrip()}")),
        ],
        between="\n",
    )
    blocks = [element("header", header), element("main", body), element("footer", footer)]
    page = element("html", element("head", head), Html("\n"), element("body", join(blocks, between="\n")), lang="en")
    return f"<!doctype html>\n{page}\n"


def _data_uri(image: bytes, *, kind: str = "png") -> str:
    return f"data:image/{kind};base64," + base64.b64encode(image).decode("ascii")
