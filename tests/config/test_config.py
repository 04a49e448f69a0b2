"""params.yaml: what is wrong is named by its dotted key, with what would be right."""

import json
import re
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides  # type: ignore[import-untyped]
from dvc.utils.serialize import parse_yaml  # type: ignore[import-untyped]
from ruamel.yaml import YAML

from cgn.config.imagenet import ImageNet
from cgn.config.load import load
from cgn.core.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    return loaded


def written(tmp_path: Path, tree: object) -> Path:
    path = tmp_path / "params.yaml"
    with path.open("w") as file:
        YAML(typ="safe").dump(tree, file)
    return path


def assert_rejected(tmp_path: Path, tree: object, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        load(written(tmp_path, tree))


def test_the_projects_own_params_load() -> None:
    """Whatever variants a user has added, and whichever are active."""
    params = load(ROOT / "params.yaml")
    assert set(params.tracks["mnist"]) >= {"digits", "colored", "double_colored", "wildlife"}
    assert set(params.tracks["imagenet"]) >= {"miniature", "mini", "full"}
    assert params.active.keys() == params.tracks.keys()


def test_variants_that_a_user_adds_and_activates_load(tmp_path: Path, tree: dict[str, Any]) -> None:
    tree["mnist"]["digits-2_b"] = tree["mnist"]["digits"] | {"seed": 7}
    tree["active"] = {"mnist": ["digits-2_b", "colored"], "imagenet": ["full"]}
    params = load(written(tmp_path, tree))
    assert params.variant("mnist/digits-2_b").seed == 7
    assert params.active == {"mnist": ("digits-2_b", "colored"), "imagenet": ("full",)}


@pytest.mark.parametrize("active", [{"mnist": ["colored"]}, {"imagenet": ["mini"]}, {}])
def test_a_track_that_active_lacks_builds_nothing(
    tmp_path: Path, tree: dict[str, Any], active: dict[str, list[str]]
) -> None:
    params = load(written(tmp_path, tree | {"active": active}))
    assert params.active == {"mnist": (), "imagenet": ()} | {track: tuple(names) for track, names in active.items()}


def test_an_unknown_key_is_named_with_the_known_ones(tmp_path: Path, tree: dict[str, Any]) -> None:
    tree["mnist"]["digits"]["train_cgn"]["batch_sise"] = 3
    assert_rejected(
        tmp_path,
        tree,
        r"mnist\.digits\.train_cgn\.batch_sise is unknown \(did you mean batch_size\?\); known: .*updates",
    )


def named_by_dvc() -> list[tuple[str, list[str]]]:
    """Track and key of every parameter that a stage of dvc.yaml names."""
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"].values()
    names = {name for stage in stages for name in stage["params"]}
    return sorted((name.split(".")[0], name.partition("${item.variant}.")[2].split(".")) for name in names)


@pytest.mark.parametrize(("track", "key"), named_by_dvc())
def test_what_dvc_yaml_names_must_be_in_the_file(
    tmp_path: Path, tree: dict[str, Any], track: str, key: list[str]
) -> None:
    """DVC refuses to start where params.yaml lacks a key that a stage names: this says which, before DVC does."""
    variant = {"mnist": "digits", "imagenet": "miniature"}[track]
    *above, last = key
    block = tree[track][variant]
    for name in above:
        block = block[name]
    del block[last]
    dotted = re.escape(".".join([track, variant, *key]))
    parent = re.escape(".".join([track, variant, *above]))
    assert_rejected(tmp_path, tree, rf"^{dotted} is missing(; a block may be {{}})?; {parent} needs: .*{last}")


def test_a_missing_key_of_a_block_without_defaults_is_named(tmp_path: Path, tree: dict[str, Any]) -> None:
    del tree["mnist"]["digits"]["prepare"]["jitter"]["scale"]
    assert_rejected(tmp_path, tree, r"mnist\.digits\.prepare\.jitter\.scale is missing; .* needs: .*scale")


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("batch_size", "16", r"train_cgn\.batch_size is '16' \(str\): expected a whole number"),
        ("batch_size", True, r"train_cgn\.batch_size is True \(bool\): expected a whole number"),
        ("batch_size", 16.0, r"train_cgn\.batch_size is 16\.0 \(float\): expected a whole number"),
        ("updates", 0, r"train_cgn\.updates is 0, allowed: 1 or more"),
        ("ema_decay", "half", r"train_cgn\.ema_decay is 'half' \(str\): expected a number"),
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
        r"active\.mnist names 'digit', an unknown variant; known: .*digits",
    )
    assert_rejected(tmp_path, tree | {"active": {"mnist": "digits"}}, r"active\.mnist is 'digits': expected a list")


def test_an_unknown_target_lists_the_known_ones() -> None:
    params = load(ROOT / "params.yaml")
    for target in ("mnist/digit", "mnist", "imagenot/x", ""):
        with pytest.raises(ConfigError, match=r"known: .*mnist/digits.*, imagenet/miniature"):
            params.variant(target)


@pytest.mark.parametrize("value", [None, []])
def test_a_block_without_keys_says_how_it_is_written(tmp_path: Path, tree: dict[str, Any], value: object) -> None:
    tree["mnist"]["digits"]["fetch"] = value
    assert_rejected(tmp_path, tree, r"mnist\.digits\.fetch is .*: expected \{\}, as it has no keys")
    tree["mnist"]["digits"]["fetch"] = {"mirror": 1}
    assert_rejected(tmp_path, tree, r"mnist\.digits\.fetch\.mirror is unknown; known: none")


def test_a_missing_mapping_says_what_it_holds(tmp_path: Path, tree: dict[str, Any]) -> None:
    assert_rejected(tmp_path, tree | {"active": None}, r"active is .*: expected active: \{track: \[variant, \.\.\.\]\}")
    assert_rejected(tmp_path, tree | {"mnist": []}, r"mnist is .*: expected mnist: \{variant: \{verb: ")


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory"):
        load(tmp_path)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml is missing"):
        load(tmp_path / "absent.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1,\nb: 2")
    with pytest.raises(ConfigError, match=r"broken\.yaml is not YAML"):
        load(tmp_path / "broken.yaml")


def test_sizes_that_a_net_cannot_take_are_refused(tmp_path: Path, tree: dict[str, Any]) -> None:
    tree["mnist"]["digits"]["train_cgn"]["discriminator"] = {"conv": 32}
    assert_rejected(
        tmp_path, tree, r"mnist\.digits\.prepare\.image_size is 16, allowed: 32 or more with .* a conv discriminator"
    )
    tree["mnist"]["digits"]["train_cgn"]["discriminator"] = {"conv": 0}
    tree["mnist"]["wildlife"]["prepare"]["image_size"] = 160
    assert_rejected(tmp_path, tree, r"mnist\.wildlife\.prepare\.image_size is 160, allowed: up to 156 for wildlife")


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


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (float("inf"), r"losses\.binary is inf \(float\): expected a number"),
        (float("nan"), r"losses\.binary is nan \(float\): expected a number"),
        (False, r"losses\.binary is False \(bool\): expected a number"),
        (10**400, r"losses\.binary is 10+\.\.\. \(int\): expected a number up to 2\*\*53"),
        (-0.1, r"losses\.binary is -0\.1, allowed: 0 or more"),
    ],
)
def test_a_number_that_is_none_is_refused(tmp_path: Path, tree: dict[str, Any], value: object, match: str) -> None:
    tree["mnist"]["digits"]["train_cgn"]["losses"]["binary"] = value
    assert_rejected(tmp_path, tree, match)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (-1, "seed is -1, allowed: 0 or more"),
        (True, r"seed is True \(bool\): expected a whole number"),
        (0.0, r"seed is 0\.0 \(float\): expected a whole number"),
        (None, r"seed is None \(NoneType\): expected a whole number"),
        (2**64, r"seed is 18446744073709551616 \(int\): expected a whole number up to 2\*\*53"),
    ],
)
@pytest.mark.parametrize("variant", ["mnist.digits", "imagenet.miniature"])
def test_a_seed_is_a_whole_number_from_0(
    tmp_path: Path, tree: dict[str, Any], variant: str, value: object, match: str
) -> None:
    track, name = variant.split(".")
    tree[track][name]["seed"] = value
    assert_rejected(tmp_path, tree, rf"{track}\.{name}\.{match}")


def test_a_number_too_long_to_write_out_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text().replace("updates: 1800", f"updates: 0x1{'0' * 5000}"))
    with pytest.raises(ConfigError, match=r"updates is 0x10+\.\.\. \(int\): expected a whole number up to 2\*\*53"):
        load(path)


def test_a_negative_weight_within_a_list_is_refused(tmp_path: Path, tree: dict[str, Any]) -> None:
    tree["mnist"]["digits"]["train_cgn"]["losses"]["perceptual"]["weights"] = [0.1, -0.1, 0.0, 0.0]
    assert_rejected(tmp_path, tree, r"perceptual\.weights\[1\] is -0\.1, allowed: 0 or more")


@pytest.mark.parametrize(
    ("text", "value"),
    [("5e-05", 5e-5), ("8e-6", 8e-6), ("1E-3", 1e-3), ("1e0", 1.0), (".5", 0.5), ("5.0e-5", 5e-5), ("007", 7.0)],
)
def test_numbers_are_read_as_dvc_reads_and_writes_them(tmp_path: Path, text: str, value: float) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(re.sub("background: 4.*", f"background: {text}", (ROOT / "params.yaml").read_text()))
    record = load(path).variant("imagenet/miniature")
    assert isinstance(record, ImageNet)
    assert record.train_cgn.rates.background == value
    assert parse_yaml(path.read_text(), path)["imagenet"]["miniature"]["train_cgn"]["rates"]["background"] == value


@pytest.mark.parametrize("text", ["1:30", "yes", "0x", "'5e-5'", "1e400"])
def test_what_is_no_number_in_yaml_1_2_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(re.sub("background: 4.*", f"background: {text}", (ROOT / "params.yaml").read_text()))
    with pytest.raises(ConfigError, match=r"miniature\.train_cgn\.rates\.background is .*: expected a number"):
        load(path)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("mnist: {}\nmnist: {}\n", "line 2: found duplicate key"),
        ("seed: 2026-13-45\n", "month must be in 1..12"),
        ("\tseed: 1\n", "line 1: found character"),
    ],
)
def test_a_broken_file_is_explained_in_one_line(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"params\.yaml is not YAML: {match}") as caught:
        load(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)
    assert "http" not in str(caught.value)


NAMES = [
    *(
        "x$(touch PWN)",
        "x`touch PWN`",
        "x;touch PWN",
        "x touch",
        "x'y",
        'x"y',
        "x\ny",
        "x&y",
        "x>y",
        "x*",
        "~x",
        "x{y}",
    ),
    *("digits_v1.5", "../x", "x/y", "x@y", "x,y", "x:y", "-x", "1x", "é", ""),
]


@pytest.mark.parametrize("name", [*NAMES, 1, 1.5, True, None])
def test_a_variant_name_that_is_no_identifier_is_refused_with_the_rule(
    tmp_path: Path, tree: dict[str, Any], name: object
) -> None:
    """In every place: names become paths, DVC's keys, and shell commands."""
    rule = (
        rf"has the variant {re.escape(repr(name))}.*: a variant's name is text: a letter, then letters, digits, _ and -"
    )
    variant = tree["mnist"]["digits"]
    assert_rejected(tmp_path, tree | {"mnist": tree["mnist"] | {name: variant}}, rf"mnist {rule}")
    assert_rejected(tmp_path, tree | {"active": {"mnist": ["digits", name]}}, rf"active\.mnist {rule}")


OVERRIDES = [
    "mnist.digits.train_cgn.losses.mismatched=0.987",
    "mnist.digits.seed=987",
    "++mnist.digits.train_cgn.updates=987",
    "mnist.colored_cpu.train_cgn.updates=987",
    "imagenet.miniature.train_cgn.rates.shape=9.87e-5",
    "imagenet.mini.prepare.folders.train=/data/imagenet/train",
    "imagenet.miniature.evaluate.corruption_images=987",
    "active.mnist=[colored,double_colored,wildlife]",
]


@pytest.mark.parametrize("override", OVERRIDES)
def test_an_experiment_changes_one_line_of_params_yaml(tmp_path: Path, override: str) -> None:
    """By the function with which `dvc exp run -S` writes the file."""
    path = tmp_path / "params.yaml"
    path.write_text(shipped((ROOT / "params.yaml").read_text()))
    before = path.read_text().splitlines()
    apply_overrides(path, [override])
    after = path.read_text().splitlines()
    assert len(after) == len(before), (
        "params.yaml is not in DVC's layout: lists in block style or in a block of {}, no line above 80 columns"
    )
    (changed,) = [new for old, new in zip(before, after, strict=True) if old != new]
    assert override.partition("=")[0].rpartition(".")[2] in changed
    load(path)


NEW = [
    ("mnist.digits.train_cgn.losses.binary", 0.987),
    ("mnist.colored.train_cgn.losses.border.weight", 0.987),
    ("mnist.wildlife.generate.factual_images", 987),
    ("imagenet.full.train_cgn.losses.mask_size.weight", 0.987),
    ("imagenet.miniature.prepare.world.per_pair", 987),
    ("imagenet.miniature.train_cgn.truncation", 0.98),
    ("mnist.digits.train_classifier.learning_rate", 5e-05),
]


@pytest.mark.parametrize(("key", "value"), NEW)
def test_an_experiment_adds_a_key_that_the_file_lacks_and_changes_no_other_line(
    tmp_path: Path, key: str, value: float
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(shipped((ROOT / "params.yaml").read_text()))
    before = path.read_text().splitlines()
    apply_overrides(path, [f"++{key}={value}"])
    after = path.read_text().splitlines()
    blocks = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    ((_, first, end, _, _),) = [block for block in blocks if block[0] != "equal"]
    assert end - first <= 3, "at most the lines of the block"
    track, variant, *names = key.split(".")
    found: Any = load(path).variant(f"{track}/{variant}")
    for name in names:
        found = getattr(found, name)
    assert found == value


def test_a_run_on_the_cpu_has_the_values_that_its_results_belong_to() -> None:
    """The runs behind the README's table; their numbers are in results/mnist."""
    params = load(ROOT / "params.yaml")
    for variant, values in json.loads((Path(__file__).parent / "cpu_runs.json").read_text()).items():
        assert json.loads(params.variant(f"mnist/{variant}").model_dump_json()) == values


def shipped(text: str) -> str:
    """params.yaml without the variants that a user has added, and with the first ones active."""
    cpu = {f"{look}_cpu" for look in ("colored", "double_colored", "wildlife")}
    known = {"digits", "colored", "double_colored", "wildlife", *cpu, "miniature", "mini", "full"}
    kept, section, variant = [], "", ""
    for line in text.splitlines(keepends=True):
        if found := re.match(r"(\w+):(.*)", line):
            section, variant = found[1], ""
            kept.append("active: {mnist: [digits], imagenet: [miniature]}\n" if section == "active" else line)
        elif section != "active" or not line.strip():
            variant = named[1] if (named := re.match(r"  ([\w-]+):", line)) else variant
            kept += [line] if variant in {*known, ""} else []
    return "".join(kept)


def test_what_a_user_added_does_not_matter_to_the_layout_test() -> None:
    text = (ROOT / "params.yaml").read_text()
    assert shipped(text.replace("active: {", "active: {mnist: [mine], ")) == shipped(text)
    assert shipped(text.replace("  colored:\n", "  mine:\n    seed: {1: [2]}\n  colored:\n")) == shipped(text)
    assert shipped(re.sub("active: .*", "active:\n  mnist:\n  - mine", text)) == shipped(text)


@pytest.mark.parametrize("track", ["mnist", "imagenet"])
def test_a_variant_that_is_named_twice_is_refused(tmp_path: Path, tree: dict[str, Any], track: str) -> None:
    name = next(iter(tree[track]))
    tree["active"] = {track: [name, name]}
    assert_rejected(tmp_path, tree, rf"active\.{track} is .*, allowed: each variant once, and '{name}' is there twice")
