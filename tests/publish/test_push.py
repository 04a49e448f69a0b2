"""Cards, Croissant metadata and repositories: what they say is true of the run, valid, and never at others' cost."""

import base64
import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cgn.core.checkpoints import save_model
from cgn.core.errors import ArtifactError, ConfigError, DownloadError
from cgn.core.files import write_json
from cgn.core.metrics import Silent
from cgn.data.shards import Sample, write_manifest, write_shard
from cgn.evaluation.gate import Check, conclude
from cgn.evaluation.intervals import Estimate

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs uv run --group publish")
mlcroissant = pytest.importorskip("mlcroissant", reason="needs uv run --group publish")
from cgn.publish import cards, push  # noqa: E402 (after the packages that they need)
from cgn.publish.cards import RunFolders  # noqa: E402

ORIGINS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "digits": ("mnist", {"digits": "scikit-learn"}, "come with scikit-learn", "bsd-3-clause"),
    "wildlife": ("mnist", {"digits": "mnist"}, "MNIST's handwritten digits", "other"),
    "miniature": ("imagenet", {"world": {"image_size": 64}}, "No photograph is among them", "mit"),
    "full": ("imagenet", {"world": None, "folders": {}}, "ImageNet's photographs", "other"),
}
SHARE = {"value": 0.5, "low": 0.4, "high": 0.6}


def make(root: Path, variant: str = "digits", *, images: int = 4) -> RunFolders:
    """A finished run's folders, as far as they are read: networks of one number, a few images."""
    track, params, _, _ = ORIGINS[variant]
    run = RunFolders(root=root / track / variant, track=track, variant=variant)
    arm = "counterfactual" if track == "mnist" else "ensemble"
    facts = {"track": track, "variant": variant, "classes": 10}
    for folder, more in ((f"train_classifier/{arm}", {"arm": arm}), ("train_cgn", {"net": {}})):
        save_model(run.root / folder / "model.safetensors", {"weight": torch.zeros(1)}, facts=facts | more)
    definition = {"track": track, "variant": variant, "seed": 3, "params": params}
    write_json(run.root / "prepare" / "definition.json", definition)
    accuracy = {"test_random": {"accuracy": 0.5, "low": 0.4, "high": 0.6}}
    write_json(run.root / "evaluate" / "accuracy.json", {"counterfactual": accuracy})
    undecided = {"shape_bias": SHARE, "decided": 9, "conflicts": 10, "undecided": "it is a guess"}
    heads = {"avg": {"clean": {"top_1": SHARE}, "cue_conflict": undecided, "in9": {"bg_gap": SHARE}}}
    write_json(run.root / "evaluate" / "results.json", {"classifiers": {"ensemble": heads}})
    check = Check(name="accuracy", measured=Estimate(**SHARE), kind="least", threshold=0.3)
    (run.root / "gate").mkdir()
    conclude([check], classifier=arm, target=run.target, folder=run.root / "gate", sink=Silent())
    (run.root / "generate").mkdir()
    samples = [
        Sample(
            image=np.full((16, 16, 3), 10 * number, dtype=np.uint8),
            facts={"shape": number, "texture": 1, "background": 2},
        )
        for number in range(images)
    ]
    shard = write_shard(run.root / "generate", samples, split="counterfactual", number=0, first_index=0)
    write_manifest(run.root / "generate", [shard], facts=facts)
    return run


@pytest.mark.parametrize("variant", ORIGINS)
def test_cards_are_valid_and_say_what_each_variant_is(tmp_path: Path, variant: str) -> None:
    run, (_, _, words, terms) = make(tmp_path, variant), ORIGINS[variant]
    for card, kind in (
        (cards.model_card(run), huggingface_hub.ModelCard),
        (cards.dataset_card(run), huggingface_hub.DatasetCard),
    ):
        read = kind(card)
        assert read.data.license == terms
        assert words in read.text
        assert [other for _, _, other, _ in ORIGINS.values() if other in read.text] == [words]
        assert "not by the paper's authors" in read.text
        assert "None" not in card
    (result,) = huggingface_hub.ModelCard(cards.model_card(run)).data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.5)
    assert "50.0 % (40.0 to 60.0)" in cards.model_card(run)


def test_an_undecided_number_is_not_quoted(tmp_path: Path) -> None:
    text = cards.model_card(make(tmp_path, "miniature"))
    assert "| undecided; 9 of 10 decided | 50.0 % (40.0 to 60.0) |" in text


def test_a_card_needs_what_it_quotes(tmp_path: Path) -> None:
    run = make(tmp_path)
    write_json(run.root / "evaluate" / "accuracy.json", {})
    with pytest.raises(ArtifactError, match="lacks the figures of counterfactual"):
        cards.model_card(run)
    (run.root / "gate" / "gate.json").unlink()
    with pytest.raises(ArtifactError, match=r"gate.json is missing: run the stage that makes .*gate again"):
        cards.model_card(run)


@pytest.mark.filterwarnings("ignore")  # mlcroissant's own
def test_croissant_reads_the_images_and_their_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # it unpacks there
    make(tmp_path / "runs")
    push.push(["mnist/digits", "dataset", "--runs", str(tmp_path / "runs"), "--to", str(tmp_path / "repo")])
    found = mlcroissant.Dataset(str(tmp_path / "repo" / "croissant.json"))
    assert not found.metadata.ctx.issues.errors
    images, labels = (list(found.records(name)) for name in ("counterfactual", "counterfactual-labels"))
    stored = [json.loads(label["counterfactual-labels/json"]) for label in labels]
    assert stored == [{"shape": number, "texture": 1, "background": 2} for number in range(4)]
    assert [_text(label["counterfactual-labels/key"]) for label in labels] == [f"{n:08d}" for n in range(4)]
    assert [_text(image["counterfactual/key"]) for image in images] == [f"{n:08d}" for n in range(4)]
    pixels = [np.asarray(image["counterfactual/image"])[0, 0, 0] for image in images]
    assert pixels == [0, 10, 20, 30]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def repository(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def model_words(tmp_path: Path, to: object) -> list[str]:
    return ["mnist/digits", "model", "--runs", str(tmp_path / "runs"), "--to", str(to)]


def test_a_second_push_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make(tmp_path / "runs")
    words = model_words(tmp_path, tmp_path / "repo")
    push.push(words)
    first = repository(tmp_path / "repo")
    assert sorted(first) == [
        "README.md", "cgn.json", "classifier/model.safetensors", "config.json", "generator/model.safetensors",
    ]  # fmt: skip
    assert first["classifier/model.safetensors"] == (run.classifier / "model.safetensors").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "repo").rglob("*")}
    push.push(words)
    assert "0 of 4 files written, 0 removed" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "repo").rglob("*")} == times


def test_a_push_that_was_cut_short_is_completed(tmp_path: Path) -> None:
    make(tmp_path / "runs")
    words, repo = model_words(tmp_path, tmp_path / "repo"), tmp_path / "repo"
    push.push(words)
    whole = repository(repo)
    (repo / "config.json").unlink()
    push.push(words)
    assert repository(repo) == whole


def test_another_run_replaces_ours_and_removes_what_it_lacks(tmp_path: Path) -> None:
    run, repo = make(tmp_path / "runs"), tmp_path / "repo"
    words = ["mnist/digits", "dataset", "--runs", str(tmp_path / "runs"), "--to", str(repo)]
    push.push(words)
    mark = json.loads((repo / "cgn.json").read_text(encoding="utf-8"))
    (repo / "factual-000000.tar").write_bytes(b"ours")
    mark["files"]["factual-000000.tar"] = push._digest(repo / "factual-000000.tar")
    write_json(repo / "cgn.json", mark)
    shutil.rmtree(run.root)
    make(tmp_path / "runs", images=5)
    push.push(words)
    assert not (repo / "factual-000000.tar").exists()
    assert "| counterfactual | 5 |" in (repo / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["notes.txt", "README.md"])
def test_a_folder_of_somebody_else_stays(tmp_path: Path, name: str) -> None:
    make(tmp_path / "runs")
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / name).write_text("mine", encoding="utf-8")
    with pytest.raises(ArtifactError, match="holds files that this command did not write"):
        push.push(model_words(tmp_path, tmp_path / "repo"))
    assert repository(tmp_path / "repo") == {name: b"mine"}


def test_a_file_that_was_changed_by_hand_stays(tmp_path: Path) -> None:
    run = make(tmp_path / "runs")
    words, repo = model_words(tmp_path, tmp_path / "repo"), tmp_path / "repo"
    push.push(words)
    (repo / "README.md").write_text("mine", encoding="utf-8")
    (repo / "mine.txt").write_text("mine", encoding="utf-8")
    write_json(run.root / "prepare" / "definition.json", dict(run.definition) | {"seed": 4})
    before = repository(repo)
    with pytest.raises(ArtifactError, match=r"README.md is not what this command wrote: nothing was touched"):
        push.push(words)
    assert repository(repo) == before


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "runs")
    push.push(model_words(tmp_path, tmp_path / "repo"))
    words = ["mnist/digits", "dataset", "--runs", str(tmp_path / "runs"), "--to", str(tmp_path / "repo")]
    with pytest.raises(ArtifactError, match="is a repository of kind 'model', not 'dataset'"):
        push.push(words)
    with pytest.raises(ConfigError, match="digits is not TRACK/VARIANT"):
        push.push(["digits", *words[1:]])
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="is a file: give a folder"):
        push.push(model_words(tmp_path, tmp_path / "file"))


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as a push asks for: one repository, whose files come with the commits."""

    files: dict[str, bytes]
    commits: list[str]

    def answer(self, reply: Any, *, status: int = 200, data: bytes | None = None) -> None:
        body = json.dumps(reply).encode() if data is None else data
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (("X-Repo-Commit", "0" * 40), ("ETag", '"1"'), ("Content-Type", "application/json")):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if found := re.search(r"/resolve/[^/]+/(.*)$", self.path):
            return self.answer({}, data=self.files[found[1]])
        if "/tree/" in self.path:
            return self.answer([{"type": "file", "path": name, "size": 1, "oid": "1"} for name in self.files])
        siblings = [{"rfilename": name} for name in self.files]
        return self.answer({"id": "me/x", "sha": "0" * 40, "siblings": siblings})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            return self.answer({"url": f"http://{self.headers['Host']}/me/x"})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            names = [entry["path"] for entry in json.loads(body)["files"]]
            entries = [{"path": name, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for name in names]
            return self.answer({"files": entries})
        assert "/commit/" in self.path, self.path
        for line in map(json.loads, body.splitlines()):
            match line["key"]:
                case "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                case "deletedFile":
                    del self.files[line["value"]["path"]]
                case _:
                    self.commits.append(line["value"]["summary"])
        url = f"http://{self.headers['Host']}/me/x/commit/{'0' * 40}"
        return self.answer({"commitUrl": url, "commitOid": "0" * 40, "success": True})

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Hub]]:
    """The Hub, at an address of this machine; a client that knows it."""
    handler = type("OneHub", (Hub,), {"files": {".gitattributes": b""}, "commits": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        api, address = huggingface_hub.HfApi, f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api(endpoint=address, token="hf_x"))
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        yield handler
        server.shutdown()


@pytest.mark.filterwarnings("ignore")  # huggingface_hub's own
def test_the_hub_gets_one_commit_with_the_files(
    tmp_path: Path, hub: type[Hub], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make(tmp_path / "runs")
    push.push(model_words(tmp_path, tmp_path / "repo"))
    push.push(model_words(tmp_path, "hf://me/x"))
    assert {name: hub.files[name] for name in hub.files if name != ".gitattributes"} == repository(tmp_path / "repo")
    push.push(model_words(tmp_path, "hf://me/x"))
    assert "hf://me/x: up to date" in capsys.readouterr().out
    assert hub.commits == ["Push mnist/digits"]
    write_json(run.root / "prepare" / "definition.json", dict(run.definition) | {"seed": 4})
    push.push(model_words(tmp_path, "hf://me/x"))
    assert len(hub.commits) == 2
    assert json.loads(hub.files["config.json"])["seed"] == 4


@pytest.mark.filterwarnings("ignore")
def test_the_hub_keeps_what_is_not_ours(tmp_path: Path, hub: type[Hub]) -> None:
    make(tmp_path / "runs")
    hub.files["weights.bin"] = b"mine"
    with pytest.raises(ArtifactError, match=r"holds weights.bin, which this command did not write"):
        push.push(model_words(tmp_path, "hf://me/x"))
    assert not hub.commits


@pytest.mark.filterwarnings("ignore")
def test_a_hub_that_is_down_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "runs")
    api = huggingface_hub.HfApi
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api(endpoint="http://127.0.0.1:9", token="hf_x"))
    with pytest.raises(DownloadError, match="hf://me/x cannot be written now"):
        push.push(model_words(tmp_path, "hf://me/x"))
