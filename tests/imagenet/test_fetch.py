"""fetch on the ImageNet track: what ships with the project is copied and verified, the rest is asked of a mirror."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cgn import __main__ as front
from cgn.config.imagenet import Fetch
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.metrics import Silent
from cgn.download.assets import SOURCES, fetch_all
from cgn.download.fetching import MIRROR
from cgn.download.sources import (
    BACKGROUNDS_CHALLENGE,
    BIGGAN_DEEP_256,
    CUE_CONFLICT,
    FROST,
    IMAGENET_C,
    RESNET50_V1,
    U2NET,
    VGG16,
)
from cgn.imagenet.data.wnids import wnids
from cgn.imagenet.fetch import SHIPPED_NETS, fetch, wanted_assets
from cgn.miniature import shipped
from cgn.miniature.shipped import SHIPPED, Shipped
from tests.support.toy_nets import PARAMS

ROOT = Path(__file__).parents[2]


def test_each_variant_fetches_what_its_stages_read() -> None:
    found = {name: wanted_assets(record.fetch, **record.shared("fetch")) for name, record in PARAMS.items()}
    assert found["miniature"] == ()
    assert SHIPPED_NETS[PARAMS["miniature"].train_cgn.nets] == SHIPPED
    benchmarks = {BACKGROUNDS_CHALLENGE, CUE_CONFLICT, *FROST}
    for name in ("mini", "full"):
        assert set(found[name]) == {BIGGAN_DEEP_256, U2NET, VGG16, RESNET50_V1, *benchmarks}
        assert not SHIPPED_NETS[PARAMS[name].train_cgn.nets]
    every = wanted_assets(Fetch(extras=("imagenet_c",)), nets="published", pretrained="none")
    assert every == (BIGGAN_DEEP_256, U2NET, VGG16, *IMAGENET_C)


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Shipped, ...]:
    """Two files in the place of shipped weights."""
    folder = tmp_path / "package"
    folder.mkdir()
    monkeypatch.setattr(shipped, "FOLDER", folder)
    entries = []
    for name in ("b.safetensors", "a.safetensors"):
        content = name.encode() * 9
        (folder / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        entries.append(Shipped(name=name, bytes=len(content), sha256=digest))
    return tuple(entries)


def test_shipped_files_are_copied_and_described(
    tmp_path: Path, toys: tuple[Shipped, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("requests.Session.get", None)
    assert fetch_all((), tmp_path / "out", shipped=toys)["files"] == 2
    sources = json.loads((tmp_path / "out" / SOURCES).read_text())
    assert [file["name"] for file in sources["files"]] == ["a.safetensors", "b.safetensors"]
    for file, toy in zip(sources["files"], reversed(toys), strict=True):
        assert (file["sha256"], file["bytes"], file["urls"]) == (toy.sha256, toy.bytes, [])
        assert (tmp_path / "out" / toy.name).read_bytes() == toy.path.read_bytes()
        assert "MIT" in file["licence"]


def test_a_damaged_or_missing_shipped_file_is_refused(tmp_path: Path, toys: tuple[Shipped, ...]) -> None:
    damaged = (replace(toys[0], sha256="0" * 64), toys[1])
    with pytest.raises(ArtifactError, match=r"b\.safetensors has sha256 .*expected 0000"):
        fetch_all((), tmp_path / "out", shipped=damaged)
    toys[1].path.unlink()
    with pytest.raises(ArtifactError, match=r"a\.safetensors is missing from the installed package"):
        fetch_all((), tmp_path / "out", shipped=toys)


def test_real_frost_comes_from_a_mirror(test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MIRROR, str(test_data))
    config = Fetch(extras=("frost",))
    fetch(config, nets="miniature", pretrained="none", assets=tmp_path, sink=Silent())
    expected = {"sources.json", *(asset.name for asset in FROST), *(file.name for file in SHIPPED)}
    assert {path.name for path in tmp_path.iterdir()} == expected


@pytest.fixture
def mini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Parameters of mini, whose folders are in tmp_path; nothing can be downloaded."""

    def asked(*_: object, **__: object) -> None:
        raise AssertionError("something was downloaded")

    monkeypatch.setattr("requests.Session.get", asked)
    monkeypatch.delenv(MIRROR, raising=False)
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    folders = tree["imagenet"]["mini"]["prepare"]["folders"]
    folders |= {"train": str(tmp_path / "train"), "val": str(tmp_path / "val")}
    for name in ("train", "val"):
        picture = tmp_path / name / wnids()[0] / "a.JPEG"
        picture.parent.mkdir(parents=True)
        picture.write_bytes(b"x")
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def fetched(params: Path) -> None:
    out = str(params.with_name("out"))
    front.run(["fetch", "imagenet/mini", "--params", str(params), "--assets", out])


def test_folders_that_prepare_would_refuse_are_refused_before_anything_is_fetched(mini: Path) -> None:
    (mini.parent / "val" / wnids()[0]).rename(mini.parent / "val" / "n0000")
    with pytest.raises(ConfigError, match=r"imagenet\.mini\.prepare\.folders\.val .*holds no image in a class folder"):
        fetched(mini)
    (mini.parent / "train").rename(mini.parent / "away")
    with pytest.raises(ConfigError, match=r"imagenet\.mini\.prepare\.folders\.train .*there is no folder"):
        fetched(mini)
    assert {path.name for path in mini.parent.iterdir()} == {"params.yaml", "away", "val"}


def test_an_empty_class_folder_and_a_lone_severity_are_refused_before_anything_is_fetched(mini: Path) -> None:
    (mini.parent / "train" / wnids()[5]).mkdir()
    with pytest.raises(ConfigError, match=rf"folders\.train .*class folders without a picture: {wnids()[5]}"):
        fetched(mini)
    (mini.parent / "train" / wnids()[5]).rmdir()
    (mini.parent / "c" / "fog" / "1").mkdir(parents=True)
    tree = yaml.safe_load(mini.read_text(encoding="utf-8"))
    tree["imagenet"]["mini"]["prepare"]["folders"]["imagenet_c"] = str(mini.parent / "c")
    mini.write_text(yaml.safe_dump(tree), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"folders\.imagenet_c .*fog lacks the severities 2, 3, 4, 5"):
        fetched(mini)


def test_accepted_folders_are_no_part_of_the_fetched_files(mini: Path) -> None:
    """Another picture must not make gigabytes come again."""
    with pytest.raises(AssertionError, match="something was downloaded"):
        fetched(mini)
    definition = json.loads((mini.parent / "out.partial" / "definition.json").read_text(encoding="utf-8"))
    assert definition["params"].keys() == {"extras", "nets", "pretrained"}
