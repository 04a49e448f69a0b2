"""A rendered ImageNet report, and how its numbers are written: worked out again, from the formulas alone."""

import math
from itertools import takewhile
from pathlib import Path

from cgn.config.imagenet import Report
from cgn.core.metrics import Silent
from cgn.imagenet.report import parts as cell
from cgn.stages.report import report
from tests.mnist.test_report import Page

DASH = "\N{EN DASH}"
SPACE = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"


def percent(share: float) -> str:
    return f"{100 * share:.1f}{SPACE}%"


def wilson(hits: int, images: int) -> str:
    """Written out again, from the formula alone."""
    z, share = 1.959963984540054, hits / images
    centre = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * math.sqrt(share * (1 - share) / images + z**2 / (4 * images**2))
    return f"{100 * max(centre - half, 0):.1f} to {100 * min(centre + half, 1):.1f}"


def told(hits: int, images: int) -> str:
    return f"{percent(hits / images)} ({wilson(hits, images)})"


class Rendered:
    """A page with its summary, whose tables can be asked for cells."""

    def __init__(self, folder: Path) -> None:
        self.html = (folder / "index.html").read_text(encoding="utf-8")
        self.page = Page(self.html)
        self.summary = (folder / "summary.md").read_text(encoding="utf-8")

    def said(self, words: str) -> bool:
        return words in " ".join(self.page.words.split())

    def table(self, caption: str) -> dict[str, dict[str, str]]:
        """Row -> column -> cell, of the summary's table below a caption."""
        _, _, below = self.summary.partition(f"**{caption}")
        lines = [line for line in below.splitlines() if line]
        body = takewhile(lambda line: line.startswith("|"), lines[1:])
        head, _, *rows = ([entry.strip() for entry in line.strip("| ").split(" | ")] for line in body)
        return {row[0].partition(" (")[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def render(root: Path, folders: dict[str, Path], *, examples: int = 4) -> Rendered:
    parts = cell(Report(examples=examples), seed=4, variant="miniature")
    report(parts, **folders, page=root / "page", sink=Silent())
    return Rendered(root / "page")
