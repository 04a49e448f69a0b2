"""The table of downloads is well formed, and says what the real files are."""

import hashlib
import re
from pathlib import Path

import pytest

from cgn.download.sources import (
    BACKGROUND_TEXTURES,
    BACKGROUNDS_CHALLENGE,
    BIGGAN_DEEP_256,
    CGN_IMAGENET,
    CUE_CONFLICT,
    FROST,
    IMAGENET_C,
    MNIST_IMAGES,
    MNIST_LABELS,
    OBJECT_TEXTURES,
    RESNET50_V1,
    SQUEEZENET,
    U2NET,
    U2NETP,
    U2NETP_FOLDED,
    VGG16,
    Asset,
)
from cgn.download.verification import digest_mismatch

MNIST = (MNIST_IMAGES, MNIST_LABELS, *OBJECT_TEXTURES, *BACKGROUND_TEXTURES, VGG16, SQUEEZENET)
IMAGENET = (
    *(BIGGAN_DEEP_256, U2NET, U2NETP, U2NETP_FOLDED, RESNET50_V1, CGN_IMAGENET),
    *(BACKGROUNDS_CHALLENGE, CUE_CONFLICT, *IMAGENET_C, *FROST),
)
ALL = (*MNIST, *IMAGENET)
RENAMED = ("https://drive.usercontent.google.com/download?id=", "https://huggingface.co/Carve/u2net-universal/")
"""Where a file goes by another name, or by none."""


def test_names_are_unique_so_that_a_mirror_needs_no_layout() -> None:
    assert len({asset.name for asset in ALL}) == len(ALL)


def test_textures_are_in_the_order_of_the_classes() -> None:
    for kind in (OBJECT_TEXTURES, BACKGROUND_TEXTURES):
        assert [int(asset.name[0]) for asset in kind] == list(range(10))
        assert [asset.name for asset in kind] == sorted(asset.name for asset in kind)


def test_every_asset_has_a_licence_and_mirrors_end_in_its_name() -> None:
    for asset in ALL:
        assert asset.licence
        assert all(url.endswith("/" + asset.name) or url.startswith(RENAMED) for url in asset.urls)
    assert len(MNIST_IMAGES.urls) == 2


def test_the_real_files_are_what_the_table_says(test_data: Path) -> None:
    found = {path.name: path for path in test_data.rglob("*") if path.is_file()}
    checked = [asset.name for asset in ALL if asset.name in found and digest_mismatch(asset, found[asset.name]) is None]
    expected = (*(asset for asset in MNIST if asset is not VGG16), U2NETP_FOLDED, *FROST)
    assert checked == [asset.name for asset in expected]


def test_three_files_have_no_documented_digest() -> None:
    assert [asset for asset in ALL if not asset.documented] == [CGN_IMAGENET, BACKGROUNDS_CHALLENGE, CUE_CONFLICT]
    assert all(asset.kind and asset.holds for asset in ALL if not asset.documented)
    assert all(len(asset.sha256 or "") == 64 for asset in (BIGGAN_DEEP_256, U2NET, U2NETP, RESNET50_V1))


def test_an_md5_serves_where_it_is_all_that_is_documented(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"cgn")
    asset = Asset(name="a", urls=(), sha256=None, md5=hashlib.md5(b"cgn").hexdigest(), licence="none")
    assert digest_mismatch(asset, tmp_path / "a") is None
    (tmp_path / "a").write_bytes(b"<html>")
    assert re.fullmatch(
        r"md5 \w{32}, expected \w{32}; it looks like an HTML page", digest_mismatch(asset, tmp_path / "a") or ""
    )


def test_a_prefix_of_the_digest_serves(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"cgn")
    wrong = Asset(name="a", urls=(), sha256="00000000", licence="none")
    message = digest_mismatch(wrong, tmp_path / "a")
    assert message is not None
    digest = message.split()[1].rstrip(",")
    assert digest_mismatch(Asset(name="a", urls=(), sha256=digest[:8], licence="none"), tmp_path / "a") is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "../a"}, "plain file name"),
        ({"name": ""}, "plain file name"),
        ({"sha256": "abc"}, "8 to 64"),
        ({"sha256": ""}, "8 to 64"),
        ({"sha256": None}, "neither a digest nor a kind"),
        ({"urls": ("file:///etc/passwd",)}, "only http"),
        ({"urls": ("ftp://host/a",)}, "only http"),
    ],
)
def test_a_malformed_asset_is_refused(values: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"name": "a", "urls": (), "sha256": "0" * 64, "licence": "none"} | values
    with pytest.raises(ValueError, match=message):
        Asset(**given)  # type: ignore[arg-type]
