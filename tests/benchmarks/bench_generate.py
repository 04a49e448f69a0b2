"""How fast counterfactuals are generated, compared with the published code: python -m tests.benchmarks.bench_generate

    --images 8 --rounds 2 --batch 8 --workers 2 --threads 2 --device cpu --net biggan-deep-256

Ours is the stage itself: three folded BigGANs and one folded U2-Net, whole batches, shards of PNG, written by one
process a core (or a GPU), at each precision. The published procedure: four BigGANs and two U2-Nets an image, one image
at a time, spectral norms anew each time, one JPEG file an image, each stretched to its own minimum and maximum; in one
process with all cores (as it is started) or, where that is faster, in as many processes as ours. Weights are random.
Sides take turns in processes of their own. One line a side: images a second over all rounds; the ratio to the faster of
the published by the clock, in each round, and by processor time; the share of time that went into encoding and writing
(what the drawing did not hide); the peak of memory over the side's processes.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from cgn.config.imagenet import Generate
from cgn.core.checkpoints import save_model
from cgn.core.devices import usable_cores
from cgn.core.fan_out import choose_workers
from cgn.core.seeding import torch_stream
from cgn.data.shards import LABELS, Sample, write_shard
from cgn.imagenet.generate import Renderer
from cgn.imagenet.generator import load_generator, model_facts, saliency_tensors
from cgn.mechanisms import Prior
from cgn.nets.biggan import BIGGAN_DEEP_256, BigGanConfig
from cgn.nets.u2net import U2NET, U2NETP, U2Net
from cgn.rendering import PlannedShard, encoder_threads
from tests.benchmarks.published_biggan import PublishedBigGan, noisy_state
from tests.benchmarks.turns import Side, Turn, race, ratios

TRUNCATION = 0.5
TINY = BigGanConfig(
    noise_size=16,
    embedding_size=16,
    classes=9,
    width=8,
    blocks=((True, 8, 8), (True, 8, 4), (True, 4, 2), (True, 2, 1)),
    attention_at=2,
)
NETS = {"biggan-deep-256": (BIGGAN_DEEP_256, U2NET), "tiny": (TINY, U2NETP)}


def main(argv: Sequence[str] | None = None) -> list[Side]:
    """Print the table."""
    options = _options(argv)
    table, _ = NETS[options.net]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_model(folder, net=options.net)
        given = {"folder": folder, "device": options.device}
        plain = given | {"images": options.published_images}
        sides = [Side(name="published", make=published, given=plain | {"threads": options.threads})]
        if options.workers > 1 and options.threads > 1 and options.device == "cpu":
            each = plain | {"threads": 1}
            sides.append(
                Side(name=f"published, {options.workers} x", make=published, given=each, count=options.workers)
            )
        fair = len(sides)
        for precision in options.precisions:
            sides.append(
                Side(
                    name=f"ours, {precision}",
                    make=ours,
                    given=given | {"images": options.images, "batch": options.batch, "precision": precision},
                    count=options.workers,
                )
            )
        race(sides, rounds=options.rounds)
    print(
        f"{table.image_size} px on {options.device}, {usable_cores()} cores; ours: {options.workers} workers, "
        f"batches of {options.batch}; {options.rounds} rounds"
    )
    ratio = f"{'ratio':>8}{'of each round':>34}{'by CPU time':>13}"
    print(f"{'':18}{'images/s':>10}{ratio}{'encoding, writing':>19}{'peak, GiB':>11}")
    fastest = max(sides[:fair], key=lambda side: side.per_second)
    for side in sides:
        _line(side, reference=fastest)
    return sides


def _line(side: Side, *, reference: Side) -> None:
    share = 1 - sum(turn["drawing"] for turn in side.turns) / sum(turn["busy"] for turn in side.turns)
    speed = f"{side.name:18}{side.per_second:10.3f}{side.per_second / reference.per_second:8.1f}"
    shown = f"{ratios(side, reference=reference):>34}{side.per_processor_second / reference.per_processor_second:13.1f}"
    print(f"{speed}{shown}{100 * share:17.1f} %{side.peak:11.2f}", flush=True)


def write_model(folder: Path, *, net: str) -> None:
    """A model file of random weights, as train_cgn leaves it."""
    table, widths = NETS[net]
    with torch.device("meta"):
        empty = PublishedBigGan(table)
    state = noisy_state(empty, stream=torch_stream(0, "weights"))
    torch.manual_seed(0)
    tensors = saliency_tensors(U2Net(widths))
    for role in LABELS:
        tensors |= {f"{role}.net.{name}": tensor for name, tensor in state.items()}
    save_model(folder / "model.safetensors", tensors, facts=model_facts(variant="bench", table=table, widths=widths))


def ours(place: int, *, folder: Path, device: str, images: int, batch: int, precision: Any) -> Turn:
    """A worker of the stage."""
    torch.set_num_threads(1)
    config = Generate(
        weights="trained",
        factual_images=0,
        counterfactual_images=1 << 20,
        truncation=TRUNCATION,
        classes=None,
        parts=(),
        interpolations=(),
        images_per_shard=images,
        batch_size=batch,
        accelerator="cuda" if device == "cuda" else "cpu",
        precision=precision,
    )
    devices = choose_workers(config.accelerator).devices
    renderer = Renderer(config, source=folder, seed=0, variant="bench")
    renderer.to(devices[place % len(devices)])

    def turn(number: int) -> Mapping[str, float]:
        number = number * len(devices) + place
        shard = PlannedShard(split="counterfactual", number=number, images=images, first_index=0)
        timed, start = Timed(renderer.render(shard)), time.perf_counter()
        write_shard(
            folder / precision,
            timed,
            split=shard.split,
            number=shard.number,
            first_index=0,
            encoders=encoder_threads(devices),
        )
        seconds = time.perf_counter() - start
        return {"images": images, "seconds": seconds, "busy": seconds, "drawing": timed.seconds}

    next(renderer.render(PlannedShard(split="counterfactual", number=0, images=1, first_index=0)))  # to warm up
    return turn


class Timed:
    """Samples, and how long their making took."""

    def __init__(self, samples: Iterator[Sample]) -> None:
        self.samples, self.seconds = samples, 0.0

    def __iter__(self) -> "Timed":
        return self

    def __next__(self) -> Sample:
        start = time.perf_counter()
        try:
            return next(self.samples)
        finally:
            self.seconds += time.perf_counter() - start


def published(place: int, *, folder: Path, device: str, images: int, threads: int) -> Turn:
    """The published procedure."""
    torch.set_num_threads(threads)
    opened = load_generator(folder, variant="bench")
    table, saliency = opened.table, opened.saliency.to(device).eval()
    state = opened.generator.texture.net.state_dict()  # type: ignore[union-attr]
    del opened
    nets = [PublishedBigGan(table) for _ in range(4)]
    for net in nets:
        net.load_state_dict(state)
        net.to(device).train()
    shape, texture, background, cgan = nets
    prior = Prior(noise_size=table.noise_size, truncation=TRUNCATION)
    (folder / "published").mkdir(exist_ok=True)

    @torch.no_grad()
    def one(number: int, index: int) -> float:
        stream, start = torch_stream(0, "published", number, place, index), time.perf_counter()
        noise = prior.noise(1, stream).to(device)
        labels = torch.eye(table.classes)[torch.randint(table.classes, (3,), generator=stream)].to(device)
        cgan(noise, labels[:1], TRUNCATION)
        mask = saliency(shape(noise, labels[:1], TRUNCATION)).clamp(1e-4, 1 - 1e-4)
        foreground = texture(noise, labels[1:2], TRUNCATION)
        behind = background(noise, labels[2:], TRUNCATION)
        saliency(behind)
        image = (mask * foreground + (1 - mask) * behind)[0].permute(1, 2, 0).cpu()
        seconds = time.perf_counter() - start
        stretched = (image - image.min()) / (image.max() - image.min()) * 255
        Image.fromarray(stretched.byte().numpy()).save(folder / "published" / f"{number}_{place}_{index}.jpg")
        return seconds

    def turn(number: int) -> Mapping[str, float]:
        start = time.perf_counter()
        drawing = sum(one(number, index) for index in range(images))
        seconds = time.perf_counter() - start
        return {"images": images, "seconds": seconds, "busy": seconds, "drawing": drawing}

    if device == "cuda":
        one(-1, 0)  # to warm up; on a CPU it would take as long as all that is measured, and change little
    return turn


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8, help="of ours, a worker and round")
    parser.add_argument("--published-images", type=int, default=1, help="a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of the published procedure")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=usable_cores())
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--net", default="biggan-deep-256", choices=list(NETS))
    parser.add_argument("--precisions", nargs="+", default=["32-true", "bf16-mixed"], metavar="PRECISION")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
