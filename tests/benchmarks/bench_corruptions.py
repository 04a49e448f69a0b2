"""How fast the corruptions are, compared with the readable reference: python -m tests.benchmarks.bench_corruptions

    --images 16 --repeats 3 --threads 1 --device cpu --names fog snow

One line a corruption: milliseconds an image, the mean over the five severities and the best of the repeats, at 224
pixels, random numbers included. The reference loops over images (one image a severity, as it takes seconds for some).
"total" is one image under every corruption; as glass blur alone is most of the reference's, it is also given without.
Images are real where CGN_TEST_DATA has them; without it they are smooth noise, and frost's photographs too.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cgn.core.devices import THREADS
from cgn.core.seeding import torch_stream
from cgn.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from cgn.corruptions.weather import read_ice
from cgn.download.sources import FROST
from tests.parity.reference_corruptions import Reference, references

PIXELS = 224
Array = np.ndarray[Any, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    options = _options(argv)
    torch.set_num_threads(options.threads)
    folder = Path(os.environ.get("CGN_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    images, photographs, ice = _data(folder, count=options.images)
    rows = {}
    print(f"{options.images} images of {PIXELS} pixels on {options.device}, {torch.get_num_threads()} threads")
    print(f"{'':18}{'ours, ms':>10}{'images/s':>10}{'reference':>11}{'ratio':>8}")
    for name in options.names:
        ours = _ours(images.to(options.device), name=name, ice=ice, repeats=options.repeats)
        rows[name] = ours, _theirs(references(photographs)[name], images)
        _line(name, *rows[name])
    if len(rows) > 1:
        _line("total", *np.sum(list(rows.values()), axis=0))
        _line("but glass_blur", *np.sum([row for name, row in rows.items() if name != "glass_blur"], axis=0))


def _line(name: str, ours: float, theirs: float) -> None:
    print(f"{name:18}{1000 * ours:10.2f}{1 / ours:10.0f}{1000 * theirs:11.2f}{theirs / ours:8.1f}", flush=True)


def _ours(images: torch.Tensor, *, name: str, ice: Sequence[torch.Tensor], repeats: int) -> float:
    """Seconds an image."""

    def once(severity: int) -> None:
        corrupt(images, name=name, severity=severity, numbers=range(len(images)), seed=0, ice=ice)
        if images.is_cuda:
            torch.cuda.synchronize()

    return float(np.mean([_best(partial(once, severity), repeats) for severity in SEVERITIES])) / len(images)


def _theirs(function: Reference, images: torch.Tensor) -> float:
    """Seconds an image."""
    arrays = images.permute(0, 2, 3, 1).contiguous().numpy()
    random = np.random.RandomState(0)
    times = [_best(partial(function, arrays[s % len(arrays)], s, random), 1) for s in SEVERITIES]
    return float(np.mean(times))


def _best(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def _data(folder: Path, *, count: int) -> tuple[torch.Tensor, list[Array], tuple[torch.Tensor, ...]]:
    """(count,3,224,224) uint8 images, frost's photographs, and these enlarged."""
    if not (folder / "golden").is_dir():
        coarse = torch.rand((count + 6, 3, 8, 8), generator=torch_stream(0, "bench"))
        smooth = torch.nn.functional.interpolate(coarse, size=(320, 320), mode="bicubic").clamp(0, 1)
        pictures = smooth.mul(255).to(torch.uint8)
        ice = tuple(pictures[count:])
        return pictures[:count, :, :PIXELS, :PIXELS], [layer.permute(1, 2, 0).numpy() for layer in ice], ice
    names = (folder / "golden" / "corruptions_images.txt").read_text().split()
    opened = [np.asarray(Image.open(folder / name).convert("RGB"))[16:240, 16:240] for name in names]
    images = torch.from_numpy(np.stack([opened[i % len(opened)] for i in range(count)])).permute(0, 3, 1, 2)
    paths = [folder / "frost" / asset.name for asset in FROST]
    photographs = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    return images.contiguous(), photographs, read_ice(paths, height=PIXELS, width=PIXELS)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--names", nargs="+", default=list(CORRUPTIONS), choices=list(CORRUPTIONS), metavar="NAME")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
