"""The stage graph that DVC tells."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from flows.graph import Stage, read, wanted
from tests.flows.conftest import ROOT, Project

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # DVC's pygtrie


@pytest.fixture
def stages(project: Project, monkeypatch: pytest.MonkeyPatch) -> dict[str, Stage]:
    monkeypatch.chdir(project.folder)
    return read()


def test_stages_follow_what_they_need(stages: dict[str, Stage]) -> None:
    assert list(stages) == ["mnist_data", "mnist_side@left", "mnist_side@right", "mnist_join"]
    assert stages["mnist_join"].needs == ("mnist_side@left", "mnist_side@right")
    assert stages["mnist_data"].needs == ()


def test_paths_and_commands_are_expanded(stages: dict[str, Stage]) -> None:
    left = stages["mnist_side@left"]
    assert left.cmd == "python toy.py side --in runs/data --out runs/side/left"
    assert left.deps == (Path("toy.py"), Path("runs/data"))
    assert left.outs == (Path("runs/side/left"),)
    assert left.metrics == (Path("runs/side/left.log/metrics.json"),)
    assert left.plots == (Path("runs/side/left.log/curves.csv"),)


def test_wanted_brings_what_is_needed(stages: dict[str, Stage]) -> None:
    assert list(wanted(stages, targets=["*@left"])) == ["mnist_data", "mnist_side@left"]
    assert list(wanted(stages, targets=["mnist_*"])) == list(stages)


def test_a_pattern_without_a_stage_is_refused(stages: dict[str, Stage]) -> None:
    with pytest.raises(ValueError, match=r"no stage matches 'imagenet_\*'; stages: mnist_data, "):
        wanted(stages, targets=["imagenet_*"])


def test_every_deployment_finds_stages_of_its_track() -> None:
    """`cgn-full` all of them, the others those of one track; names as dvc.yaml builds them."""
    deployments = yaml.safe_load((ROOT / "pipelines.yaml").read_text(encoding="utf-8"))["deployments"]
    targets = {deployment["name"]: deployment["parameters"]["targets"] for deployment in deployments}
    nothing: tuple[Path, ...] = ()
    names = ("mnist_report@digits", "imagenet_report@miniature", "imagenet_train_classifier@miniature-baseline")
    stages = {
        name: Stage(name=name, cmd="", needs=(), deps=nothing, outs=nothing, metrics=nothing, plots=nothing)
        for name in names
    }
    found = {name: list(wanted(stages, targets=patterns)) for name, patterns in targets.items()}
    assert found == {"cgn-full": list(names), "cgn-mnist": [names[0]], "cgn-imagenet": list(names[1:])}


@pytest.fixture
def surveyed(project: Project) -> Path:
    """A project whose one real stage is the survey of mini's folders, on which a prepare depends that only counts."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    survey = stages["imagenet_survey"]["outs"]
    prepare = {
        "matrix": stages["imagenet_survey"]["matrix"],
        "cmd": "echo ${item.variant} >> ran.txt; mkdir -p runs/made; touch runs/made/${item.variant}",
        "deps": survey,
        "outs": ["runs/made/${item.variant}"],
    }
    declared = {"stages": {"imagenet_survey": stages["imagenet_survey"], "imagenet_prepare": prepare}}
    (project.folder / "dvc.yaml").write_text(yaml.safe_dump(declared), encoding="utf-8")
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    tree["active"]["imagenet"] = ["mini", "miniature"]
    tree["imagenet"]["mini"]["prepare"]["folders"] |= {name: f"photographs/{name}" for name in ("train", "val")}
    (project.folder / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    for name in ("train", "val"):
        for number in range(3):
            picture = project.folder / "photographs" / name / "n01440764" / f"{number}.JPEG"
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.write_bytes(b"x")
    return project.folder / "photographs"


def test_dvc_prepares_again_when_the_users_folders_change_and_only_then(project: Project, surveyed: Path) -> None:
    picture = surveyed / "val" / "n01440764" / "0.JPEG"
    project.run("dvc", "repro")
    assert sorted(project.ran()) == ["mini", "miniature"]
    project.forget()
    picture.touch()
    project.run("dvc", "repro")
    assert project.ran() == []
    changes: dict[str, Callable[[], object]] = {
        "removed": picture.unlink,
        "added": lambda: picture.with_name("new.JPEG").write_bytes(b"x"),
        "of another size": lambda: picture.with_name("1.JPEG").write_bytes(b"xy"),
    }
    for what, change in changes.items():
        change()
        project.run("dvc", "repro")
        assert project.ran() == ["mini"], what
        project.forget()


def test_dvc_stops_at_a_folder_that_does_not_do(project: Project, surveyed: Path) -> None:
    (surveyed / "val").rename(surveyed / "away")
    said = project.run("dvc", "repro", status=255)
    assert "error: imagenet.mini.prepare.folders.val is 'photographs/val': there is no folder" in said
    assert "mini" not in project.ran()
