"""Shards in an object store: the same bytes, nothing half-written, one plain line for each error."""

import json
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from cgn.config.mnist import Generate, TrainClassifier
from cgn.core.errors import ArtifactError
from cgn.core.files import sha256
from cgn.core.metrics import Silent
from cgn.data import cache as caches
from cgn.data import store as stores
from cgn.data.shards import load_split, read_manifest, samples, verify
from cgn.imagenet.data.datasets import open_shards
from cgn.mnist.generate import generate
from cgn.mnist.train_classifier import train_classifier
from tests.mnist.test_generate import CONFIG, model
from tests.support.configs import replace

__all__ = ["model"]  # the fixture of a small generator
SHARDS = 5


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(caches.FOLDER, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An S3 server with a bucket named `bucket`."""
    pytest.importorskip("s3fs", reason="s3fs is in the dependency group `cluster`")
    moto = pytest.importorskip("moto.server", reason="moto is in the dependency group `services`")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    fsspec.filesystem("s3").mkdirs("bucket", exist_ok=True)
    return f"s3://bucket/{tmp_path.name}"


@pytest.fixture(params=["s3", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.getfixturevalue("s3") if request.param == "s3" else f"file://{tmp_path}/store"


def generated(model: Path, folder: Path, *, store: str | None, seed: int = 0, workers: int = 1, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    config = replace(CONFIG, store=store, **changes)
    generate(config, seed=seed, variant="digits", model=model, images=folder, workers=workers, sink=Silent())
    return folder


def listed(store: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(store, use_listings_cache=False)
    return sorted(path for path in files.find(root) if path.endswith(".tar"))


def overwrite(store: str, place: int, data: bytes) -> str:
    files, _ = fsspec.core.url_to_fs(store)
    path = listed(store)[place]
    files.pipe_file(path, data)
    return Path(path).name


def test_shards_in_a_store_have_the_bytes_of_local_ones(model: Path, store: str, tmp_path: Path) -> None:
    local = generated(model, tmp_path / "local", store=None)
    folder = generated(model, tmp_path / "stored", store=store)
    assert sorted(path.name for path in folder.iterdir()) == ["examples.png", "manifest.json"]
    assert (folder / "examples.png").read_bytes() == (local / "examples.png").read_bytes()
    first, second = read_manifest(local), verify(folder)
    assert first.shards == second.shards
    assert second.store == store
    assert [sha256(second.path(shard)) for shard in second.shards] == [shard.sha256 for shard in first.shards]
    assert len(listed(store)) == SHARDS
    one, other = (load_split(place, split="counterfactual") for place in (local, folder))
    assert torch.equal(one.pixels, other.pixels)
    opened = open_shards(folder, split="counterfactual", classes=10, mechanisms=("shape",))
    assert opened.image(149).tobytes() == one.pixels[149].numpy().tobytes()


def test_what_is_in_the_cache_needs_no_store(model: Path, s3: str, tmp_path: Path, monkeypatch: Any) -> None:
    folder = generated(model, tmp_path / "stored", store=s3)
    count = len(list(samples(folder, split="factual")))
    monkeypatch.setattr(stores, "_filesystem", None)
    assert len(list(samples(folder, split="factual"))) == count
    with pytest.raises(TypeError):
        list(samples(folder, split="counterfactual"))


def test_a_classifier_trains_from_a_store_as_from_a_folder(model: Path, s3: str, tmp_path: Path) -> None:
    config = TrainClassifier(epochs=1, batch_size=16, accelerator="cpu")
    data = generated(model, tmp_path / "data", store=None, seed=3)
    for name, store in (("local", None), ("stored", s3)):
        images = generated(model, tmp_path / f"images-{name}", store=store)
        (out := tmp_path / name).mkdir()
        given: dict[str, Any] = {
            "data": data,
            "images": images,
            "classifier": out,
            "arm": "counterfactual",
            "sink": Silent(),
        }
        train_classifier(config, seed=0, variant="digits", **given)
    one, other = (sha256(tmp_path / name / "model.safetensors") for name in ("local", "stored"))
    assert one == other


@pytest.mark.long
def test_several_workers_upload_the_same_objects(model: Path, s3: str, tmp_path: Path) -> None:
    generated(model, tmp_path / "one", store=f"{s3}/one")
    generated(model, tmp_path / "two", store=f"{s3}/two", workers=2)
    one, two = ([Path(path).name for path in listed(f"{s3}/{name}")] for name in ("one", "two"))
    assert one == two


def test_a_run_that_continues_uploads_only_what_is_missing(
    model: Path, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    uploaded: list[str] = []
    killed = True

    def counting(path: Path, shard: Any, *, store: str) -> None:
        if killed and len(uploaded) == 3:
            overwritten = path.read_bytes()[:700]  # as a store without whole objects may show it
            files, root = fsspec.core.url_to_fs(store)
            files.pipe_file(f"{root}/{stores._name(shard)}", overwritten)
            raise Killed
        upload(path, shard, store=store)
        uploaded.append(shard.name)

    upload = stores.upload
    monkeypatch.setattr("cgn.data.shards.upload", counting)
    with pytest.raises(Killed):
        generated(model, tmp_path / "stored", store=store)
    assert not (tmp_path / "stored" / "manifest.json").exists()
    assert len(list((tmp_path / "stored" / "notes").iterdir())) == 3
    overwrite(store, 0, b"cut short")
    uploaded.clear()
    killed = False
    folder = generated(model, tmp_path / "stored", store=store)
    assert len(uploaded) == 3  # one was never made, one was cut short, one was damaged since
    verify(folder)


def test_another_seed_replaces_nothing(model: Path, store: str, tmp_path: Path) -> None:
    first = generated(model, tmp_path / "first", store=store)
    generated(model, tmp_path / "second", store=store, seed=1)
    assert len(listed(store)) == 2 * SHARDS
    verify(first)


def test_objects_that_are_missing_cut_short_or_changed_are_named(model: Path, store: str, tmp_path: Path) -> None:
    folder = generated(model, tmp_path / "stored", store=store, seed=7)
    shutil.rmtree(caches.cache_folder())
    whole = read_manifest(folder).shards[0].bytes
    name = overwrite(store, 0, b"0" * whole)
    with pytest.raises(ArtifactError, match=rf"{name} has other bytes than its manifest says: remove it, then run"):
        load_split(folder, split="counterfactual")
    name = overwrite(store, 0, b"half")
    with pytest.raises(ArtifactError, match=rf"{name} has 4 bytes, its manifest says {whole:,}: run"):
        load_split(folder, split="counterfactual")
    files, _ = fsspec.core.url_to_fs(store)
    files.rm(listed(store)[0])
    with pytest.raises(ArtifactError, match=rf"{name} is missing: run"):
        load_split(folder, split="counterfactual")
    assert not list(caches.cache_folder().glob("**/*.tar"))
    assert not list(caches.cache_folder().glob(".*"))
    verify(generated(model, folder, store=store, seed=7))


def test_a_broken_file_in_the_cache_says_what_to_remove(model: Path, s3: str, tmp_path: Path, cache: Path) -> None:
    folder = generated(model, tmp_path / "stored", store=s3)
    manifest = verify(folder)
    path = manifest.path(manifest.shards[0])
    content = path.read_bytes()
    path.write_bytes(content[:-1])  # another size: downloaded again
    verify(folder)
    path.write_bytes(b"?" + content[1:])
    with pytest.raises(ArtifactError, match=f"has other bytes.*: remove {cache} and what is needed is down"):
        verify(folder)


def test_the_cache_keeps_its_limit(
    model: Path, store: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing held: what this process reads would stay."""
    folder = generated(model, tmp_path / "stored", store=store)
    shards = read_manifest(folder).shards
    most = 2 * max(shard.bytes for shard in shards)
    monkeypatch.setenv(caches.LIMIT, str(most))
    monkeypatch.setattr(stores, "hold", lambda _: None)
    shutil.rmtree(cache, ignore_errors=True)
    verify(folder)
    assert 0 < sum(path.stat().st_size for path in cache.glob("*.tar")) <= most


def refused(model: Path, folder: Path, *, store: str) -> str:
    with pytest.raises(ArtifactError) as caught:
        generated(model, folder, store=store)
    assert not list(folder.glob("*.tar"))
    (line,) = str(caught.value).splitlines()
    return line


def test_a_store_that_cannot_be_used_is_refused_in_a_line(
    model: Path, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "images"
    assert "create the bucket or folder" in refused(model, folder, store="s3://no-such-bucket/digits")
    assert "allowed: an URL that fsspec knows" in refused(model, folder, store="nonsense://bucket/digits")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    fsspec.filesystem("s3").clear_instance_cache()
    assert "check the network, the URL, and AWS_ENDPOINT_URL" in refused(model, folder, store=s3)


def test_a_store_without_credentials_or_its_package_is_refused_in_a_line(
    model: Path, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.filesystem("s3").clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in refused(model, tmp_path / "images", store=s3)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3")
    assert "start the command by `uv run --group cluster`" in refused(model, tmp_path / "images", store=s3)


@pytest.mark.parametrize(
    "store", ["bucket/digits", "s3://", "s3://bucket/ digits", "s3://bucket/digits/", "memory://a", "file://a/b"]
)
def test_what_is_no_url_of_a_folder_is_refused(store: str) -> None:
    with pytest.raises(ValueError, match=r"store is '.*', allowed: null, or an URL: s3://bucket/folder"):
        Generate(store=store)


def test_a_manifest_of_local_shards_has_no_store(model: Path, tmp_path: Path) -> None:
    folder = generated(model, tmp_path / "local", store=None)
    assert json.loads((folder / "manifest.json").read_text()).keys() == {"facts", "shards"}
