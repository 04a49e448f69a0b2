"""dvc.yaml says what is true: code deps are import closures, paths in commands are deps and outs, params the verb's."""

import shlex
from pathlib import Path

import pytest
import yaml

from flows.graph import Stage, read
from tests.architecture.closure import ROOT, cells, closure, expanded, listed

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # DVC's pygtrie

SHARED = {
    ("mnist", "fetch"): ["prepare.digits", "prepare.look", "train_cgn.losses.perceptual.features"],
    ("imagenet", "fetch"): ["train_cgn.nets", "train_classifier.pretrained"],
}
SEEDLESS = {"fetch"}
SURVEY = "imagenet_survey"
"""The one stage that is no verb: it has no code to depend on, as it runs each time."""


@pytest.fixture(scope="module")
def every() -> dict[str, Stage]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return read()


@pytest.fixture
def stages(every: dict[str, Stage]) -> dict[str, Stage]:
    """Those of verbs."""
    return {name: stage for name, stage in every.items() if not name.startswith(f"{SURVEY}@")}


@pytest.fixture(scope="module")
def every_declared() -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return found


@pytest.fixture
def declared(every_declared: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    return {name: stage for name, stage in every_declared.items() if name != SURVEY}


def test_every_cell_is_a_stage(declared: dict[str, dict[str, object]]) -> None:
    assert {_cell(str(stage["cmd"])) for stage in declared.values()} == set(cells())


def test_a_stage_is_called_by_its_track_and_verb_and_then_by_what_sets_it_apart(
    declared: dict[str, dict[str, object]],
) -> None:
    for name, stage in declared.items():
        track, verb = _cell(str(stage["cmd"]))
        assert f"{name}_".startswith(f"{track}_{verb}_"), name
        assert f"{track}_{verb}" in declared, name


def test_code_deps_are_the_import_closure_of_the_cell(stages: dict[str, Stage]) -> None:
    for stage in stages.values():
        track, verb = _cell(stage.cmd)
        code = {dep for dep in stage.deps if dep.parts[0] != "runs"}
        files = closure(f"cgn.tracks.{track}.{verb}")
        assert expanded(code) == files, (
            f"{stage.name}: missing {sorted(files - expanded(code))}, too many {sorted(expanded(code) - files)}; "
            f"paste the output of: python -m tests.architecture.closure {track} {verb}"
        )


def test_the_closure_sees_what_it_should() -> None:
    """A comparison that cannot fail says nothing."""
    train = closure("cgn.tracks.mnist.train_cgn")
    assert Path("cgn/losses/adversarial.py") in train
    assert Path("cgn/stages/train_cgn.py") in train
    assert Path("cgn/__main__.py") not in train
    generate = closure("cgn.tracks.mnist.generate")
    assert Path("cgn/nets/convgen.py") in generate
    assert not {path for path in generate if path.parts[1] in ("losses", "training", "classifiers")}
    assert expanded(set(listed(train))) == train


def test_paths_of_a_command_are_its_deps_and_outs(stages: dict[str, Stage]) -> None:
    for stage in stages.values():
        words = shlex.split(stage.cmd)
        assert words[:3] == ["python", "-m", "flows.stage"]
        data = [dep for dep in stage.deps if dep.parts[0] == "runs"]
        paths = [Path(word) for word in words if word.startswith("runs/")]
        assert sorted(paths) == sorted([*data, *stage.outs]), stage.name
        (out,) = stage.outs
        beside = {*stage.metrics, *stage.plots}
        assert {path.parent for path in beside} <= {out.with_name(out.name + ".log")}, stage.name


def test_a_stage_reads_its_own_parameters(declared: dict[str, dict[str, object]]) -> None:
    for name, stage in declared.items():
        track, verb = _cell(str(stage["cmd"]))
        keys = [verb, *SHARED.get((track, verb), ())] + ([] if verb in SEEDLESS else ["seed"])
        expected = {f"{track}.${{item.variant}}.{key}" for key in keys}
        assert set(stage["params"]) == expected, name  # type: ignore[call-overload]


def test_one_stage_makes_what_another_reads(every: dict[str, Stage]) -> None:
    made = {out for stage in every.values() for out in stage.outs}
    read_paths = {dep for stage in every.values() for dep in stage.deps if dep.parts[0] == "runs"}
    assert read_paths <= made


def test_the_users_folders_are_surveyed_each_time_and_prepare_depends_on_it(
    every: dict[str, Stage], every_declared: dict[str, dict[str, object]]
) -> None:
    assert every_declared[SURVEY]["always_changed"] is True
    surveys = {name: stage for name, stage in every.items() if name.startswith(f"{SURVEY}@")}
    assert surveys
    for name, stage in surveys.items():
        variant = name.partition("@")[2]
        assert stage.outs == (Path("runs/imagenet") / variant / "survey",)
        assert stage.cmd.split()[1:4] == ["-m", "cgn.tracks.imagenet.survey", f"imagenet/{variant}"]
        assert stage.outs[0] in every[f"imagenet_prepare@{variant}"].deps


def _cell(command: str) -> tuple[str, str]:
    words = command.split()
    return words[4].partition("/")[0], words[3]
