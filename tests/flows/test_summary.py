"""What a run says of itself in Prefect: its name, its summary, a stage's state and progress."""

import http.server
import json
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Failed

from flows import live, pipeline, summary
from flows.experiment import Workspace
from flows.graph import Stage, onward, variants
from flows.mlflow_client import shown
from flows.stage_runner import Outcome
from tests.flows.test_graph import chain

EXITED = "ERROR: failed to reproduce 'a': failed to run: python -m flows.stage fetch a, exited with {}"


def reading(**params: str) -> dict[str, Stage]:
    """Stages that read a parameter each."""
    nothing: tuple[Path, ...] = ()
    return {
        name: Stage(name=name, cmd="", needs=(), deps=(), outs=nothing, metrics=(), plots=(), params=(key,))
        for name, key in params.items()
    }


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tree = {"mnist": {"digits": {"seed": 0}}, "imagenet": {"miniature": {"seed": 1}, "a": {}, "b": {}}}
    (tmp_path / "params.yaml").write_text(json.dumps(tree), encoding="utf-8")
    return tmp_path


@pytest.mark.usefixtures("here")
def test_a_name_says_what_runs() -> None:
    one = reading(a="imagenet.miniature.seed", b="imagenet.miniature.train", c="sides")
    assert variants(one) == [("imagenet", "miniature")]
    assert summary.title(one, deployment="cgn-full", changed=2) == "cgn-full · miniature seed 1 · 2 changed"
    assert summary.title({}, deployment="cgn", changed=0, force=True) == "cgn · all anew"
    four = one | reading(d="mnist.digits.seed", e="imagenet.a.x", f="imagenet.b.x")
    assert summary.title(four, deployment="cgn-full", changed=0, from_stage="*@a") == "cgn-full · 4 variants · from *@a"


def test_an_evaluation_that_is_up_to_date_gives_its_values_to_the_pipeline(tmp_path: Path) -> None:
    log = tmp_path / "evaluate.log"
    log.mkdir()
    values = {"accuracy": {"original": {"test": 0.75}}, "images": 12, "evaluate": {"seconds": 3}}
    (log / "metrics.json").write_text(json.dumps(values), encoding="utf-8")
    stage = reading(evaluate="mnist.digits.seed")["evaluate"]
    assert summary.evaluation(stage) == {}
    stage = replace(stage, metrics=(log / "headlines.json",))
    assert summary.evaluation(stage) == {"mnist/digits/accuracy.original.test": 0.75}


def test_from_a_stage_means_it_and_what_needs_it() -> None:
    stages = chain(data="", left="data", right="data", join="left right", other="")
    assert onward(stages, "left") == {"left", "join"}
    assert onward(stages, "*t") == {"left", "right", "join"}
    with pytest.raises(ValueError, match="no stage matches 'lft'; stages: data, left"):
        onward(stages, "lft")


@pytest.mark.parametrize(
    ("lines", "status", "expected"),
    [
        ([EXITED.format(75)], 255, True),
        (["ERROR: Unable to acquire lock. Most likely another DVC process is running"], 255, True),
        ([EXITED.format(2)], 255, False),
        (["ERROR: Unable to acquire lock", EXITED.format(1)], 255, False),  # a stage's own words
        ([EXITED.format(-9)], 255, False),
        (["Unable to acquire lock"], 0, False),
    ],
)
def test_only_what_passes_by_itself_is_temporary(lines: list[str], status: int, expected: bool) -> None:
    assert Outcome(status=status, lines=tuple(lines)).temporary is expected


def test_lines_become_states_and_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def create(share: float, **_: Any) -> UUID:
        seen.append(share)
        return uuid4()

    monkeypatch.setattr(live, "get_run_logger", lambda: SimpleNamespace(info=print))
    monkeypatch.setattr(live.Live, "state", lambda _self, name, **_: seen.append(name))
    monkeypatch.setattr(live, "create_progress_artifact", create)
    monkeypatch.setattr(live, "update_progress_artifact", lambda _id, share, **_: seen.append(share))
    stage = live.Live("mnist_train_cgn@digits")
    for line in (
        "waiting for a GPU: GPU-1 is used by PID 3, train_cgn mnist/digits",
        "train_cgn mnist/digits has GPU-1",
        "300 of 1,800 updates (17%), 0.2 s each, 05:00 to go",
        "loss at update 300 of 1,800 (5%)",
        "900 of 1,800 updates (50%), 0.2 s each, 03:00 to go",
    ):
        stage(line)
    stage.made()
    assert seen == ["Waiting", "", 17.0, 50.0, 100.0]


@pytest.mark.parametrize("error", [OSError("refused"), ObjectNotFound(RuntimeError("deleted"))])
def test_a_server_that_fails_stops_no_stage(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    said: list[str] = []

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(live, "get_run_logger", lambda: SimpleNamespace(info=print, warning=said.append))
    for name in ("get_client", "create_progress_artifact"):
        monkeypatch.setattr(live, name, fail)
    stage = live.Live("mnist_train_cgn@digits")
    stage("waiting for a GPU: GPU-1 is used by PID 3, train_cgn mnist/digits")
    stage("300 of 1,800 updates (17%), 0.2 s each, 05:00 to go")
    assert len(said) == 3
    assert type(error).__name__ in said[0]


@pytest.mark.parametrize("line", ["", "Stage 'a' didn't change, skipping"])
def test_a_stage_ends_well_where_its_artifacts_cannot_be_shown(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    said: list[str] = []

    def fail(*_: Any) -> None:
        raise OSError("refused")

    monkeypatch.setattr(live, "get_run_logger", lambda: SimpleNamespace(info=print, warning=said.append))
    for name in ("show", "show_new"):
        monkeypatch.setattr(pipeline, name, fail)
    runner: Any = SimpleNamespace(reproduce=lambda *_, **__: Outcome(status=0, lines=(line,)))
    state = pipeline.reproduce.fn(reading(a="x")["a"], runner, 1, 0)
    assert state.is_completed()
    assert (state.name == "Cached") is bool(line)
    assert said == ["not shown, because Prefect's server failed: OSError: refused"]


def test_the_line_of_a_long_stage_is_one_that_the_flow_knows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cgn.core import progress

    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with progress.Lines(total=4000, initial=0, unit="images") as bar:
        bar.update(1000)
    found = live.PROGRESS.search(capsys.readouterr().err)
    assert found
    assert found["percent"] == "25"


def test_the_summary_links_what_was_made(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made: dict[str, str] = {}
    monkeypatch.setattr(summary, "create_markdown_artifact", lambda text, **named: made.update(text=text, **named))
    stages = reading(mnist_report="mnist.digits.report", mnist_other="mnist.digits.x")
    report = here / "runs/report"
    report.mkdir(parents=True)
    (report / "index.html").touch()
    stages["mnist_report"] = Stage(**{**vars(stages["mnist_report"]), "outs": (Path("runs/report"),)})
    stages |= gated(here, mnist_gate=True, imagenet_gate=False)
    ended: dict[str, State[Any]] = {"mnist_report": Completed(message="made in 3.0 s")}
    place = Workspace(folder=here, root=here, name="cgn-12345678")
    mlflow(here / "mlflow.db")
    summary.summarize(stages, ended=ended, name="cgn-full · digits seed 0", place=place, key="flow-1")
    lines = made["text"].splitlines()
    assert "| mnist_report | Completed | made in 3.0 s |" in lines
    assert "| mnist_other | not started |  |" in lines
    assert "- Report of mnist_report: `runs/report/index.html`" in lines
    assert "- Verdict of mnist_gate: **a passed**" in lines
    assert "- Verdict of imagenet_gate: **a refused**; bias: too low; gap: undecided" in lines
    assert "dvc exp apply cgn-12345678" in made["text"]
    assert lines[-2:] == [
        f"- MLflow: [the pipeline](http://127.0.0.1:5000/#/experiments/7/runs/p{summary.VIEW})",
        f"- MLflow: [report mnist/digits](http://127.0.0.1:5000/#/experiments/7/runs/r/artifacts{summary.VIEW})",
    ]
    failed: dict[str, State[Any]] = {"mnist_report": Failed(message="error: a | b\n(exit status 2)")}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    summary.summarize(stages, ended=failed, name="x", place=place, key="flow-1")
    assert "| mnist_report | Failed | error: a \\| b (exit status 2) |" in made["text"]
    assert made["text"].endswith("- MLflow at http://127.0.0.1:9 cannot be asked now: URLError")
    monkeypatch.setattr(summary, "_answer", lambda *_: ["no answer of MLflow's"])
    summary.summarize(stages, ended=failed, name="x", place=place, key="flow-1")
    assert made["text"].endswith("- MLflow at http://127.0.0.1:9 cannot be asked now: TypeError")
    assert shown("http://user:se@cret@host:1/a@b") == "http://host:1/a@b"


def test_a_server_is_asked_by_its_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN", raising=False)
    asked: list[tuple[str, Any, str | None]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, body: Any, reply: Any) -> None:
            asked.append((self.path, body, self.headers["Authorization"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        def do_GET(self) -> None:
            self.answer(None, {"experiment": {"experiment_id": "7"}})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(body, {"runs": [{"info": {"run_id": "p", "experiment_id": "7", "run_name": "a run"}}]})

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        found = summary._runs(f"http://me:se%3Acret@127.0.0.1:{server.server_port}/", {"cgn.pipeline": "flow-1"})
        server.shutdown()
    assert found == [{"id": "p", "experiment": "7", "name": "a run"}]
    api = "/api/2.0/mlflow"
    assert [(path, key) for path, _, key in asked] == [
        (f"{api}/experiments/get-by-name?experiment_name=cgn", "Basic bWU6c2U6Y3JldA=="),
        (f"{api}/runs/search", "Basic bWU6c2U6Y3JldA=="),
    ]
    assert asked[1][1] == {"experiment_ids": ["7"], "filter": "tags.`cgn.pipeline` = 'flow-1'"}


def gated(here: Path, **verdicts: bool) -> dict[str, Stage]:
    """Stages whose output is a verdict."""
    stages = reading(**dict.fromkeys(verdicts, "mnist.digits.gate"))
    for name, passed in verdicts.items():
        reasons = {"bias": "" if passed else "too low", "gap": "" if passed else "undecided", "top_1": ""}
        checks = [{"name": of, "reason": reason, "passed": not reason} for of, reason in reasons.items()]
        (here / name).mkdir()
        verdict = {"passed": passed, "classifier": "a", "checks": checks}
        (here / name / "gate.json").write_text(json.dumps(verdict), encoding="utf-8")
        stages[name] = Stage(**{**vars(stages[name]), "outs": (Path(name),)})
    return stages


def mlflow(file: Path) -> None:
    """MLflow's tables, as far as they are read: a pipeline with a report and another stage."""
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE runs (run_uuid, experiment_id, name, lifecycle_stage)")
        database.execute("CREATE TABLE tags (run_uuid, key, value)")
        names = {"p": "the pipeline", "r": "report mnist/digits", "t": "train_cgn mnist/digits"}
        database.executemany("INSERT INTO runs VALUES (?, 7, ?, 'active')", names.items())
        tags = [("p", "cgn.pipeline", "flow-1")]
        for run, verb in (("r", "report"), ("t", "train_cgn")):
            tags += [(run, "mlflow.parentRunId", "p"), (run, "cgn.verb", verb)]
        database.executemany("INSERT INTO tags VALUES (?, ?, ?)", tags)
        database.commit()
