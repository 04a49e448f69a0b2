"""From plain YAML values to frozen records, or one error that names the dotted key.

Decided here: the records' annotations are the schema. A key that is unknown, missing or of the wrong type is refused
with the keys or the type that would fit; an int serves where a float is asked for, nothing else is converted. Ranges
are checked by the records themselves in `__post_init__`, through `require`.
"""

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from cgn.core.errors import ConfigError

Record = TypeVar("Record")
LARGEST = 2**53
"""Of whole numbers; a larger one is no count, and not the same number in every language that reads the records."""
SHOWN = 100
"""Characters of a value in a message."""


class OutOfRangeError(ValueError):
    """A field of a record has a value of the right type that makes no sense."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field} is {value!r}, allowed: {allowed}")
        self.field, self.value, self.allowed = field, value, allowed


def require(holds: bool, field: str, value: object, allowed: str) -> None:
    """For `__post_init__`: raise OutOfRangeError unless `holds`."""
    if not holds:
        raise OutOfRangeError(field, value, allowed)


def require_distinct(field: str, values: Sequence[object]) -> None:
    """For `__post_init__`: raise OutOfRangeError where an entry stands in a list more than once."""
    twice = [value for place, value in enumerate(values) if value in values[:place]]
    if twice:
        raise OutOfRangeError(field, list(values), f"each entry once, and {twice[0]!r} is there more often")


def build(record: type[Record], values: object, *, key: str) -> Record:
    """`values` (a mapping from YAML) as a `record`. Raises ConfigError with the dotted key of what is wrong."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{key} is {_shown(values)}: expected the keys {_names(record)}")
    hints = get_type_hints(record)
    known = {field.name: field for field in fields(record)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            close = get_close_matches(str(name), known, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ConfigError(f"{key}.{name} is unknown{hint}; known: {_names(record)}")
    missing = [n for n, f in known.items() if n not in values and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        raise ConfigError(f"{key}.{missing[0]} is missing; {key} needs: {_names(record)}")
    made = {name: _value(hints[name], value, key=f"{key}.{name}") for name, value in values.items()}
    try:
        return record(**made)
    except OutOfRangeError as error:
        raise ConfigError(f"{key}.{error}") from None


def _value(hint: Any, value: object, *, key: str) -> Any:  # noqa: PLR0911 (one return a kind of annotation)
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, key=key)
    if origin is Literal:
        if value in arguments and type(value) in {type(argument) for argument in arguments}:
            return value
        raise ConfigError(f"{key} is {_shown(value)}, allowed: {', '.join(str(argument) for argument in arguments)}")
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _value(next(a for a in arguments if a is not type(None)), value, key=key)
    if origin is tuple:
        return _tuple(arguments, value, key=key)
    if type(value) is int and abs(value) > LARGEST:
        raise ConfigError(f"{key} is {_shown(value)}: expected {_type_name(hint)} up to 2**53")
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is hint and not (hint is float and not math.isfinite(value)):  # type: ignore[arg-type]
        return value
    raise ConfigError(f"{key} is {_shown(value)}: expected {_type_name(hint)}")


def _tuple(arguments: tuple[Any, ...], value: object, *, key: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{key} is {_shown(value)}: expected a list")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise ConfigError(f"{key} has {len(value)} entries: expected {len(arguments)}")
    return tuple(_value(a, v, key=f"{key}[{i}]") for i, (a, v) in enumerate(zip(arguments, value, strict=True)))


def _type_name(hint: Any) -> str:
    return {int: "a whole number", float: "a number", str: "text", bool: "true or false"}.get(hint, str(hint))


def _names(record: Any) -> str:
    return ", ".join(field.name for field in fields(record))


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= SHOWN else text[:SHOWN] + '...'} ({type(value).__name__})"
