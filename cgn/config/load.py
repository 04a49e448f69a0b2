"""params.yaml -> models, checked as a whole, or one ConfigError with the dotted key.

The file is read as DVC reads it, as YAML 1.2 by the same library, so that a number is the same number for both. A
variant's name becomes part of paths, of DVC's keys and of shell commands, so it is a plain identifier.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from cgn.config.imagenet import ImageNet
from cgn.config.mnist import Mnist
from cgn.core.errors import ConfigError
from cgn.core.validation import build

Variant = Mnist | ImageNet
TRACKS: dict[str, type[Variant]] = {"mnist": Mnist, "imagenet": ImageNet}

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
NAME_RULE = "a variant's name is text: a letter, then letters, digits, _ and -"


@dataclass(frozen=True, kw_only=True)
class Params:
    """All variants by track and name, and which of them the pipeline builds (every track has an entry)."""

    active: Mapping[str, tuple[str, ...]]
    tracks: Mapping[str, Mapping[str, Variant]]
    file: Mapping[str, Any]
    """What the file itself states, as plain values."""

    def variant(self, target: str) -> Variant:
        """The variant called `track/variant`. Raises ConfigError listing the known ones."""
        track, _, name = target.partition("/")
        known = [f"{t}/{v}" for t, variants in self.tracks.items() for v in variants]
        if name not in self.tracks.get(track, {}):
            what = "variant" if track in self.tracks and name else "track/variant"
            raise ConfigError(f"unknown {what} {target!r}; known: {', '.join(known) or 'none'}")
        return self.tracks[track][name]


def load(path: Path) -> Params:
    """Read and check all of params.yaml. Raises ConfigError naming the first dotted key that is wrong."""
    try:
        tree = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing: run from the project's root, or give --params") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}; give a YAML file") from None
    except (ValueError, RecursionError, YAMLError) as error:
        raise ConfigError(f"{path} is not YAML: {_why(error)}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold the keys active, {', '.join(TRACKS)}")
    for key in tree:
        if key != "active" and key not in TRACKS:
            raise ConfigError(
                f"{key} is an unknown track in {path}; known: {', '.join(TRACKS)} (and the list `active`)"
            )
    tracks = {
        track: {
            _named(name, track): build(record, values, key=f"{track}.{name}")
            for name, values in _mapping(tree, track).items()
        }
        for track, record in TRACKS.items()
    }
    return Params(active=_active(tree, tracks), tracks=tracks, file=tree)


def _active(tree: dict[str, object], tracks: Mapping[str, Mapping[str, Variant]]) -> dict[str, tuple[str, ...]]:
    active: dict[str, tuple[str, ...]] = dict.fromkeys(tracks, ())
    for track, names in _mapping(tree, "active").items():
        if track not in tracks:
            raise ConfigError(f"active.{track} is an unknown track; known: {', '.join(tracks)}")
        if not isinstance(names, list):
            raise ConfigError(f"active.{track} is {names!r}: expected a list of variants, [] for none")
        for name in names:
            if _named(name, f"active.{track}") not in tracks[track]:
                raise ConfigError(
                    f"active.{track} names {name!r}, an unknown variant; known: {', '.join(tracks[track])}"
                )
        if twice := [name for place, name in enumerate(names) if name in names[:place]]:
            raise ConfigError(
                f"active.{track} is {names!r}, allowed: each variant once, and {twice[0]!r} is there twice"
            )
        active[track] = tuple(names)
    return active


def _mapping(tree: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = tree.get(key)
    if not isinstance(value, Mapping):
        entries = "track: [variant, ...]" if key == "active" else "variant: {verb: {...}, ...}"
        raise ConfigError(f"{key} is missing or no mapping in params.yaml: expected {key}: {{{entries}}}")
    return value


def _named(name: object, key: str) -> str:
    """A variant's name. Raises ConfigError with the rule for another."""
    if not isinstance(name, str):
        raise ConfigError(f"{key} has the variant {name!r} ({type(name).__name__}): {NAME_RULE}; rename it")
    if not NAME.fullmatch(name):
        raise ConfigError(f"{key} has the variant {name!r}: {NAME_RULE}; rename it")
    return name


def _why(error: Exception) -> str:
    """What is wrong with a YAML file, with the line, without the library's own advice."""
    if isinstance(error, MarkedYAMLError) and error.problem and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {' '.join(str(error.problem).split())}"
    return " ".join(str(error).split())
