"""Pictures as bytes for the page."""

import io

from PIL import Image, ImageChops

from cgn.core.errors import ArtifactError
from cgn.data.decoding import DECODE_ERRORS, check_pixels


def drawn(picture: Image.Image) -> bytes:
    """A Pillow picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def trimmed(picture: Image.Image, *, border: int = 8) -> Image.Image:
    """The picture without what has the colour of its first pixel above and below, but for `border` pixels of it."""
    surface = Image.new("RGB", picture.size, picture.getpixel((0, 0)))
    box = ImageChops.difference(picture, surface).getbbox()
    if box is None:
        return picture
    _, top, _, bottom = box
    return picture.crop((0, max(top - border, 0), picture.width, min(bottom + border, picture.height)))


def first_frame(gif: bytes, *, source: str) -> bytes:
    """The first frame of a GIF as PNG. Raises ArtifactError when it cannot be read."""
    try:
        with Image.open(io.BytesIO(gif), formats=["GIF"]) as film:
            check_pixels(film)
            return drawn(film.convert("RGB"))
    except DECODE_ERRORS as error:
        raise ArtifactError(f"{source} is no GIF picture ({error}): run the stage that makes it again") from None
