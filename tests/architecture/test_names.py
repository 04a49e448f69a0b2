"""The names that others build on: the verbs, what a verb offers, the front door."""

import importlib
import inspect
from pathlib import Path
from typing import get_type_hints

import cgn.__main__ as front_door
from cgn.config.load import load
from cgn.core.parameters import Output
from tests.architecture.closure import ROOT, cells

FORBIDDEN = {"utils", "util", "helpers", "helper", "common", "misc"}
ONE_TRACK = {"evaluate_network"}
"""Verbs that not every track has."""


def test_every_track_has_every_verb_but_those_of_one_track() -> None:
    """Rows and columns stay visible: the same files in every track."""
    tracks = {track for track, _ in cells()}
    verbs = set(front_door.VERBS)
    assert {verb for _, verb in cells()} == verbs
    assert {verb for verb in verbs if len(front_door.tracks_with(verb)) < len(tracks)} == ONE_TRACK
    for verb in verbs:
        assert front_door.tracks_with(verb) == tuple(track for track, name in cells() if name == verb)


def test_the_front_door_offers() -> None:
    assert list(inspect.signature(front_door.run).parameters) == ["argv", "sinks"]
    assert list(inspect.signature(front_door.parse).parameters) == ["argv"]
    for place, _ in front_door.COMMANDS.values():
        module, _, function = place.partition(":")
        assert list(inspect.signature(getattr(importlib.import_module(module), function)).parameters) == ["argv"]


def test_a_verb_takes_what_the_front_door_gives() -> None:
    """First its section of params.yaml, then by keyword what it asks for, among it one output."""
    params = load(ROOT / "params.yaml")
    for track, verb in cells():
        module = importlib.import_module(f"cgn.{track}.{verb}")
        section = getattr(module, "SECTION", verb)
        function = getattr(module, verb)
        assert function.__module__ == module.__name__
        first, *others = inspect.signature(function).parameters.values()
        names = {parameter.name for parameter in others}
        for record in params.tracks[track].values():
            assert get_type_hints(function)[first.name] is type(getattr(record, section))
            assert set(record.shared(verb)) <= names
        assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in others)
        assert "sink" in names
        assert [parameter.annotation for parameter in others].count(Output) == 1


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    for folder in ("cgn", "flows", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not FORBIDDEN & set(Path(path.relative_to(ROOT)).with_suffix("").parts), path
