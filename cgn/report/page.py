"""The report of a run: one template -> index.html, a self-contained page, and summary.md, its texts and tables.

The page refers to nothing outside itself and runs no script. What a reader needs first (the answer, one sheet, one
table, one figure) is open; every other section is folded. Figures are SVG inside the page and follow its colours, in
light and in dark. Templates write both files with the same words: `ui` holds the parts of a page as HTML
(blocks.html.jinja) or as Markdown (blocks.md.jinja). Markup in values is escaped by Jinja2.
"""

import base64
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cgn.core.errors import ArtifactError
from cgn.core.files import write_text

FOLDER = Path(__file__).parent
PAPER = "Sauer and Geiger, ICLR 2021"
REPLICATION = "Bagad et al., ReScience C 2022"
LINKS = {PAPER: "https://arxiv.org/abs/2101.06046", REPLICATION: "https://zenodo.org/record/6574635"}
"""Source of published numbers -> its address."""
SHEET = "Sheet of small images with labelled rows"


@dataclass(frozen=True, kw_only=True)
class Image:
    """A PNG or GIF as a data URI; `still`: what somebody who asked for less motion sees instead. Sizes in pixels."""

    uri: str
    width: int
    height: int
    alt: str
    caption: str = ""
    still: str = ""
    sharp: bool = False


def write_page(page: Path, *, template: str, **content: Any) -> None:
    """Write index.html and summary.md into the folder `page`, from `template` (mnist, imagenet) and its `content`."""
    for kind, file in (("md", "summary.md"), ("html", "index.html")):
        write_text(page / file, render(f"{template}.jinja", kind=kind, **content))


def render(template: str, *, kind: str = "md", **content: Any) -> str:
    """A template as text; `kind`: html or md."""
    text: str = _environment(kind).get_template(template).render(**content)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def image(data: bytes, *, alt: str, caption: str = "", source: str = "image", enlarged: int = 1) -> Image:
    """A PNG on the page. `source` names it in the ArtifactError for one that is none; `enlarged` repeats pixels."""
    if len(data) < 24 or not data.startswith(b"\x89PNG\r\n\x1a\n") or data[12:16] != b"IHDR":
        raise ArtifactError(f"{source} is no PNG picture: run the stage that makes it again")
    width, height = (enlarged * pixels for pixels in struct.unpack(">II", data[16:24]))
    return Image(uri=data_uri(data), width=width, height=height, alt=alt, caption=caption, sharp=enlarged > 1)


def sheets(files: Iterable[tuple[Path, str]]) -> list[Image]:
    """The (file, caption) that exist, as images. Raises ArtifactError naming a broken one."""
    return [
        image(path.read_bytes(), alt=f"{SHEET}. {caption}.", caption=caption, source=str(path))
        for path, caption in files
        if path.is_file()
    ]


def last_sheet(model: Path) -> list[tuple[Path, str]]:
    """The newest sheet of a training's progress with its caption; empty where there is none."""
    progress = sorted((model / "sheets").glob("*.png"), key=lambda path: (len(path.name), path.name))
    return [
        (path, f"The generative network after update {int(path.stem):,}" if path.stem.isdecimal() else path.stem)
        for path in progress[-1:]
    ]


def data_uri(data: bytes, *, kind: str = "png") -> str:
    """An image as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _one_line(text: str) -> str:
    """Lines of a template joined; spaces that do not break stay. Markup stays markup."""
    return type(text)(re.sub(r"[ \n]+", " ", text).strip())


@cache
def _environment(kind: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=kind == "html",
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["one_line"] = _one_line
    style = (FOLDER / "style.css").read_text(encoding="utf-8")
    environment.globals |= {"kind": kind, "style": style, "links": LINKS}
    environment.globals["ui"] = environment.get_template(f"blocks.{kind}.jinja").module
    return environment
