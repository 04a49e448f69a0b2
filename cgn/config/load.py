"""params.yaml -> records, checked as a whole, or one ConfigError with the dotted key."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from cgn.config.record import build
from cgn.config.schema import TRACKS, Variant
from cgn.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Params:
    """All variants by track and name, and which of them the pipeline builds."""

    active: Mapping[str, tuple[str, ...]]
    tracks: Mapping[str, Mapping[str, Variant]]

    def variant(self, target: str) -> Variant:
        """The variant called `track/variant`. Raises ConfigError listing the known ones."""
        track, _, name = target.partition("/")
        known = [f"{t}/{v}" for t, variants in self.tracks.items() for v in variants]
        if name not in self.tracks.get(track, {}):
            what = "variant" if track in self.tracks and name else "track/variant"
            raise ConfigError(f"unknown {what} {target!r}; known: {', '.join(known)}")
        return self.tracks[track][name]


def load(path: Path) -> Params:
    """Read and check all of params.yaml. Raises ConfigError naming the first dotted key that is wrong."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing: run from the project's root, or give --params") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold the keys active, {', '.join(TRACKS)}")
    for key in tree:
        if key != "active" and key not in TRACKS:
            raise ConfigError(
                f"{key} is an unknown track in {path}; known: {', '.join(TRACKS)} (and the list `active`)"
            )
    tracks = {
        track: {name: build(record, values, key=f"{track}.{name}") for name, values in _mapping(tree, track).items()}
        for track, record in TRACKS.items()
    }
    return Params(active=_active(tree, tracks), tracks=tracks)


def _active(tree: dict[str, object], tracks: Mapping[str, Mapping[str, Variant]]) -> dict[str, tuple[str, ...]]:
    active: dict[str, tuple[str, ...]] = {}
    for track, names in _mapping(tree, "active").items():
        if track not in tracks:
            raise ConfigError(f"active.{track} is an unknown track; known: {', '.join(tracks)}")
        if not isinstance(names, list):
            raise ConfigError(f"active.{track} is {names!r}: expected a list of variants")
        for name in names:
            if name not in tracks[track]:
                raise ConfigError(
                    f"active.{track} names {name!r}, an unknown variant; known: {', '.join(tracks[track])}"
                )
        active[track] = tuple(names)
    return active


def _mapping(tree: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = tree.get(key)
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key} is missing or no mapping in params.yaml")
    return value
