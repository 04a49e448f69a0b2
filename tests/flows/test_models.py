"""Trained networks in MLflow: models from code, versions, the champion's alias. MLflow is real, stages are not."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from cgn.core.checkpoints import save_model
from cgn.core.files import folder_digest, write_json
from cgn.core.metrics import Fanout, Files
from cgn.mnist.generator import build_generator, model_facts
from cgn.nets.classifiers import Cnn
from flows.models.__main__ import main
from flows.tracking import sync
from flows.untracked import UntrackedRun
from tests.flows.stored import runs
from tests.flows.test_mlflow_client import pipeline, uri

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own, of its database layer
NAME = "cgn-mnist-toy-classifier"
HERE = Path("runs/mnist/toy")
NET = {"shape_width": 4, "tile_width": 4, "noise_size": 6, "image_size": 16}


def client(root: Path) -> Any:
    """MLflow's own client."""
    from mlflow import MlflowClient

    return MlflowClient(uri(root))


def stage(
    root: Path, verb: str, out: Path, *, values: dict[str, float] | None = None, key: str = "flow", **inputs: list[Path]
) -> UntrackedRun:
    """A stage that has ended; its output exists."""
    run, log = UntrackedRun(root, pipeline=pipeline(key)), out.with_name(f"{out.name}.log")
    given = {role: [str(path) for path in paths] for role, paths in inputs.items()}
    facts = {"name": f"{verb} mnist/toy {out.name}", "verb": verb, "track": "mnist", "variant": "toy"}
    run.begin(facts | {"inputs": given}, out=out, log=log)
    sink = Fanout([Files(log, compared=("*",)), run])
    digests = {role: [folder_digest(path) for path in paths] for role, paths in inputs.items()}
    write_json(
        log / "run.json", {"params": {"epochs": 3}, "seed": 7, "versions": {"torch": "2.13.0+cpu"}, "inputs": digests}
    )
    write_json(out / "definition.json", {"inputs": digests, "verb": verb})
    sink.rewind(-1)
    sink.log({"loss": 0.5}, step=3)
    sink.summary(values or {"loss": 0.5})
    run.end("FINISHED")
    return run


def classifier(root: Path, *, arm: str = "original", seed: int = 0, key: str = "flow") -> Path:
    """A run of train_classifier: the classifier's folder."""
    out = HERE / "train_classifier" / arm
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    torch.manual_seed(seed)
    facts = {"track": "mnist", "variant": "toy", "arm": arm, "classes": 10, "image_size": 16}
    save_model(out / "model.safetensors", Cnn().state_dict(), facts=facts)
    stage(root, "train_classifier", out, key=key)
    return out


def judged(root: Path, *folders: Path, passed: bool, key: str = "flow") -> UntrackedRun:
    """A run of evaluate on these classifiers, then one of gate on the first."""
    out = HERE / "evaluate"
    out.mkdir(exist_ok=True)
    stage(
        root, "evaluate", out, values={f"accuracy/{f.name}/test": 0.25 for f in folders}, key=key, classifier=[*folders]
    )
    return gate(root, folders[0], passed=passed, key=key)


def gate(root: Path, folder: Path, *, passed: bool, key: str = "flow") -> UntrackedRun:
    """A run of gate on what evaluate wrote."""
    (HERE / "gate").mkdir(exist_ok=True)
    check = {"name": "accuracy", "value": 0.25, "low": 0.2, "high": 0.3, "least": 0.1, "passed": passed}
    check["reason"] = "" if passed else "the lower end, 20 %, is below 50 %"
    verdict = {"passed": passed, "classifier": folder.name, "checks": [check]}
    write_json(HERE / "gate/gate.json", verdict)
    return stage(root, "gate", HERE / "gate", values={"passed": float(passed)}, key=key, decisions=[HERE / "evaluate"])


def versions(root: Path, name: str = NAME) -> list[Any]:
    """All versions, oldest first, with their aliases."""
    found = client(root).search_model_versions(f"name = '{name}'")
    return [client(root).get_model_version(name, one.version) for one in sorted(found, key=lambda v: int(v.version))]


def models(root: Path) -> list[Any]:
    """All logged models, oldest first."""
    experiment = client(root).get_experiment_by_name("cgn").experiment_id
    return list(reversed(client(root).search_logged_models([experiment])))


def test_a_trained_classifier_is_a_model_and_a_version_that_are_linked_to_their_run(root: Path) -> None:
    folder = classifier(root)
    digest = folder_digest(folder)
    assert sync(root) == 0
    run = runs(uri(root))["train_classifier mnist/toy original"]
    (model,), (version,) = models(root), versions(root)
    assert (model.name, model.model_type, str(model.status)) == ("mnist-toy-original", "classifier", "READY")
    assert model.source_run_id == run.info.run_id
    assert [made.model_id for made in run.outputs.model_outputs] == [model.model_id]
    assert {metric.key: metric.value for metric in model.metrics} == {"train/loss": 0.5}
    assert model.params == {"epochs": "3", "seed": "7"}
    assert version.source == f"models:/{model.model_id}"
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": NAME, "version": str(version.version)}]
    assert version.description == "Classifier of mnist/toy, arm `original`"
    assert version.run_id == run.info.run_id
    assert {"arm": "original", "folder": digest, "dvc.path": str(folder)}.items() <= version.tags.items()
    assert version.aliases == []
    assert run.data.metrics["train/loss"] == 0.5


def test_what_is_stored_loads_without_pickle_and_answers_as_the_library(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import pandas as pd
    from PIL import Image

    import cgn

    folder = classifier(root)
    assert sync(root) == 0
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    Image.effect_noise((16, 16), 90).convert("RGB").save(root / "noise.png")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri(root))
    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}/1")
    (answer,) = loaded.predict(pd.DataFrame({"image": [(root / "noise.png").read_bytes()]}), params={"top": 3})
    (said,) = cgn.load_classifier(folder).classify([root / "noise.png"])
    assert (answer["class"], answer["probability"]) == (said.name, said.probability)
    assert answer["heads"] == {"label": dict(list(said.heads["label"].items())[:3])}
    stored = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/1"))
    kinds = {path.suffix for path in stored.rglob("*") if path.is_file()}
    assert kinds == {"", ".json", ".py", ".safetensors", ".txt", ".yaml"}
    assert (stored / "artifacts/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert (stored / "requirements.txt").read_text().split() >= ["mlflow", "torch==2.13.0"]
    assert loaded.metadata.signature.inputs.input_names() == ["image"]
    assert loaded.input_example["image"][0][:4] == b"\x89PNG"


def test_a_trained_generator_draws_the_labels_of_a_request(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import base64

    import mlflow
    import pandas as pd

    import cgn

    torch.manual_seed(0)
    out = HERE / "train_cgn"
    out.mkdir(parents=True)
    facts = model_facts(variant="toy", net=NET)
    save_model(out / "model.safetensors", build_generator(**NET).state_dict(), facts=facts)
    stage(root, "train_cgn", out)
    assert sync(root) == 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri(root))
    loaded = mlflow.pyfunc.load_model("models:/cgn-mnist-toy-generator/1")
    rows = [{"shape": 3, "texture": 7, "background": 1, "seed": 4}, {"shape": 2}]
    answers = [base64.b64decode(answer["image"]) for answer in loaded.predict(pd.DataFrame(rows))]
    generator = cgn.load_generator(out)
    expected = [generator.draw(shape=3, texture=7, background=1, seed=4), generator.draw(shape=2)]
    assert answers == [sample.pngs()[0] for sample in expected]
    for row, message in [
        ({"shape": 99}, "the generator's classes are 0 to 9"),
        ({"shape": 3.5}, "labels are 3.5; allowed: a class number"),
        ({"shape": None}, "a row has no shape"),
        ({"shape": 1, "seed": -1}, "seed is -1, allowed"),
    ]:
        with pytest.raises(mlflow.exceptions.MlflowException, match=message):
            loaded.predict(pd.DataFrame([row]))


@pytest.mark.long
def test_the_same_bytes_are_no_new_version_and_others_are(root: Path) -> None:
    classifier(root, key="a")
    assert sync(root) == 0
    classifier(root, key="b")
    assert sync(root) == 0
    assert (len(versions(root)), len(models(root))) == (1, 1)
    found = client(root).search_runs([client(root).get_experiment_by_name("cgn").experiment_id])
    linked = [run.outputs.model_outputs[0].model_id for run in found if run.data.tags.get("cgn.verb")]
    assert linked == [models(root)[0].model_id] * 2
    classifier(root, seed=1, key="c")
    classifier(root, arm="gan", key="c")
    assert sync(root) == 0
    assert [version.tags["arm"] for version in versions(root)] == ["original", "original", "gan"]
    assert len(models(root)) == 3


def test_an_evaluation_is_linked_to_the_classifiers_that_it_is_of(root: Path) -> None:
    folders = [classifier(root, arm=arm, seed=seed) for seed, arm in enumerate(("original", "gan"))]
    judged(root, *folders, passed=True)
    classifier(root, arm="gan", seed=5, key="later")
    assert sync(root) == 0
    found = runs(uri(root))["evaluate mnist/toy evaluate"]
    run = client(root).get_run(found.info.run_id)  # a search leaves the input models out
    original, gan, later = models(root)
    assert {given.model_id for given in run.inputs.model_inputs} == {original.model_id, gan.model_id}
    named = {model.name: {metric.key for metric in model.metrics} for model in (original, gan)}
    assert named == {
        "mnist-toy-original": {"train/loss", "accuracy/original/test"},
        "mnist-toy-gan": {"train/loss", "accuracy/gan/test"},
    }
    assert {metric.run_id for metric in gan.metrics if "test" in metric.key} == {run.info.run_id}
    assert {metric.key for metric in later.metrics} == {"train/loss"}


def test_the_alias_moves_when_the_gate_passes_and_stays_when_it_refuses(root: Path) -> None:
    judged(root, classifier(root), passed=True)
    assert sync(root) == 0
    assert versions(root)[0].aliases == ["champion"]
    assert versions(root)[0].tags["gate"] == "passed"
    judged(root, classifier(root, seed=1, key="b"), passed=False, key="b")
    assert sync(root) == 0
    first, second = versions(root)
    assert (first.aliases, second.aliases) == (["champion"], [])
    assert second.tags["gate"] == "refused: accuracy: the lower end, 20 %, is below 50 %"
    judged(root, classifier(root, seed=2, key="c"), passed=True, key="c")
    assert sync(root) == 0
    assert [version.aliases for version in versions(root)] == [[], [], ["champion"]]
    run = runs(uri(root))["gate mnist/toy gate"]
    assert run.data.tags["cgn.gate"] == f"passed: {NAME} version 3"
    assert (run.data.tags["cgn.verdict"], run.data.metrics["gate/passed"]) == ("passed", 1.0)
    pipelines = client(root).search_runs([run.info.experiment_id], "tags.`cgn.verdict.mnist.toy` LIKE '%'")
    verdicts = {pipeline.data.tags["cgn.verdict.mnist.toy"] for pipeline in pipelines}
    assert verdicts == {"passed", "refused: accuracy: the lower end, 20 %, is below 50 %"}
    assert run.data.tags["mlflow.parentRunId"] in {pipeline.info.run_id for pipeline in pipelines}


@pytest.mark.long
def test_a_verdict_moves_nothing_for_a_classifier_that_was_not_evaluated(root: Path) -> None:
    folder = classifier(root)
    judged(root, folder, passed=False)
    classifier(root, seed=1)
    gate(root, folder, passed=True, key="b")
    assert sync(root) == 0
    assert [version.aliases for version in versions(root)] == [[], []]
    assert "gate" not in versions(root)[1].tags
    said = runs(uri(root))["gate mnist/toy gate"].data.tags["cgn.gate"]
    assert said == "of no version: the classifier original is not the one that was evaluated"


@pytest.mark.long
def test_a_verdict_that_is_sent_late_does_not_undo_a_newer_one(root: Path) -> None:
    folder = classifier(root, key="a")
    old = judged(root, folder, passed=True, key="a")
    kept = root / "kept"
    shutil.move(old.folder.parent, kept)
    judged(root, classifier(root, seed=1, key="b"), passed=True, key="b")
    assert sync(root) == 0
    shutil.move(kept, old.folder.parent)
    assert sync(root) == 0
    newer, older = versions(root)
    assert (newer.aliases, older.aliases) == (["champion"], [])
    assert older.tags["gate"] == "passed"


def test_a_passed_classifier_that_was_trained_elsewhere_is_registered_by_its_gate(root: Path) -> None:
    folder = classifier(root)
    shutil.rmtree(root / "runs/untracked")
    judged(root, folder, passed=True)
    assert sync(root) == 0
    (version,) = versions(root)
    assert version.aliases == ["champion"]
    assert version.tags["folder"] == folder_digest(folder)


@pytest.mark.long
@pytest.mark.parametrize(
    "fails",
    [
        "create_logged_model",
        "log_model_artifacts",
        "finalize_logged_model",
        "log_outputs",
        "create_registered_model",
        "create_model_version",
        "set_registered_model_alias",
    ],
)
def test_what_fails_midway_is_registered_once_by_the_next_sync(
    root: Path, monkeypatch: pytest.MonkeyPatch, fails: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    judged(root, classifier(root), passed=True)
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, fails, fail)
        assert sync(root) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert list((root / "runs/untracked").glob("*/*/stage.json"))
    assert sync(root) == 0
    (version,), (model,) = versions(root), models(root)
    assert version.aliases == ["champion"]
    assert str(model.status) == "READY"
    run = client(root).get_run(model.source_run_id)
    assert len(run.outputs.model_outputs) == 1
    assert not list((root / "runs/untracked").glob("*/*/stage.json"))


@pytest.mark.long
def test_a_server_that_refuses_models_holds_up_no_other_run(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import RestException

    def refuse(*_: object, **__: object) -> None:
        raise RestException({"error_code": "PERMISSION_DENIED", "message": "no"})  # type: ignore[no-untyped-call]

    classifier(root)
    (HERE / "evaluate").mkdir()
    stage(root, "evaluate", HERE / "evaluate", classifier=[HERE / "train_classifier/original"])
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "create_model_version", refuse)
        assert sync(root) == 2
    assert "does not permit it" in capsys.readouterr().err
    assert runs(uri(root))["evaluate mnist/toy evaluate"].info.status == "FINISHED"
    assert sync(root) == 0
    assert len(versions(root)) == 1


def test_large_weights_are_not_copied_and_say_where_they_are(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CGN_MODEL_MB", "0.01")
    folder = classifier(root)
    assert sync(root) == 0
    (version,), (model,) = versions(root), models(root)
    assert version.tags["weights"].startswith("not copied")
    assert version.tags["dvc.path"] == str(folder)
    assert client(root).list_logged_model_artifacts(model.model_id) == []


@pytest.mark.long
def test_a_copied_store_serves_its_own_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    classifier(root)
    assert sync(root) == 0
    copy = root.with_name("copy")
    shutil.copytree(root, copy)
    monkeypatch.chdir(copy)
    classifier(copy, seed=1, key="b")
    assert sync(copy) == 0
    shutil.rmtree(root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri(copy))
    for number in (1, 2):
        assert mlflow.pyfunc.load_model(f"models:/{NAME}/{number}").metadata.signature is not None


def test_damaged_weights_are_refused_and_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classifier(root)
    (held,) = (root / "runs/untracked").glob("*/*/model/model.safetensors")
    held.unlink()
    held.write_bytes(b"no weights")
    assert sync(root) == 2
    assert "its files are damaged" in capsys.readouterr().err


@pytest.mark.long
def test_list_and_promote(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judged(root, classifier(root, key="a"), passed=True, key="a")
    judged(root, classifier(root, seed=1, key="b"), passed=True, key="b")
    judged(root, classifier(root, seed=2, key="c"), passed=False, key="c")
    assert sync(root) == 0
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert f"{NAME}/2" in listed
    assert "champion" in next(line for line in listed.splitlines() if f"{NAME}/2" in line)
    assert main(["promote", f"{NAME}/1"]) == 0
    assert [version.aliases for version in versions(root)] == [["champion"], [], []]
    assert main(["promote", f"{NAME}/3"]) == 2
    assert "the lower end, 20 %, is below 50 %" in capsys.readouterr().err
    assert main(["promote", f"{NAME}/9"]) == 2
    assert main(["promote", "nonsense"]) == 2
    assert [version.aliases for version in versions(root)] == [["champion"], [], []]


def test_a_classifier_without_a_verdict_is_not_promoted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classifier(root)
    assert sync(root) == 0
    assert main(["promote", f"{NAME}/1"]) == 2
    assert "no gate has judged it" in capsys.readouterr().err
    assert versions(root)[0].aliases == []
    with pytest.raises(SystemExit):
        main(["promote", "--force", f"{NAME}/1"])


def test_a_folder_to_serve_is_written_without_mlflow(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import mlflow

    folder = classifier(root)
    assert main(["save", str(folder), "served"]) == 0
    assert mlflow.pyfunc.load_model("served").metadata.signature is not None
    assert main(["save", str(folder), "served"]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["save", str(root), "other"]) == 2
