"""cgn-full as people run it: with parameters of its own, other variants, from a chosen stage, one after another."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.flows.conftest import until
from tests.flows.platform import Platform, started
from tests.flows.test_experiment import ALL, make_varied, ran

SIZE = '{"mnist.digits.train_cgn.batch_size": 16, "mnist.digits.seed": 1}'
STAGES = ("mnist_fetch@digits", "mnist_train@digits", "mnist_report@digits")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with started(make_varied(tmp_path_factory.mktemp("full") / "project")) as platform:
        yield platform


def summary(platform: Platform, run: str) -> str:
    """A run's summary artifact."""
    wanted = {"flow_run_id": {"any_": [run]}, "key": {"any_": ["summary"]}}
    found = platform.post("artifacts/filter", {"artifacts": wanted})
    return str(found[0]["data"])


@pytest.mark.long
def test_runs_wait_for_their_turn_and_find_what_they_share(platform: Platform) -> None:
    project = platform.project
    (project.folder / "code.txt").write_text("3\n", encoding="utf-8")
    first, second = (platform.start("cgn-full") for _ in range(2))
    until(lambda: "AwaitingConcurrencySlot" in (platform.state(first), platform.state(second)), what="one that waits")
    assert platform.ended(first) == platform.ended(second) == "Completed"
    assert ran(project) == ALL
    states = [platform.tasks(run) for run in (first, second)]
    assert dict.fromkeys(STAGES, "Cached") in states
    assert dict.fromkeys(STAGES, "Completed") in states
    assert platform.name(first) == "cgn-full · digits seed 0"


@pytest.mark.long
def test_overrides_run_as_an_experiment_as_typed(platform: Platform) -> None:
    project = platform.project
    before = project.run("git", "status", "--short")
    run = platform.typed("cgn-full", "-p", f"overrides={SIZE}")
    assert platform.name(run).startswith("cgn-full")  # also while it waits
    assert platform.ended(run) == "Completed", platform.log(run)
    assert platform.tasks(run) == dict.fromkeys(STAGES, "Completed") | {"mnist_fetch@digits": "Cached"}
    assert ran(project) == ALL[1:]
    assert platform.name(run) == "cgn-full · digits seed 1 · 2 changed"
    assert project.run("git", "status", "--short") == before
    (name,) = {word for word in project.run("dvc", "exp", "list", "--name-only").split() if word.startswith("cgn-")}
    assert f"dvc exp apply {name}" in summary(platform, run)
    assert not list((project.folder / ".dvc/tmp/exps").glob("cgn-*"))


@pytest.mark.long
def test_variants_and_a_first_stage_are_chosen(platform: Platform) -> None:
    project = platform.project
    run = platform.typed("cgn-full", "-p", 'variants=["wildlife"]')
    assert platform.ended(run) == "Completed", platform.log(run)
    assert set(platform.tasks(run)) == {name.replace("digits", "wildlife") for name in STAGES}
    assert platform.name(run) == "cgn-full · wildlife seed 0"
    ran(project)
    run = platform.typed("cgn-full", "-p", "from_stage=mnist_train*")
    assert platform.ended(run) == "Completed", platform.log(run)
    assert platform.tasks(run) == dict.fromkeys(STAGES, "Completed") | {"mnist_fetch@digits": "Cached"}
    assert platform.name(run) == "cgn-full · digits seed 0 · from mnist_train*"
    assert ran(project) == ALL[1:]


@pytest.mark.long
@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"variants": ["digit"]}, "there is no 'digit'; known: mnist/digits"),
        ({"overrides": {"mnist.digit.seed": 1}}, "mnist has no 'digit'; known: digits, colored"),
        ({"overrides": {"mnist.digits.sed": 1}}, "mnist.digits.sed "),
        ({"from_stage": "train_cgn"}, "no stage matches 'train_cgn'; stages: mnist_fetch@digits"),
    ],
)
def test_a_name_that_is_refused_runs_nothing_and_says_what_is_allowed(
    platform: Platform, parameters: dict[str, Any], said: str
) -> None:
    ran(platform.project)
    run = platform.start("cgn-full", **parameters)
    assert platform.ended(run) == "Failed"
    assert said in platform.run(run)["state"]["message"]
    assert not ran(platform.project)


@pytest.mark.long
@pytest.mark.parametrize(("status", "tries"), [(2, 1), (75, 2), (1, 1)])
def test_only_what_passes_is_tried_again(platform: Platform, status: int, tries: int) -> None:
    project = platform.project
    fail = project.folder / "ran.txt.fail"
    fail.write_text(str(status), encoding="utf-8")
    ran(project)
    run = platform.start("cgn-full", from_stage="mnist_report*", retries=1)
    assert platform.ended(run) == "Failed"
    assert ran(project) == ALL[2:] * tries
    assert "mnist_report@digits | Failed" in summary(platform, run)
    fail.unlink()


@pytest.mark.long
def test_a_run_whose_worker_and_process_are_gone_is_marked_and_the_next_one_starts(platform: Platform) -> None:
    """By its missing heartbeats, because its worker is dead too: after the two minutes that a run may be silent."""
    project = platform.project
    (project.folder / "code.txt").write_text("60\n", encoding="utf-8")
    run = platform.start("cgn-full")
    until(lambda: "train digits" in ran(project), what="a slow stage")
    for process in (platform.worker.pid, *platform.engines()):
        os.kill(process, signal.SIGKILL)
    assert platform.ended(run, seconds=240) == "Crashed"
    assert "no heartbeat for 120 seconds" in platform.run(run)["state"]["message"]
    (project.folder / "code.txt").write_text("0\n", encoding="utf-8")
    with project.running("prefect", "worker", "start", "--pool", "cgn", "--type", "process"):
        assert platform.ended(platform.start("cgn-full")) == "Completed"
