"""Pictures as bytes for the page."""

import io

from PIL import Image

from cgn.core.errors import ArtifactError


def drawn(picture: Image.Image) -> bytes:
    """A Pillow picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def first_frame(gif: bytes, *, source: str) -> bytes:
    """The first frame of a GIF as PNG. Raises ArtifactError when it cannot be read."""
    try:
        with Image.open(io.BytesIO(gif), formats=["GIF"]) as film:
            return drawn(film.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ArtifactError(f"{source} is no GIF picture ({error}): run the stage that makes it again") from None
