"""The report of a run: sections -> index.html, one self-contained page, and summary.md, its tables as Markdown.

The page refers to nothing outside itself and runs no script. What a reader needs first (the answer, one sheet, one
table, one figure) is open; every other section is folded. Figures are SVG inside the page and follow its colours, in
light and in dark. Markup in texts is escaped by Jinja2.
"""

import base64
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from cgn.core.errors import ArtifactError
from cgn.core.files import write_text
from cgn.report.tables import Table

FOLDER = Path(__file__).parent
PAPER = "Sauer and Geiger, ICLR 2021"
REPLICATION = "Bagad et al., ReScience C 2022"
LINKS: Mapping[str, str] = {PAPER: "https://arxiv.org/abs/2101.06046", REPLICATION: "https://zenodo.org/record/6574635"}
"""Source of published numbers -> its address."""
SHEET = "Sheet of small images with labelled rows"


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph. `style`: "", "note", "muted" or "limit"."""

    kind: ClassVar[str] = "text"
    words: str
    style: str = ""
    summary: bool = False


@dataclass(frozen=True, kw_only=True)
class Items:
    """A list; in summary.md below `title`."""

    kind: ClassVar[str] = "items"
    items: Sequence[str]
    title: str = ""
    code: bool = False
    summary: bool = False


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Links to the sources of the published numbers."""

    kind: ClassVar[str] = "sources"
    names: Sequence[str]
    summary: bool = True

    @property
    def links(self) -> dict[str, str]:
        """Each source once, with its address."""
        return {name: LINKS[name] for name in self.names}


@dataclass(frozen=True, kw_only=True)
class Image:
    """A PNG or GIF as a data URI; `still`: what somebody who asked for less motion sees instead. Sizes in pixels."""

    kind: ClassVar[str] = "image"
    uri: str
    width: int
    height: int
    alt: str
    caption: str = ""
    still: str = ""
    sharp: bool = False
    summary: bool = False


@dataclass(frozen=True, kw_only=True)
class Figure:
    """SVG of `cgn.report.figures`."""

    kind: ClassVar[str] = "figure"
    svg: str
    caption: str = ""
    summary: bool = False


@dataclass(frozen=True, kw_only=True)
class Heading:
    """A heading within a section."""

    kind: ClassVar[str] = "heading"
    title: str
    summary: bool = False


@dataclass(frozen=True, kw_only=True)
class Group:
    """Blocks side by side, as many as fit (`style` "grid", "small" or "films"), or folded below `title`."""

    kind: ClassVar[str] = "group"
    blocks: Sequence["PageBlock"]
    style: str = "grid"
    title: str = ""
    summary: bool = False


PageBlock = Text | Items | Sources | Image | Figure | Heading | Group | Table


@dataclass(frozen=True, kw_only=True)
class Section:
    """A folded part of the page; `name` is its anchor."""

    title: str
    name: str
    blocks: Sequence[PageBlock]


def write_page(
    page: Path,
    *,
    target: str,
    seed: int,
    title: str,
    description: str,
    lead: Sequence[PageBlock],
    sections: Sequence[Section],
    footer: str,
) -> None:
    """Write index.html and summary.md into the folder `page`; `lead` is what stands open above the sections."""
    blocks = [
        block for block in _flat([*lead, *(block for part in sections for block in part.blocks)]) if block.summary
    ]
    style = (FOLDER / "style.css").read_text(encoding="utf-8")
    shown = {"target": target, "seed": seed, "title": title, "description": description, "footer": footer}
    html = _template("page.html.jinja").render(**shown, lead=lead, sections=sections, style=style)
    write_text(page / "summary.md", _template("summary.md.jinja").render(**shown, blocks=blocks))
    write_text(page / "index.html", html)


def image(data: bytes, *, alt: str, caption: str = "", source: str = "image", enlarged: int = 1) -> Image:
    """A PNG on the page. `source` names it in the ArtifactError for one that is none; `enlarged` repeats pixels."""
    width, height = _size(data, source=source)
    return Image(
        uri=_uri(data),
        width=width * enlarged,
        height=height * enlarged,
        alt=alt,
        caption=caption,
        sharp=enlarged > 1,
    )


def film(data: bytes, *, size: tuple[int, int], still: bytes, alt: str) -> Image:
    """A GIF of `size` (width, height) on the page, with its first frame as a PNG."""
    return Image(uri=_uri(data, kind="gif"), width=size[0], height=size[1], alt=alt, caption=alt, still=_uri(still))


def sheets(files: Iterable[tuple[Path, str]]) -> list[PageBlock]:
    """The (file, caption) that exist, as images, or that there are none. Raises ArtifactError naming a broken one."""
    found: list[PageBlock] = [
        image(path.read_bytes(), alt=f"{SHEET}. {caption}.", caption=caption, source=str(path))
        for path, caption in files
        if path.is_file()
    ]
    return found or [Text(words="The folders of this run hold no sheets.", style="muted")]


def last_sheet(model: Path) -> list[tuple[Path, str]]:
    """The newest sheet of a training's progress with its caption; empty where there is none."""
    progress = sorted((model / "sheets").glob("*.png"), key=lambda path: (len(path.name), path.name))
    return [
        (path, f"The generative network after update {int(path.stem):,}" if path.stem.isdecimal() else path.stem)
        for path in progress[-1:]
    ]


def _flat(blocks: Iterable[PageBlock]) -> Iterator[PageBlock]:
    for block in blocks:
        if isinstance(block, Group):
            yield from _flat(block.blocks)
        else:
            yield block


def _size(png: bytes, *, source: str) -> tuple[int, int]:
    if len(png) < 24 or not png.startswith(b"\x89PNG\r\n\x1a\n") or png[12:16] != b"IHDR":
        raise ArtifactError(f"{source} is no PNG picture: run the stage that makes it again")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def _uri(data: bytes, *, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    return Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _template(name: str) -> Any:
    return _environment().get_template(name)
