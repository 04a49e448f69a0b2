"""The stage graph that DVC tells."""

from pathlib import Path

import pytest
import yaml

from flows.graph import Stage, all_needs, read, ready, share, wanted
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
