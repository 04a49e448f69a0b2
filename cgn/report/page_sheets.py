"""The pictures that stages leave, as figures of a page.

Decided here: sheets are taken as the stages left them; one that is not there is left out, one that is broken is an
error that names it.
"""

from collections.abc import Sequence
from pathlib import Path

from cgn.report.page import Html, figure, paragraph, picture, text


def figures(drawn: Sequence[tuple[Path, str]], *, alt: str) -> list[Html]:
    """A figure for each (file, caption) that is there; where none is, one paragraph that says so.

    `alt` says what kind of picture they are.
    """
    shown = [_figure(path, words, alt=alt) for path, words in drawn if path.is_file()]
    return shown or [paragraph("The folders of this run hold no sheets.", class_="muted")]


def last_sheet(model: Path) -> list[tuple[Path, str]]:
    """The newest sheet of a training's progress with its caption; empty where there is none."""
    progress = sorted((model / "sheets").glob("*.png"), key=lambda path: (len(path.name), path.name))
    return [(path, f"The generative network after update {_update(path)}") for path in progress[-1:]]


def _figure(path: Path, words: str, *, alt: str) -> Html:
    shown = picture(path.read_bytes(), alt=f"{alt}. {words}.", source=str(path))
    return figure(shown, caption=text(words), class_="sheet")


def _update(path: Path) -> str:
    return f"{int(path.stem):,}" if path.stem.isdecimal() else path.stem
