"""Colorings: the published colours and textures, jitter of the right size, crops of each image's own."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cgn.core.errors import ArtifactError
from cgn.core.seeding import numpy_stream
from cgn.download.sources import BACKGROUND_TEXTURES, OBJECT_TEXTURES
from cgn.mnist.colorings import (
    BACKGROUND_COLORS,
    MEAN_COLORS,
    OBJECT_COLORS,
    colored,
    double_colored,
    textures,
    wildlife,
)

LABELS = np.arange(10)


def ink(count: int = 10, *, level: float = 1.0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Left half inked."""
    digits = np.zeros((count, 32, 32), dtype=np.float32)
    digits[:, :, :16] = level
    return digits


def test_the_published_colours() -> None:
    assert BACKGROUND_COLORS[0] == (0, 100, 0)  # darkgreen
    assert BACKGROUND_COLORS[9] == (0x64, 0x95, 0xED)
    assert OBJECT_COLORS[6] == BACKGROUND_COLORS[0]
    assert OBJECT_COLORS[0] == BACKGROUND_COLORS[4]
    assert len(set(MEAN_COLORS)) == len(set(BACKGROUND_COLORS)) == 10
    assert all(mine != other for mine, other in zip(OBJECT_COLORS, BACKGROUND_COLORS, strict=True))


def test_colored_is_intensity_times_colour_on_black() -> None:
    painted = colored(deviation=0)(ink(level=0.5), LABELS, LABELS, numpy_stream(0, "a"))
    assert (painted[:, :, 16:] == 0).all()
    expected = np.round(np.array(MEAN_COLORS) / 2)
    assert np.abs(painted[:, 5, 5].astype(int) - expected).max() <= 1


def test_the_jitter_has_the_published_variance_and_is_one_a_channel_and_image() -> None:
    grey = np.full(20_000, 1)  # (0,128,128): two channels far from being clipped
    painted = colored(deviation=0.02**0.5)(ink(20_000)[:, :2, :], grey, grey, numpy_stream(0, "a")) / 255
    assert painted[:, 0, 0, 1:].var(axis=0) == pytest.approx([0.02, 0.02], rel=0.05)
    assert np.corrcoef(painted[:, 0, 0, 1], painted[:, 0, 0, 2])[0, 1] == pytest.approx(0, abs=0.03)
    assert (painted[:, 0, 0] == painted[:, 1, 15]).all()


def test_double_colored_takes_each_colour_from_its_own_label() -> None:
    background = (LABELS + 3) % 10
    painted = double_colored(deviation=0, threshold=0.1)(ink(level=0.2), LABELS, background, numpy_stream(0, "a"))
    assert (painted[:, 0, 0] == np.array(OBJECT_COLORS)).all()
    assert (painted[:, 0, 20] == np.array(BACKGROUND_COLORS)[background]).all()
    below = double_colored(deviation=0, threshold=0.3)(ink(level=0.2), LABELS, background, numpy_stream(0, "a"))
    assert (below[:, 0, 0] == below[:, 0, 20]).all()


def test_the_means_do_not_change() -> None:
    paint, random = double_colored(deviation=0.01, threshold=0.1), numpy_stream(0, "a")
    for _ in range(50):
        painted = paint(ink(), LABELS, LABELS, random)
    assert np.abs(painted[:, 0, 0].astype(int) - np.array(OBJECT_COLORS)).max() < 0.05 * 255


def texture_files(folder: Path) -> list[Path]:
    """Ten pictures whose pixels tell class (red), column (green) and row (blue)."""
    paths = []
    for label in range(10):
        place = np.arange(300) * 255 // 299
        picture = np.zeros((300, 300, 3), dtype=np.uint8)
        picture[..., 0], picture[..., 1], picture[..., 2] = label * 20, place[None, :], place[:, None]
        paths.append(folder / f"{label}.png")
        Image.fromarray(picture).save(paths[-1])
    return paths


def test_wildlife_crops_a_window_of_its_own_for_every_image_and_part(tmp_path: Path) -> None:
    pictures = textures(texture_files(tmp_path))
    assert pictures.shape == (10, 156, 156, 3)
    assert (pictures[:, :, 2] == pictures[:, :, 4]).all()  # mirrored about the border
    chosen, ground = np.repeat(LABELS, 40), np.repeat((LABELS + 1) % 10, 40)
    painted = wildlife(pictures, pictures, threshold=0.1)(ink(400), chosen, ground, numpy_stream(0, "a"))
    assert (painted[:, :, :16, 0] == chosen[:, None, None] * 20).all()
    assert (painted[:, :, 16:, 0] == ground[:, None, None] * 20).all()
    corners = {tuple(corner) for corner in painted[:, 0, 0].tolist()}
    assert len(corners) > 390
    # The two parts are windows of different places: their rows' blue levels differ nearly always.
    assert (painted[:, 0, 0, 2] != painted[:, 0, 20, 2]).mean() > 0.9


def test_windows_reach_every_place(tmp_path: Path) -> None:
    pictures = textures(texture_files(tmp_path))
    chosen = np.zeros(4_000, dtype=np.int64)
    painted = wildlife(pictures, pictures, threshold=0.1)(
        np.ones((4_000, 32, 32), dtype=np.float32), chosen, chosen, numpy_stream(0, "a")
    )
    assert painted[:, 0, 0, 1:].min() == 0
    assert painted[:, -1, -1, 1:].max() == 255


def test_a_missing_or_broken_texture_is_named(tmp_path: Path) -> None:
    paths = texture_files(tmp_path)
    paths[4].write_bytes(paths[4].read_bytes()[:100])
    with pytest.raises(ArtifactError, match=r"4\.png is no whole picture"):
        textures(paths)
    paths[4].unlink()
    with pytest.raises(ArtifactError, match=r"4\.png is missing: run fetch"):
        textures(paths)


def test_the_real_textures_load(test_data: Path) -> None:
    for kind, assets in (("object", OBJECT_TEXTURES), ("background", BACKGROUND_TEXTURES)):
        pictures = textures([test_data / "wildlife_textures" / kind / asset.name for asset in assets])
        assert pictures.shape == (10, 156, 156, 3)
        assert pictures.std(axis=(1, 2, 3)).min() > 10
