"""The names that others build on: the verbs, what a stage and a cell offer, the front door."""

import importlib
import inspect
from pathlib import Path
from typing import get_type_hints

import cgn.__main__ as front_door
from cgn.config.load import load
from cgn.core.arguments import Output
from tests.architecture.closure import ROOT, cells

FORBIDDEN = {"utils", "util", "helpers", "helper", "common", "misc"}


ONE_TRACK = {("imagenet", "evaluate_network")}
"""Verbs that make no sense in the other track: MNIST's suites know no published network."""


def test_every_verb_has_a_cell_in_every_track() -> None:
    tracks = {track for track, _ in cells()}
    shared = set(front_door.VERBS) - {verb for _, verb in ONE_TRACK}
    assert set(cells()) == {(track, verb) for track in tracks for verb in shared} | ONE_TRACK


def test_a_verb_is_a_function_of_every_track_or_one_stage_of_all() -> None:
    """In every track alike: rows and columns stay visible, and no stage is left that nobody runs."""
    tracks = {track for track, _ in cells()}
    stages = {path.stem for path in (ROOT / "cgn/stages").glob("*.py")} - {"__init__"}
    own = {(track, verb) for track, verb in cells() if is_function(track, verb)}
    assert {verb for _, verb in own} == set(front_door.VERBS) - stages
    shared = set(front_door.VERBS) - stages - {verb for _, verb in ONE_TRACK}
    assert own == {(track, verb) for track in tracks for verb in shared} | ONE_TRACK


def is_function(track: str, verb: str) -> bool:
    cell = importlib.import_module(f"cgn.{track}.{verb}")
    function = getattr(cell, verb, None)
    assert (function is None) == hasattr(cell, "parts")
    return function is not None and function.__module__ == cell.__name__


def test_the_front_door_offers() -> None:
    assert list(inspect.signature(front_door.run).parameters) == ["argv", "sinks"]
    assert list(inspect.signature(front_door.parse).parameters) == ["argv"]


def test_a_stage_offers_its_verb_and_its_parts() -> None:
    for verb in {path.stem for path in (ROOT / "cgn/stages").glob("*.py")} - {"__init__"}:
        module = importlib.import_module(f"cgn.stages.{verb}")
        parameters = list(inspect.signature(getattr(module, verb)).parameters.values())
        assert parameters[0].name == "parts"
        assert parameters[0].annotation is module.Parts
        assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters[1:])
        assert "sink" in {parameter.name for parameter in parameters}


def test_a_cell_takes_what_the_front_door_gives() -> None:
    """Its parameters, with what a verb reads of others', and, where it is the verb itself, a sink and one output."""
    params = load(ROOT / "params.yaml")
    for track, verb in cells():
        cell = importlib.import_module(f"cgn.{track}.{verb}")
        own = is_function(track, verb)
        function = getattr(cell, verb if own else "parts")
        for name, record in params.tracks[track].items():
            given = {"seed": record.seed, "variant": name, **record.shared(verb)}
            parameters = getattr(record, getattr(cell, "SECTION", verb))
            bound = inspect.signature(function).bind_partial(parameters, **given)
            assert next(iter(bound.arguments.values())) is parameters
            if not own:
                inspect.signature(function).bind(parameters, **given)
        if own:
            first, *others = inspect.signature(function).parameters.values()
            assert get_type_hints(function)[first.name] is type(parameters)
            assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in others)
            assert {parameter.name for parameter in others} >= {"seed", "variant", "sink"}
            assert [parameter.annotation for parameter in others].count(Output) == 1


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    for folder in ("cgn", "flows", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not FORBIDDEN & set(Path(path.relative_to(ROOT)).with_suffix("").parts), path
