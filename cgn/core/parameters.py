"""What every model of the parameters shares: strict types, a unit and a source for each field, errors by dotted key.

A default is the paper's value wherever the paper or its published code has one, so that a variant in params.yaml states
only where it departs. Each field says through one of four functions what its value means: `published`, `choice`,
`extension` or `ours`. `departures` compares a validated record with what these say.

It also has the types of a verb's arguments, which the front door reads. A verb is `def verb(config, *, seed: int,
variant: str, sink: MetricSink, <inputs>: Input, <output>: Output, ...)`. Its command line, the checks before the first
step and the definition of its output follow from these types. `seed`, `variant` and `sink` are given to a verb that
names them and are no options. Any other keyword argument of a plain type (str, int) is an option that defines the
output.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

CODE = "paper: published code"
EXTENSION = "not in the paper"
STORE = "URL of an object store for the shards, such as s3://bucket/folder; null: the output folder."
STORE_URL = re.compile(r"(?!memory:|(?:file|local)://[^/])[a-z][a-z0-9+.-]*://\S*[^\s/]")
"""No memory, which is lost with the process, and no relative path, which starts elsewhere in an experiment."""
LARGEST = 2**53
"""The largest number in params.yaml: float64, which other readers of JSON use, has every integer up to it."""

INPUT = "input"
OUTPUT = "output"
SPEED = "speed"
PARAMETER = "parameter"

Input = Annotated[Path, INPUT]
"""A finished folder of an earlier stage, or a file: it must exist; its digest is part of what defines the output."""

OptionalInput = Annotated[Path | None, INPUT]
"""An input that not every variant needs; a verb that needs it refuses its absence. The default must be None."""

Inputs = Annotated[tuple[Path, ...], INPUT]
"""Several inputs: the option is repeated."""

Output = Annotated[Path, OUTPUT]
"""The one folder that the verb writes: built under a temporary name, moved into place at the end."""

Speed = Annotated[int, SPEED]
"""A number that changes how fast a verb works, never what it writes: it is no part of the output's definition."""

Cluster = Annotated[str, SPEED]
"""The address of a Ray cluster, which changes only the speed as well."""

Parameter = Annotated[str, PARAMETER]
"""A value from another section of params.yaml. The front door gives it by its name; it is no option."""


def _bounded(value: float) -> float:
    if abs(value) > LARGEST:
        raise ValueError("allowed: up to 2**53")
    return value


Whole = Annotated[int, AfterValidator(_bounded)]
Number = Annotated[float, AfterValidator(_bounded)]
Weight = Annotated[Number, Field(ge=0)]


class Config(BaseModel):
    """A frozen record. Unknown keys are refused. An int serves as a float; nothing else is converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _tuples(cls, values: Any) -> Any:
        """YAML and JSON have lists where a frozen record has tuples."""
        if not isinstance(values, Mapping):
            return values
        return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}

    def published_here(self) -> Mapping[str, Any]:
        """Dotted key -> the published value, for fields whose published value depends on another field's."""
        return {}


class OutOfRangeError(ValueError):
    """A field has a value of the right type that makes no sense."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field} is {value!r}, allowed: {allowed}")


class Setting(NamedTuple):
    """One leaf of a record."""

    key: str
    """Dotted, from the record."""
    value: Any
    unit: str
    """Empty for plain numbers and for text."""
    source: str
    """Where the published value is stated; empty where nothing is published."""
    published: Any
    """None where nothing is published."""

    @property
    def departs(self) -> bool:
        """Whether a value is published and this is another."""
        return bool(self.source) and self.value != self.published


class Departure(NamedTuple):
    """A leaf whose value is not the published one."""

    key: str
    value: Any
    published: Any
    unit: str
    source: str


def published(value: Any = ..., source: str = CODE, *, unit: str = "", about: str = "", **limits: Any) -> Any:
    """A field whose default is the published value; without one it depends on another field (`published_here`)."""
    return _field(value, about=about, limits=limits, unit=unit, source=source, published=value)


def choice(value: Any, source: str = CODE, *, about: str = "", **limits: Any) -> Any:
    """A field that params.yaml must state, because a stage of dvc.yaml names it; `value` is the published one."""
    return _field(..., about=about, limits=limits, unit="", source=source, published=value)


def extension(value: Any, about: str, *, unit: str = "", **limits: Any) -> Any:
    """A field for what neither the paper nor its code has; the default leaves it out, which is what was published."""
    return _field(
        value, about=about, limits=limits, unit=unit, source=EXTENSION, published=None if value is ... else value
    )


def ours(value: Any = ..., about: str = "", *, unit: str = "", **limits: Any) -> Any:
    """A field that nothing is published for: how a run is carried out, stored or shown, or a detail of an extension."""
    return _field(value, about=about, limits=limits, unit=unit, source="", published=None)


def require(holds: bool, field: str, value: object, allowed: str) -> None:
    """For validators: raise OutOfRangeError unless `holds`."""
    if not holds:
        raise OutOfRangeError(field, value, allowed)


def require_store(store: str | None) -> None:
    """For validators: raise OutOfRangeError unless it is null or an URL such as s3://bucket/folder."""
    require(store is None or bool(STORE_URL.fullmatch(store)), "store", store, "null, or an URL: s3://bucket/folder")


def require_distinct(field: str, values: Sequence[object]) -> None:
    """For validators: raise OutOfRangeError where an entry stands in a list more than once."""
    twice = [value for place, value in enumerate(values) if value in values[:place]]
    if twice:
        raise OutOfRangeError(field, list(values), f"each entry once, and {twice[0]!r} is there more often")


def settings(record: BaseModel) -> Iterator[Setting]:
    """Every leaf of a record, in the order of its fields."""
    here = record.published_here() if isinstance(record, Config) else {}
    for setting in _leaves(record, prefix=""):
        if setting.published is not ...:
            yield setting
        elif setting.key in here:
            yield setting._replace(published=here[setting.key])
        else:
            yield setting._replace(published=None, source="")


def departures(record: BaseModel) -> list[Departure]:
    """Where a record differs from what is published. A value that depends on one outside `record` is left out."""
    return [Departure(s.key, s.value, s.published, s.unit, s.source) for s in settings(record) if s.departs]


def units(kind: type[BaseModel], *, prefix: str = "") -> dict[str, str]:
    """Dotted key -> plural unit, of every leaf of a model that has one."""
    found: dict[str, str] = {}
    for name, field in kind.model_fields.items():
        nested = [each for each in (field.annotation, *get_args(field.annotation)) if isinstance(each, type)]
        models = [each for each in nested if issubclass(each, BaseModel)]
        if models:
            found |= units(models[0], prefix=f"{prefix}{name}.")
        elif isinstance(field.json_schema_extra, dict) and field.json_schema_extra["unit"]:
            found[f"{prefix}{name}"] = str(field.json_schema_extra["unit"])
    return found


def _field(value: Any, *, about: str, limits: Mapping[str, Any], **extra: Any) -> Any:
    return Field(value, description=about or None, json_schema_extra=extra, **limits)


def _leaves(record: BaseModel, *, prefix: str) -> Iterator[Setting]:
    for name, field in type(record).model_fields.items():
        if name not in record.__dict__:  # a record of some verbs only
            continue
        value, key = getattr(record, name), f"{prefix}{name}"
        if isinstance(value, BaseModel):
            yield from _leaves(value, prefix=f"{key}.")
        else:
            extra: Any = field.json_schema_extra or {"unit": "", "source": "", "published": None}
            yield Setting(key, value, extra["unit"], extra["source"], extra["published"])
