"""prepare on the ImageNet track: the drawn world, the user's folders, archives unpacked with care."""

import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from cgn.config.imagenet.prepare import Folders, Prepare, World
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.files import folder_digest, write_json
from cgn.core.images import png
from cgn.core.metrics import Files, Silent
from cgn.data import archives
from cgn.data.collection import Collection, SetName, read_collection
from cgn.data.corruptions.ice import read_ice
from cgn.data.miniature.sets import CLASS_FOLDERS
from cgn.data.sources import BACKGROUNDS_CHALLENGE, CUE_CONFLICT, FROST, IMAGENET_C
from cgn.data.wnids import wnids
from cgn.stages.prepare import prepare
from cgn.tracks.imagenet.prepare import parts
from cgn.tracks.imagenet.survey import survey

SMALL = World(image_size=64, train_per_class=3, val_per_class=2, per_variation=2, per_pair=1)
GREY = png(np.full((8, 8, 3), 90, dtype=np.uint8))


def drawn(data: Path, *, seed: int = 0) -> Collection:
    data.mkdir(parents=True)
    sink = Files(data.with_suffix(".log"))
    prepare(parts(Prepare(world=SMALL, folders=None), seed=seed, variant="toy"), assets=data, data=data, sink=sink)
    return read_collection(data)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return drawn(tmp_path_factory.mktemp("world") / "data")


def photographs(folder: Path, *, classes: tuple[str, ...] = wnids()[:3], pictures: int = 2) -> Path:
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(pictures):
            (folder / name / f"{name}_{number}.JPEG").write_bytes(GREY)
    return folder


def gathered(tmp_path: Path, **folders: Any) -> Collection:
    """`train` and `val` are there; assets lie in tmp_path/assets."""
    for name in ("train", "val"):
        if not (tmp_path / name).exists():
            photographs(tmp_path / name)
    told: dict[str, Any] = {
        "train": str(tmp_path / "train"),
        "val": str(tmp_path / "val"),
        "stylized": None,
        "imagenet_c": None,
    }
    params = Prepare(world=None, folders=Folders(**(told | folders)))
    (tmp_path / "assets").mkdir(exist_ok=True)
    (tmp_path / "data").mkdir(exist_ok=True)
    prepare(parts(params, seed=0, variant="toy"), assets=tmp_path / "assets", data=tmp_path / "data", sink=Silent())
    return read_collection(tmp_path / "data")


def tar(path: Path, *names: str, mode: str = "w", links: tuple[str, ...] = ()) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(GREY)
            archive.addfile(member, io.BytesIO(GREY))
        for name in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
    return path


def test_the_world_has_every_set_and_says_how_many(world: Collection) -> None:
    counts = {name: held.images for name, held in world.sets.items()}
    assert counts == {"train": 27, "val": 18, "imagenet9": 144, "cue_conflict": 81, "frost": 6, "masks": 45}
    assert world.class_names == CLASS_FOLDERS
    assert world.facts["world"]["image_size"] == 64
    for name in get_args(SetName):
        assert world.has(name) == (name in counts)
        assert not world.has(name) or world.folder(name) == world.root / name
    summary = json.loads((world.root.with_suffix(".log") / "metrics.json").read_text())
    assert summary["images"] == counts
    with Image.open(world.root / "examples.png") as sheet:
        assert sheet.height == (8 + 1 + 1 + 1 + 2 + 1) * 67 + 3


def test_the_manifest_hangs_on_every_byte_and_the_seed(world: Collection, tmp_path: Path) -> None:
    again = drawn(tmp_path / "again")
    assert folder_digest(again.root) == folder_digest(world.root)
    other = drawn(tmp_path / "other", seed=1)
    assert all(other.sets[name].digest != held.digest for name, held in world.sets.items())


def test_the_panes_do_for_frost(world: Collection) -> None:
    ice = read_ice([world.folder("frost") / asset.name for asset in FROST], height=64, width=64)
    assert len(ice) == 6
    assert all(min(pane.shape[1:]) > 64 for pane in ice)
    assert not ice[0][:, :64, :64].equal(ice[1][:, :64, :64])
    assert all(pane.float().std() > 15 for pane in ice)


def test_the_users_folders_stay_where_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photographs(tmp_path / "train") / "README.txt").write_text("mine")
    found = gathered(tmp_path, stylized=str(photographs(tmp_path / "styles")))
    assert found.folder("train") == tmp_path / "train"
    assert found.folder("stylized") == tmp_path / "styles"
    assert found.class_names == wnids()
    assert found.sets["train"].images == 6
    assert not found.has("imagenet9")
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"manifest.json", "examples.png", "files"}
    told = capsys.readouterr()
    assert "train: 6 pictures of 3 classes" in told.out
    assert "train has 997 classes without a folder" in told.err
    assert "train has 1 files or folders that are left out: README.txt: not in a class folder" in told.err


def test_pictures_in_folders_below_their_class_are_prepared_and_shown(tmp_path: Path) -> None:
    """Tiny-ImageNet's layout."""
    for name in wnids()[:3]:
        (tmp_path / "train" / name / "images").mkdir(parents=True)
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("0 0 1 1")
        (tmp_path / "train" / name / "images" / f"{name}_0.JPEG").write_bytes(GREY)
    found = gathered(tmp_path)
    assert found.sets["train"].images == 3
    assert list(found.files("train")) == [f"{name}/images/{name}_0.JPEG" for name in wnids()[:3]]


def test_linked_class_folders_are_counted_and_shown(tmp_path: Path) -> None:
    store = photographs(tmp_path / "store")
    (tmp_path / "train").mkdir()
    for name in wnids()[:3]:
        (tmp_path / "train" / name).symlink_to(store / name)
    assert gathered(tmp_path).sets["train"].images == 6


def test_a_class_whose_first_picture_is_broken_is_shown_by_its_second(tmp_path: Path) -> None:
    first = photographs(tmp_path / "train") / wnids()[0] / f"{wnids()[0]}_0.JPEG"
    first.write_bytes(b"<html>")
    assert gathered(tmp_path).sets["train"].images == 6
    for path in (tmp_path / "val").rglob("*.JPEG"):
        path.write_bytes(b"<html>")
    with pytest.raises(ArtifactError, match=r"val: none of the pictures that were tried can be read, such as n0"):
        gathered(tmp_path)


def test_corruptions_in_folders_of_kinds_are_prepared_as_they_are_evaluated(tmp_path: Path) -> None:
    for severity in range(1, 6):
        photographs(tmp_path / "c" / "weather" / "fog" / str(severity), pictures=1)
    found = gathered(tmp_path, imagenet_c=str(tmp_path / "c"))
    assert found.sets["imagenet_c"].images == 15
    assert found.unchanged("imagenet_c") == tmp_path / "c"


def odd(folder: Path, name: bytes) -> Path:
    """A path that is not UTF-8."""
    return Path(os.fsdecode(os.fsencode(folder) + b"/" + name))


def test_pictures_of_names_that_are_not_utf_8_are_prepared(tmp_path: Path) -> None:
    home = photographs(tmp_path / "train") / wnids()[0]
    odd(home, b"caf\xe9.JPEG").write_bytes(GREY)
    odd(home, b"a\nb.JPEG").write_bytes(GREY)
    odd(home, b"caf\xe9.txt").write_bytes(GREY)
    found = gathered(tmp_path)
    assert found.sets["train"].images == 8
    assert {rf"{wnids()[0]}/caf\xe9.JPEG", rf"{wnids()[0]}/a\x0ab.JPEG"} <= found.files("train").keys()
    assert found.unchanged("train") == tmp_path / "train"


def test_a_folder_whose_own_path_is_not_utf_8_is_prepared(tmp_path: Path, capfdbinary: Any) -> None:
    odd(tmp_path, b"caf\xe9").mkdir()
    photographs(odd(tmp_path, b"caf\xe9") / "here")
    (tmp_path / "train").symlink_to(odd(tmp_path, b"caf\xe9") / "here")
    found = gathered(tmp_path)
    assert found.unchanged("train") == odd(tmp_path, b"caf\xe9") / "here"
    assert rb"caf\xe9/here" in capfdbinary.readouterr().out


def test_a_members_name_that_is_not_utf_8_is_unpacked_and_known(tmp_path: Path) -> None:
    names = [f"{kind}/{s}/{wnids()[0]}/caf\udce9.JPEG" for kind in ("fog", "snow") for s in range(1, 6)]
    tar(tmp_path / "assets" / IMAGENET_C[0].name, *names)
    found = gathered(tmp_path)
    assert rf"fog/1/{wnids()[0]}/caf\xe9.JPEG" in found.files("imagenet_c")
    assert found.unchanged("imagenet_c") == found.root / "imagenet_c"


def test_prepare_refuses_a_survey_of_other_pictures(tmp_path: Path) -> None:
    photographs(tmp_path / "train")
    photographs(tmp_path / "val")
    folders = Folders(train=str(tmp_path / "train"), val=str(tmp_path / "val"), stylized=None, imagenet_c=None)
    cell = parts(Prepare(world=None, folders=folders), seed=0, variant="toy")
    write_json(tmp_path / "survey" / "survey.json", survey(folders, variant="toy"))
    where = {"assets": tmp_path / "assets", "data": tmp_path / "data", "survey": tmp_path / "survey"}
    (tmp_path / "data").mkdir()
    prepare(cell, **where, sink=Silent())
    (tmp_path / "val" / wnids()[0] / "more.JPEG").write_bytes(GREY)
    with pytest.raises(ArtifactError, match=r"survey\.json is not of the pictures that val holds now"):
        prepare(cell, **where, sink=Silent())


def test_an_unpacked_benchmark_that_changed_is_unpacked_again(tmp_path: Path) -> None:
    names = [f"repo/stimuli/style-transfer-preprocessed-512/cat/cat{k}-dog2.png" for k in range(3)]
    tar(tmp_path / "assets" / CUE_CONFLICT.name, *names)
    before = gathered(tmp_path)
    (before.root / "cue_conflict" / "cat" / "cat1-dog2.png").unlink()
    with pytest.raises(
        ArtifactError, match=r"cue_conflict has changed since prepare: 1 removed \(cat/cat1-dog2\.png\)"
    ):
        before.unchanged("cue_conflict")
    again = gathered(tmp_path)
    assert again.sets["cue_conflict"] == before.sets["cue_conflict"]
    assert again.unchanged("cue_conflict") == again.root / "cue_conflict"


def test_a_variant_without_folders_has_an_empty_survey() -> None:
    assert survey(None, variant="miniature") == {}


def test_another_picture_makes_another_manifest(tmp_path: Path) -> None:
    before = gathered(tmp_path).sets["val"]
    (tmp_path / "val" / wnids()[0] / "more.JPEG").write_bytes(GREY + b"x")
    assert gathered(tmp_path).sets["val"].digest != before.digest


def test_relative_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = gathered(tmp_path, train="train")
    assert found.folder("train") == (tmp_path / "train").resolve()


def test_a_folder_that_does_not_do_is_named_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"imagenet\.toy\.prepare\.folders\.train is '.*absent': there is no folder"):
        gathered(tmp_path, train=str(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"prepare\.folders\.val .*holds no picture in a class folder"):
        gathered(tmp_path, val=str(tmp_path / "empty"))
    (photographs(tmp_path / "hole") / wnids()[7]).mkdir()
    with pytest.raises(ConfigError, match=rf"folders\.val .*class folders without a picture: {wnids()[7]}"):
        gathered(tmp_path, val=str(tmp_path / "hole"))
    with pytest.raises(ConfigError, match=r"folders\.imagenet_c .*holds no corruption of ImageNet-C"):
        gathered(tmp_path, imagenet_c=str(tmp_path / "empty"))


def test_prebuilt_corruptions_need_all_severities(tmp_path: Path) -> None:
    for severity in range(1, 6):
        photographs(tmp_path / "c" / "fog" / str(severity), pictures=1)
    assert gathered(tmp_path, imagenet_c=str(tmp_path / "c")).sets["imagenet_c"].images == 15
    shutil.rmtree(tmp_path / "c" / "fog" / "3")
    with pytest.raises(ConfigError, match=r"folders\.imagenet_c .*fog lacks the severities 3"):
        gathered(tmp_path, imagenet_c=str(tmp_path / "c"))


def test_benchmarks_that_fetch_brought_are_unpacked(tmp_path: Path) -> None:
    assets = tmp_path / "assets"
    challenge = [f"bg_challenge/{name}/val/00_dog/a_{k}.JPEG" for name in ("original", "mixed_rand") for k in (1, 2)]
    tar(assets / BACKGROUNDS_CHALLENGE.name, *challenge, "bg_challenge/README", mode="w:gz")
    cues = ["repo-1/stimuli/style-transfer-preprocessed-512/cat/cat1-dog2.png", "repo-1/stimuli/edges/cat/cat1.png"]
    tar(assets / CUE_CONFLICT.name, *cues, "repo-1/.gitignore", mode="w:gz", links=("repo-1/code/link",))
    tar(assets / IMAGENET_C[0].name, *(f"gaussian_noise/{s}/{wnids()[0]}/x.JPEG" for s in range(1, 6)))
    tar(assets / IMAGENET_C[1].name, f"./zoom_blur/5/{wnids()[1]}/._x.JPEG", f"./zoom_blur/5/{wnids()[1]}/x.JPEG")
    for file in FROST:
        (assets / file.name).write_bytes(GREY)
    found = gathered(tmp_path)
    files = sorted(path.relative_to(found.root).as_posix() for path in found.root.rglob("*") if path.is_file())
    corrupted_files = [f"imagenet_c/gaussian_noise/{s}/{wnids()[0]}/x.JPEG" for s in range(1, 6)]
    assert files == sorted(
        [
            *(name.replace("bg_challenge", "imagenet9") for name in challenge),
            "cue_conflict/cat/cat1-dog2.png",
            *corrupted_files,
            f"imagenet_c/zoom_blur/5/{wnids()[1]}/x.JPEG",
            *(f"frost/{file.name}" for file in FROST),
            "manifest.json",
            "examples.png",
            *(f"files/{name}.tsv.gz" for name in found.sets),
        ]
    )
    assert {name: held.images for name, held in found.sets.items()} == {
        "imagenet9": 4,
        "cue_conflict": 1,
        "imagenet_c": 6,
        "frost": 6,
        "train": 6,
        "val": 6,
    }


GOOD = f"fog/1/{wnids()[0]}/x.JPEG"


@pytest.mark.parametrize("name", ["/etc/cron.d/x", "../x", "fog/../../x", "a\\..\\x"])
def test_an_archive_that_reaches_out_is_refused(tmp_path: Path, name: str) -> None:
    archive = tar(tmp_path / "a.tar", GOOD, name)
    with pytest.raises(ArtifactError, match="reaches out of its folder"):
        archives.unpack([archive], tmp_path / "in" / "imagenet_c", place=archives.imagenet_c)
    assert not (tmp_path / "in" / "imagenet_c").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"a.tar", "in"}


def test_links_doubles_and_broken_archives_are_refused(tmp_path: Path) -> None:
    def unpacked(archive: Path) -> int:
        return archives.unpack([archive], tmp_path / "imagenet_c", place=archives.imagenet_c)

    with pytest.raises(ArtifactError, match="no regular file"):
        unpacked(tar(tmp_path / "link.tar", links=(GOOD,)))
    with pytest.raises(ArtifactError, match="twice"):
        unpacked(tar(tmp_path / "twice.tar", GOOD, GOOD))
    with pytest.raises(ArtifactError, match="holds nothing of imagenet_c"):
        unpacked(tar(tmp_path / "other.tar", "a/b"))
    whole = tar(tmp_path / "whole.tar.gz", *(GOOD.replace("x.", f"x{k}.") for k in range(300)), mode="w:gz")
    for name, content in (("html.tar", b"<html>"), ("cut.tar.gz", whole.read_bytes()[:400]), ("empty.tar", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ArtifactError, match=rf"{name} is no whole tar archive"):
            unpacked(tmp_path / name)
    assert not (tmp_path / "imagenet_c").exists()
    assert unpacked(whole) == 300
    assert unpacked(tmp_path / "html.tar") == 300, "what is unpacked is not unpacked again"
