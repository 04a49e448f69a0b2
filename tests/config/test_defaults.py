"""The models' defaults are the paper's values; what differs is computed, and shown with where it comes from."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from cgn.__main__ import main
from cgn.config.imagenet import ImageNet, TrainCgn
from cgn.config.load import TRACKS, load
from cgn.config.mnist import PUBLISHED, Mnist
from cgn.core.errors import ConfigError
from cgn.core.parameters import Departure, departures, settings
from cgn.core.validation import stored
from tests.support.configs import mnist, replace

ROOT = Path(__file__).parents[2]
PARAMS = load(ROOT / "params.yaml")


def fields(kind: Any) -> Iterator[tuple[str, Any]]:
    """Every leaf field below a model, by class and name."""
    for name, field in kind.model_fields.items():
        below = [kind for kind in (field.annotation, *get_args(field.annotation)) if is_model(kind)]
        for each in below:
            yield from fields(each)
        if not below or field.json_schema_extra:
            yield f"{kind.__module__}.{kind.__name__}.{name}", field


def is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


OWN = {"mnist": set(), "imagenet": {"Folders.train", "Folders.val", "Interpolation.mechanism"}}
"""Fields that a user must state and nothing is published for."""


@pytest.mark.parametrize("track", TRACKS)
def test_every_field_says_where_its_default_comes_from(track: str) -> None:
    silent = {name for name, field in fields(TRACKS[track]) if not field.json_schema_extra}
    assert {".".join(name.split(".")[-2:]) for name in silent} == OWN[track]


@pytest.mark.parametrize("look", PUBLISHED)
def test_the_papers_variants_depart_from_nothing(look: str) -> None:
    assert departures(PARAMS.variant(f"mnist/{look}")) == []


def test_each_look_has_its_own_published_values() -> None:
    colored, wildlife = mnist("colored"), mnist("wildlife")
    assert colored.train_cgn.losses.perceptual.weights == (0.05, 0.1, 0.01, 0.0)
    assert (colored.train_cgn.mechanisms.gain, wildlife.train_cgn.mechanisms.gain) == (0.1, 0.03)
    assert (wildlife.train_cgn.discriminator.linear, wildlife.train_cgn.discriminator.conv) == (0, 32)
    stated = mnist("wildlife", train_cgn={"mechanisms": {"gain": 0.5}, "losses": {"perceptual": {"features": "none"}}})
    assert stated.train_cgn.mechanisms.gain == 0.5
    assert stated.train_cgn.mechanisms.initialization == "normal"
    assert stated.train_cgn.losses.perceptual.weights == (0.0, 0.0, 0.0, 0.0)


def test_a_departure_is_a_value_that_is_not_the_published_one() -> None:
    record = mnist("wildlife", train_cgn={"updates": 900, "mechanisms": {"gain": 0.5}, "intervals": {"log": 7}})
    assert departures(record) == [
        Departure("train_cgn.mechanisms.gain", 0.5, 0.03, "", "paper: published code"),
        Departure("train_cgn.updates", 900, 46_875, "updates", "paper: published code"),
    ]


def test_departures_are_those_of_a_record_read_from_plain_values() -> None:
    for target in ("mnist/digits", "mnist/colored_cpu"):
        record = PARAMS.variant(target)
        again = Mnist.model_validate_json(record.model_dump_json())
        assert again == record
        assert departures(again) == departures(record) != []
    train = TrainCgn.model_validate({"nets": "miniature", "losses": {"texture": [0, 5, 5, 0], "l1": 1}})
    assert [(each.key, each.value, each.published) for each in departures(train)] == [
        ("nets", "miniature", "published"),
        ("losses.l1", 1.0, 100.0),
    ]


def test_departures_are_found_in_the_parameters_that_a_run_has_stored() -> None:
    """By verb, some of them missing, with what fetch reads of others."""
    record = mnist("wildlife", train_cgn={"updates": 900, "mechanisms": {"gain": 0.5}})
    plain = json.loads(record.model_dump_json())
    params = {verb: plain[verb] for verb in ("prepare", "train_cgn")} | {"fetch": record.shared("fetch")}
    assert departures(stored(Mnist, params)) == departures(record) != []
    del params["prepare"]
    assert [each.key for each in departures(stored(Mnist, params))] == ["train_cgn.updates"], "the look is not known"
    with pytest.raises(ConfigError, match=r"^train_cgn\.updates is 'x' \(str\): expected a whole number"):
        stored(Mnist, {"train_cgn": plain["train_cgn"] | {"updates": "x"}})


def test_an_extension_departs_once_it_is_used() -> None:
    assert {(each.key, each.published) for each in departures(mnist("colored", train_cgn={"ema_decay": 0.9}))} == {
        ("train_cgn.ema_decay", 0.0)
    }
    jitter = {"copies": 2, "rotation_degrees": 1, "scale": 0, "shift": 0}
    (found,) = departures(mnist("colored", prepare={"jitter": jitter}))
    assert (found.key, found.value, found.published) == ("prepare.jitter.copies", 2, None)


def test_settings_are_all_leaves_in_the_order_of_the_fields() -> None:
    for target in ("mnist/digits", "imagenet/full"):
        record = PARAMS.variant(target)
        keys = [setting.key for setting in settings(record)]
        assert keys == list(flat(record.model_dump()))


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {}
        found |= {} if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def test_a_record_is_frozen_and_changed_only_through_validation() -> None:
    record = PARAMS.variant("mnist/digits").train_cgn
    with pytest.raises(ValidationError, match="frozen"):
        record.updates = 3
    assert replace(record, updates=3).updates == 3
    with pytest.raises(ValueError, match="updates"):
        replace(record, updates=0)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[list[str]]:
    """What `params` prints, in columns."""
    assert main(["params", *words, "--params", str(ROOT / "params.yaml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    return [line.split(maxsplit=2) for line in lines if line]


def test_params_prints_every_value_with_its_unit_and_origin(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "mnist/digits")
    assert [line[0] for line in lines] == [setting.key for setting in settings(PARAMS.variant("mnist/digits"))]
    by_key = {line[0]: line[1:] for line in lines}
    assert by_key["seed"] == ["0", "params.yaml"]
    assert [part.split() for part in by_key["prepare.image_size"]] == [
        ["16"],
        ["pixels", "params.yaml", "(paper:", "32)"],
    ]
    assert by_key["train_classifier.learning_rate"] == ["1.0", "paper: published code"]
    assert by_key["train_cgn.losses.energy"] == ["0.0", "not in the paper"]
    assert by_key["evaluate.batch_size"][1].split() == ["images", "default"]
    assert by_key["prepare.jitter.scale"] == ["0.1", "params.yaml"]


def test_departures_are_what_params_prints_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    for target in ("mnist/digits", "imagenet/mini"):
        expected = [departure.key for departure in departures(PARAMS.variant(target))]
        assert [line[0] for line in printed(capsys, target, "--departures")] == expected
    assert printed(capsys, "mnist/wildlife", "--departures") == [["nothing", "departs"]]


def test_params_of_an_unknown_variant_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["params", "mnist/digit", "--params", str(ROOT / "params.yaml")]) == 2
    assert "unknown variant 'mnist/digit'; known: mnist/digits" in capsys.readouterr().err


def test_an_imagenet_variant_of_published_nets_has_the_papers_defaults() -> None:
    blocks: dict[str, Any] = {verb: {} for verb in ("fetch", "generate", "evaluate", "gate", "report")}
    record = ImageNet.model_validate(
        blocks
        | {"seed": 0, "prepare": {"folders": {"train": "a", "val": "b"}}, "train_cgn": {"nets": "published"}}
        | {"train_classifier": {"pretrained": "resnet50-0676ba61"}}
    )
    assert departures(record) == []
    assert (record.train_cgn.batch_size, record.train_cgn.batches_per_update) == (1, 4000)
