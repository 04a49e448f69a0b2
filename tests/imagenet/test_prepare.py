"""prepare on the ImageNet track: the drawn world, the user's folders, archives unpacked with care."""

import gzip
import io
import json
import os
import shutil
import tarfile
from contextlib import suppress
from functools import partialmethod
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytest
from PIL import Image

from cgn.config.imagenet import Folders, Prepare, World
from cgn.core.errors import ArtifactError, ConfigError
from cgn.core.files import folder_digest, write_json
from cgn.core.images import png
from cgn.core.metrics import Files, Silent
from cgn.corruptions.weather import read_ice
from cgn.download import archives
from cgn.download.sources import BACKGROUNDS_CHALLENGE, CUE_CONFLICT, FROST, IMAGENET_C
from cgn.imagenet.data import image_folders
from cgn.imagenet.data.image_folders import imagenet_c
from cgn.imagenet.data.prepared_sets import PreparedSets, SetName, read_prepared_sets
from cgn.imagenet.data.wnids import wnids
from cgn.imagenet.prepare import prepare
from cgn.imagenet.survey import folder_digests, survey
from cgn.miniature.sets import CLASS_FOLDERS

ROOT = Path(__file__).parents[2]
SMALL = World(image_size=64, train_per_class=3, val_per_class=2, per_variation=2, per_pair=1)
GREY = png(np.full((8, 8, 3), 90, dtype=np.uint8))


def drawn(data: Path, *, seed: int = 0) -> PreparedSets:
    data.mkdir(parents=True)
    sink = Files(data.with_suffix(".log"))
    config = Prepare(world=SMALL, folders=None)
    prepare(config, seed=seed, variant="toy", assets=data, data=data, sink=sink)
    return read_prepared_sets(data)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> PreparedSets:
    return drawn(tmp_path_factory.mktemp("world") / "data")


def photographs(folder: Path, *, classes: tuple[str, ...] = wnids()[:3], pictures: int = 2) -> Path:
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(pictures):
            (folder / name / f"{name}_{number}.JPEG").write_bytes(GREY)
    return folder


def gathered(tmp_path: Path, **folders: Any) -> PreparedSets:
    """`train` and `val` are there; assets are in tmp_path/assets."""
    for name in ("train", "val"):
        if not (tmp_path / name).exists():
            photographs(tmp_path / name)
    named: dict[str, Any] = {
        "train": str(tmp_path / "train"),
        "val": str(tmp_path / "val"),
        "stylized": None,
        "imagenet_c": None,
    }
    config = Prepare(world=None, folders=Folders(**(named | folders)))
    (tmp_path / "assets").mkdir(exist_ok=True)
    (tmp_path / "data").mkdir(exist_ok=True)
    prepare(config, seed=0, variant="toy", assets=tmp_path / "assets", data=tmp_path / "data", sink=Silent())
    return read_prepared_sets(tmp_path / "data")


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


def test_the_world_has_every_set_and_says_how_many(world: PreparedSets) -> None:
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


@pytest.mark.long
def test_the_manifest_depends_on_every_byte_and_the_seed(world: PreparedSets, tmp_path: Path) -> None:
    again = drawn(tmp_path / "again")
    assert folder_digest(again.root) == folder_digest(world.root)
    other = drawn(tmp_path / "other", seed=1)
    assert all(other.sets[name].digest != held.digest for name, held in world.sets.items())


def test_the_drawn_panes_serve_for_frost(world: PreparedSets) -> None:
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
    printed = capsys.readouterr()
    assert "train: 6 images of 3 classes" in printed.out
    assert "train has 997 classes without a folder" in printed.err
    assert "train has 1 files or folders that are left out: README.txt: not in a class folder" in printed.err


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
    with pytest.raises(ArtifactError, match=r"val: none of the images that were tried can be read, such as n0"):
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
    config = Prepare(world=None, folders=folders)
    write_json(tmp_path / "survey" / "survey.json", folder_digests(folders, variant="toy"))
    where = {"assets": tmp_path / "assets", "data": tmp_path / "data", "survey": tmp_path / "survey"}
    (tmp_path / "data").mkdir()
    prepare(config, seed=0, variant="toy", **where, sink=Silent())
    (tmp_path / "val" / wnids()[0] / "more.JPEG").write_bytes(GREY)
    with pytest.raises(ArtifactError, match=r"survey\.json is not of the images that val holds now"):
        prepare(config, seed=0, variant="toy", **where, sink=Silent())


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


def test_a_variant_without_folders_has_an_empty_survey(tmp_path: Path) -> None:
    survey(["imagenet/miniature", "--params", str(ROOT / "params.yaml"), "--survey", str(tmp_path)])
    assert (tmp_path / "survey.json").read_text() == "{}\n"


def test_another_picture_gives_another_manifest(tmp_path: Path) -> None:
    before = gathered(tmp_path).sets["val"]
    (tmp_path / "val" / wnids()[0] / "more.JPEG").write_bytes(GREY + b"x")
    assert gathered(tmp_path).sets["val"].digest != before.digest


def test_relative_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = gathered(tmp_path, train="train")
    assert found.folder("train") == (tmp_path / "train").resolve()


@pytest.mark.parametrize("name", ["train", "val", "stylized"])
def test_relative_folders_start_at_the_users_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Not at a temporary copy of it, where a stage may run."""
    (tmp_path / "copy").mkdir()
    photographs(tmp_path / "mine" / name)
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("CGN_ROOT", str(tmp_path / "mine"))
    assert gathered(tmp_path, **{name: name}).folder(name) == (tmp_path / "mine" / name).resolve()  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_used_is_named_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"imagenet\.toy\.prepare\.folders\.train is '.*absent': there is no folder"):
        gathered(tmp_path, train=str(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"prepare\.folders\.val .*holds no image in a class folder"):
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
    with pytest.raises(
        ConfigError, match=r"folders\.imagenet_c .*fog lacks the severities 3: a corruption needs all five"
    ):
        gathered(tmp_path, imagenet_c=str(tmp_path / "c"))


@pytest.mark.parametrize(
    "layout",
    [
        ("weather/fog", "weather/snow"),
        ("noise/shot_noise", "fog"),  # a kind of which one was moved out
        ("extra/speckle_noise", "blur/defocus_blur"),
    ],
)
def test_corruptions_unpacked_by_kind_are_taken_by_prepare_as_by_evaluate(
    tmp_path: Path, layout: tuple[str, ...]
) -> None:
    for home in layout:
        for severity in range(1, 6):
            photographs(tmp_path / "c" / home / str(severity), pictures=1)
    found = gathered(tmp_path, imagenet_c=str(tmp_path / "c"))
    assert found.sets["imagenet_c"].images == 2 * 5 * 3
    names = tuple(Path(home).name for home in layout)
    listed = imagenet_c(found.folder("imagenet_c"), corruptions=names, classes=wnids())
    assert sum(map(len, listed.present.values())) == 2 * 5 * 3
    assert listed.missing == ()


def test_a_corruption_in_two_folders_is_refused(tmp_path: Path) -> None:
    for home in ("fog", "weather/fog"):
        for severity in range(1, 6):
            photographs(tmp_path / "c" / home / str(severity), pictures=1)
    with pytest.raises(ConfigError, match=r"folders\.imagenet_c .*fog is in .*c/fog and in .*c/weather/fog: keep one"):
        gathered(tmp_path, imagenet_c=str(tmp_path / "c"))


def test_benchmarks_that_were_fetched_are_unpacked(tmp_path: Path) -> None:
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
        archives.unpack([archive], tmp_path / "in" / "imagenet_c", place=image_folders.imagenet_c_member)
    assert not (tmp_path / "in" / "imagenet_c").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"a.tar", "in"}


def test_links_doubles_and_broken_archives_are_refused(tmp_path: Path) -> None:
    def unpacked(archive: Path) -> int:
        return archives.unpack([archive], tmp_path / "imagenet_c", place=image_folders.imagenet_c_member)

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


def unpacked(archive: Path, folder: Path) -> int:
    return archives.unpack([archive], folder / "imagenet_c", place=image_folders.imagenet_c_member)


def member(name: str, size: int = 0, **fields: Any) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry


def headers(
    path: Path, *members: tarfile.TarInfo, end: bytes = bytes(1024), form: Literal[0, 1, 2] = tarfile.PAX_FORMAT
) -> Path:
    """Members that have no content, whatever their headers say."""
    path.write_bytes(b"".join(one.tobuf(format=form) for one in members) + end)
    return path


def sparse(path: Path, *, size: int) -> Path:
    """A file of `size` bytes, all of it a hole, in the GNU format."""
    header = bytearray(member(GOOD, 0, type=tarfile.GNUTYPE_SPARSE).tobuf(format=tarfile.GNU_FORMAT))
    header[386:398] = b"%011o\0" % size  # where its one block of data is: at the end, empty
    header[398:410] = b"%011o\0" % 0
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + bytes(1024))
    return path


def test_a_sparse_file_that_would_unpack_to_gigabytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"of 3,221,225,472 bytes makes it more than the .* it may unpack to"):
        unpacked(sparse(tmp_path / "a.tar", size=3 << 30), tmp_path)
    with pytest.raises(ArtifactError, match="which is a sparse file"):
        unpacked(sparse(tmp_path / "b.tar", size=5000), tmp_path)
    assert not list(tmp_path.glob("imagenet_c*"))


@pytest.mark.parametrize("wanted", [True, False])
def test_a_compressed_archive_of_zeros_is_refused_before_it_fills_the_disk(tmp_path: Path, wanted: bool) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.addfile(member(GOOD, len(GREY)), io.BytesIO(GREY))
        archive.addfile(member(GOOD.replace("x.", "y.") if wanted else "README", 1 << 28), io.BytesIO(bytes(1 << 28)))
    with pytest.raises(ArtifactError, match=r"of 268,435,456 bytes makes it more than the"):
        unpacked(tmp_path / "a.tar.gz", tmp_path)
    assert not list(tmp_path.glob("imagenet_c*")), "what was unpacked before is gone"


@pytest.mark.parametrize("size", [1 << 62, (1 << 80) - 1, -1])
def test_an_absurd_size_is_refused(tmp_path: Path, size: int) -> None:
    archive = headers(tmp_path / "a.tar", member(GOOD, size), form=tarfile.GNU_FORMAT)
    with pytest.raises(ArtifactError, match=r"a\.tar is no whole tar archive"):
        unpacked(archive, tmp_path)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_an_absurd_header_is_refused(tmp_path: Path, kind: bytes) -> None:
    path = headers(tmp_path / "plain.tar", member("x", 1 << 24, type=kind), end=b"")
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(path.read_bytes() + bytes(1 << 24) + bytes(1024))
    with pytest.raises(ArtifactError, match="a header of 16,777,216 bytes"):
        unpacked(tmp_path / "a.tar.gz", tmp_path)


def test_an_absurd_count_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tar(tmp_path / "a.tar", *(GOOD.replace("x.", f"{number}.") for number in range(30)))
    monkeypatch.setattr(archives.Bounds, "__init__", partialmethod(archives.Bounds.__init__, members=29))
    with pytest.raises(ArtifactError, match="it holds more than 29 members"):
        unpacked(archive, tmp_path)


def test_a_chain_of_long_names_is_refused(tmp_path: Path) -> None:
    chain = [member("x", 0, type=tarfile.GNUTYPE_LONGNAME)] * 3000
    with pytest.raises(ArtifactError, match="is no whole tar archive"):
        unpacked(headers(tmp_path / "a.tar", *chain), tmp_path)


@pytest.mark.parametrize("name", ["x" * 300 + ".JPEG", "a\nb.JPEG", "a\x1b[2Jb.JPEG", "a\0b.JPEG"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    path = GOOD.replace("x.JPEG", name)
    record = f" path={path}\n".encode(errors="surrogateescape")
    (length,) = (digits + len(record) for digits in (2, 3) if len(str(digits + len(record))) == digits)
    block = b"%d" % length + record
    header = member("pax", len(block), type=tarfile.XHDTYPE).tobuf() + block + bytes(-len(block) % 512)
    (tmp_path / "a.tar").write_bytes(header + member("short").tobuf() + bytes(1024))
    with pytest.raises(ArtifactError, match="which is no file name"):
        unpacked(tmp_path / "a.tar", tmp_path)


def test_an_archive_damaged_or_cut_between_two_members_is_refused(tmp_path: Path) -> None:
    whole = tar(tmp_path / "whole.tar", GOOD, GOOD.replace("x.", "y."))
    first = 512 + -(-len(GREY) // 512) * 512
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:first])
    damaged = bytearray(whole.read_bytes())
    damaged[first : first + 4] = b"\xff\xfe\xfd\xfc"
    (tmp_path / "damaged.tar").write_bytes(damaged)
    for name in ("cut.tar", "damaged.tar"):
        with pytest.raises(ArtifactError, match=rf"{name} is no whole tar archive .*damaged or cut short"):
            unpacked(tmp_path / name, tmp_path)
    assert unpacked(whole, tmp_path) == 2


def test_hundreds_of_damaged_archives_end_in_an_error_or_whole(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    plain = tar(tmp_path / "a.tar", *(GOOD.replace("x.", f"{'n' * 40 * k}.") for k in range(1, 5)))
    packed = tar(tmp_path / "a.tar.gz", GOOD, mode="w:gz")
    for turn in range(300):
        source = (plain, packed)[turn % 2].read_bytes()
        content = bytearray(source)
        for place in random.integers(0, len(content) // (1, 3)[turn % 3 == 0], size=random.integers(1, 6)):
            content[place] = random.integers(256)
        (tmp_path / "b.tar").write_bytes(content[: random.integers(1, len(content) + 1)] if turn % 5 == 0 else content)
        with suppress(ArtifactError):
            unpacked(tmp_path / "b.tar", tmp_path / "out")
        assert not (tmp_path / "out" / "imagenet_c.partial").exists()
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
