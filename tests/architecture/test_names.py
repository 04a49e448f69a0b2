"""The names that others build on: the verbs, what a stage and a cell offer, the front door."""

import importlib
import inspect
from pathlib import Path

import cgn.__main__ as front_door
from cgn.config.load import load
from tests.architecture.closure import ROOT, cells

FORBIDDEN = {"utils", "util", "helpers", "helper", "common", "misc"}


def test_every_verb_is_a_stage_and_a_cell_of_every_track() -> None:
    stages = {path.stem for path in (ROOT / "cgn/stages").glob("*.py")} - {"__init__"}
    assert set(front_door.VERBS) == stages
    tracks = {track for track, _ in cells()}
    assert set(cells()) == {(track, verb) for track in tracks for verb in front_door.VERBS}


def test_the_front_door_offers() -> None:
    assert list(inspect.signature(front_door.run).parameters) == ["argv", "sinks"]
    assert list(inspect.signature(front_door.parse).parameters) == ["argv"]


def test_a_stage_offers_its_verb_and_its_parts() -> None:
    for verb in front_door.VERBS:
        module = importlib.import_module(f"cgn.stages.{verb}")
        parameters = list(inspect.signature(getattr(module, verb)).parameters.values())
        assert parameters[0].name == "parts"
        assert parameters[0].annotation is module.Parts
        assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters[1:])
        assert "sink" in {parameter.name for parameter in parameters}


def test_a_cell_offers_parts() -> None:
    """As the front door calls it, with what a verb reads of others' parameters."""
    params = load(ROOT / "params.yaml")
    for track, verb in cells():
        cell = importlib.import_module(f"cgn.tracks.{track}.{verb}")
        for name, record in params.tracks[track].items():
            given = {"seed": record.seed, "variant": name, **record.shared(verb)}
            bound = inspect.signature(cell.parts).bind(getattr(record, verb), **given)
            assert next(iter(bound.arguments.values())) is getattr(record, verb)


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    for folder in ("cgn", "flows", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not FORBIDDEN & set(Path(path.relative_to(ROOT)).with_suffix("").parts), path
