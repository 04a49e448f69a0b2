"""Whatever picture a benchmark folder holds becomes 8-bit RGB, or an error that names it."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cgn.core.errors import ArtifactError
from cgn.data.decoding import decode

RED, BLUE = (255, 0, 0), (0, 0, 255)
ORIENTATION = 0x0112


def halves() -> Image.Image:
    """40x20: the left half blue, the right half red."""
    picture = Image.new("RGB", (40, 20), RED)
    picture.paste(BLUE, (0, 0, 20, 20))
    return picture


def near(colour: object, wanted: tuple[int, int, int]) -> bool:
    return bool(np.abs(np.array(colour) - np.array(wanted)).max() <= 3)


SAVED: dict[str, Callable[[Path], None]] = {
    "plain.png": lambda path: halves().save(path),
    "cmyk.jpg": lambda path: halves().convert("CMYK").save(path, quality=100, subsampling=0),
    "palette.png": lambda path: halves().convert("P", palette=Image.Palette.ADAPTIVE).save(path),
    "palette.gif": lambda path: halves().convert("P", palette=Image.Palette.ADAPTIVE).save(path),
    "see_through.png": lambda path: halves().convert("P").save(path, transparency=bytes(range(200))),
    "alpha.png": lambda path: halves().convert("RGBA").save(path),
    "lossless.webp": lambda path: halves().save(path, lossless=True),
    "strips.tiff": lambda path: halves().save(path),
    "misnamed.jpg": lambda path: halves().save(path, format="PNG"),
}


@pytest.mark.parametrize("name", SAVED)
def test_colours_survive_every_format(tmp_path: Path, name: str) -> None:
    SAVED[name](tmp_path / name)
    picture = decode(tmp_path / name)
    assert (picture.mode, picture.size) == ("RGB", (40, 20))
    assert near(picture.getpixel((5, 10)), BLUE)
    assert near(picture.getpixel((35, 10)), RED)


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_greyscale_is_repeated(tmp_path: Path, mode: str) -> None:
    Image.new("L", (9, 7), 255).convert(mode).save(tmp_path / "grey.png")
    assert (np.asarray(decode(tmp_path / "grey.png")) == np.full((7, 9, 3), 255)).all()


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_keep_their_high_byte(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 255, 256, 0x1234, 0x8000, 0xFFFF]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    assert np.asarray(decode(tmp_path / f"deep.{suffix}"))[0, :, 0].tolist() == [0, 0, 1, 0x12, 0x80, 0xFF]


def test_an_image_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # the camera was turned: the stored left side is the top
    halves().save(tmp_path / "side.jpg", exif=exif, quality=100, subsampling=0)
    picture = decode(tmp_path / "side.jpg")
    assert picture.size == (20, 40)
    assert near(picture.getpixel((10, 5)), BLUE)
    assert near(picture.getpixel((10, 35)), RED)


def test_a_broken_exif_block_turns_nothing(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    halves().save(tmp_path / "side.jpg", exif=exif)
    whole = (tmp_path / "side.jpg").read_bytes()
    broken = whole.replace(b"Exif\0\0MM", b"Exif\0\0??").replace(b"Exif\0\0II", b"Exif\0\0??")
    assert broken != whole
    (tmp_path / "broken.jpg").write_bytes(broken)
    assert decode(tmp_path / "broken.jpg").size == (40, 20)


def test_a_single_pixel_is_a_picture(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), RED).save(tmp_path / "dot.png")
    assert decode(tmp_path / "dot.png").getpixel((0, 0)) == RED


@pytest.mark.parametrize("kept", [0, 20, 200, -40])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str, kept: int) -> None:
    path = tmp_path / f"cut.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ArtifactError, match=rf"cut\.{suffix} cannot be read: \w"):
        decode(path)


def test_a_page_in_place_of_an_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<html>Forbidden</html>")
    with pytest.raises(ArtifactError, match=r"page\.jpg cannot be read: it is not an image of a known format \(JPEG"):
        decode(tmp_path / "page.jpg")
    with pytest.raises(ArtifactError, match=r"gone\.jpg cannot be read: No such file"):
        decode(tmp_path / "gone.jpg")


def test_pixels_without_an_agreed_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(ArtifactError, match=r"float\.tiff cannot be read: pixels of mode 'F' have no agreed range"):
        decode(tmp_path / "float.tiff")


def test_odd_originals_are_all_read(test_data: Path) -> None:
    paths = sorted((test_data / "imagenet_odd").rglob("*.JPEG"))
    pictures = [decode(path) for path in paths]
    assert len(pictures) == 82
    assert {picture.mode for picture in pictures} == {"RGB"}
    assert min(min(picture.size) for picture in pictures) == 56
    grey = [np.asarray(picture) for picture in pictures]
    assert sum(bool((pixels == pixels[..., :1]).all()) for pixels in grey) >= 8


def promising(suffix: str, *, width: int, height: int) -> bytes:
    """The start of a picture that promises so many pixels."""
    if suffix == "gif":
        frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x08\x01"
        return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + frame
    if suffix == "ppm":
        return f"P6 {width} {height} 255\n".encode()
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">II", zlib.crc32(chunk), 9) + b"IDAT"


@pytest.mark.parametrize("suffix", ["png", "gif", "ppm"])
def test_an_image_of_too_many_pixels_is_named_with_its_size_and_the_limit(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"large.{suffix}"
    path.write_bytes(promising(suffix, width=10_000, height=10_000))
    expected = rf"large\.{suffix} cannot be read: it has 10000 x 10000 = 100,000,000 pixels, allowed: 67,108,864"
    with pytest.raises(ArtifactError, match=expected):
        decode(path)
    path.write_bytes(promising(suffix, width=30_000, height=30_000))  # Pillow itself refuses this one
    with pytest.raises(
        ArtifactError, match=rf"large\.{suffix} cannot be read: it has 900,000,000 pixels, allowed: 67,"
    ):
        decode(path)


def test_the_largest_images_that_cameras_take_are_read(tmp_path: Path) -> None:
    Image.new("1", (9504, 6336)).save(tmp_path / "camera.png")
    assert decode(tmp_path / "camera.png").size == (9504, 6336)
