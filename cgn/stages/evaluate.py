"""evaluate: every classifier's decision on every image, stored; all numbers and pictures are derived from them.

Decided here: what is examined, and how, is the track's business; it hands back findings, and the stage writes them, so
that both tracks' folders hold the same kinds of files: decisions.parquet, numbers as JSON with their intervals, and
pictures. A number whose decisions are not stored has no place here, but for what each training said of itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgn.core.arguments import Input, Inputs, OptionalInput, Output
from cgn.core.devices import limit_threads
from cgn.core.errors import ConfigError
from cgn.core.files import write_json, write_text
from cgn.core.metrics import MetricSink

DECISIONS = "decisions.parquet"
ALL = "all"
"""The suite that stands for all that the parameters name."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be examined."""

    data: Path
    classifiers: tuple[Path, ...]
    assets: Path | None
    suite: str
    """ALL, or one that the track knows."""
    network: str
    """What published network the classifiers are files of, NAME or NAME@RECIPE; empty: they are folders that
    train_classifier made."""
    folder: Path
    """Where the decisions go; an examination may keep there what it has finished, and takes it away at the end."""
    sink: MetricSink


@dataclass(frozen=True, kw_only=True)
class Findings:
    """`write` writes the decisions to a path; the rest derives from them."""

    write: Callable[[Path], None]
    numbers: Mapping[str, Any]
    """File name -> JSON."""
    texts: Mapping[str, str]
    """File name -> text."""
    pictures: Mapping[str, Any]
    """File name -> Pillow's picture."""
    summary: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What evaluate needs from a track."""

    track: str
    suites: tuple[str, ...]
    """By name; the track that knows none has one kind of examination only."""
    examine: Callable[[Request], Findings]
    """Raises ArtifactError for foreign or broken data and classifiers."""


def evaluate(
    parts: Parts,
    *,
    data: Input,
    classifier: Inputs,
    decisions: Output,
    sink: MetricSink,
    assets: OptionalInput = None,
    suite: str = ALL,
    network: str = "",
) -> None:
    """Write decisions.parquet, the numbers that derive from it and their pictures.

    `suite`: one of the track's instead of all. `network`: NAME or NAME@RECIPE of the published network that the
    classifiers are files of. Raises ConfigError for a suite that the track does not know.
    """
    from cgn.core.images import save_image

    limit_threads()
    check(parts, suite=suite)
    found = parts.examine(
        Request(
            data=data,
            classifiers=classifier,
            assets=assets,
            suite=suite,
            network=network,
            folder=decisions,
            sink=sink,
        )
    )
    found.write(decisions / DECISIONS)
    for name, numbers in found.numbers.items():
        write_json(decisions / name, numbers)
    for name, text in found.texts.items():
        write_text(decisions / name, text)
    for name, picture in found.pictures.items():
        save_image(picture, decisions / name)
        sink.picture(decisions / name)
    sink.summary(found.summary)


def check(parts: Parts, *, suite: str, **_: object) -> None:
    """Raise ConfigError for a suite that the track does not know, before anything is written."""
    if suite not in (ALL, *parts.suites):
        raise ConfigError(f"--suite is {suite!r}; {parts.track} knows: {', '.join((ALL, *parts.suites))}")
