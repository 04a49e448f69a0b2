"""The manifest of the ImageNet track's sets: names to folders, and what is said when one is not there."""

from pathlib import Path

import pytest

from cgn.core.errors import ArtifactError
from cgn.core.files import write_json
from cgn.data.collection import Collection, PictureSet, read_collection, write_collection


def written(data: Path, *, train: str) -> Collection:
    data.mkdir(exist_ok=True)
    sets = {
        "train": PictureSet(folder=train, images=7, digest="ab"),
        "val": PictureSet(folder="val", images=2, digest="cd"),
    }
    made = Collection(root=data, facts={"track": "imagenet"}, class_names=("00_dog", "01_bird"), sets=sets)
    write_collection(made)
    return made


def test_a_collection_comes_back_with_relative_and_absolute_folders(tmp_path: Path) -> None:
    elsewhere = tmp_path / "photographs"
    elsewhere.mkdir()
    made = written(tmp_path / "data", train=str(elsewhere))
    (tmp_path / "data" / "val").mkdir()
    found = read_collection(tmp_path / "data")
    assert found == made
    assert found.classes == 2
    assert found.folder("train") == elsewhere
    assert found.folder("val") == tmp_path / "data" / "val"
    assert found.has("val")
    assert not found.has("stylized")


def test_a_set_that_is_absent_or_has_gone_is_named(tmp_path: Path) -> None:
    written(tmp_path, train="train")
    found = read_collection(tmp_path)
    with pytest.raises(ArtifactError, match=r"no set 'stylized', only train, val: bring it by fetch\.extras"):
        found.folder("stylized")
    with pytest.raises(ArtifactError, match=r"the folder of train, .*train, has gone since"):
        found.folder("train")


def test_a_manifest_of_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json is missing"):
        read_collection(tmp_path)
    foreign: object
    for foreign in ({"shards": [], "facts": {}}, {"facts": {}, "class_names": [], "sets": {"train": {"bytes": 3}}}, []):
        write_json(tmp_path / "manifest.json", foreign)
        with pytest.raises(ArtifactError, match=r"is no list of picture sets: give the folder that prepare made"):
            read_collection(tmp_path)
