"""report: the stored decisions and sheets -> one page that explains itself, and its tables as Markdown.

Decided here: every figure is computed again from what evaluate stored; no model is loaded. What a run was (parameters,
seed) is read from the definition that each finished folder carries, and a folder of another variant is refused. What
evaluate stored is the track's own, so the track reads it; what the page says is the track's business, too. A sheet
that is not there is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgn.core.arguments import Input, Output
from cgn.core.errors import ArtifactError
from cgn.core.files import read_json, write_text
from cgn.core.metrics import MetricSink
from cgn.core.outputs import DEFINITION


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a page is made of."""

    data: Path
    model: Path
    images: Path
    decisions: Path
    """The folder that evaluate made, whose definition was checked; what lies in it the track reads and checks."""
    params: Mapping[str, Mapping[str, Any]]
    """Verb -> resolved parameters, of the verbs whose folder tells them."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """The finished texts of index.html and summary.md."""

    html: str
    markdown: str
    remarks: Sequence[str] = ()
    """Printed as well: what whoever runs the stage should know of these numbers."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What report needs from a track."""

    track: str
    variant: str
    page: Callable[[Material], Page]
    """Raises ArtifactError for decisions that are missing, broken or another variant's."""


def report(
    parts: Parts, *, data: Input, model: Input, images: Input, decisions: Input, page: Output, sink: MetricSink
) -> None:
    """Write index.html and summary.md."""
    told = material(
        track=parts.track, variant=parts.variant, data=data, model=model, images=images, decisions=decisions
    )
    made = parts.page(told)
    write_text(page / "summary.md", made.markdown)
    write_text(page / "index.html", made.html)
    for remark in made.remarks:
        print(remark, flush=True)
    sink.picture(page / "index.html")


def material(*, track: str, variant: str, data: Path, model: Path, images: Path, decisions: Path) -> Material:
    """The folders with the parameters that they carry. Raises ArtifactError where one is another variant's."""
    from cgn.core.checkpoints import refuse_foreign

    definitions = {folder: told for folder in (data, model, images, decisions) if (told := _definition(folder))}
    for folder, definition in definitions.items():
        refuse_foreign(definition, source=folder, track=track, variant=variant)
    params = {str(definition["verb"]): definition["params"] for definition in definitions.values()}
    params |= _classifier_params(decisions / "classifiers.json")
    return Material(data=data, model=model, images=images, decisions=decisions, params=params)


def _definition(folder: Path) -> Mapping[str, Any]:
    """What the front door wrote of the folder's run; empty for a folder that it did not make."""
    if not (folder / DEFINITION).is_file():
        return {}
    definition = read_json(folder / DEFINITION)
    if not isinstance(definition, dict) or not {"verb", "track", "variant", "params"} <= definition.keys():
        raise ArtifactError(f"{folder / DEFINITION} does not say what {folder} is: run the stage that makes it again")
    return definition


def _classifier_params(path: Path) -> dict[str, Mapping[str, Any]]:
    """The classifiers' parameters: one set, as all arms are trained alike."""
    told = read_json(path) if path.is_file() else {}
    records: list[Any] = list(told.values()) if isinstance(told, Mapping) else [None]
    if not all(isinstance(of, Mapping) and isinstance(of.get("params", {}), Mapping) for of in records):
        raise ArtifactError(f"{path} is not what evaluate writes (a record for each classifier): run evaluate again")
    sets = [defined["params"] for defined in records if "params" in defined]
    return {"train_classifier": sets[0]} if sets else {}
