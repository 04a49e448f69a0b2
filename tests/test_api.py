"""The Python API: a generator of either track is loaded, draws, intervenes and writes shards; names load lazily."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import numpy as np
import pytest
import torch

import cgn
from cgn.core.checkpoints import save_model
from cgn.imagenet.generator import build_generator as build_bigger
from cgn.imagenet.generator import model_facts as facts_of_bigger
from cgn.imagenet.generator import saliency_tensors
from cgn.mnist.generator import build_generator, model_facts
from cgn.nets.biggan import BigGan
from cgn.nets.u2net import U2Net
from tests.support.toy_nets import BIGGAN_CONFIG, WIDTHS

ROOT = Path(__file__).parents[1]
NET = {"shape_width": 4, "tile_width": 4, "noise_size": 6, "image_size": 16}


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("mnist")
    net = build_generator(**NET)
    save_model(folder / "model.safetensors", net.state_dict(), facts=model_facts(variant="digits", net=NET))
    return folder


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("imagenet")
    saliency = U2Net(WIDTHS)
    net = build_bigger(BigGan(BIGGAN_CONFIG), saliency=saliency)
    facts = facts_of_bigger(variant="toy", table=BIGGAN_CONFIG, widths=WIDTHS)
    save_model(folder / "model.safetensors", {**net.state_dict(), **saliency_tensors(saliency)}, facts=facts)
    return folder


@pytest.fixture(params=["mnist", "imagenet"])
def generator(request: pytest.FixtureRequest) -> cgn.CounterfactualGenerator:
    loaded: cgn.CounterfactualGenerator = cgn.load_generator(request.getfixturevalue(request.param))
    return loaded


def test_the_names_are_those_of_the_documentation_and_load_nothing_heavy() -> None:
    from cgn import api

    assert sorted(cgn.__all__) == sorted(api.__all__)
    assert all(getattr(cgn, name) is getattr(api, name) for name in cgn.__all__)
    with pytest.raises(AttributeError, match="it has: ArtifactError"):
        cgn.nothing  # noqa: B018
    check = "import cgn, sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0


def test_every_module_loads_where_the_platform_is_absent() -> None:
    check = """
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys(("flows", "prefect", "dvc", "mlflow"), None))
import cgn
for module in pkgutil.walk_packages(cgn.__path__, "cgn."):
    importlib.import_module(module.name)
assert "cgn.imagenet.evaluate" in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0


def test_a_draw_has_its_labels_shapes_and_ranges(generator: cgn.CounterfactualGenerator) -> None:
    sample = generator.draw(shape=[1, 2, 3], texture=4, background=[5, 6, 7], seed=3)
    size = generator.image_size
    assert sample.images.shape == (3, 3, size, size)
    assert sample.mask.shape == (3, 1, size, size)
    assert float(sample.images.abs().max()) <= 1
    assert 0 < float(sample.mask.min()) < float(sample.mask.max()) < 1
    labels = {name: label.tolist() for name, label in sample.labels.items()}
    assert labels == {"shape": [1, 2, 3], "texture": [4, 4, 4], "background": [5, 6, 7]}
    composed = sample.mask * sample.foreground + (1 - sample.mask) * sample.background
    torch.testing.assert_close(sample.images, composed)


def test_equal_arguments_draw_equal_images_and_seeds_differ(generator: cgn.CounterfactualGenerator) -> None:
    first, again, other = (generator.draw(shape=[0, 1], texture=[2, 3], seed=seed).images for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_factual_images_share_label_and_noise(generator: cgn.CounterfactualGenerator) -> None:
    sample = generator.draw(shape=[2, 3])
    causes = sample.causes
    assert torch.equal(causes.shape.noise, causes.texture.noise)
    assert torch.equal(causes.shape.label, causes.background.label)


@pytest.mark.parametrize("mechanism", ["shape", "texture", "background"])
def test_an_intervention_changes_its_mechanism_alone(generator: cgn.CounterfactualGenerator, mechanism: str) -> None:
    before = generator.draw(shape=[0, 1], texture=[2, 3], background=[4, 5])
    after = before.intervene(**{mechanism: 7})
    parts = {"shape": "mask", "texture": "foreground", "background": "background"}
    for name, part in parts.items():
        assert torch.equal(getattr(before, part), getattr(after, part)) == (name != mechanism)
    assert after.labels[mechanism].tolist() == [7, 7]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"shape": 99}, r"labels are \[99\]; the generator's classes are 0 to"),
        ({"shape": [0, 1], "texture": [0, 1, 2]}, r"\[3\] labels for 2 images: give one label, or one for each"),
    ],
)
def test_wrong_labels_are_refused(
    generator: cgn.CounterfactualGenerator, labels: dict[str, object], message: str
) -> None:
    with pytest.raises(cgn.ConfigError, match=message):
        generator.draw(**labels)


@pytest.mark.parametrize(
    "label", [1.5, [1.0], np.array([1.0]), True, [True], "3", ["a"], {}, [], 10**30, [10**30], float("nan"), 2 + 1j]
)
def test_labels_that_are_no_class_numbers_are_refused(generator: cgn.CounterfactualGenerator, label: Any) -> None:
    with pytest.raises(cgn.ConfigError, match=r"labels are .*; allowed: a class number, or a list or tensor"):
        generator.draw(shape=label)
    with pytest.raises(cgn.ConfigError, match=r"labels are .*; allowed: a class number, or a list or tensor"):
        generator.draw(shape=1).intervene(texture=label)


@pytest.mark.parametrize("label", [np.array([2]), np.uint8(2), np.array(2), torch.tensor(2), torch.tensor([2])])
def test_whole_numbers_of_numpy_and_torch_are_labels(generator: cgn.CounterfactualGenerator, label: Any) -> None:
    assert torch.equal(generator.draw(shape=label).images, generator.draw(shape=2).images)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True, "a", None])
def test_a_seed_is_a_whole_number(generator: cgn.CounterfactualGenerator, tmp_path: Path, seed: Any) -> None:
    with pytest.raises(cgn.ConfigError, match=r"seed is .*, allowed: a whole number from 0"):
        generator.draw(shape=1, seed=seed)
    with pytest.raises(cgn.ConfigError, match=r"seed is .*, allowed: a whole number from 0"):
        cgn.write_shards(generator, tmp_path / "shards", seed=seed)
    assert not list(tmp_path.iterdir())


def first_image(generator: cgn.CounterfactualGenerator, folder: Path, *, seed: int) -> list[int]:
    cgn.write_shards(
        generator, folder, counterfactual_images=10, factual_images=10, images_per_shard=10, seed=seed, workers=1
    )
    image, _ = next(cgn.read_shards(folder))
    pixels: list[int] = image.ravel().tolist()
    return pixels


def test_shards_of_another_seed_are_not_taken_for_those_asked_for(mnist: Path, tmp_path: Path) -> None:
    generator = cgn.load_generator(mnist)
    fresh = first_image(generator, tmp_path / "fresh", seed=9)
    first = first_image(generator, tmp_path / "shards", seed=0)
    assert first_image(generator, tmp_path / "shards", seed=9) == fresh != first


def test_shards_are_not_written_among_other_files(mnist: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").touch()
    with pytest.raises(cgn.ArtifactError, match="no verb of this project made"):
        first_image(cgn.load_generator(mnist), tmp_path / "mine", seed=0)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["photo.jpg"]


def test_counts_that_do_not_fit_are_refused(mnist: Path, tmp_path: Path) -> None:
    generator = cgn.load_generator(mnist)
    with pytest.raises(cgn.ConfigError, match=r"write_shards\.images_per_shard is 7, allowed: a multiple"):
        cgn.write_shards(generator, tmp_path / "shards", images_per_shard=7)
    with pytest.raises(cgn.ConfigError, match=r"write_shards\.factual_images is 1\.5 \(float\): expected"):
        cgn.write_shards(generator, tmp_path / "shards", factual_images=1.5)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_generator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(cgn.ArtifactError, match="is missing"):
        cgn.load_generator(tmp_path)
    save_model(tmp_path / "model.safetensors", {"a": torch.zeros(1)}, facts={"track": "mnist", "variant": "digits"})
    with pytest.raises(cgn.ArtifactError, match="is not a generator: give the folder that train_cgn wrote"):
        cgn.load_generator(tmp_path)


def test_shards_are_written_and_read_back(generator: cgn.CounterfactualGenerator, tmp_path: Path) -> None:
    cgn.write_shards(
        generator, tmp_path, counterfactual_images=30, factual_images=20, images_per_shard=20, seed=1, workers=1
    )
    read = list(cgn.read_shards(tmp_path))
    size = generator.image_size
    assert [image.shape for image, _ in read] == [(size, size, 3)] * 30
    assert {"shape", "texture", "background"} <= read[0][1].keys()
    factual = list(cgn.read_shards(tmp_path, split="factual"))
    assert all(facts["shape"] == facts["texture"] for _, facts in factual)
    assert json.loads((tmp_path / "manifest.json").read_text())["facts"]["variant"] == generator.variant


def test_a_sheet_holds_tensors_and_arrays(generator: cgn.CounterfactualGenerator, tmp_path: Path) -> None:
    sample = generator.draw(shape=[0, 1])
    cgn.save_sheet({"floats": sample.images, "bytes": np.zeros((2, 8, 8, 3), np.uint8)}, tmp_path / "sheet.png")
    sample.save(tmp_path / "sample.png")
    assert (tmp_path / "sheet.png").read_bytes()[:4] == (tmp_path / "sample.png").read_bytes()[:4] == b"\x89PNG"


def test_the_example_script_runs(mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["counterfactuals.py", str(mnist)])
    runpy.run_path(str(ROOT / "examples" / "counterfactuals.py"))
    assert (tmp_path / "counterfactuals.png").stat().st_size > 1000


@pytest.mark.long
def test_the_example_notebook_runs(mnist: Path, tmp_path: Path) -> None:
    text = (ROOT / "examples" / "counterfactuals.ipynb").read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    notebook.cells[1].source = notebook.cells[1].source.replace("runs/mnist/digits/train_cgn", str(mnist))
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(shown) == 3
