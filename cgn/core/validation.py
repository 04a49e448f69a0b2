"""Plain values to a record, or one ConfigError that names the dotted key, the value and what is allowed.

pydantic finds what is wrong; this says it in the words of params.yaml. An unknown key comes first: it is often the
reason why another one is missing.
"""

import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

from cgn.core.errors import ConfigError
from cgn.core.parameters import LARGEST, OutOfRangeError

Kind = TypeVar("Kind")
Track = TypeVar("Track", bound=BaseModel)
Location = Sequence[int | str]
SHOWN = 100
"""Characters of a value in a message."""
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument", "invalid_key")
MISSING = ("missing", "missing_argument", "missing_keyword_only_argument")
TYPES = {int: "a whole number", float: "a number", str: "text"}


def build(kind: type[Kind], values: object, *, key: str) -> Kind:
    """`values` (from YAML or JSON) as a model or dataclass. Raises ConfigError with the dotted key of what is wrong."""
    adapter = TypeAdapter(kind)
    try:
        if not is_dataclass(kind):
            return adapter.validate_python(values)
        if isinstance(values, Mapping) and (unknown := sorted(set(values) - set(_members(kind)))):
            raise ConfigError(f"{key}.{unknown[0]} is unknown; known: {', '.join(_members(kind))}")
        return adapter.validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        found = sorted(error.errors(include_url=False), key=lambda each: each["type"] not in UNKNOWN)
        raise ConfigError(_message(kind, found[0], key=key)) from None


def stored(track: type[Track], params: Mapping[str, Mapping[str, Any]]) -> Track:
    """A record of only the verbs whose parameters a run has stored, for `settings` and `departures`. `params`: by verb.

    What a verb stored of other verbs' parameters is left out. Raises ConfigError like `build`.
    """
    verbs = {verb: _members(track)[verb][0] for verb in params if verb in _members(track)}
    own = {verb: {key: value for key, value in params[verb].items() if key in _members(verbs[verb])} for verb in verbs}
    return track.model_construct(**{verb: build(verbs[verb], own[verb], key=verb) for verb in verbs})


def _message(kind: Any, error: Mapping[str, Any], *, key: str) -> str:  # noqa: PLR0911 (one return a kind of error)
    location, value, failure = error["loc"], error["input"], error["type"]
    here, last = _dotted(key, location), str(location[-1]) if location else ""
    above, parent = location[:-1], _dotted(key, location[:-1])
    if failure in UNKNOWN:
        names = _names(kind, above)
        close = get_close_matches(last, names, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        return f"{here} is unknown{hint}; known: {', '.join(names) or 'none'}"
    if failure == "too_long" or (failure in MISSING and isinstance(location[-1], int)):
        place = location if failure == "too_long" else above
        return f"{_dotted(key, place)} has {len(value)} entries: expected {len(get_args(_at(kind, place)[0]))}"
    if failure in MISSING:
        block = "; a block may be {}" if _names(kind, location) else ""
        return f"{here} is missing{block}; {parent} needs: {', '.join(_names(kind, above))}"
    if failure in ("model_type", "dataclass_type", "dataclass_exact_type"):
        keys = ", ".join(_names(kind, location))
        return f"{here} is {_shown(value)}: expected " + (f"the keys {keys}" if keys else "{}, as it has no keys")
    if failure == "literal_error":
        return f"{here} is {_shown(value)}, allowed: {', '.join(map(str, get_args(_at(kind, location)[0])))}"
    if failure == "value_error" and isinstance(error["ctx"]["error"], OutOfRangeError):
        return f"{here}.{error['ctx']['error']}"
    if failure.startswith(("greater", "less")):
        return f"{here} is {_short(value)}, allowed: {_range(_at(kind, location)[1])}"
    return f"{here} is {_shown(value)}: expected {_type(_at(kind, location)[0], error)}"


def _type(annotation: Any, error: Mapping[str, Any]) -> str:
    """What a value should be."""
    if get_origin(annotation) is tuple:
        return "a list"
    value, word = error["input"], TYPES.get(annotation, error["msg"])
    too_large = type(value) in TYPES and type(value) is not str and LARGEST < abs(value) < float("inf")
    return f"{word} up to 2**53" if too_large else word


def _range(limits: Mapping[str, float]) -> str:
    """A range in words: `1 or more`, `1 to 50`, `0 up to 1` (without the 1), `above 0, up to 1`."""
    low, high = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
    if high is None:
        return f"{low} or more" if "ge" in limits else f"above {low}"
    if "ge" in limits:
        return f"{low} to {high}" if "le" in limits else f"{low} up to {high}"
    upper = f"up to {high}" if "le" in limits else f"below {high}"
    return upper if low is None else f"above {low}, {upper}"


def _at(kind: Any, location: Location) -> tuple[Any, dict[str, float]]:
    """The annotation at a place below `kind`, and the limits of its range."""
    annotation: Any = kind
    limits: dict[str, float] = {}
    for part in location:
        if isinstance(part, int):
            entries = [entry for entry in get_args(annotation) if entry is not ...]
            annotation, limits = entries[min(part, len(entries) - 1)], {}
        else:
            annotation, limits = _members(annotation).get(part, (None, {}))
        annotation, limits = _plain(annotation, limits)
    return annotation, limits


def _plain(annotation: Any, limits: dict[str, float]) -> tuple[Any, dict[str, float]]:
    """Without `| None`, and without what `Annotated` adds, whose limits are added to the others."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(each for each in get_args(annotation) if each is not type(None))
    if get_origin(annotation) is Annotated:
        annotation, *extras = get_args(annotation)
        limits = _limits([each for extra in extras for each in getattr(extra, "metadata", [extra])]) | limits
    return annotation, limits


def _limits(metadata: Sequence[Any]) -> dict[str, float]:
    return {name: getattr(each, name) for each in metadata for name in ("ge", "gt", "le", "lt") if hasattr(each, name)}


def _members(kind: Any) -> dict[str, tuple[Any, dict[str, float]]]:
    """The fields of a model or dataclass: annotation and limits; empty for another type."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: (field.annotation, _limits(field.metadata)) for name, field in kind.model_fields.items()}
    if is_dataclass(kind):
        return {name: (hint, {}) for name, hint in get_type_hints(kind).items()}
    return {}


def _names(kind: Any, location: Location) -> list[str]:
    return list(_members(_at(kind, location)[0]))


def _dotted(key: str, location: Location) -> str:
    return key + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)


def _shown(value: object) -> str:
    """A value as the file has it, with its type."""
    value = list(value) if isinstance(value, tuple) else value
    return f"{_short(value)} ({type(value).__name__})"


def _short(value: object) -> str:
    # Python refuses to write the longest integers in decimals
    text = hex(value) if isinstance(value, int) and value.bit_length() > 10_000 else repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
