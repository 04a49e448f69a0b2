"""What MLflow holds afterwards, and what is said where it does not take something. MLflow is real, stages are not."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from cgn.core.metrics import Fanout, Files
from flows.courier import Courier
from flows.database import create
from flows.journal import Journal, alone, count_stages
from flows.lineage import Pipeline, alive
from flows.store import HOME, PATIENCE, RefusedError, Store, refusal_status
from flows.tracking import drop, sync
from tests.flows.conftest import ROOT
from tests.flows.stored import files, history, runs

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own, of its database layer


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new SQLite store: making one takes seconds."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    assert runs(f"sqlite:///{file}") == {}
    return file


@pytest.fixture
def root(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with an empty store, which is the current folder."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in PATIENCE.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(empty_store, folder)
    monkeypatch.chdir(folder)
    return folder


def uri(root: Path) -> str:
    """The store of a checkout."""
    return f"sqlite:///{root}/mlflow.db"


def dead() -> str:
    """The name of a process that is gone."""
    with subprocess.Popen(["true"]) as process:
        return alive(process.pid) or f"{process.pid}-0"


def pipeline(key: str = "flow") -> Pipeline:
    """A pipeline that has ended."""
    return Pipeline(key=key, name=key, process=dead(), parameters={"targets": "mnist_*"})


def stage(root: Path, name: str = "train_cgn", **told: Any) -> Path:
    """The journal of a stage that has ended."""
    journal = begun(root, name, pipeline=told.get("pipeline") or pipeline())
    out = Path("runs/mnist/toy") / name
    sink = Fanout([Files(out.with_name(f"{name}.log")), journal])
    note = {"params": {"updates": 3}, "seed": 7, "git_revision": "abc+"}
    (out.with_name(f"{name}.log") / "run.json").write_text(json.dumps(note), encoding="utf-8")
    for step, values in enumerate(told.get("steps", ()), start=1):
        sink.log(values, step=step)
    if told.get("summary"):
        sink.summary(told["summary"])
    if status := told.get("status", "FINISHED"):
        journal.end(status)
    return journal.folder


def begun(root: Path, name: str, *, pipeline: Pipeline) -> Journal:
    """The journal of a stage that has begun."""
    journal = Journal(root, pipeline=pipeline)
    facts = {"name": f"mnist/toy/{name}", "verb": name, "track": "mnist", "variant": "toy", "inputs": {}}
    out = Path("runs/mnist/toy") / name
    journal.begin(facts, out=out, log=out.with_name(f"{name}.log"))
    return journal


def change(root: Path, statement: str) -> None:
    """Change the store behind MLflow's back."""
    with closing(sqlite3.connect(root / "mlflow.db")) as database, database:
        database.execute(statement)


# The store's file


@pytest.mark.parametrize("other", ["another checkout", "mlflow itself"])
def test_two_that_open_one_fresh_store_at_once_both_can(tmp_path: Path, other: str) -> None:
    place = f"sqlite:///{tmp_path}/shared/mlflow.db"
    (tmp_path / "shared").mkdir()
    wait = (
        "import sys, time\nfrom pathlib import Path\nimport mlflow, mlflow.store.tracking.sqlalchemy_store\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
    )
    ours = wait + "from flows.store import Store\nStore(root=Path(sys.argv[1]))\n"
    theirs = wait + f"mlflow.MlflowClient({place!r}).search_experiments()\n"
    scripts = [ours, ours if other == "another checkout" else theirs]
    environment = os.environ | {"MLFLOW_TRACKING_URI": place, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / f"checkout{number}")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, script in enumerate(scripts)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    said = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        said.append(process.communicate(timeout=120)[1])
    assert [process.returncode for process in processes] == [0, 0], said
    assert {path.name for path in (tmp_path / "shared").iterdir()} == {"mlflow.db", "mlflow.db.lock"}


def test_two_that_make_one_experiment_at_once_both_get_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a server there is no file to lock."""
    from mlflow import MlflowClient

    first = Store(root=root).experiment
    asked: list[str] = []
    real = MlflowClient.get_experiment_by_name

    def late(client: MlflowClient, name: str) -> Any:
        asked.append(name)
        return None if len(asked) == 1 else real(client, name)

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", late)
    assert Store(root=root).experiment == first


def test_a_store_whose_creation_was_interrupted_is_named(root: Path) -> None:
    change(root, "CREATE TABLE _alembic_tmp_latest_metrics (key TEXT)")
    change(root, "UPDATE alembic_version SET version_num = '451aebb31d03'")
    old = time.time() - 60
    os.utime(root / "mlflow.db", (old, old))
    with pytest.raises(RuntimeError, match=r"mlflow\.db is unusable.*_alembic_tmp_latest_metrics.*move the file away"):
        create(root / "mlflow.db")


def test_the_experiment_opens_on_the_view_of_trainings(root: Path) -> None:
    store = Store(root=root)
    tags = store.client.get_experiment(store.experiment).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert "nested in the run of its pipeline" in tags["mlflow.note.content"]
    store.client.set_experiment_tag(store.experiment, "mlflow.note.content", "mine")
    assert Store(root=root).client.get_experiment(store.experiment).tags["mlflow.note.content"] == "mine"


# A copied checkout


@pytest.fixture
def copied(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Track a stage, then copy the checkout and make the copy the current folder."""

    def copy(*left: str, experiment: str | None = None) -> Path:
        if experiment:
            monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)
        stage(root, pipeline=pipeline("before"))
        assert sync(root) == 0
        folder = root.with_name("copy")
        shutil.copytree(root, folder, ignore=lambda _folder, _names: left)
        monkeypatch.chdir(folder)
        return folder

    return copy


def listed(folder: Path) -> set[Path]:
    """All files below a folder."""
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("recorded", [True, False])
def test_a_copied_checkout_writes_into_its_own_folder(root: Path, copied: Callable[..., Path], recorded: bool) -> None:
    copy = copied()
    if not recorded:  # a store of before
        change(copy, f"DELETE FROM experiment_tags WHERE key = '{HOME}'")
    before, here = listed(root), listed(copy / "mlartifacts")
    stage(copy, "generate", pipeline=pipeline("after"))
    assert sync(copy) == 0
    assert listed(root) == before
    assert len(listed(copy / "mlartifacts") - here) == 1
    shutil.rmtree(root)
    found = runs(uri(copy))
    assert files(uri(copy), found["mnist/toy/generate"]) == {"run.json"}
    assert files(uri(copy), found["mnist/toy/train_cgn"]) == {"run.json"}


def test_a_store_copied_without_its_artifacts_reads_the_old_and_writes_the_new(
    root: Path, copied: Callable[..., Path]
) -> None:
    copy = copied("mlartifacts")
    before = listed(root)
    stage(copy, "generate", pipeline=pipeline("after"))
    assert sync(copy) == 0
    assert listed(root) == before
    assert len(listed(copy / "mlartifacts")) == 1
    assert files(uri(copy), runs(uri(copy))["mnist/toy/train_cgn"]) == {"run.json"}


@pytest.mark.parametrize("inside", [True, False])
def test_an_experiment_of_the_users_own_moves_with_the_checkout_only_if_it_lay_in_it(
    root: Path, copied: Callable[..., Path], inside: bool
) -> None:
    place = (root if inside else root.parent) / "own place"
    Store(root=root).client.create_experiment("own", artifact_location=place.as_uri())
    copy = copied(experiment="own")
    stage(copy, "generate", pipeline=pipeline("after"))
    assert sync(copy) == 0
    assert len(listed(place)) == (1 if inside else 2)
    assert len(listed(copy / "own place")) == (2 if inside else 0)


# Locks


def test_a_lock_on_a_removed_file_excludes_nobody_and_is_taken_anew(tmp_path: Path) -> None:
    """As `sync` waits for a tracker that ends, and a new tracker starts."""
    path, entered = tmp_path / "folder" / "lock", threading.Event()

    def waiter() -> None:
        with alone(path):
            entered.set()

    with alone(path):
        thread = threading.Thread(target=waiter)
        thread.start()
        time.sleep(0.2)  # it waits for this file
        shutil.rmtree(path.parent)
        new = alone(path)
        new.__enter__()
    assert not entered.wait(0.3)
    new.__exit__(None, None, None)
    thread.join(5)
    assert entered.is_set()


@contextmanager
def tracker(folder: Path, *, of: str) -> Iterator[None]:
    """A tracker at work on a pipeline's folder."""
    with alone(folder / "tracker.lock"):
        (folder / "tracker.lock").write_text(of, encoding="utf-8")
        yield


def test_sync_waits_for_a_tracker_that_is_ending(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = stage(root).parent
    held = threading.Event()

    def end() -> None:
        with tracker(folder, of=dead()):
            held.set()
            time.sleep(2)

    thread = threading.Thread(target=end)
    thread.start()
    assert held.wait(5)
    assert sync(root) == 0
    thread.join()
    assert "1 of 1 journals tracked" in capsys.readouterr().out
    assert not folder.exists()


def test_sync_leaves_a_journal_to_the_tracker_of_a_living_pipeline(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = stage(root)
    with tracker(journal.parent, of=alive(os.getpid())):
        assert sync(root) == 0
    said = capsys.readouterr().out
    assert "0 of 1 journals tracked" in said
    assert f"still running, its own tracker carries it: {journal.relative_to(root)}" in said


# A pipeline's run


def test_a_pipeline_has_its_parameters_revision_and_the_metrics_of_its_evaluations(root: Path) -> None:
    flow = pipeline()
    stage(root, "train_cgn", pipeline=flow, steps=[{"loss": 1.0}, {"loss": 0.5}], summary={"loss": 0.5})
    stage(root, "evaluate", pipeline=flow, summary={"accuracy/original/test": 0.75})
    count_stages(root, key=flow.key, counts={"cached": 4})
    assert sync(root) == 0
    run = runs(uri(root))["flow"]
    assert run.info.status == "FINISHED"
    assert run.data.params == {"targets": "mnist_*", "mnist.toy.seed": "7"}
    assert run.data.tags["git_revision"] == "abc+"
    assert run.data.tags["mlflow.source.git.commit"] == "abc"
    assert run.data.metrics.pop("seconds") >= 0
    assert run.data.metrics == {
        "mnist/toy/accuracy/original/test": 0.75,
        "stages/made": 2,
        "stages/failed": 0,
        "stages/killed": 0,
        "stages/cached": 4,
    }


def test_an_evaluation_shows_the_few_metrics_that_one_compares(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of metrics.json, which the library writes from a large summary; all of them are a table."""
    monkeypatch.setattr(Files, "summary", lambda sink, _values: _small(sink))
    summary = {f"top1/{number}": number / 190 for number in range(190)}
    stage(root, "evaluate", steps=[summary], summary=summary)
    stage(root, "train_cgn", steps=[{"loss/a": 2.0, "loss/b": 3.0}, {"loss/a": 1.0, "loss/b": 2.0}])
    assert sync(root) == 0
    found = runs(uri(root))
    run = found["mnist/toy/evaluate"]
    assert run.data.metrics == {"top1/0": 0.0, "images": 1.0}
    with_all = next((root / "mlartifacts").rglob("metrics.csv")).read_text(encoding="utf-8").splitlines()
    assert with_all[0] == "metric,value"
    assert len(with_all) == 191
    assert history(uri(root), found["mnist/toy/train_cgn"], "loss/b") == [(1, 3.0), (2, 2.0)]  # curves are whole


def _small(sink: Files) -> None:
    (sink.folder / "metrics.json").write_text(json.dumps({"top1": {"0": 0.0}}), encoding="utf-8")


@pytest.mark.parametrize(
    ("tries", "end"),
    [
        (["KILLED", "FINISHED"], "FINISHED"),
        (["FAILED", "KILLED", "FINISHED"], "FINISHED"),
        (["FINISHED", "FAILED"], "FAILED"),
    ],
)
def test_a_pipeline_ends_as_the_last_try_of_each_stage(root: Path, tries: list[str], end: str) -> None:
    flow = pipeline()
    stage(root, "fetch", pipeline=flow)
    for status in tries:
        time.sleep(0.002)  # MLflow's times are milliseconds
        stage(root, "train_cgn", pipeline=flow, status=status)
        assert sync(root) == 0
    assert runs(uri(root))["flow"].info.status == end


def test_a_first_try_whose_end_comes_late_does_not_count(root: Path) -> None:
    """The word that a stage was killed comes from its tracker, perhaps after the next try has ended."""
    flow = pipeline()
    first = Courier(stage(root, "train_cgn", pipeline=flow, status="KILLED"))
    time.sleep(0.002)
    second = Courier(stage(root, "train_cgn", pipeline=flow))
    store = Store(root=root)
    for courier in (second, first):
        while not courier.ended:
            courier.look()
            courier.carry(store)
    assert runs(uri(root))["flow"].info.status == "FINISHED"


# Refusals


def refused(root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `sync` says where something is refused."""
    capsys.readouterr()
    assert sync(root) == 2
    return capsys.readouterr().err


def test_a_deleted_experiment_is_named_with_what_to_do(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(root=root)
    store.client.delete_experiment(store.experiment)
    stage(root)
    said = refused(root, capsys)
    assert f"the experiment cgn ({store.experiment}) was deleted in MLflow" in said
    assert f"mlflow experiments restore --experiment-id {store.experiment}" in said
    assert "MLFLOW_EXPERIMENT_NAME" in said
    assert "once the server is back" not in said
    store.client.restore_experiment(store.experiment)
    assert sync(root) == 0
    assert "mnist/toy/train_cgn" in runs(uri(root))


def half_carried(root: Path, store: Store) -> Courier:
    """A stage whose run is open in MLflow, and that has ended since."""
    journal = begun(root, "train_cgn", pipeline=pipeline())
    courier = Courier(journal.folder)
    for _ in range(2):
        courier.look()
        courier.carry(store)
    assert courier.run_id
    journal.log({"loss": 1.0}, step=1)
    journal.end("FINISHED")
    return courier


def test_a_deleted_run_is_named_with_what_to_do(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(root=root)
    number = str(half_carried(root, store).run_id)
    store.client.delete_run(number)
    stage(root, "generate", pipeline=pipeline("other"))
    said = refused(root, capsys)
    assert f"its run mnist/toy/train_cgn ({number}) was deleted in MLflow" in said
    assert f"mlflow runs restore --run-id {number}" in said
    assert set(runs(uri(root))) >= {"mnist/toy/generate"}  # the one behind it was taken
    store.client.restore_run(number)
    assert sync(root) == 0
    assert runs(uri(root))["mnist/toy/train_cgn"].info.status == "FINISHED"


def test_a_run_that_is_gone_for_good_is_made_anew(root: Path) -> None:
    half_carried(root, Store(root=root))
    change(root, "DELETE FROM tags")
    change(root, "DELETE FROM runs")
    assert sync(root) == 0
    run = runs(uri(root))["mnist/toy/train_cgn"]
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"loss": 1.0}


def test_a_deleted_pipeline_holds_up_no_stage(root: Path) -> None:
    store = Store(root=root)
    half_carried(root, store)
    store.client.delete_run(runs(uri(root))["flow"].info.run_id)
    assert sync(root) == 0
    assert runs(uri(root))["mnist/toy/train_cgn"].info.status == "FINISHED"


def test_a_store_that_does_not_permit_it_is_refused_not_down(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    def denied(*_: Any, **__: Any) -> Any:
        raise named("PERMISSION_DENIED")

    monkeypatch.setattr(MlflowClient, "create_run", denied)
    stage(root)
    said = refused(root, capsys)
    assert "does not permit it (HTTP 403)" in said
    assert "MLFLOW_TRACKING_USERNAME" in said


@pytest.mark.parametrize(
    "damage",
    [
        '{"event": "metrics", "time": 1, "step": 0, "values": {"loss": 1}}\n',  # its first line is lost
        '{"event": "begin", "time": 1}\n',
        "3\n" + '{"event": "metrics"}\n',
    ],
)
def test_a_damaged_journal_is_refused_and_holds_up_no_other(
    root: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    broken = stage(root, pipeline=pipeline("a"))
    (broken / "events.jsonl").write_text(damage, encoding="utf-8")
    stage(root, "generate", pipeline=pipeline("b"))
    said = refused(root, capsys)
    assert "the journal is damaged" in said
    assert f"python -m flows.tracking drop {broken}" in said
    assert set(runs(uri(root))) == {"b", "mnist/toy/generate"}


def test_a_dropped_journal_is_gone_and_nothing_else_is(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal, other = stage(root), stage(root, "generate", pipeline=pipeline("other"))
    assert drop(root, [journal.relative_to(root)]) == 0
    assert not journal.parent.exists()
    assert drop(root, [journal, root, other.parent]) == 2
    assert "is not a journal" in capsys.readouterr().err
    with tracker(other.parent, of=alive(os.getpid())):
        assert drop(root, [other]) == 2
    assert "its pipeline is still running" in capsys.readouterr().err
    assert other.is_dir()


def test_an_unfinished_journal_of_a_dead_stage_ends_as_killed_or_empty(root: Path) -> None:
    journal = stage(root, status=None)
    events = journal / "events.jsonl"
    events.write_text(events.read_text().replace(alive(os.getpid()), dead()), encoding="utf-8")
    empty = stage(root, "generate") / "events.jsonl"
    empty.write_text("", encoding="utf-8")
    os.utime(empty, (time.time() - 3600,) * 2)
    assert sync(root) == 0
    assert not list((root / "runs/untracked").iterdir())
    assert runs(uri(root))["mnist/toy/train_cgn"].info.status == "KILLED"


def answer(status: int) -> requests.HTTPError:
    """A server's answer to a picture."""
    reply = requests.Response()
    reply.status_code = status
    return requests.HTTPError(response=reply)


def plain(status: int) -> Exception:
    """MLflow's error for an answer of a proxy, which is no JSON."""
    from mlflow.exceptions import MlflowException

    return MlflowException(f"API request to endpoint /x failed with error code {status} != 200. Response body: ''")


def named(code: str) -> Exception:
    """MLflow's error for an answer of its server."""
    from mlflow.exceptions import RestException

    return RestException({"error_code": code, "message": "x"})  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (lambda: answer(403), 403),
        (lambda: answer(413), 413),
        (lambda: answer(503), None),
        (lambda: plain(413), 413),
        (lambda: plain(429), None),
        (lambda: plain(502), None),
        (lambda: named("INVALID_PARAMETER_VALUE"), 400),
        (lambda: named("REQUEST_LIMIT_EXCEEDED"), None),
        (lambda: named("TEMPORARILY_UNAVAILABLE"), None),
        (requests.ConnectionError, None),
        (lambda: OSError(28, "No space left on device"), None),
    ],
)
def test_a_refusal_is_an_answer_that_does_not_pass_by_itself(
    error: Callable[[], Exception], status: int | None
) -> None:
    assert refusal_status(error()) == status


def test_a_refusal_says_what_to_do(root: Path) -> None:
    store = Store(root=root)
    with pytest.raises(RefusedError, match="HTTP 400") as caught, store.refusals():
        raise named("INVALID_PARAMETER_VALUE")
    assert "drop {journal}" in caught.value.remedy
