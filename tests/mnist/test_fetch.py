"""fetch: the assets that the parameters call for, and a sources.json that does not say where they came from."""

import json
from pathlib import Path

import pytest

from cgn.config.mnist import Fetch
from cgn.core.errors import ArtifactError
from cgn.core.metrics import Silent
from cgn.download.fetching import MIRROR
from cgn.download.sources import MNIST_IMAGES, MNIST_LABELS, OBJECT_TEXTURES, SQUEEZENET, VGG16
from cgn.mnist.fetch import EMBEDDED, fetch, wanted_assets


def test_only_what_the_parameters_call_for() -> None:
    assert wanted_assets(digits="scikit-learn", look="double_colored", features="none") == ()
    assert [data.package for data in EMBEDDED["scikit-learn"]] == ["scikit-learn"]
    colored = wanted_assets(digits="mnist", look="colored", features="squeezenet")
    assert colored == (MNIST_IMAGES, MNIST_LABELS, SQUEEZENET)
    assert EMBEDDED["mnist"] == ()
    wildlife = wanted_assets(digits="mnist", look="wildlife", features="vgg16")
    assert len(wildlife) == 23
    assert {VGG16, *OBJECT_TEXTURES} < set(wildlife)


def test_embedded_data_need_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("requests.Session.get", None)
    fetch(Fetch(), digits="scikit-learn", look="double_colored", features="none", assets=tmp_path, sink=Silent())
    sources = json.loads((tmp_path / "sources.json").read_text())
    assert sources["files"] == []
    assert sources["embedded"][0]["name"] == "digits"
    assert "BSD" in sources["embedded"][0]["licence"]


def test_a_mirror_fills_the_folder_and_sources_json_is_deterministic(
    test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = {"digits": "mnist", "look": "wildlife", "features": "squeezenet"}
    wanted = wanted_assets(**variant)
    monkeypatch.setenv(MIRROR, str(test_data))
    fetch(Fetch(), **variant, assets=tmp_path / "a", sink=Silent())
    (tmp_path / "mirror").mkdir()
    for file in (tmp_path / "a").iterdir():
        (tmp_path / "mirror" / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv(MIRROR, str(tmp_path / "mirror"))
    fetch(Fetch(), **variant, assets=tmp_path / "b", sink=Silent())
    first, second = ((tmp_path / name / "sources.json").read_bytes() for name in "ab")
    assert first == second
    files = json.loads(first)["files"]
    assert sorted(file["name"] for file in files) == sorted(asset.name for asset in wanted)
    assert all(len(file["sha256"]) == 64 and file["bytes"] > 0 and file["licence"] for file in files)
    assert {p.name for p in (tmp_path / "a").iterdir()} == {"sources.json", *(a.name for a in wanted)}


def test_features_without_a_url_ask_for_the_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MIRROR, str(tmp_path))
    with pytest.raises(ArtifactError, match=f"cannot get {SQUEEZENET.name}.*{MIRROR}"):
        fetch(
            Fetch(),
            digits="scikit-learn",
            look="colored",
            features="squeezenet",
            assets=tmp_path / "out",
            sink=Silent(),
        )
