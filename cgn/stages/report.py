"""report: the stored decisions and sheets -> one page that explains itself, and its table as Markdown.

Decided here: every accuracy is computed again from decisions.parquet; no model is loaded. What a run was (parameters,
seed) is read from the definition that each finished folder carries, and a folder of another variant is refused. What
the page says is the track's business; a sheet that is not there is left out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgn.core.errors import ArtifactError
from cgn.core.files import DEFINITION, read_json, write_text
from cgn.core.metrics import MetricSink
from cgn.core.roles import Input, Output

if TYPE_CHECKING:
    from cgn.evaluation.decisions import Decisions


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a page is made of."""

    decisions: "Decisions"
    trainings: Mapping[str, Mapping[str, Any]]
    """Arm -> what its training said of itself."""
    params: Mapping[str, Mapping[str, Any]]
    """Verb -> resolved parameters, of the verbs whose folder tells them."""
    data: Path
    model: Path
    images: Path


@dataclass(frozen=True, kw_only=True)
class Page:
    """The finished texts of index.html and summary.md."""

    html: str
    markdown: str


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What report needs from a track."""

    track: str
    variant: str
    page: Callable[[Material], Page]


def report(
    parts: Parts, *, data: Input, model: Input, images: Input, decisions: Input, page: Output, sink: MetricSink
) -> None:
    """Write index.html and summary.md."""
    from cgn.core.checkpoints import refuse_foreign
    from cgn.evaluation.decisions import read

    judged = read(decisions / "decisions.parquet")
    refuse_foreign(judged.facts, source=decisions, track=parts.track, variant=parts.variant)
    definitions = {folder: told for folder in (data, model, images) if (told := _definition(folder))}
    for folder, definition in definitions.items():
        refuse_foreign(definition, source=folder, track=parts.track, variant=parts.variant)
    params = {str(definition["verb"]): definition["params"] for definition in definitions.values()}
    made = parts.page(
        Material(
            decisions=judged,
            trainings={arm: told.get("training", {}) for arm, told in read_json(decisions / "accuracy.json").items()},
            params=params | _classifier_params(decisions / "classifiers.json"),
            data=data,
            model=model,
            images=images,
        )
    )
    write_text(page / "summary.md", made.markdown)
    write_text(page / "index.html", made.html)
    sink.picture(page / "index.html")


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
    sets = [defined["params"] for defined in told.values() if "params" in defined]
    return {"train_classifier": sets[0]} if sets else {}
