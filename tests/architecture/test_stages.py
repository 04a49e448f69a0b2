"""dvc.yaml says what is true: code deps are import closures, paths in commands are deps and outs, params the verb's."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ruamel.yaml import YAML

from cgn.config.load import NAME_RULE
from flows import names
from flows.graph import Stage, read_graph
from tests.architecture.closure import ALWAYS, EXPENSIVE, ROOT, cells, closure, code, listed, modules_of, rewritten

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
        return read_graph()


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
    assert {_cell(_command(stage["cmd"])) for stage in declared.values()} == set(cells()) - {
        ("imagenet", "evaluate_network")
    }  # for files that a user names


def test_a_stage_is_called_by_its_track_and_verb_and_then_by_what_sets_it_apart(
    declared: dict[str, dict[str, object]],
) -> None:
    for name, stage in declared.items():
        track, verb = _cell(_command(stage["cmd"]))
        assert f"{name}_".startswith(f"{track}_{verb}_"), name
        assert f"{track}_{verb}" in declared, name


def test_code_deps_are_the_import_closure_of_the_cell(stages: dict[str, Stage]) -> None:
    for stage in stages.values():
        track, verb = _cell(_command(stage.cmd.split(" && ")))
        present = {dep for dep in stage.deps if dep.parts[0] != "runs"}
        wanted = set(code(track, verb))
        assert present == wanted, (
            f"{stage.name}: missing {sorted(wanted - present)}, too many {sorted(present - wanted)}; "
            "run: python -m tests.architecture.closure --write"
        )


def test_a_list_covers_what_a_stage_reaches() -> None:
    for track, verb in cells():
        paths = code(track, verb)
        folders = {path for path in paths if (ROOT / path).is_dir()}
        covered = {file for folder in folders for file in modules_of(folder)} | data_of(folders) | set(paths)
        assert closure(f"cgn.{track}.{verb}") <= covered, f"{track} {verb}"


def test_a_stage_reruns_for_nothing_that_it_does_not_reach(stages: dict[str, Stage]) -> None:
    """But for `cgn/core`, and, where a run takes no hours, for up to half of a package."""
    for stage in stages.values():
        track, verb = _cell(_command(stage.cmd.split(" && ")))
        files = closure(f"cgn.{track}.{verb}")
        for path in stage.deps:
            if path.parts[0] == "runs" or path == ALWAYS:
                continue
            modules = _with_content(path)
            if verb in EXPENSIVE:
                assert modules <= files, f"{stage.name} would run again for {sorted(modules - files)}"
            else:
                assert 2 * len(modules & files) >= len(modules), f"{stage.name} reaches little of {path}"


def data_of(folders: set[Path]) -> set[Path]:
    """The files below folders that are no Python."""
    return {file.relative_to(ROOT) for folder in folders for file in (ROOT / folder).rglob("*") if file.suffix != ".py"}


def _with_content(path: Path) -> set[Path]:
    """The modules that a listed path stands for, without empty files."""
    files = modules_of(path) if (ROOT / path).is_dir() else {path}
    return {file for file in files if (ROOT / file).read_text(encoding="utf-8").strip()}


def test_what_takes_hours_does_not_run_again_for_what_is_none_of_its_business(stages: dict[str, Stage]) -> None:
    """Shards need no losses, a training needs no download and no evaluation, an evaluation no report."""
    for stage in stages.values():
        track, verb = _cell(_command(stage.cmd.split(" && ")))
        files = closure(f"cgn.{track}.{verb}")
        parts = {file.parts[1] for file in files}
        names = {"/".join(file.parts[1:]) for file in files}
        other = {"mnist": "imagenet", "imagenet": "mnist"}[track]
        assert not parts & {other, "__main__.py", "__init__.py"}, stage.name
        assert f"config/{other}.py" not in names
        if verb in EXPENSIVE:
            assert not parts & {"download", "evaluation", "report", "corruptions"}, stage.name
        if not verb.startswith("train"):
            assert not parts & {"losses.py", "training.py", "optimization.py"}, stage.name
            assert "nets/discriminators.py" not in names
        if verb in {"fetch", "prepare"}:
            assert not parts & {"nets", "evaluation", "report", "rendering.py"}, stage.name
        assert "report" not in parts or verb == "report", stage.name


def test_the_closure_sees_what_it_should() -> None:
    """A comparison that cannot fail says nothing."""
    train = closure("cgn.mnist.train_cgn")
    assert Path("cgn/losses.py") in train
    assert Path("cgn/training.py") in train
    assert Path("cgn/__main__.py") not in train
    generate = closure("cgn.mnist.generate")
    assert Path("cgn/mnist/generator.py") in generate
    assert not {path for path in generate if path.parts[1] in ("losses.py", "training.py", "optimization.py")}
    assert Path("cgn/rendering.py") in generate
    assert Path("cgn/corruptions/__init__.py") in closure("cgn.imagenet.evaluate")
    assert Path("cgn/evaluation/expected.json") in closure("cgn.mnist.report")
    assert Path("cgn/core") in code("mnist", "train_cgn")
    assert Path("cgn/evaluation") in code("imagenet", "evaluate")
    assert Path("cgn/download") in code("mnist", "fetch")


def test_a_package_is_listed_whole_where_enough_of_it_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a package of three modules and one that is listed by file."""
    modules = {Path("cgn/paint") / f"{name}.py" for name in "abc"}
    others = [Path("cgn/losses.py"), Path("cgn/nets/a.py")]
    monkeypatch.setattr("tests.architecture.closure.modules_of", lambda _: modules)
    one, two, three = sorted(modules)
    assert listed({one}, verb="report") == [one]
    assert listed({one, three}, verb="report") == [Path("cgn/paint")]
    assert listed({one, three}, verb="generate") == [one, three]
    assert listed(modules, verb="generate") == [Path("cgn/paint")]
    assert listed({two, *others}, verb="report") == [*others, two]


def test_the_code_lists_are_written_into_dvc_yaml_and_nothing_else_changes() -> None:
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    assert rewritten(text) == text
    ours = next(line for line in text.splitlines(keepends=True) if "cgn/training.py" in line)
    assert ours.startswith("      cgn/")
    head, tail = text.split(ours, 1)
    theirs = "      cgn/no_longer.py, cgn/theirs.py,\n"
    assert rewritten(head + tail) == text
    assert rewritten(head + ours + theirs + tail) == text
    conflict = f"<<<<<<< HEAD\n{ours}||||||| base\n=======\n{theirs}>>>>>>> theirs\n"
    assert rewritten(head + conflict + tail) == text
    other = "stages:\n  look:\n    cmd: ls\n"
    assert rewritten(other) == other
    with pytest.raises(ValueError, match="mnist_fetch needs `deps: "):
        rewritten("stages:\n  mnist_fetch:\n    cmd: python -m flows.stage fetch mnist/x\n")


def test_paths_of_a_command_are_its_deps_and_outs(stages: dict[str, Stage]) -> None:
    for stage in stages.values():
        words = shlex.split(_command(stage.cmd.split(" && ")))
        assert words[:3] == ["python", "-m", "flows.stage"]
        data = [dep for dep in stage.deps if dep.parts[0] == "runs"]
        paths = [Path(word) for word in words if word.startswith("runs/")]
        assert sorted(paths) == sorted([*data, *stage.outs]), stage.name
        (out,) = stage.outs
        beside = {*stage.metrics, *stage.plots}
        assert {path.parent for path in beside} <= {out.with_name(out.name + ".log")}, stage.name


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    """dvc.yaml with the variants that `shown` names."""
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    for track, variant in yaml.safe_load(text)["vars"][0]["shown"].items():
        text = text.replace(f"${{shown.{track}}}", variant)
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_plots_are_drawn_from_outputs_by_templates_that_exist(shown: dict[str, Any], every: dict[str, Stage]) -> None:
    made = {path for stage in every.values() for path in (*stage.outs, *stage.plots)}
    for plot in shown["plots"]:
        for of in plot.values() if isinstance(plot, dict) else [{"y": [plot]}]:
            for path in map(Path, of["y"]):
                assert made & {path, *path.parents}, f"{path} is no output, so other revisions would not have it"
            assert isinstance(plot, str) or (ROOT / f".dvc/plots/{of['template']}.json").is_file()


def test_artifacts_are_outputs_with_names_that_dvc_takes(shown: dict[str, Any], every: dict[str, Stage]) -> None:
    made = {out for stage in every.values() for out in stage.outs}
    for name, artifact in shown["artifacts"].items():
        assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9-/_]*[a-zA-Z0-9]", name), "gto.constants.name"
        assert Path(artifact["path"]) in made
        assert artifact["type"] in {"model", "dataset"}
        assert artifact["desc"]
        assert artifact["labels"]


def test_a_stage_reads_its_own_parameters(declared: dict[str, dict[str, object]]) -> None:
    for name, stage in declared.items():
        track, verb = _cell(_command(stage["cmd"]))
        keys = [verb, *SHARED.get((track, verb), ())] + ([] if verb in SEEDLESS else ["seed"])
        expected = {f"{track}.${{item.variant}}.{key}" for key in keys}
        assert set(stage["params"]) == expected, name  # type: ignore[call-overload]


def test_one_stage_makes_what_another_reads(every: dict[str, Stage]) -> None:
    made = {out for stage in every.values() for out in stage.outs}
    read_paths = {dep for stage in every.values() for dep in stage.deps if dep.parts[0] == "runs"}
    assert read_paths <= made


def test_every_stage_refuses_a_name_for_the_shell_first(every_declared: dict[str, dict[str, object]]) -> None:
    for name, stage in every_declared.items():
        commands = stage["cmd"]
        assert isinstance(commands, list), name
        assert commands[0] == f"python -m {names.__name__}", name
        assert "${" not in commands[0]


PLAIN = ["mnist_fetch@digits", "mnist_train_classifier@digits-2_b-gan", "report", "../dvc.yaml:mnist_fetch@x1"]


@pytest.mark.parametrize("stage", PLAIN)
def test_plain_names_pass(stage: str) -> None:
    assert names.main(stage) == 0


@pytest.mark.parametrize("name", ["x@y", "x dvc.yaml:y", "../x", "1x", "-x", "", "x\n", "é", "x.5"])
def test_other_names_are_refused_with_the_rule(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert names.main(f"mnist_fetch@{name}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"has the variant {name!r}: {NAME_RULE}" in line


HOSTILE = [
    *("x$(touch PWN)", "x`touch PWN`", "x;touch PWN", "x touch PWN", "x'$(touch PWN)'", 'x"$(touch PWN)"'),
    *("x\ntouch PWN\n", "x|touch PWN", "x&touch PWN", "x>PWN", "x #", "$(touch PWN)"),
]


@pytest.mark.long
def test_no_variants_name_reaches_a_shell(tmp_path: Path) -> None:
    """By a real `dvc repro` of this dvc.yaml, each variant a stage of its own, none kept from running by another."""
    tree = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    tree["mnist"] = dict.fromkeys(HOSTILE, tree["mnist"]["digits"])
    tree["active"] = {"mnist": HOSTILE, "imagenet": []}
    with (tmp_path / "params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(tree, file)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n", encoding="utf-8")
    for name in ("cgn", "flows"):
        (tmp_path / name).symlink_to(ROOT / name)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "--keep-going", "--single-item", "mnist_fetch"],
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert not [found for found in tmp_path.rglob("*PWN*") if found.name == "PWN"], output
    for name in HOSTILE:
        assert f"has the variant {name!r}: {NAME_RULE}" in output


def _command(commands: object) -> str:
    """Of a stage's commands, the one that says what it does."""
    assert isinstance(commands, list)
    return str(commands[-1])


def test_the_users_folders_are_surveyed_each_time_and_prepare_depends_on_it(
    every: dict[str, Stage], every_declared: dict[str, dict[str, object]]
) -> None:
    assert every_declared[SURVEY]["always_changed"] is True
    surveys = {name: stage for name, stage in every.items() if name.startswith(f"{SURVEY}@")}
    assert surveys
    for name, stage in surveys.items():
        variant = name.partition("@")[2]
        assert stage.outs == (Path("runs/imagenet") / variant / "survey",)
        words = _command(stage.cmd.split(" && ")).split()
        assert words[:2] == ['CGN_ROOT="$DVC_ROOT"', "python"], "relative folders start at the user's checkout"
        assert words[2:6] == ["-m", "cgn", "survey", f"imagenet/{variant}"]
        assert stage.outs[0] in every[f"imagenet_prepare@{variant}"].deps


def _cell(command: str) -> tuple[str, str]:
    words = command.split()
    return words[4].partition("/")[0], words[3]
