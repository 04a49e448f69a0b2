"""Images a second: generation, a training step of the CGN and of a classifier, corruptions, and the loader.

Each as shipped, and with what might pay: bfloat16, TF32, the other memory format, torch.compile, CUDA graphs.
"""

import gc
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from cgn.core.devices import usable_cores
from cgn.core.seeding import torch_stream
from cgn.corruptions import CORRUPTIONS, corrupt
from cgn.data.shards import write_shard
from cgn.imagenet.data.datasets import FolderDataset
from cgn.imagenet.data.image_folders import class_folders
from cgn.imagenet.data.mixing import Mixture, Stream, mixed_batches
from cgn.imagenet.generate import Renderer
from cgn.imagenet.generator import biggan_of
from cgn.imagenet.train_cgn import batch_losses, draw_batch, settle_norms
from cgn.nets.classifiers import MECHANISMS, Ensemble, network
from cgn.rendering import PlannedShard, encoder_threads
from tests.benchmarks.bench_training_step import untrained
from tests.gpu.equality import generate_config
from tests.gpu.measure import Row, pace, smooth

Pace = Callable[..., Row]
DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}
GRAPHS = "reduce-overhead"
"""torch.compile's mode that replays CUDA graphs."""


def cases(
    folder: Path, *, device: torch.device, sizes: Mapping[str, int], seconds: float
) -> dict[str, Callable[[], Row]]:
    """What is measured, by name, the most wanted first; nothing is opened before a case is called."""
    clock = partial(pace, device=device, seconds=seconds)
    found: dict[str, Callable[[], Row]] = {}
    for precision in DTYPES:
        found[f"generate, {precision}"] = partial(generation, clock, folder, device, sizes["generate"], precision)
        found[f"train_cgn, {precision}"] = partial(cgn_step, clock, folder, device, sizes["train_cgn"], precision)
        found[f"train_classifier, {precision}"] = partial(
            classifier_step, clock, device, sizes["train_classifier"], sizes["pixels"], precision
        )
    found["generate, bf16-mixed, written as PNG shards"] = partial(shards, clock, folder, device, sizes["generate"])
    for name in CORRUPTIONS:
        found[f"corruption {name}"] = partial(corruption, clock, name, device, sizes["corrupt"], sizes["pixels"])
    for workers in sorted({0, min(4, usable_cores()), usable_cores()}):
        found[f"loader, {workers} workers"] = partial(
            loader, clock, workers, sizes["train_classifier"], sizes["pixels"]
        )
    for mode in ("default", GRAPHS) if device.type == "cuda" else ("default",):
        what = "compiled" if mode == "default" else "CUDA graphs"
        bf16 = "bf16-mixed"
        found[f"generate, {bf16}, {what}"] = partial(
            generation, clock, folder, device, sizes["generate"], bf16, compiled=mode
        )
        found[f"train_classifier, {bf16}, {what}"] = partial(
            classifier_step, clock, device, sizes["train_classifier"], sizes["pixels"], bf16, compiled=mode
        )
    for precision in DTYPES:
        found[f"train_classifier, {precision}, contiguous"] = partial(
            classifier_step, clock, device, sizes["train_classifier"], sizes["pixels"], precision, channels_last=False
        )
    found["train_cgn, 32-true, TF32"] = partial(
        cgn_step, clock, folder, device, sizes["train_cgn"], "32-true", tf32=True
    )
    if device.type == "cuda":  # a CPU compiles it for minutes
        found["train_cgn, bf16-mixed, compiled"] = partial(
            cgn_step, clock, folder, device, sizes["train_cgn"], "bf16-mixed", compiled="default"
        )
    return {name: partial(_clean, name, call) for name, call in found.items()}


def _clean(name: str, call: Callable[..., Row]) -> Row:
    """A case in fresh memory; one that fails is a row that says why."""
    try:
        return call(case=name)
    except Exception as error:  # one case must not end the others
        return Row(
            part="speed", case=name, value=None, unit="images/s", note=f"failed: {str(error).splitlines()[0][:200]}"
        )
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        torch.compiler.reset()
        gc.collect()


def generation(
    clock: Pace,
    folder: Path,
    device: torch.device,
    images: int,
    precision: str,
    *,
    case: str,
    compiled: str | None = None,
) -> Row:
    """Counterfactuals drawn on the device, without the copy to the CPU."""
    renderer = _renderer(folder, device, images, precision)
    if compiled:
        generator = renderer.generator.generator
        nets = [getattr(generator, role).net for role in MECHANISMS]
        _compile([*nets, renderer.generator.saliency], mode=compiled)
    causes = renderer.causes("counterfactual", torch_stream(0, "speed")).to(device)
    return clock("speed", case, lambda: renderer.generator(causes), images=images)


def shards(clock: Pace, folder: Path, device: torch.device, images: int, *, case: str) -> Row:
    """The same as one process of generate does it: drawn, encoded and written."""
    renderer = _renderer(folder, device, images, "bf16-mixed")
    planned = PlannedShard(split="counterfactual", number=0, images=images, first_index=0)
    with tempfile.TemporaryDirectory() as scratch:

        def write() -> None:
            write_shard(
                Path(scratch),
                renderer.render(planned),
                split=planned.split,
                number=0,
                first_index=0,
                encoders=encoder_threads(device),
            )

        return clock("speed", case, write, images=images)


def cgn_step(
    clock: Pace,
    folder: Path,
    device: torch.device,
    images: int,
    precision: str,
    *,
    case: str,
    tf32: bool = False,
    compiled: str | None = None,
) -> Row:
    """Forward and backward of all losses of the full variant, with the spectral norms' iteration."""
    config, nets = untrained(folder, device=device, batch=images)
    if tf32:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
    if compiled:
        mechanisms = [biggan_of(getattr(nets.generator, role)) for role in MECHANISMS]
        _compile([*mechanisms, nets.cgan, nets.saliency, nets.features], mode=compiled)

    def step() -> None:
        settle_norms(nets.generator)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16-mixed"):
            batch = draw_batch(config, nets, 0, 0, seed=0)
            losses = batch_losses(config, nets, batch)
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()  # type: ignore[no-untyped-call]
        batch.backward()

    return clock("speed", case, step, images=images)


def classifier_step(
    clock: Pace,
    device: torch.device,
    images: int,
    pixels: int,
    precision: str,
    *,
    case: str,
    channels_last: bool = True,
    compiled: str | None = None,
) -> Row:
    """Forward, backward and SGD of a ResNet-50 with three heads, on images in the device's memory."""
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = Ensemble(network("resnet50", classes=1000), classes=1000).train().to(device).to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, foreach=True)
    pictures = smooth(images, pixels).to(device).float().div(255).contiguous(memory_format=layout)
    labels = torch.arange(images, device=device) % 1000
    if compiled:
        _compile([net], mode=compiled)

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16-mixed"):
            losses = [nn.functional.cross_entropy(logits, labels) for logits in net(pictures).values()]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return clock("speed", case, step, images=images)


def corruption(clock: Pace, name: str, device: torch.device, images: int, pixels: int, *, case: str) -> Row:
    """At severity 3, random numbers included."""
    pictures, ice = smooth(images, pixels).to(device), tuple(smooth(6, 320))

    def once() -> None:
        corrupt(pictures, name=name, severity=3, numbers=range(images), seed=0, ice=ice)

    return clock("speed", case, once, images=images)


def loader(clock: Pace, workers: int, images: int, pixels: int, *, case: str) -> Row:
    """JPEG files of twice the side, decoded, cropped and mixed into batches for the classifier."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "class"
        folder.mkdir()
        for place, picture in enumerate(smooth(64, 2 * pixels)):
            Image.fromarray(np.asarray(picture.permute(1, 2, 0))).save(folder / f"{place}.jpg")
        dataset = FolderDataset(class_folders(Path(scratch), classes=["class"]))
        mixture = Mixture(
            real=Stream(name="real", dataset=dataset, per_update=images),
            counterfactual=None,
            seed=0,
            image_size=pixels,
            smallest_crop=0.08,
            updates=1 << 20,
        )
        batches: Iterator[Any] = mixed_batches(mixture, start=0, workers=workers, device="cpu")
        return clock("speed", case, lambda: next(batches), images=images, device=torch.device("cpu"))


def _renderer(folder: Path, device: torch.device, images: int, precision: str) -> Renderer:
    config = generate_config(images=images, precision=precision)
    renderer = Renderer(config, source=folder, seed=0, variant="bench")
    renderer.to(device)
    return renderer


def _compile(nets: list[nn.Module], *, mode: str) -> None:
    for net in nets:
        net.compile(mode=mode)
