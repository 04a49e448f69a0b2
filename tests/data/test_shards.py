"""Shards: the same bytes for the same samples, read back whole, and everything broken or foreign refused by name."""

import errno
import gc
import io
import json
import os
import platform
import struct
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import webdataset as wds
from webdataset.tariterators import group_by_keys, tar_file_expander

from cgn.core import files
from cgn.core.errors import ArtifactError
from cgn.core.images import png
from cgn.data.shards import Sample, is_whole, load_split, read_manifest, samples, verify, write_manifest, write_shard


def colored_samples(count: int, *, first: int = 0, size: int = 8) -> Iterator[Sample]:
    for index in range(first, first + count):
        image = np.random.default_rng(index).integers(0, 256, (size, size, 3), dtype=np.uint8)
        yield Sample(
            image=image, facts={"shape": index % 10, "texture": (index + 1) % 10, "background": 3, "kept": 0.5}
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards of `train`, 5 and 3 images, and one of `test`."""
    shards = [
        write_shard(tmp_path, colored_samples(5), split="train", number=0, first_index=0),
        write_shard(tmp_path, colored_samples(3, first=5), split="train", number=1, first_index=5),
        write_shard(tmp_path, colored_samples(2), split="test", number=0, first_index=0),
    ]
    write_manifest(tmp_path, shards, facts={"track": "mnist", "image_size": 8})
    return tmp_path


def rewrite(folder: Path, members: Mapping[str, bytes], *, name: str = "test-000000.tar", kind: bytes = b"0") -> None:
    """Put a foreign tar in the place of a shard, and make the manifest agree with it."""
    path = folder / name
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, content in members.items():
            info = tarfile.TarInfo(member)
            info.size, info.type, info.linkname = len(content), kind, "/etc/passwd" if kind != b"0" else ""
            tar.addfile(info, io.BytesIO(content))
    vouch(folder, name)


def vouch(folder: Path, name: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (entry,) = (shard for shard in manifest["shards"] if shard["name"] == name)
    entry |= {"bytes": (folder / name).stat().st_size, "sha256": files.sha256(folder / name)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def good(index: int = 0, **facts: Any) -> dict[str, bytes]:
    labels = {"shape": 1, "texture": 2, "background": 3} | facts
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    return {f"{index:08d}.json": json.dumps(labels).encode(), f"{index:08d}.png": png(image)}


def header(width: int, height: int) -> bytes:
    """The start of a PNG that promises so many pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">II", zlib.crc32(chunk), 9) + b"IDAT"


def test_what_is_written_is_read_back(folder: Path) -> None:
    read = list(samples(folder, split="train"))
    for sample, expected in zip(read, colored_samples(8), strict=True):
        assert np.array_equal(sample.image, expected.image)
        assert sample.facts == expected.facts


def test_load_gives_tensors(folder: Path) -> None:
    images = load_split(folder, split="train")
    assert images.pixels.shape == (8, 8, 8, 3)
    assert images.pixels.dtype == torch.uint8
    assert images.labels["shape"].tolist() == list(range(8))
    assert images.labels["background"].dtype == torch.int64
    assert load_split(folder, split="train", limit=6).labels["texture"].tolist() == [1, 2, 3, 4, 5, 6]
    assert len(load_split(folder, split="train", limit=99).pixels) == 8


def test_equal_samples_give_equal_bytes_at_any_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1.0e9)
    again = write_shard(tmp_path / "again", colored_samples(5), split="train", number=0, first_index=0)
    assert again == read_manifest(folder).shards[1]
    assert (tmp_path / "again" / again.name).read_bytes() == (folder / again.name).read_bytes()


def test_the_tars_are_webdataset_s_own_format(folder: Path) -> None:
    with (folder / "train-000001.tar").open("rb") as stream:
        source = lambda: iter([{"url": "train", "stream": stream}])  # noqa: E731
        found = list(wds.DataPipeline(source, tar_file_expander, group_by_keys))
    assert [sample["__key__"] for sample in found] == ["00000005", "00000006", "00000007"]
    assert json.loads(found[0]["json"])["shape"] == 5
    with tarfile.open(folder / "train-000001.tar") as tar:
        members = tar.getmembers()
    assert [member.name for member in members[:3]] == ["00000005.json", "00000005.png", "00000006.json"]
    assert {(member.mtime, member.uid, member.uname) for member in members} == {(0, 0, "cgn")}


def test_the_manifest_is_sorted_and_counts_splits(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert [shard.name for shard in manifest.shards] == ["test-000000.tar", "train-000000.tar", "train-000001.tar"]
    assert manifest.splits == {"test": 2, "train": 8}
    assert manifest.facts["track"] == "mnist"
    assert verify(folder) == manifest


def test_reading_that_stops_midway_leaves_no_file_open(folder: Path) -> None:
    reader = samples(folder, split="train")
    next(reader)
    del reader
    gc.collect()
    assert not [file for file in psutil.Process().open_files() if Path(file.path).is_relative_to(folder)]


def test_a_truncated_shard_is_named(folder: Path) -> None:
    path = folder / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:-1500])
    assert not is_whole(folder, read_manifest(folder).shards[2])
    for read in (
        lambda: verify(folder),
        lambda: load_split(folder, split="train"),
        lambda: list(samples(folder, split="train")),
    ):
        with pytest.raises(ArtifactError, match=r"train-000001\.tar has .* bytes, its manifest says .*run the stage"):
            read()
    verify(folder, splits=["test"])


def test_a_changed_byte_is_found(folder: Path) -> None:
    path = folder / "test-000000.tar"
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"test-000000\.tar has other bytes"):
        load_split(folder, split="test")


@pytest.mark.parametrize("kept", [0, 100, 700, 1200, 3000])
def test_a_tar_cut_short_is_reported_even_where_the_manifest_agrees(folder: Path, kept: int) -> None:
    path = folder / "test-000000.tar"
    path.write_bytes(path.read_bytes()[:kept])
    vouch(folder, "test-000000.tar")
    with pytest.raises(ArtifactError, match=r"test-000000\.tar.* broken|test-000000\.tar holds"):
        list(samples(folder, split="test"))


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "train-000000.tar").unlink()
    with pytest.raises(ArtifactError, match=r"train-000000\.tar is missing"):
        verify(folder)


@pytest.mark.parametrize(
    "name",
    [
        "00000000.pkl", "00000000.pyd", "00000000.pth", "00000000", "x.png.pyd", ".pkl",
        "/etc/00000001.png", "../00000001.png", "deep/00000001.png", "x.png", "00000001.png\n",
    ],
)  # fmt: skip
def test_a_foreign_member_is_refused_and_never_run(folder: Path, tmp_path: Path, name: str) -> None:
    trap = f"cposix\nsystem\n(S'touch {tmp_path / 'trapped'}'\ntR.".encode()
    rewrite(folder, {**good(), name: trap})
    with pytest.raises(ArtifactError, match=r"test-000000\.tar has the foreign member .*only \.png and \.json"):
        list(samples(folder, split="test"))
    assert not (tmp_path / "trapped").exists()


def twice(folder: Path, *names: str) -> None:
    """A shard whose members have these names, each with one content."""
    path = folder / "test-000000.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in names:
            content = good()[f"00000000{Path(name).suffix}"]
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    vouch(folder, path.name)


@pytest.mark.parametrize(
    "names",
    [
        ("00000000.json", "00000000.png", "00000000.png"),
        ("00000000.json", "00000000.json", "00000000.png"),
        ("00000000.json", "00000000.png", "00000001.json", "00000001.png", "00000000.json", "00000000.png"),
    ],
)
def test_a_member_that_is_there_twice_is_refused(folder: Path, names: tuple[str, ...]) -> None:
    twice(folder, *names)
    with pytest.raises(ArtifactError, match=r"test-000000\.tar has the member '00000000\.(png|json)' twice: remove"):
        load_split(folder, split="test")


@pytest.mark.parametrize("size", [b"77777777777\0", b"00000100000\0", b"-0000000001\0"])
def test_a_member_of_an_absurd_size_is_refused_before_memory_is_taken(folder: Path, size: bytes) -> None:
    path = folder / "test-000000.tar"
    content = bytearray(path.read_bytes())
    content[124:136] = size
    content[148:156] = b" " * 8
    content[148:156] = f"{sum(content[:512]):06o}\0 ".encode()
    path.write_bytes(content)
    vouch(folder, path.name)
    with pytest.raises(ArtifactError, match=r"test-000000\.tar is broken or cut short near byte 512"):
        load_split(folder, split="test")


@pytest.mark.parametrize("changed", [{"images": 10**15}, {"images": 6}])
def test_more_images_than_a_shard_can_hold_are_refused(folder: Path, changed: dict[str, int]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][0] |= changed
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"test-000000\.tar holds"):
        load_split(folder, split="test")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": -1}, "a negative number"),
        ({"bytes": -5}, "a negative number"),
        ({"name": "train-000000.tar"}, "the shard 'train-000000.tar' is listed twice"),
        ({"split": "train"}, r"the shard \('train', 0\) is listed twice"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(folder: Path, changed: dict[str, Any], message: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][0] |= changed
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=rf"manifest\.json is not a manifest of shards \({message}"):
        read_manifest(folder)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000, b"\xff\xfe", b"{"])
def test_json_that_cannot_be_read_is_named(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json is broken \(.*\): run the stage"):
        read_manifest(folder)


def test_a_link_is_refused(folder: Path) -> None:
    rewrite(folder, {"00000000.png": b""}, kind=tarfile.SYMTYPE)
    with pytest.raises(ArtifactError, match="foreign member"):
        list(samples(folder, split="test"))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"00000000.json": b"{}"}, r"sample 00000000 has no \.png"),
        ({**good(), "00000001.png": b"x"}, r"sample 00000001 has no \.json"),
        ({**good(), **good(1) | {"00000001.png": b"no picture"}}, "sample 00000001 is broken"),
        ({**good(), **good(1) | {"00000001.json": b"{"}}, "sample 00000001 is broken"),
        ({**good(), **good(1) | {"00000001.json": b"[]"}}, "sample 00000001 is not an RGB image"),
        ({**good(), **good(1) | {"00000001.png": png(np.zeros((8, 8), dtype=np.uint8))}}, "is not an RGB image"),
        ({**good(), **good(1) | {"00000001.png": good(1)["00000001.png"][:40]}}, "sample 00000001 is broken"),
        (
            {**good(), **good(1) | {"00000001.json": b'{"shape": 1, "texture": 2}'}},
            "no whole number as label 'background'",
        ),
        ({**good(), **good(1, shape="three")}, "sample 00000001 has no whole number as label 'shape'"),
        ({**good(), **good(1) | {"00000001.png": png(np.zeros((4, 8, 3), dtype=np.uint8))}}, r"is \(4, 8, 3\)"),
        (good(), "holds 1 samples, its manifest says 2"),
        (
            {**good(), **good(1) | {"00000001.json": b"[" * 100_000}},
            r"sample 00000001 is broken \(its values are nested",
        ),
        ({**good(), **good(1) | {"00000001.json": b'{"shape": ' + b"1" * 5000 + b"}"}}, "sample 00000001 is broken"),
        ({**good(), **good(1) | {"00000001.json": b"\xff{}"}}, "sample 00000001 is broken"),
        ({**good(), **good(1, shape=10**30)}, "sample 00000001 has no whole number as label 'shape'"),
        ({**good(), **good(1) | {"00000001.png": header(30_000, 30_000)}}, "sample 00000001 is broken"),
        (
            {**good(), **good(1) | {"00000001.png": header(10_000, 10_000)}},
            "broken .it has 10000 x 10000 = 100,000,000",
        ),
        (
            {**good(), **good(1) | {"00000001.png": header(8200, 8200)}},
            r"broken \(it has 8200 x 8200 = 67,240,000 pixels",
        ),
    ],
)
def test_a_broken_sample_is_named(folder: Path, members: dict[str, bytes], message: str) -> None:
    rewrite(folder, members)
    with pytest.raises(ArtifactError, match=message):
        load_split(folder, split="test")


def test_an_unknown_split_lists_the_known(folder: Path) -> None:
    for read in (lambda: load_split(folder, split="tset"), lambda: verify(folder, splits=["tset"])):
        with pytest.raises(ArtifactError, match="no split 'tset'; it has: test, train"):
            read()


def test_a_missing_or_foreign_manifest_is_reported(folder: Path) -> None:
    path = folder / "manifest.json"
    whole = json.loads(path.read_text())
    path.unlink()
    with pytest.raises(ArtifactError, match=r"manifest\.json is missing"):
        load_split(folder, split="test")
    broken: list[Any] = [[], {}, {"shards": [], "facts": 1}, {"facts": {}, "shards": [{"name": "a"}]}]
    broken.append(whole | {"shards": [whole["shards"][0] | {"bytes": "12"}]})
    broken.append(whole | {"shards": [whole["shards"][0] | {"name": "../../etc/passwd"}]})
    broken.append(whole | {"shards": [whole["shards"][0] | {"name": "/etc/passwd"}]})
    broken.append(whole | {"shards": [whole["shards"][0] | {"sha256": "/../../../../etc".ljust(64, "0")}]})
    broken.append(whole | {"facts": {"image_size": []}})
    for content in broken:
        path.write_text(json.dumps(content))
        with pytest.raises(ArtifactError, match=r"manifest\.json is not a manifest of shards"):
            read_manifest(folder)


def test_a_full_disk_leaves_the_old_shard(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "train-000000.tar").read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ArtifactError, match="no space is left"):
        write_shard(folder, colored_samples(2), split="train", number=0, first_index=0)
    assert (folder / "train-000000.tar").read_bytes() == before
    assert not list(folder.glob(".*"))


def test_a_disk_that_fills_up_within_a_shard_leaves_no_half(folder: Path) -> None:
    (folder / f".more-000000.tar.{platform.node()}-{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(ArtifactError, match=r"more-000000\.tar: no space is left on this disk; nothing is lost"):
        write_shard(folder, colored_samples(2), split="more", number=0, first_index=0)
    assert not list(folder.glob(".*"))
    assert not list(folder.glob("more*"))


def test_a_folder_below_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"not a folder|in the way"):
        write_shard(tmp_path / "file" / "out", colored_samples(1), split="train", number=0, first_index=0)
