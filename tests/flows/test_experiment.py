"""Runs with parameters of their own: what they change, where they work, what they leave."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.clean import clean_cache, clean_experiments
from flows.experiment import MARK, Workspace, changed, remove, workspace
from tests.flows.conftest import ROOT, Project, make_project

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # DVC's pygtrie
SIZE = "mnist.digits.train_cgn.batch_size"


def make_varied(folder: Path) -> Project:
    """A project with this one's params.yaml, whose stages of a variant are shell commands."""
    plain = make_project(folder)
    project = replace(plain, environment=plain.environment | {"RAN": str(folder / "ran.txt")})
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "variants.yaml").replace(folder / "dvc.yaml")
    (folder / "code.txt").write_text("0\n", encoding="utf-8")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "varied")
    return project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = make_varied(tmp_path / "project")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


@contextmanager
def experiment(
    project: Project, *, variants: tuple[str, ...] = (), key: str = SIZE, value: int = 16
) -> Iterator[Workspace]:
    """A workspace with another batch size, unless another key is given."""
    with workspace(project.folder, overrides={key: value}, variants=variants, log=print) as place:
        yield place


def repro(place: Workspace, project: Project) -> None:
    replace(project, folder=place.folder).run("dvc", "repro")


def ran(project: Project) -> list[str]:
    """The lines that the stages wrote since the last call."""
    file = project.folder / "ran.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    project.forget()
    return lines


ALL = ["fetch digits", "train digits", "report digits"]
TREE: dict[str, Any] = {
    "active": {"mnist": ["digits"], "imagenet": ["small"]},
    "mnist": {"digits": {"seed": 0, "train": {"rate": 1}}, "colored": {}},
    "imagenet": {"small": {}, "colored": {}},
}


def test_variants_are_active_and_overrides_are_set() -> None:
    tree = {track: dict(names) for track, names in TREE.items()}
    assert changed(tree, overrides={"mnist.digits.train.new.rate": 2}, variants=["mnist/colored", "digits"]) == [
        "mnist/colored",
        "mnist/digits",
    ]
    assert tree["active"] == {"mnist": ["colored", "digits"], "imagenet": []}
    assert tree["mnist"]["digits"]["train"] == {"rate": 1, "new": {"rate": 2}}


@pytest.mark.parametrize(
    ("overrides", "variants", "said"),
    [
        ({}, ["digit"], "variants: there is no 'digit'; known: mnist/digits, mnist/colored, imagenet/small"),
        ({}, ["colored"], "variants: several tracks have 'colored'; known: mnist/digits"),
        ({"mnst.digits.seed": 1}, [], "'mnst.digits.seed' is unknown, params.yaml has no 'mnst'; known: mnist, image"),
        ({"mnist.digit.seed": 1}, [], "'mnist.digit.seed' is unknown, mnist has no 'digit'; known: digits, colored"),
        ({"mnist.digits.seed.x": 1}, [], "'mnist.digits.seed.x' is unknown, mnist.digits.seed is 0, no section"),
        ({"seed": 1}, [], "'seed' is no dotted key, for example mnist.digits"),
    ],
)
def test_a_name_that_is_not_there_is_refused_with_those_that_are(
    overrides: dict[str, Any], variants: list[str], said: str
) -> None:
    with pytest.raises(ValueError, match=r"overrides|variants") as caught:
        changed({name: dict(value) for name, value in TREE.items()}, overrides=overrides, variants=variants)
    assert said in str(caught.value)


def test_a_run_without_changes_works_in_the_checkout(tmp_path: Path) -> None:
    with workspace(tmp_path, overrides={}, variants=[], log=print) as place:
        assert place.folder == tmp_path
        assert not place.environment
        place.save([], message="", pipeline="")


def test_what_the_library_refuses_leaves_no_workspace(project: Project) -> None:
    key = "mnist.digits.train_classifier.epoch"
    with pytest.raises(ValueError, match=rf"overrides: {key} .*epochs"), experiment(project, key=key):
        pass
    with pytest.raises(ValueError, match=r"overrides: active.mnist is 16: expected a list"):
        experiment(project, key="active.mnist").__enter__()
    assert project.run("git", "worktree", "list").count("\n") == 1


@pytest.mark.long
def test_an_experiment_shares_the_cache_and_leaves_the_checkout_alone(project: Project) -> None:
    project.run("dvc", "repro")
    assert ran(project) == ALL
    fetched = (project.folder / "runs/mnist/digits/fetch/file").read_text(encoding="utf-8")
    with (project.folder / "params.yaml").open("a", encoding="utf-8") as file:
        file.write("# an edit that is not committed\n")
    before = project.run("git", "status", "--short")
    with experiment(project) as place:
        assert (place.folder / "runs/mnist/digits/fetch/file").read_text(encoding="utf-8") == fetched
        (project.folder / "params.yaml").write_text("broken: [", encoding="utf-8")  # meanwhile, in the checkout
        repro(place, project)
        params = (place.folder / "runs/mnist/digits/train/params.yaml").read_text(encoding="utf-8")
        place.save([], message="batches of 16", pipeline="none")
    assert "batch_size: 16" in params
    assert "# an edit that is not committed" in params
    assert ran(project) == ALL[1:]
    assert not place.folder.exists()
    assert project.run("git", "worktree", "list").count("\n") == 1
    project.run("git", "checkout", "-q", "params.yaml")
    assert before.split() == ["M", "params.yaml", "??", "dvc.lock"]
    assert project.run("git", "status", "--short").split() == ["??", "dvc.lock"]
    assert place.name in project.run("dvc", "exp", "show", "--csv")
    project.run("dvc", "exp", "apply", place.name)
    assert "batch_size: 16" in (project.folder / "runs/mnist/digits/train/params.yaml").read_text(encoding="utf-8")
    assert not ran(project)


@pytest.mark.long
def test_a_run_that_failed_goes_on_in_its_workspace_and_another_has_its_own(project: Project) -> None:
    fail = project.folder / "ran.txt.fail"
    fail.write_text("1", encoding="utf-8")
    with experiment(project) as first, pytest.raises(AssertionError, match="exited with 1"):
        repro(first, project)
    assert ran(project) == ALL
    fail.unlink()
    with experiment(project) as again:
        assert again == first
        repro(again, project)
    assert ran(project) == ALL[2:]
    with experiment(project, key="mnist.digits.seed", value=1) as other:
        assert other.folder != first.folder
    (project.folder / "code.txt").write_text("0.1\n", encoding="utf-8")
    with experiment(project) as edited:
        assert edited.folder not in (first.folder, other.folder)


@pytest.mark.long
def test_a_part_of_the_stages_is_saved_too(project: Project) -> None:
    with experiment(project) as place:
        replace(project, folder=place.folder).run("dvc", "repro", "mnist_fetch@digits")
        with pytest.raises(RuntimeError, match=r"dvc exp save in .*output '.*' does not exist"):
            place.save([], message="all", pipeline="none")
        place.save(["mnist_fetch@digits"], message="a part", pipeline="none")
    assert place.name in project.run("dvc", "exp", "list", "--name-only")


@pytest.mark.long
def test_half_a_workspace_is_made_anew(project: Project) -> None:
    with experiment(project) as place:
        pass
    (place.folder / MARK).unlink()
    shutil.rmtree(place.folder / "flows", ignore_errors=True)
    with experiment(project, variants=("wildlife",)) as other, experiment(project) as again:
        assert again.folder == place.folder
        repro(again, project)
        repro(other, project)
    assert [line for line in ran(project) if line.startswith("report")] == ["report digits", "report wildlife"]


def test_without_git_a_run_says_what_it_needs(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="overrides and variants need a git repository with a commit"),
        workspace(tmp_path, overrides={"a.b": 1}, variants=[], log=print),
    ):
        pass


def test_a_workspace_that_is_being_made_is_not_taken_for_whole(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the checkout has a configuration of its own: without the cache's place all would be made anew."""
    project.run("dvc", "config", "--local", "core.site_cache_dir", str(project.folder / "site"))
    seen = []
    monkeypatch.setattr("flows.experiment._restore_kept", lambda folder, **_: seen.append((folder / MARK).exists()))
    with experiment(project) as place:
        assert (place.folder / MARK).is_file()
        local = (place.folder / ".dvc/config.local").read_text(encoding="utf-8")
        assert "site_cache_dir" in local
        assert f"dir = {project.folder / '.dvc/cache'}" in local
    assert seen == [False]


def test_removing_a_workspace_forgets_no_other_worktree(project: Project, tmp_path: Path) -> None:
    """One on a disk that is not mounted now is still known when it is back."""
    away = tmp_path / "away"
    project.run("git", "worktree", "add", "--quiet", "--detach", str(away))
    with experiment(project) as place:
        away.rename(tmp_path / "unmounted")
        remove(project.folder, place.folder)
        remove(project.folder, place.folder)
    assert not place.folder.exists()
    left = project.run("git", "worktree", "list")
    assert str(away) in left
    assert place.name not in left


def test_cleaning_keeps_what_an_unfinished_experiment_has_made(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its dvc.lock is in its workspace alone, its outputs are in the checkout's cache."""
    with experiment(project) as place:
        repro(place, project)
    assert place.folder.is_dir()
    cache = project.folder / ".dvc/cache/files/md5"
    objects = {path for path in cache.rglob("*") if path.is_file()}
    (cache / "00").mkdir()
    (cache / "00" / ("0" * 30)).write_text("of nothing", encoding="utf-8")
    monkeypatch.chdir(project.folder)
    assert clean_cache(remove=True)
    said = capsys.readouterr().out
    assert ": 1 objects that no workspace" in said
    assert {path for path in cache.rglob("*") if path.is_file()} == objects


def test_an_unfinished_experiment_is_listed_and_removed_only_if_that_is_asked_for(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    def cleaned(*, unfinished: bool) -> str:
        clean_experiments(project.folder, remove=True, unfinished=unfinished)
        return capsys.readouterr().out

    with experiment(project) as place:
        assert f"{place.folder}: an experiment at work" in cleaned(unfinished=True)
    half = place.folder.with_name("cgn-12345678")
    half.mkdir()
    said = cleaned(unfinished=False)
    assert said.count("removed") == said.count("kept") == 1
    assert "an experiment that did not end; the same run continues it" in said
    assert (half.exists(), place.folder.is_dir()) == (False, True)
    assert cleaned(unfinished=True).startswith("removed")
    assert not place.folder.exists()
    assert place.name not in project.run("git", "worktree", "list")
    assert not cleaned(unfinished=True)
