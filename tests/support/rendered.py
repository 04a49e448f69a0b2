"""A rendered report, read back; and how its numbers are written: worked out again, from the formulas alone."""

import math
import re
from html.parser import HTMLParser
from itertools import takewhile
from pathlib import Path

from cgn.config.imagenet import Report
from cgn.core.metrics import Silent
from cgn.imagenet.report import report

DASH = "\N{EN DASH}"
SPACE = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
VOID = {"img", "meta", "source", "link", "br"}


def percent(share: float) -> str:
    return f"{100 * share:.1f}{SPACE}%"


def wilson(hits: int, images: int) -> str:
    """Written out again, from the formula alone."""
    z, share = 1.959963984540054, hits / images
    centre = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * math.sqrt(share * (1 - share) / images + z**2 / (4 * images**2))
    return f"{100 * max(centre - half, 0):.1f} to {100 * min(centre + half, 1):.1f}"


def stated(hits: int, images: int) -> str:
    return f"{percent(hits / images)} ({wilson(hits, images)})"


class Page(HTMLParser):
    """Checks that tags close in order, and collects what a page shows and refers to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.unfolded = ""
        """The words outside every <details>."""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        assert len(attrs) == len({name for name, _ in attrs}), f"an attribute twice in {tag}"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data + " "
            if "details" not in self.open:
                self.unfolded += data + " "

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def alternatives(self) -> list[str]:
        """What images and figures say to somebody who does not see them."""
        return [tag["alt"] for tag in self.all("img")] + [tag["aria-label"] for tag in self.all("svg")]


def check_page(html: str) -> None:
    """The rules of every page: one file, accessible to screen readers, in light and dark colours."""
    page = Page(html)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "iframe", "object", "embed", "base", "form"})
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "href", "data", "poster", "action", "xlink:href"):
            value = attributes.get(name, "data:")
            # Only a link that a reader clicks may lead away.
            assert value.startswith("data:") or (tag, name) == ("a", "href"), (tag, value[:60])
    assert "url(" not in html
    assert "@import" not in html
    assert page.all("html")[0]["lang"] == "en"
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert [tag for tag, _ in page.tags].count("h1") == 1
    assert all(image["alt"] and int(image["width"]) > 0 and int(image["height"]) > 0 for image in page.all("img"))
    assert all(figure["role"] == "img" and figure["aria-label"] for figure in page.all("svg"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert {cell["scope"] for cell in page.all("th")} <= {"col", "row", "colgroup"}
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    assert {section["aria-labelledby"] for section in page.all("section")} <= set(names)
    assert "prefers-color-scheme: dark" in html
    figures = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert not re.findall(r"#[0-9a-f]{3,8}\b", figures), "a colour that does not follow the page"
    for variable in set(re.findall(r"var\((--\w+)", figures)):
        assert len(re.findall(rf"{variable}:", html)) >= 2, f"{variable} has no value in light or in dark"


class Rendered:
    """A page with its summary, whose tables can be asked for cells."""

    def __init__(self, folder: Path) -> None:
        self.html = (folder / "index.html").read_text(encoding="utf-8")
        self.page = Page(self.html)
        self.summary = (folder / "summary.md").read_text(encoding="utf-8")

    def said(self, words: str) -> bool:
        return words in " ".join(self.page.words.split())

    @property
    def answer(self) -> str:
        """The summary's first paragraph, which is also the page's."""
        return self.summary.split("\n\n")[1]

    def table(self, caption: str) -> dict[str, dict[str, str]]:
        """Row -> column -> cell, of the summary's table below a caption."""
        _, _, below = self.summary.partition(f"**{caption}")
        lines = [line for line in below.splitlines() if line]
        body = takewhile(lambda line: line.startswith("|"), lines[1:])
        head, _, *rows = ([entry.strip() for entry in line.strip("| ").split(" | ")] for line in body)
        return {row[0].partition(" (")[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def render(root: Path, folders: dict[str, Path], *, examples: int = 4) -> Rendered:
    report(Report(examples=examples), seed=4, variant="miniature", **folders, page=root / "page", sink=Silent())
    return Rendered(root / "page")
