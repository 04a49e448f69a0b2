"""The stage graph that DVC tells."""

from pathlib import Path

import pytest

from flows.graph import Stage, read, wanted
from tests.flows.conftest import Project

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
