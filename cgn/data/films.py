"""Films: a row of frames as a GIF, which every page shows, and as an MP4, which is smaller and keeps all colours.

Decided here: equal frames give equal bytes (one encoder thread, no times or versions written in). Frames below 256
pixels are enlarged by repeating pixels, because players blur them. PyAV is imported only when a film is written.
"""

from fractions import Fraction
from pathlib import Path

import torch
from PIL import Image

from cgn.core.files import replacing
from cgn.core.images import Bytes, to_bytes

FRAMES_PER_SECOND = 12
LEAST_PIXELS = 256
BLOCK = 16
"""Pixels, of the codec: a BigGAN's images are multiples."""
QUALITY = "18"  # x264's constant rate factor: no loss that the eye sees


def write_film(frames: torch.Tensor, path: Path) -> Path:
    """(F,3,H,W) in [-1,1] -> `path`.gif and `path`.mp4, each whole or not at all; the GIF's path."""
    pixels = to_bytes(frames)
    times = -(-LEAST_PIXELS // pixels.shape[1])
    pixels = pixels.repeat(times, 1).repeat(times, 2)
    gif = path.with_name(path.name + ".gif")
    with replacing(gif) as temporary:
        _write_gif(pixels, temporary)
    with replacing(path.with_name(path.name + ".mp4")) as temporary:
        _write_mp4(pixels, temporary)
    return gif


def _write_gif(pixels: Bytes, path: Path) -> None:
    first, *rest = (Image.fromarray(frame) for frame in pixels)
    milliseconds = round(1000 / FRAMES_PER_SECOND)
    first.save(path, format="GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0)


def _write_mp4(pixels: Bytes, path: Path) -> None:
    import av

    assert not any(size % BLOCK for size in pixels.shape[1:3]), "what pads a block is not always the same"
    with av.open(str(path), "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": QUALITY, "threads": "1"})
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for number, frame in enumerate(pixels):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, FRAMES_PER_SECOND)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
