"""params.yaml: what is wrong is named by its dotted key, with what would be right."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cgn.config.load import load
from cgn.core.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree() -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    return made


def assert_rejected(tmp_path: Path, tree: object, match: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match=match):
        load(path)


def test_the_projects_own_params_load() -> None:
    params = load(ROOT / "params.yaml")
    assert set(params.tracks["mnist"]) == {"digits", "colored", "double_colored", "wildlife"}
    assert params.active["mnist"] == ("digits",)


def test_an_unknown_key_is_named_with_the_known_ones(tmp_path: Path, tree: dict[str, Any]) -> None:
    tree["mnist"]["digits"]["train_cgn"]["batch_sise"] = 3
    assert_rejected(
        tmp_path,
        tree,
        r"mnist\.digits\.train_cgn\.batch_sise is unknown \(did you mean batch_size\?\); known: .*updates",
    )


def test_a_missing_key_is_named(tmp_path: Path, tree: dict[str, Any]) -> None:
    del tree["mnist"]["digits"]["train_cgn"]["optimizer"]["beta1"]
    assert_rejected(tmp_path, tree, r"mnist\.digits\.train_cgn\.optimizer\.beta1 is missing; .* needs: .*beta1")


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("batch_size", "16", r"train_cgn\.batch_size is '16' \(str\): expected a whole number"),
        ("batch_size", True, r"train_cgn\.batch_size is True \(bool\): expected a whole number"),
        ("batch_size", 16.0, r"train_cgn\.batch_size is 16\.0 \(float\): expected a whole number"),
        ("updates", 0, r"train_cgn\.updates is 0, allowed: 1 or more"),
        ("ema_decay", "8e-6", r"write 8\.0e-6"),
        ("precision", "fp16", r"train_cgn\.precision is 'fp16' \(str\), allowed: 32-true, bf16-mixed"),
        ("losses", None, r"train_cgn\.losses is None \(NoneType\): expected the keys adversarial"),
    ],
)
def test_a_mistyped_value_is_named(tmp_path: Path, tree: dict[str, Any], key: str, value: object, match: str) -> None:
    tree["mnist"]["digits"]["train_cgn"][key] = value
    assert_rejected(tmp_path, tree, match)


def test_a_list_of_another_length_is_named(tmp_path: Path, tree: dict[str, Any]) -> None:
    tree["mnist"]["digits"]["train_cgn"]["losses"]["perceptual"]["weights"] = [0.1, 0.2]
    assert_rejected(tmp_path, tree, r"perceptual\.weights has 2 entries: expected 4")


def test_an_unknown_track_or_active_variant_is_named(tmp_path: Path, tree: dict[str, Any]) -> None:
    assert_rejected(tmp_path, tree | {"mnits": {}}, r"mnits is an unknown track .* known: mnist")
    assert_rejected(
        tmp_path,
        tree | {"active": {"mnist": ["digit"]}},
        r"active\.mnist names 'digit', an unknown variant; known: colored, digits",
    )
    assert_rejected(tmp_path, tree | {"active": {"mnist": "digits"}}, r"active\.mnist is 'digits': expected a list")


def test_an_unknown_target_lists_the_known_ones() -> None:
    params = load(ROOT / "params.yaml")
    for target in ("mnist/digit", "mnist", "imagenot/x", ""):
        with pytest.raises(ConfigError, match=r"known: mnist/digits, mnist/colored"):
            params.variant(target)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml is missing"):
        load(tmp_path / "absent.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1,\nb: 2")
    with pytest.raises(ConfigError, match=r"broken\.yaml is not YAML"):
        load(tmp_path / "broken.yaml")


def test_sizes_that_a_net_cannot_take_are_refused(tmp_path: Path, tree: dict[str, Any]) -> None:
    tree["mnist"]["digits"]["train_cgn"]["discriminator"]["conv"] = 32
    assert_rejected(
        tmp_path, tree, r"mnist\.digits\.prepare\.image_size is 16, allowed: 32 or more with .* a conv discriminator"
    )
    tree["mnist"]["digits"]["train_cgn"]["discriminator"]["conv"] = 0
    tree["mnist"]["wildlife"]["prepare"]["image_size"] = 160
    assert_rejected(tmp_path, tree, r"mnist\.wildlife\.prepare\.image_size is 160, allowed: up to 156 for wildlife")


def test_a_number_that_is_none_is_refused(tmp_path: Path, tree: dict[str, Any]) -> None:
    tree["mnist"]["digits"]["train_cgn"]["losses"]["binary"] = float("inf")
    assert_rejected(tmp_path, tree, r"losses\.binary is inf \(float\): expected a number")


@pytest.mark.parametrize(
    ("field", "values", "twice"),
    [
        ("evaluate.corruptions", ["fog", "snow", "fog"], "'fog'"),
        ("evaluate.suites", ["clean", "clean"], "'clean'"),
        ("fetch.extras", ["frost", "imagenet9", "frost"], "'frost'"),
        ("generate.classes", [3, 4, 3], "3"),
        ("generate.parts", ["mask", "mask"], "'mask'"),
        (
            "generate.interpolations",
            [{"mechanism": "all", "first": 0, "last": 1, "frames": frames} for frames in (5, 9)],
            r"\('all', 0, 1\)",
        ),
    ],
)
def test_an_entry_that_is_listed_twice_is_refused(
    tmp_path: Path, tree: dict[str, Any], field: str, values: list[object], twice: str
) -> None:
    verb, _, name = field.partition(".")
    tree["imagenet"]["mini"][verb][name] = values
    assert_rejected(
        tmp_path,
        tree,
        rf"imagenet\.mini\.{verb}\.{name} is .*, allowed: each entry once, and {twice} is there more often",
    )
