"""What MLflow holds afterwards, and what is said where it does not take something. MLflow is real, stages are not."""

import getpass
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests

from cgn.core.files import write_json
from cgn.core.metrics import Fanout, Files, read_lines
from flows import untracked
from flows.database import create
from flows.mlflow_client import HOME, Client, RefusedError, refusal_status
from flows.observed import SystemMonitor, observe
from flows.observed import datasets as datasets_of
from flows.processes import alive
from flows.tracked_run import TrackedRun
from flows.tracking import drop, sync
from flows.untracked import Pipeline, UntrackedRun, alone, end_pipeline
from tests.flows.conftest import ROOT
from tests.flows.stored import datasets, files, history, images, runs
from tests.flows.toy.toy import pixel

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own, of its database layer


def uri(root: Path) -> str:
    """The store of a checkout."""
    return f"sqlite:///{root}/mlflow.db"


def dead() -> str:
    """The name of a process that is gone."""
    with subprocess.Popen(["true"]) as process:
        return alive(process.pid) or f"{process.pid}-0"


def pipeline(key: str = "flow", *, process: str | None = None) -> Pipeline:
    """A pipeline that has ended, unless a process is given."""
    return Pipeline(key=key, name=key, process=process or dead(), parameters={"targets": "mnist_*"})


def stage(root: Path, name: str = "train_cgn", **given: Any) -> Path:
    """The untracked run of a stage that has ended."""
    run, sink = begun(root, name, pipeline=given.get("pipeline") or pipeline(), compared=given.get("compared", ("*",)))
    for step, values in enumerate(given.get("steps", ()), start=1):
        sink.log(values, step=step)
    if given.get("summary"):
        sink.summary(given["summary"])
    if status := given.get("status", "FINISHED"):
        run.end(status)
    return run.folder


def begun(
    root: Path, name: str, *, pipeline: Pipeline, compared: Sequence[str] = ("*",)
) -> tuple[UntrackedRun, Fanout]:
    """The untracked run of a stage that has begun, and where the stage sends its values."""
    run = UntrackedRun(root, pipeline=pipeline)
    facts = {"name": f"mnist/toy/{name}", "verb": name, "track": "mnist", "variant": "toy", "inputs": {}}
    out = Path("runs/mnist/toy") / name
    log = out.with_name(f"{name}.log")
    run.begin(facts, out=out, log=log)
    sink = Fanout([Files(log, compared=compared), run])
    write_json(log / "run.json", {"params": {"updates": 3}, "seed": 7, "git_revision": "abc+"})
    sink.rewind(-1)
    return run, sink


def change(root: Path, statement: str) -> None:
    """Change the store behind MLflow's back."""
    with closing(sqlite3.connect(root / "mlflow.db")) as database, database:
        database.execute(statement)


# The store's file


@pytest.mark.long
@pytest.mark.parametrize("other", ["another checkout", "mlflow itself"])
def test_two_that_open_one_fresh_store_at_once_both_can(tmp_path: Path, other: str) -> None:
    place = f"sqlite:///{tmp_path}/shared/mlflow.db"
    (tmp_path / "shared").mkdir()
    wait = (
        "import sys, time\nfrom pathlib import Path\nimport mlflow, mlflow.store.tracking.sqlalchemy_store\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
    )
    ours = wait + "from flows.mlflow_client import Client\nClient(root=Path(sys.argv[1]))\n"
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

    first = Client(root=root).experiment
    asked: list[str] = []
    real = MlflowClient.get_experiment_by_name

    def late(client: MlflowClient, name: str) -> Any:
        asked.append(name)
        return None if len(asked) == 1 else real(client, name)

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", late)
    assert Client(root=root).experiment == first


def test_a_store_whose_creation_was_interrupted_is_named(root: Path) -> None:
    change(root, "CREATE TABLE _alembic_tmp_latest_metrics (key TEXT)")
    change(root, "UPDATE alembic_version SET version_num = '451aebb31d03'")
    old = time.time() - 60
    os.utime(root / "mlflow.db", (old, old))
    with pytest.raises(RuntimeError, match=r"mlflow\.db is unusable.*_alembic_tmp_latest_metrics.*move the file away"):
        create(root / "mlflow.db")


def test_the_experiment_opens_on_the_view_of_trainings(root: Path) -> None:
    client = Client(root=root)
    tags = client.mlflow.get_experiment(client.experiment).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert "nested in the run of its pipeline" in tags["mlflow.note.content"]
    client.mlflow.set_experiment_tag(client.experiment, "mlflow.note.content", "mine")
    assert Client(root=root).mlflow.get_experiment(client.experiment).tags["mlflow.note.content"] == "mine"


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


@pytest.mark.long
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
    Client(root=root).mlflow.create_experiment("own", artifact_location=place.as_uri())
    copy = copied(experiment="own")
    stage(copy, "generate", pipeline=pipeline("after"))
    assert sync(copy) == 0
    assert len(listed(place)) == (1 if inside else 2)
    assert len(listed(copy / "own place")) == (2 if inside else 0)


# Locks


def test_a_lock_on_a_removed_file_excludes_nobody_and_is_taken_anew(tmp_path: Path) -> None:
    """As `sync` waits for an uploader that ends, and a new one starts."""
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


@pytest.mark.long
def test_sync_waits_for_an_uploader_that_is_ending(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = stage(root).parent
    held = threading.Event()

    def end() -> None:
        with alone(folder / untracked.LOCK):
            held.set()
            time.sleep(2)

    thread = threading.Thread(target=end)
    thread.start()
    assert held.wait(5)
    assert sync(root) == 0
    thread.join()
    assert "1 of 1 runs tracked" in capsys.readouterr().out
    assert not folder.exists()


def test_sync_leaves_a_run_to_the_uploader_of_a_living_pipeline(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = stage(root, pipeline=pipeline(process=alive(os.getpid())))
    with alone(run.parent / untracked.LOCK):
        assert sync(root) == 0
    said = capsys.readouterr().out
    assert "0 of 1 runs tracked" in said
    assert f"still running, its own uploader sends it: {run.relative_to(root)}" in said


# A pipeline's run


def test_a_pipeline_has_its_parameters_revision_and_the_metrics_of_its_evaluations(root: Path) -> None:
    flow = pipeline()
    stage(root, "train_cgn", pipeline=flow, steps=[{"loss": 1.0}, {"loss": 0.5}], summary={"loss": 0.5})
    stage(root, "evaluate", pipeline=flow, summary={"accuracy/original/test": 0.75})
    end_pipeline(root, key=flow.key, metrics={"stages/cached": 4})
    assert sync(root) == 0
    run = runs(uri(root))["flow"]
    assert run.info.status == "FINISHED"
    assert run.data.params == {"targets": "mnist_*", "mnist.toy.seed": "7"}
    assert run.data.tags["git_revision"] == "abc+"
    assert run.data.tags["mlflow.source.git.commit"] == "abc"
    assert run.data.metrics.pop("seconds") >= 0
    assert run.data.metrics == {
        "mnist/toy/accuracy.original.test": 0.75,
        "stages/made": 2,
        "stages/failed": 0,
        "stages/killed": 0,
        "stages/cached": 4,
    }


def test_an_evaluation_shows_the_few_metrics_that_one_compares(root: Path) -> None:
    """Those of metrics.json, which the library writes from a large summary; all of them are a table."""
    summary = {f"top1/{number}": number / 190 for number in range(190)}
    stage(root, "evaluate", steps=[summary], summary=summary, compared=["top1/0"])
    stage(root, "train_cgn", steps=[{"loss/a": 2.0, "loss/b": 3.0}, {"loss/a": 1.0, "loss/b": 2.0}])
    assert sync(root) == 0
    found = runs(uri(root))
    run = found["mnist/toy/evaluate"]
    assert run.data.metrics == {"top1/0": 0.0, "evaluate/images": 1.0}
    with_all = next((root / "mlartifacts").rglob("metrics.csv")).read_text(encoding="utf-8").splitlines()
    assert with_all[0] == "metric,value"
    assert len(with_all) == 191
    assert history(uri(root), found["mnist/toy/train_cgn"], "loss/b") == [(1, 3.0), (2, 2.0)]  # curves are whole


def drawn(sink: Fanout, name: str, content: bytes) -> None:
    """A stage has drawn an image or written a page."""
    image = Path("runs/mnist/toy/train_cgn") / name
    image.parent.mkdir(parents=True, exist_ok=True)
    image.write_bytes(content)
    sink.picture(image)


def test_sheets_are_images_by_step_and_pages_are_artifacts(root: Path) -> None:
    run, sink = begun(root, "train_cgn", pipeline=pipeline())
    for name in ("sheets/000100.png", "sheets/000200.png", "examples.png", "parts/one.png"):
        drawn(sink, name, pixel())
    for name in ("index.html", "films/1.gif", "sheets/broken.png"):  # the last one is no image
        drawn(sink, name, b"content")
    run.end("FINISHED")
    assert sync(root) == 0
    found = runs(uri(root))["mnist/toy/train_cgn"]
    assert found.data.tags["mlflow.loggedImages"] == "True"  # else the page shows no image grid
    assert images(uri(root), found) == [("examples", 0), ("parts~one", 0), ("sheets", 100), ("sheets", 200)]
    assert files(uri(root), found) == {"run.json", "index.html", "films/1.gif", "sheets/broken.png"}
    grid = next((root / "mlartifacts").rglob("images/sheets+step+200+timestamp+*.png"))
    assert grid.read_bytes() == pixel()


def test_what_is_sent_again_after_a_crash_is_there_once(root: Path) -> None:
    """The uploader dies after it has sent all and before it notes that; the next one sends all again."""
    run, sink = begun(root, "train_cgn", pipeline=pipeline())
    drawn(sink, "sheets/000100.png", pixel())
    sink.log({"loss": 0.5}, step=100)
    data = {"name": "mnist/toy", "digest": "abc.dir", "path": "runs/mnist/toy/prepare", "context": "training"}
    run.write(untracked.INPUTS, {"tags": {}, "changed": {}, "datasets": [data]})
    run.write(untracked.SYSTEM, {"step": 1, "time": 5.0, "system/cpu": 7.0})
    with (run.folder / untracked.SYSTEM).open("a", encoding="utf-8") as file:
        file.write("\n")
    client = Client(root=root)
    tracked = TrackedRun(run.folder, client=client)
    tracked.send(ended=False)
    number = tracked.sent.run_id
    write_json(run.folder / untracked.SENT, {"place": tracked.sent.place, "run_id": number})
    TrackedRun(run.folder, client=client).send(ended=False)
    run.end("FINISHED")
    assert sync(root) == 0
    found = runs(uri(root))["mnist/toy/train_cgn"]
    assert found.info.run_id == number
    assert images(uri(root), found) == [("sheets", 100)]
    for run_with_it in (found, runs(uri(root))["flow"]):
        assert datasets(uri(root), run_with_it) == [("mnist/toy", "abc.dir", "training")]
    assert history(uri(root), found, "train/loss") == [(100, 0.5)]
    assert history(uri(root), found, "system/cpu") == [(1, 7.0)]


def test_fetched_assets_are_a_dataset_only_where_there_is_no_other() -> None:
    facts, hashes = (
        {"track": "mnist", "variant": "toy"},
        {"assets": {"a": "1"}, "data": {"b": "2"}, "model": {"c": "3"}},
    )
    (given,) = datasets_of(facts, hashes, context="training")
    assert given == {"name": "mnist/toy", "digest": "2", "path": "b", "context": "training"}
    (given,) = datasets_of(facts, {"assets": {"a": "1"}}, context="preparation")
    assert (given["name"], given["digest"]) == ("mnist/toy assets", "1")
    assert not datasets_of(facts, {"model": {"c": "3"}}, context="preparation")


def test_a_run_says_where_it_comes_from_and_what_it_is(root: Path) -> None:
    stage(root)
    assert sync(root) == 0
    found = runs(uri(root))
    tags, above = found["mnist/toy/train_cgn"].data.tags, found["flow"].data.tags
    assert (tags["mlflow.source.name"], above["mlflow.source.name"]) == ("cgn/mnist/train_cgn.py", "dvc.yaml")
    assert tags["mlflow.source.type"] == above["mlflow.source.type"] == "LOCAL"
    assert tags["mlflow.user"] == above["mlflow.user"] == getpass.getuser()
    assert "`python -m cgn train_cgn`" in tags["mlflow.note.content"]
    assert "nested in it" in above["mlflow.note.content"]


# How the machine is used


def test_the_machine_is_sampled_under_the_names_of_mlflow(root: Path) -> None:
    run, _ = begun(root, "train_cgn", pipeline=pipeline(process=alive(os.getpid())))
    monitor = SystemMonitor()
    monitor.sample([run.folder])
    monitor.sample([run.folder])  # it is not time yet
    assert len(read_lines(run.folder / untracked.SYSTEM)) == 1
    monitor.due.clear()
    monitor.sample([run.folder])
    assert len(read_lines(run.folder / untracked.SYSTEM)) == 2
    run.end("FINISHED")
    monitor.due.clear()
    monitor.sample([run.folder])  # it has ended
    assert len(read_lines(run.folder / untracked.SYSTEM)) == 2
    assert sync(root) == 0
    found = runs(uri(root))["mnist/toy/train_cgn"]
    expected = {"cpu_utilization_percentage", "system_memory_usage_megabytes", "disk_usage_percentage"}
    assert expected <= {name.removeprefix("system/") for name in found.data.metrics}


def test_gpus_are_sampled_where_there_are_any(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    from mlflow.system_metrics.metrics import gpu_monitor

    class Busy:
        def __init__(self) -> None:
            self.clear_metrics = self.collect_metrics = lambda: None

        def aggregate_metrics(self) -> dict[str, float]:
            return {"gpu_0_utilization_percentage": 93}

    monkeypatch.setattr(gpu_monitor, "GPUMonitor", Busy)
    run, _ = begun(root, "train_cgn", pipeline=pipeline())
    SystemMonitor().sample([run.folder])
    (line,) = read_lines(run.folder / untracked.SYSTEM)
    assert line["system/gpu_0_utilization_percentage"] == 93


def test_a_full_disk_or_a_folder_that_is_gone_stops_no_sample(root: Path) -> None:
    run, _ = begun(root, "train_cgn", pipeline=pipeline())
    (run.folder / untracked.SYSTEM).mkdir()  # nothing can be written there
    SystemMonitor().sample([run.folder, root / "gone"])
    assert (run.folder / untracked.SYSTEM).is_dir()
    assert not (root / "gone").exists()


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
    """That a stage was killed is noted by the uploader, perhaps after the next try has ended."""
    flow = pipeline()
    first = stage(root, "train_cgn", pipeline=flow, status="KILLED")
    time.sleep(0.002)
    second = stage(root, "train_cgn", pipeline=flow)
    client = Client(root=root)
    for run in (second, first):
        TrackedRun(run, client=client).send(ended=observe(run))
        assert not run.exists()
    assert runs(uri(root))["flow"].info.status == "FINISHED"


# Refusals


def refused(root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `sync` says where something is refused."""
    capsys.readouterr()
    assert sync(root) == 2
    return capsys.readouterr().err


def test_a_deleted_experiment_is_named_with_what_to_do(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client = Client(root=root)
    client.mlflow.delete_experiment(client.experiment)
    stage(root)
    said = refused(root, capsys)
    assert f"the experiment cgn ({client.experiment}) was deleted in MLflow" in said
    assert f"mlflow experiments restore --experiment-id {client.experiment}" in said
    assert "MLFLOW_EXPERIMENT_NAME" in said
    assert "once the server is back" not in said
    client.mlflow.restore_experiment(client.experiment)
    assert sync(root) == 0
    assert "mnist/toy/train_cgn" in runs(uri(root))


def half_sent(root: Path, client: Client) -> str:
    """A stage whose run is open in MLflow, and that has ended since: the id of the run."""
    run, sink = begun(root, "train_cgn", pipeline=pipeline())
    TrackedRun(run.folder, client=client).send(ended=observe(run.folder))
    number = json.loads((run.folder / "sent.json").read_text(encoding="utf-8"))["run_id"]
    sink.log({"loss": 1.0}, step=1)
    run.end("FINISHED")
    return str(number)


def test_a_deleted_run_is_named_with_what_to_do(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client = Client(root=root)
    number = half_sent(root, client)
    client.mlflow.delete_run(number)
    stage(root, "generate", pipeline=pipeline("other"))
    said = refused(root, capsys)
    assert f"its run mnist/toy/train_cgn ({number}) was deleted in MLflow" in said
    assert f"mlflow runs restore --run-id {number}" in said
    assert set(runs(uri(root))) >= {"mnist/toy/generate"}  # the one behind it was taken
    client.mlflow.restore_run(number)
    assert sync(root) == 0
    assert runs(uri(root))["mnist/toy/train_cgn"].info.status == "FINISHED"


def test_a_run_that_is_gone_for_good_is_made_anew(root: Path) -> None:
    half_sent(root, Client(root=root))
    change(root, "DELETE FROM tags")
    change(root, "DELETE FROM runs")
    assert sync(root) == 0
    run = runs(uri(root))["mnist/toy/train_cgn"]
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"train/loss": 1.0}


def test_a_deleted_pipeline_holds_up_no_stage(root: Path) -> None:
    client = Client(root=root)
    half_sent(root, client)
    client.mlflow.delete_run(runs(uri(root))["flow"].info.run_id)
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
    ['{"facts": {"inputs": {}}}', '{"time": 1', "", "[3]"],
)
def test_a_damaged_run_is_refused_and_holds_up_no_other(
    root: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    broken = stage(root, pipeline=pipeline("a"))
    (broken / "stage.json").write_text(damage, encoding="utf-8")
    stage(root, "generate", pipeline=pipeline("b"))
    said = refused(root, capsys)
    assert "its files are damaged" in said
    assert f"python -m flows.tracking drop {broken}" in said
    assert set(runs(uri(root))) == {"b", "mnist/toy/generate"}


def test_a_dropped_run_is_gone_and_nothing_else_is(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, other = stage(root), stage(root, "generate", pipeline=pipeline("other", process=alive(os.getpid())))
    assert drop(root, [run.relative_to(root)]) == 0
    assert not run.parent.exists()
    assert drop(root, [run, root, other.parent]) == 2
    assert "is not an untracked run" in capsys.readouterr().err
    with alone(other.parent / untracked.LOCK):
        assert drop(root, [other]) == 2
    assert "its pipeline is still running" in capsys.readouterr().err
    assert other.is_dir()


def test_an_unfinished_run_of_a_dead_stage_ends_as_killed_or_empty(root: Path) -> None:
    file = stage(root, status=None) / "stage.json"
    file.write_text(file.read_text().replace(alive(os.getpid()), dead()), encoding="utf-8")
    empty = stage(root, "generate")
    for path in empty.iterdir():
        path.unlink()
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
    client = Client(root=root)
    with pytest.raises(RefusedError, match="HTTP 400") as caught, client.refusals():
        raise named("INVALID_PARAMETER_VALUE")
    assert "drop {run}" in caught.value.remedy


# What a stage leaves for the uploader


def lines(run: UntrackedRun) -> list[Any]:
    """The record that the uploader would read."""
    return read_lines(run.folder / untracked.RECORD)


def test_a_run_that_is_not_sent_survives_the_next_run_of_its_stage(root: Path) -> None:
    """Which replaces run.json and the record, and removes the output."""
    first, sink = begun(root, "train_cgn", pipeline=pipeline("first"))
    sink.log({"loss": 1.0}, step=1)
    image = root / "runs/mnist/toy/train_cgn.partial/sheets/0001.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"first")
    sink.picture(Path("runs/mnist/toy/train_cgn.partial/sheets/0001.png"))
    first.end("FAILED")
    shutil.rmtree(image.parents[1])
    second, sink = begun(root, "train_cgn", pipeline=pipeline("second"))
    sink.log({"loss": 0.5}, step=2)
    second.end("FINISHED")
    assert [line["loss"] for line in lines(first)] == [1.0]
    assert [line["loss"] for line in lines(second)] == [0.5]
    assert (first.folder / "images/sheets/0001.png").read_bytes() == b"first"


def test_what_a_run_that_continues_forgets_is_not_sent(root: Path) -> None:
    """And what was sent before it continued is known to be another record."""
    run, sink = begun(root, "train_cgn", pipeline=pipeline())
    sink.log({"loss": 1.0}, step=1)
    client = Client(root=root)
    TrackedRun(run.folder, client=client).send(ended=observe(run.folder))
    sink.rewind(0)
    for step in (1, 2, 3):
        sink.log({"loss": 1.0 / step}, step=step)
    run.end("FINISHED")
    assert sync(root) == 0
    assert set(history(uri(root), runs(uri(root))["mnist/toy/train_cgn"], "train/loss")) == {
        (1, 1.0),
        (2, 0.5),
        (3, 1 / 3),
    }


def test_a_damaged_line_of_a_record_stops_nothing(root: Path) -> None:
    run, _ = begun(root, "train_cgn", pipeline=pipeline())
    broken = (b"\xff\xfe", b"[1]", b'"text"', b'{"step": "2"}', b"[" * 100_000, b'{"step": 3, "lo')
    whole = (b'{"step": 1, "time": 5.0, "loss": 0.5}', b'{"step": 2, "loss": 0.25}', b"")
    (run.folder / untracked.RECORD).write_bytes(b"\n".join((whole[0], *broken, *whole[1:])))
    run.end("FINISHED")
    assert sync(root) == 0
    assert history(uri(root), runs(uri(root))["mnist/toy/train_cgn"], "train/loss") == [(1, 0.5), (2, 0.25)]


def test_a_record_of_the_run_before_is_not_taken_for_this_ones(root: Path) -> None:
    """Of a stage that failed before it wrote anything."""
    stage(root, steps=[{"loss": 1.0}])
    run = UntrackedRun(root, pipeline=pipeline("second"))
    out = Path("runs/mnist/toy/train_cgn")
    run.begin({"name": "mnist/toy/train_cgn", "inputs": {}}, out=out, log=out.with_name("train_cgn.log"))
    run.end("FAILED", message="ArtifactError: --data is missing")
    assert sorted(path.name for path in run.folder.iterdir()) == ["end.json", "stage.json"]


def test_parameters_are_passed_on_when_the_clock_is_set_back(root: Path) -> None:
    """run.json is then older than the one of the run before."""
    stage(root)
    run, sink = begun(root, "train_cgn", pipeline=pipeline("second"))
    file = root / "runs/mnist/toy/train_cgn.log/run.json"
    write_json(file, {"params": {}, "seed": 9})
    os.utime(file, (time.time() - 3600,) * 2)
    sink.log({"loss": 0.5}, step=1)
    assert json.loads((run.folder / untracked.RUN).read_text(encoding="utf-8"))["seed"] == 9


def test_where_links_are_not_possible_copies_are_kept_up_to_date(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def impossible(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", impossible)
    run, sink = begun(root, "train_cgn", pipeline=pipeline())
    for step in (1, 2):
        sink.log({"loss": 1.0}, step=step)
    assert [line["step"] for line in lines(run)] == [1, 2]


def test_a_disk_that_is_full_stops_no_stage(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, sink = begun(root, "train_cgn", pipeline=pipeline())
    shutil.rmtree(run.folder)
    run.folder.write_text("in the way")
    sink.summary({"loss": 1.0})
    run.end("FINISHED")
    assert "this run is not tracked from here on, it goes on without" in capsys.readouterr().err


def test_a_run_has_values_of_its_own_and_may_be_below_no_pipeline(root: Path) -> None:
    run = UntrackedRun(root, pipeline=pipeline("sweep"), nested=False)
    run.begin({"name": "seeds of digits", "inputs": {}}, out=Path("runs/sweep"), log=Path("runs/sweep.log"))
    run.values(tags={"cgn.members": "a b"}, params={"seeds": 3}, metrics={"accuracy/mean": 0.5})
    run.end("FINISHED")
    assert sync(root) == 0
    found = runs(uri(root))
    assert set(found) == {"seeds of digits"}
    assert found["seeds of digits"].info.status == "FINISHED"
    data = found["seeds of digits"].data
    assert (data.params, data.metrics) == ({"seeds": "3"}, {"accuracy/mean": 0.5})
    assert data.tags["cgn.members"] == "a b"
