"""The stage graph, read from DVC."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cgn.core.metrics import Files
from cgn.mnist.evaluate import HEADLINES
from flows.graph import Stage, all_needs, read_graph, ready, share, wanted
from tests.flows.conftest import ROOT, Project

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # DVC's pygtrie


@pytest.fixture
def stages(project: Project, monkeypatch: pytest.MonkeyPatch) -> dict[str, Stage]:
    monkeypatch.chdir(project.folder)
    return read_graph()


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


def test_wanted_includes_what_is_needed(stages: dict[str, Stage]) -> None:
    assert list(wanted(stages, targets=["*@left"])) == ["mnist_data", "mnist_side@left"]
    assert list(wanted(stages, targets=["mnist_*"])) == list(stages)


def test_a_pattern_without_a_stage_is_refused(stages: dict[str, Stage]) -> None:
    with pytest.raises(ValueError, match=r"no stage matches 'imagenet_\*'; stages: mnist_data, "):
        wanted(stages, targets=["imagenet_*"])


def test_every_deployment_finds_stages_of_its_track() -> None:
    """`cgn-full` and `cgn-nightly` all of them, the others those of one track; names as dvc.yaml builds them."""
    deployments = yaml.safe_load((ROOT / "pipelines.yaml").read_text(encoding="utf-8"))["deployments"]
    targets = {one["name"]: one["parameters"]["targets"] for one in deployments if "targets" in one["parameters"]}
    nothing: tuple[Path, ...] = ()
    names = ("mnist_report@digits", "imagenet_report@miniature", "imagenet_train_classifier@miniature-baseline")
    stages = {
        name: Stage(name=name, cmd="", needs=(), deps=nothing, outs=nothing, metrics=nothing, plots=nothing)
        for name in names
    }
    found = {name: list(wanted(stages, targets=patterns)) for name, patterns in targets.items()}
    all_of_them = {"cgn-full": list(names), "cgn-nightly": list(names)}
    assert found == all_of_them | {"cgn-mnist": [names[0]], "cgn-imagenet": list(names[1:])}


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """This project's dvc.yaml in a folder without Git, and the logs of a training and an evaluation."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / ".dvc/plots", tmp_path / ".dvc/plots")
    config = (ROOT / ".dvc/config").read_text(encoding="utf-8")
    (tmp_path / ".dvc/config").write_text(config, encoding="utf-8")
    dvc(tmp_path, "config", "--local", "core.no_scm", "true")
    text = (tmp_path / "params.yaml").read_text(encoding="utf-8")
    head, tail = text[: text.index("active:")], text[text.index("\nmnist:") :]
    (tmp_path / "params.yaml").write_text(f"{head}active: {{mnist: [digits], imagenet: []}}\n{tail}", encoding="utf-8")
    training = Files(tmp_path / "runs/mnist/digits/train_cgn.log")
    for step in (10, 20):
        training.log({"loss/adversarial": 0.5 / step, "loss/binary": 7.0, "images_per_second": 99.0}, step=step)
    training.summary({"loss/adversarial": 0.025, "seconds": 12.0})
    measured = Files(tmp_path / "runs/mnist/digits/evaluate.log", headlines=HEADLINES)
    measured.summary({"accuracy/original/test_random": 0.123, "accuracy/gan/test_random": 0.1, "seconds": 3.0})
    return tmp_path


@pytest.mark.long
def test_a_checkout_without_git_says_what_to_do(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """And then works, by DVC and by the flow; the README has the same command."""
    shutil.rmtree(project.folder / ".git")
    monkeypatch.chdir(project.folder)
    with pytest.raises(RuntimeError, match=r"not a git repository: run `uv run dvc config --local core.no_scm true`"):
        read_graph()
    assert "uv run dvc config --local core.no_scm true" in (ROOT / "README.md").read_text(encoding="utf-8")
    project.run("dvc", "config", "--local", "core.no_scm", "true")
    assert list(read_graph()) == ["mnist_data", "mnist_side@left", "mnist_side@right", "mnist_join"]
    project.run("dvc", "repro", "mnist_data")
    assert project.ran() == ["runs/data"]
    assert "mnist_side@left" in project.run("dvc", "status")


def dvc(folder: Path, *words: str) -> str:
    """What DVC prints."""
    command = [sys.executable, "-m", "dvc", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_plots_draw_every_curve_and_need_no_network(trained: Path) -> None:
    dvc(trained, "plots", "show")
    page = (trained / "dvc_plots/index.html").read_text(encoding="utf-8")
    scripts = [script.partition("</script>")[0] for script in page.split("<script")[1:]]
    assert not [script for script in scripts if "src=" in script.partition(">")[0]]
    assert "window.vegaEmbed=" in scripts[0]
    (drawn,) = [script for script in scripts[1:] if "mnist/digits: losses of the generative network" in script]
    assert '"facet": {"field": "name"' in drawn
    for value in ('"loss/adversarial", "value": "0.05"', '"loss/binary", "value": "7.0"'):
        assert value in drawn


def test_metrics_are_short_and_do_not_say_how_fast(trained: Path) -> None:
    shown = dvc(trained, "metrics", "show", "--md")
    assert "| baseline" in shown
    assert "0.123" in shown
    for other in ("seconds", "loss", "gan"):
        assert other not in shown


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


def chain(**needs: str) -> dict[str, Stage]:
    """Stages by name, with what they need in words."""
    nothing: tuple[Path, ...] = ()
    return {
        name: Stage(
            name=name, cmd="", needs=tuple(words.split()), deps=nothing, outs=nothing, metrics=nothing, plots=nothing
        )
        for name, words in needs.items()
    }


def test_a_stage_is_ready_when_all_that_it_needs_is_done() -> None:
    stages = chain(data="", left="data", right="data", join="left right")
    assert [stage.name for stage in ready(stages, begun=set(), done=set())] == ["data"]
    assert [stage.name for stage in ready(stages, begun={"data", "left"}, done={"data"})] == ["right"]
    assert not ready(stages, begun={"data", "left", "right"}, done={"data", "left"})
    assert all_needs(stages, "join") == {"data", "left", "right"}


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
@pytest.mark.parametrize("cores", [1, 2, 7, 64])
def test_stages_that_work_side_by_side_share_the_cores(at_once: int, cores: int) -> None:
    stages = chain(data="", a="data", b="data", c="data", join="a b c", other="")
    begun, working, ended = dict[str, int](), list[str](), set[str]()
    while len(ended) < len(stages):
        for stage in ready(stages, begun=begun.keys(), done=ended)[: at_once - len(working)]:
            begun[stage.name] = share(stages, stage.name, ended=ended, cores=cores, at_once=at_once)
            working.append(stage.name)
        assert sum(begun[name] for name in working) <= max(cores, len(working))
        ended.add(working.pop())


def test_a_stage_that_nothing_can_work_beside_has_all_cores() -> None:
    line = chain(data="", train="data", report="train")
    assert [share(line, name, ended=set(), cores=8, at_once=2) for name in line] == [8, 8, 8]
    fork = chain(data="", a="data", b="data", join="a b")
    assert [share(fork, name, ended={"data"}, cores=8, at_once=4) for name in ("a", "b", "join")] == [4, 4, 8]
    assert share(fork, "b", ended={"data", "a"}, cores=8, at_once=4) == 8
