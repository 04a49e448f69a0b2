"""What a run shows in Prefect's UI: a stage's sheets as images, its final values as a table, its summary as text.

Artifacts are read from the stage's outputs after it is up to date, so a cached stage has its own too, unless the server
has the same already: what a run did not write is not stored again. An image is stored inside its artifact (a data URL),
because the UI's server need not see this disk; large ones are left out. Shown are the images that a stage draws to be
looked at: those at the top of its output, its sheets and interpolations. Whole data sets of images, as prepare writes
them for ImageNet, are not shown.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prefect import get_client
from prefect.artifacts import Artifact, ImageArtifact, MarkdownArtifact, TableArtifact
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey

from flows.graph import Stage
from flows.mlflow_client import flat

IMAGE_BYTES = 1 << 20
IMAGES = ("*", "sheets/*", "interpolations/*")
KINDS = {".png": "png", ".gif": "gif"}
TEXTS = {"summary.md": "summary", "verdict.md": "verdict"}
"""File at the top of an output, and its artifact's word."""
VALUES = "details.json"
ROWS, WHOLE = "name", "(all)"


def show(stage: Stage) -> None:
    """Create the artifacts of one stage; a later run's have the same keys, so the UI shows their history."""
    for artifact in artifacts(stage):
        artifact.create()


def show_new(stage: Stage) -> None:
    """Create those artifacts of a stage that the server lacks, or whose latest version there is another."""
    current = {str(artifact.key): artifact for artifact in artifacts(stage)}
    if not current:
        return
    keys = ArtifactCollectionFilterKey(any_=list(current))
    with get_client(sync_client=True) as client:
        latest = client.read_latest_artifacts(artifact_filter=ArtifactCollectionFilter(key=keys))
    known = {artifact.key: artifact.data for artifact in latest}
    for key, artifact in current.items():
        if known.get(key) != artifact.format():
            artifact.create()


def artifacts(stage: Stage) -> Iterator[Artifact]:
    """The artifacts of one stage, each with a description of the stage and the file."""
    for out in stage.outs:
        for image in last_images(out):
            data = base64.b64encode(image.read_bytes()).decode()
            yield ImageArtifact(
                image_url=f"data:image/{KINDS[image.suffix]};base64,{data}",
                key=artifact_key(stage.name, _series(image.relative_to(out))),
                description=f"{stage.name}: {image}",
            )
        for file in [file for name in TEXTS if (file := out / name).is_file()]:
            yield MarkdownArtifact(
                markdown=file.read_text(encoding="utf-8"),
                key=artifact_key(stage.name, TEXTS[file.name]),
                description=f"{stage.name}: {file}",
            )
    for file in [out.with_name(out.name + ".log") / VALUES for out in stage.outs]:
        if file.is_file() and (rows := table(json.loads(file.read_text(encoding="utf-8")))):
            yield TableArtifact(table=rows, key=artifact_key(stage.name, "values"), description=f"{stage.name}: {file}")


def last_images(out: Path) -> list[Path]:
    """The newest state of each series of sheets: `sheets/000500.png`, `sheets/001000.png` are one series."""
    series: dict[str, Path] = {}
    found = {image for pattern in IMAGES for image in out.glob(pattern) if image.suffix in KINDS}
    for image in sorted(found, key=lambda path: (len(path.name), path.as_posix())):
        if image.stat().st_size <= IMAGE_BYTES:
            series[_series(image.relative_to(out))] = image
    return sorted(series.values())


def table(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Nested values as rows: the last name is the column, those before it the row. Values of the whole come first.

    The rows' names are a column with a name of its own: the UI shows none without.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, value in flat(values, separator="/").items():
        row, _, column = name.rpartition("/")
        rows.setdefault(row, {})[column] = value
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    heading = next(name for name in (ROWS, f"{ROWS} ", f"{ROWS}  ") if name not in columns)
    return [
        {heading: name or WHOLE, **{column: row.get(column, "") for column in columns}} for name, row in rows.items()
    ]


def _series(image: Path) -> str:
    """What stays the same from one state of an image to the next: a name that is a number is dropped."""
    named = image.parent if image.stem.isdecimal() else image.with_suffix("")
    return f"{named.as_posix()}-film" if image.suffix == ".gif" else named.as_posix()


def artifact_key(*words: str) -> str:
    """An artifact's key: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")
