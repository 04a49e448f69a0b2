"""The pretraining's pipeline: a DVC project of its own, which the project's pipeline never sees."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cgn.core.checkpoints import load_model
from flows.graph import read_graph
from tests.architecture.closure import ROOT
from tests.architecture.pretraining import PIPELINE, rewritten
from tests.support.trainings import PRETRAINING

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # DVC's pygtrie
HERE = PIPELINE.parent


def test_every_stage_depends_on_the_code_that_it_can_reach() -> None:
    text = PIPELINE.read_text(encoding="utf-8")
    assert text == rewritten(text), "run `python -m tests.architecture.pretraining --write`"


@pytest.mark.long
def test_the_pipeline_runs_and_leaves_the_projects_own_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first stage with tiny parameters in a copy of the project, before and after a change of code."""
    copy = tmp_path / "project"
    shutil.copytree(ROOT / "cgn", copy / "cgn", ignore=shutil.ignore_patterns("__pycache__"))
    here = copy / HERE.relative_to(ROOT)
    shutil.copytree(HERE, here, ignore=shutil.ignore_patterns("tmp", "cache", "dvc.lock"))
    for folder in (copy, here):
        (folder / ".dvc").mkdir(exist_ok=True)
        (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n", encoding="utf-8")
    (copy / "dvc.yaml").write_text(
        "stages:\n  own:\n    cmd: cp cgn/miniature/world/scenes.py scenes\n"
        "    deps: [cgn/miniature]\n    outs: [scenes]\n",
        encoding="utf-8",
    )
    values = yaml.safe_load((here / "params.yaml").read_text(encoding="utf-8"))
    for name, tiny in PRETRAINING.items():
        values[name] |= tiny
    (here / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(copy))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    assert "own" in dvc(copy, "repro")
    assert not (copy / "runs").exists()
    assert dvc(here, "stage", "list", "--name-only").split() == ["features", "segmenter", "biggan", "report"]
    dvc(here, "repro", "features")
    _, facts = load_model(copy / "runs" / "pretraining" / "features.safetensors")
    assert facts["made_by"].endswith("features, seed 0, 4 updates")
    assert "didn't change, skipping" in dvc(here, "repro", "features")
    assert "up to date" in dvc(copy, "status")

    with (copy / "cgn" / "miniature" / "pretraining" / "features.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert "features.py" in dvc(here, "status", "features")
    assert "own" in dvc(copy, "status"), "it depends on the folder"
    shutil.rmtree(copy / "runs" / "pretraining")
    assert "report.json" not in dvc(copy, "metrics", "show")
    monkeypatch.chdir(copy)
    assert list(read_graph()) == ["own"]


def dvc(folder: Path, *words: str) -> str:
    """What DVC prints."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words], cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
