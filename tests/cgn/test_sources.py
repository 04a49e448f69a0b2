"""The table of downloads is well formed, and says what the real files are."""

from pathlib import Path

import pytest

from cgn.data.download import mismatch
from cgn.data.sources import (
    BACKGROUND_TEXTURES,
    FROST,
    MNIST_IMAGES,
    MNIST_LABELS,
    OBJECT_TEXTURES,
    SQUEEZENET,
    VGG16,
    Asset,
)

ALL = (MNIST_IMAGES, MNIST_LABELS, *OBJECT_TEXTURES, *BACKGROUND_TEXTURES, VGG16, SQUEEZENET, *FROST)


def test_names_are_unique_so_that_a_mirror_needs_no_layout() -> None:
    assert len({asset.name for asset in ALL}) == len(ALL)


def test_textures_stand_in_the_order_of_the_classes() -> None:
    for kind in (OBJECT_TEXTURES, BACKGROUND_TEXTURES):
        assert [int(asset.name[0]) for asset in kind] == list(range(10))
        assert [asset.name for asset in kind] == sorted(asset.name for asset in kind)


def test_every_asset_has_a_licence_and_mirrors_end_in_its_name() -> None:
    for asset in ALL:
        assert asset.licence
        assert all(url.endswith("/" + asset.name) for url in asset.urls)
    assert len(MNIST_IMAGES.urls) == 2


def test_the_real_files_are_what_the_table_says(test_data: Path) -> None:
    found = {path.name: path for path in test_data.rglob("*") if path.is_file()}
    checked = [asset.name for asset in ALL if asset.name in found and mismatch(asset, found[asset.name]) is None]
    assert checked == [asset.name for asset in ALL if asset is not VGG16]


def test_a_prefix_of_the_digest_serves(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"cgn")
    wrong = Asset(name="a", urls=(), sha256="00000000", licence="none")
    told = mismatch(wrong, tmp_path / "a")
    assert told is not None
    digest = told.split()[1].rstrip(",")
    assert mismatch(Asset(name="a", urls=(), sha256=digest[:8], licence="none"), tmp_path / "a") is None


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"name": "../a"}, "plain file name"),
        ({"name": ""}, "plain file name"),
        ({"sha256": "abc"}, "8 to 64"),
        ({"urls": ("file:///etc/passwd",)}, "only http"),
        ({"urls": ("ftp://host/a",)}, "only http"),
    ],
)
def test_a_malformed_asset_is_refused(values: dict[str, object], told: str) -> None:
    given: dict[str, object] = {"name": "a", "urls": (), "sha256": "0" * 64, "licence": "none"} | values
    with pytest.raises(ValueError, match=told):
        Asset(**given)  # type: ignore[arg-type]
