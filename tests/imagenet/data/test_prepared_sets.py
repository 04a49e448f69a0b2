"""The manifest of the ImageNet track's sets: names to folders, and what is said when one is not there."""

from pathlib import Path

import pytest

from cgn.core.errors import ArtifactError
from cgn.core.files import write_json
from cgn.imagenet.data.prepared_sets import (
    PreparedSet,
    PreparedSets,
    SetName,
    external_set,
    inspect_folder,
    internal_set,
    read_prepared_sets,
    write_prepared_sets,
)


def written(data: Path, *, train: str) -> PreparedSets:
    data.mkdir(exist_ok=True)
    sets = {
        "train": PreparedSet(folder=train, images=7, digest="ab"),
        "val": PreparedSet(folder="val", images=2, digest="cd"),
    }
    prepared_sets = PreparedSets(root=data, facts={"track": "imagenet"}, class_names=("00_dog", "01_bird"), sets=sets)
    write_prepared_sets(prepared_sets)
    return prepared_sets


def test_a_collection_comes_back_with_relative_and_absolute_folders(tmp_path: Path) -> None:
    elsewhere = tmp_path / "photographs"
    elsewhere.mkdir()
    kept = written(tmp_path / "data", train=str(elsewhere))
    (tmp_path / "data" / "val").mkdir()
    found = read_prepared_sets(tmp_path / "data")
    assert found == kept
    assert found.classes == 2
    assert found.folder("train") == elsewhere
    assert found.folder("val") == tmp_path / "data" / "val"
    assert found.has("val")
    assert not found.has("stylized")


def test_a_set_that_is_absent_or_has_gone_is_named(tmp_path: Path) -> None:
    written(tmp_path, train="train")
    found = read_prepared_sets(tmp_path)
    with pytest.raises(ArtifactError, match=r"no set 'stylized', only train, val: add it by fetch\.extras"):
        found.folder("stylized")
    with pytest.raises(ArtifactError, match=r"the folder of train, .*train, is missing since"):
        found.folder("train")


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedSets:
    """A set of the user's and one of the collection's own, six pictures each."""
    for folder in (tmp_path / "mine", tmp_path / "data" / "val"):
        for number in range(6):
            path = folder / ("a" if number < 3 else "b") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(9))
    data, names = tmp_path / "data", ("a", "b")
    contents = inspect_folder(tmp_path / "mine", "train", classes=names)
    sets = {"train": external_set(contents, root=data, name="train"), "val": internal_set(data, "val")}
    saved = PreparedSets(root=data, facts={"track": "imagenet"}, class_names=names, sets=sets)
    write_prepared_sets(saved)
    return read_prepared_sets(data)


@pytest.mark.parametrize("name", ["train", "val"])
def test_a_folder_that_changed_since_prepare_is_refused_and_the_changes_named(
    prepared: PreparedSets, name: SetName
) -> None:
    folder = prepared.unchanged(name)
    (folder / "a" / "0.png").unlink()
    (folder / "a" / "1.png").unlink()
    (folder / "a" / "2.png").write_bytes(bytes(10))
    (folder / "b" / "new.png").write_bytes(bytes(9))
    message = (
        r"has changed since prepare: 1 added \(b/new\.png\), 2 removed \(a/0\.png, a/1\.png\), 1 of another size \(a/2"
    )
    with pytest.raises(ArtifactError, match=rf"{message}.*; run prepare again"):
        prepared.unchanged(name)


@pytest.mark.long
def test_a_folder_that_was_emptied_since_prepare_is_refused(prepared: PreparedSets) -> None:
    folder = prepared.unchanged("train")
    for path in folder.rglob("*.png"):
        path.unlink()
    with pytest.raises(ArtifactError, match=r"mine has changed since prepare: .*holds no image.*run prepare again"):
        prepared.unchanged("train")


def test_many_changes_are_counted_and_a_few_named(prepared: PreparedSets) -> None:
    folder = prepared.unchanged("train")
    for number in range(2000):
        (folder / "a" / f"new{number:04d}.png").write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"2,000 added \(a/new0000\.png, .*a/new0004\.png and 1,995 more\)"):
        prepared.unchanged("train")


def test_what_no_one_reads_may_change(prepared: PreparedSets) -> None:
    folder = prepared.unchanged("train")
    (folder / "README.txt").write_text("mine")
    (folder / "a" / ".thumbnails").write_text("x")
    (folder / "a" / "0.png").touch()
    assert prepared.unchanged("train") == folder


def test_a_damaged_list_of_files_is_refused(prepared: PreparedSets) -> None:
    (prepared.unchanged("train") / "a" / "0.png").unlink()
    path = prepared.root / "files" / "train.tsv.gz"
    for content in (b"", b"<html>", path.read_bytes()[:-9]):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=r"train\.tsv\.gz is missing or broken .*: run prepare again"):
            prepared.unchanged("train")


def test_a_manifest_of_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json is missing"):
        read_prepared_sets(tmp_path)
    foreign: object
    for foreign in ({"shards": [], "facts": {}}, {"facts": {}, "class_names": [], "sets": {"train": {"bytes": 3}}}, []):
        write_json(tmp_path / "manifest.json", foreign)
        with pytest.raises(ArtifactError, match=r"is not a list of image sets: give the folder that prepare made"):
            read_prepared_sets(tmp_path)
