"""export: small networks as ONNX answer what torch answers, for any batch, and what cannot be exported is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cgn.core.checkpoints import save_model
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.files import sha256
from cgn.data.shards import Sample, write_manifest, write_shard
from cgn.imagenet import generator as imagenet
from cgn.mnist.evaluate import load_trained
from cgn.mnist.generator import build_generator, model_facts
from cgn.mnist.train_classifier import initial_classifier
from cgn.nets.biggan import BigGan, BigGanConfig
from cgn.nets.u2net import U2Net, Widths
from cgn.publish import graphs

onnx = pytest.importorskip("onnx", reason="needs uv run --group publish")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs uv run --group publish")
pytest.importorskip("onnxscript", reason="needs uv run --group publish")
from cgn.publish import export  # noqa: E402 (after the packages that it needs)

NET = {"shape_width": 4, "tile_width": 4, "noise_size": 6, "image_size": 16}
CLASSIFIER = {"track": "mnist", "variant": "digits", "arm": "counterfactual", "classes": 10, "image_size": 16}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier, a generator, and test images, as a run of the digits leaves them."""
    root = tmp_path_factory.mktemp("run")
    save_model(root / "classifier" / "model.safetensors", initial_classifier(1).state_dict(), facts=CLASSIFIER)
    generator = build_generator(**NET)
    save_model(
        root / "model" / "model.safetensors", generator.state_dict(), facts=model_facts(variant="digits", net=NET)
    )
    random, labels = np.random.default_rng(0), {"shape": 3, "texture": 1, "background": 4}
    (root / "data").mkdir()
    made = [Sample(image=random.integers(0, 256, (16, 16, 3), dtype=np.uint8), facts=labels) for _ in range(5)]
    shard = write_shard(root / "data", made, split="test_random", number=0, first_index=0)
    write_manifest(root / "data", [shard], facts={"track": "mnist", "variant": "digits"})
    return root


def words(run: Path, onnx_file: Path, target: str = "mnist/digits") -> list[str]:
    return [target, "--classifier", str(run / "classifier"), "--data", str(run / "data"), "--onnx", str(onnx_file)]


def answered(file: Path, inputs: dict[str, torch.Tensor]) -> list[Any]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    return found


@pytest.mark.long
def test_a_classifier_takes_any_batch_of_plain_images(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "classifier.onnx"
    export.export(words(run, file))
    assert "on 5 inputs" in capsys.readouterr().out
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    images = torch.rand(7, 3, 16, 16)
    (answer,) = answered(file, {"images": images})
    network, _ = load_trained(run / "classifier", variant="digits")
    assert torch.allclose(torch.from_numpy(answer), network(images * 2 - 1), atol=1e-5)
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import if not entry.domain] == [("", export.OPSET)]
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["cgn.class_names"].split("\n") == list("0123456789")
    assert said["cgn.weights_sha256"] == sha256(run / "classifier" / "model.safetensors")
    assert "RGB in [0,1]" in said["cgn.input"]
    assert str(Path.cwd()).encode() not in file.read_bytes()
    first = file.read_bytes()
    export.export(words(run, file))
    assert file.read_bytes() == first


@pytest.mark.long
def test_a_generator_draws_what_torch_draws(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "generator.onnx"
    export.export(["mnist/digits", "--model", str(run / "model"), "--onnx", str(file)])
    graph = graphs.generator_graph(run / "model", track="mnist", variant="digits", count=3)
    assert list(graph.inputs)[:3] == ["shape_noise", "shape_label", "texture_noise"]
    image, mask, foreground, background = map(torch.from_numpy, answered(file, graph.inputs))
    assert torch.allclose(image, graph.expected["image"], atol=1e-5)
    assert torch.allclose(image, mask * foreground + (1 - mask) * background, atol=1e-6)


@pytest.mark.long
def test_an_imagenet_generator_draws_what_torch_draws_for_any_batch(tmp_path: Path) -> None:
    blocks = ((False, 4, 4), (True, 4, 2))
    config = BigGanConfig(noise_size=4, embedding_size=4, classes=3, width=8, blocks=blocks, attention_at=1)
    widths = Widths(down=((4, 4),) * 6, up=((4, 4),) * 5)
    saliency = U2Net(widths).eval()
    generator = imagenet.build_generator(BigGan(config).eval(), saliency=saliency)
    weights = generator.state_dict() | imagenet.saliency_tensors(saliency)
    facts = imagenet.model_facts(variant="mini", table=config, widths=widths)
    save_model(tmp_path / "model" / "model.safetensors", weights, facts=facts)
    file = tmp_path / "generator.onnx"
    words = ["imagenet/mini", "--model", str(tmp_path / "model"), "--onnx", str(file)]
    export.export(words)
    for count in (1, 5):
        graph = graphs.generator_graph(tmp_path / "model", track="imagenet", variant="mini", count=count)
        found = dict(zip(graph.outputs, answered(file, graph.inputs), strict=True))
        assert found["mask"].shape == (count, 1, 8, 8)
        for name, expected in graph.expected.items():
            assert torch.allclose(torch.from_numpy(found[name]), expected, atol=1e-4), name
    assert str(Path.cwd()).encode() not in file.read_bytes()
    first = file.read_bytes()
    export.export(words)
    assert file.read_bytes() == first


def test_another_answer_than_torchs_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graphs.classifier_graph(run / "classifier", track="mnist", variant="digits", data=run / "data", count=3)

    class Session:
        wrong = 1e-6

        def __init__(self, *_: Any, **__: Any) -> None: ...
        def run(self, names: list[str], _: Any) -> list[Any]:
            return [graph.expected[name].numpy() + self.wrong for name in names]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    export.compare(b"", graph)
    for wrong in (1.0, np.nan):
        monkeypatch.setattr(Session, "wrong", wrong)
        with pytest.raises(ArtifactError, match="ONNX Runtime answers otherwise"):
            export.compare(b"", graph)


def test_a_file_of_somebody_else_stays(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").write_text(json.dumps({}), encoding="utf-8")
    (tmp_path / "folder.onnx").mkdir()
    for name in ("mine.onnx", "folder.onnx"):
        with pytest.raises(ArtifactError, match="exists and is no file that this command wrote"):
            export.export(words(run, tmp_path / name))
    assert (tmp_path / "mine.onnx").read_text(encoding="utf-8") == "{}"


def test_what_does_not_fit_is_refused(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.onnx"
    with pytest.raises(ArtifactError, match="variant 'digits', expected 'wildlife'"):
        export.export(words(run, file, target="mnist/wildlife"))
    with pytest.raises(ConfigError, match="digits is not TRACK/VARIANT"):
        export.export(words(run, file, target="digits"))
    with pytest.raises(ConfigError, match="--classifier needs --data"):
        export.export(["mnist/digits", "--classifier", str(run), "--onnx", str(file)])
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(
        ConfigError, match="onnxruntime is not installed here; run the command by `uv run --group publish`"
    ):
        export.require_installed()
