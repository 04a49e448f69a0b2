"""A verb's signature as its command line: each keyword argument becomes an option (`cgn.core.parameters`)."""

import argparse
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from cgn.core.outputs import log_folder
from cgn.core.parameters import INPUT, OUTPUT, PARAMETER, SPEED

GIVEN = ("seed", "variant", "sink")
"""Arguments that the front door fills in itself."""


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """A parsed command line: `options` by the names of the verb's signature."""

    verb: str
    target: str
    options: Mapping[str, Any]
    inputs: Mapping[str, tuple[Path, ...]]
    """The inputs that were named, by option."""
    output: str
    """The option that names the output folder."""
    speeds: frozenset[str]
    """Options that change only how fast the verb works."""
    params_file: Path
    lists: bool = False
    """Only print what the verb would do."""
    dry: bool = False
    """Only print the parameters, the paths and what would be continued."""

    @property
    def track(self) -> str:
        """The part of the target before the slash."""
        return self.target.partition("/")[0]

    @property
    def variant(self) -> str:
        """The part of the target after the slash."""
        return self.target.partition("/")[2]

    @property
    def out(self) -> Path:
        """The output folder."""
        path: Path = self.options[self.output]
        return path

    @property
    def log(self) -> Path:
        """The folder of run.json, metrics.jsonl, metrics.json, headlines.json, details.json and curves.csv."""
        return log_folder(self.out)

    @property
    def defining(self) -> dict[str, Any]:
        """The options that decide what is written: neither paths nor speeds."""
        unset = {name for name, value in self.options.items() if value is None}
        other = {*self.inputs, self.output, *unset, *self.speeds}
        return {name: value for name, value in self.options.items() if name not in other}


def parse(
    words: Sequence[str], *, verb: str, function: Callable[..., None], description: str, lists: bool
) -> Invocation:
    """Read what follows the verb: the target and an option for each argument of `function`; `lists`: also --list.

    A wrong one ends in argparse's usage message and SystemExit(2).
    """
    arguments = _arguments(function)
    parser = argparse.ArgumentParser(prog=f"python -m cgn {verb}", description=description)
    parser.add_argument("target", metavar="TRACK/VARIANT", help="for example mnist/digits")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    for name, argument in arguments.items():
        parser.add_argument(f"--{name}", **argument.for_argparse)
    if lists:
        parser.add_argument("--list", action="store_true", help="print which files are needed and where they are")
    parser.add_argument(
        "--dry-run", action="store_true", help="print parameters, paths and what would run; write nothing"
    )
    given = vars(parser.parse_args(words))
    options = {name: tuple(given[name]) if argument.many else given[name] for name, argument in arguments.items()}
    named = {name: argument for name, argument in arguments.items() if options[name] is not None}
    return Invocation(
        verb=verb,
        target=given["target"],
        options=options,
        inputs={n: options[n] if a.many else (options[n],) for n, a in named.items() if a.kind == INPUT},
        output=next(name for name, argument in arguments.items() if argument.kind == OUTPUT),
        speeds=frozenset(name for name, argument in arguments.items() if argument.kind == SPEED),
        params_file=given["params"],
        lists=given.get("list", False),
        dry=given["dry_run"],
    )


def asked(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Of these values, those that `function` has an argument for."""
    names = inspect.signature(function).parameters
    return {name: value for name, value in values.items() if name in names}


@dataclass(frozen=True, kw_only=True)
class _Argument:
    kind: str
    many: bool
    for_argparse: dict[str, Any]


def _arguments(function: Callable[..., None]) -> dict[str, _Argument]:
    """The options of a verb: all its arguments but the config and what the front door fills in."""
    hints = get_type_hints(function, include_extras=True)
    arguments = {}
    for name, parameter in [*inspect.signature(function).parameters.items()][1:]:
        annotated = hasattr(hints[name], "__metadata__")
        base, *extras = get_args(hints[name]) if annotated else (hints[name],)
        kind, many = (extras[0] if extras else "option"), get_origin(base) is tuple
        if name in GIVEN or kind == PARAMETER:
            continue
        options: dict[str, Any] = {"type": Path if kind in (INPUT, OUTPUT) else base, "metavar": kind.upper()}
        if kind == SPEED:
            options["metavar"] = "N" if base is int else "ADDRESS"
        if many:
            options["action"] = "append"
        if parameter.default is inspect.Parameter.empty:
            options["required"] = True
        else:
            shown = "where the variant needs it" if parameter.default is None else f"default: {parameter.default}"
            options |= {"default": parameter.default, "help": shown}
        arguments[name] = _Argument(kind=kind, many=many, for_argparse=options)
    return arguments
