"""A training step of the CGN, timed against the published one: python -m tests.benchmarks.bench_training_step

    --batch 2 --steps 1 --rounds 5 --threads 1 --device cpu --net biggan-deep-256 --precisions bf16-mixed

Ours are the batches and losses of train_cgn, forward and backward, of the full variant, and with every turn the
spectral norms' iteration that an update makes once. The published step is in `published_step`. Both have equal threads.
Weights are random. Sides take turns in processes of their own. One line a side: seconds an image, the ratio of the
published's to it over all rounds and in each, and the peak of memory. Sides stay in memory side by side: two take
16 GiB, `--precisions 32-true bf16-mixed` makes three and takes more than 22.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from cgn.config.imagenet import ImageNet, TrainCgn
from cgn.config.load import load
from cgn.core.devices import CORES, THREADS, keep_freed_memory, usable_cores
from cgn.imagenet.generator import biggan_of, load_generator, read_widths
from cgn.imagenet.train_cgn import Nets, batch_losses, draw_batch, settle_norms
from cgn.mechanisms import Prior
from cgn.nets.biggan_folded import fold
from cgn.nets.features import VggFeatures
from tests.benchmarks.bench_generate import NETS, write_model
from tests.benchmarks.published_biggan import PublishedBigGan
from tests.benchmarks.published_step import PublishedStep
from tests.benchmarks.turns import Side, Turn, race, ratios
from tests.support.configs import replace

ROOT = Path(__file__).parents[2]


def main(argv: Sequence[str] | None = None) -> list[Side]:
    """Print the table."""
    options = _options(argv)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_model(folder, net=options.net)
        given = {"folder": folder, "device": options.device, "steps": options.steps, "threads": options.threads}
        sides = [Side(name="published", make=published, given=given)]
        for precision in options.precisions:
            more = {"batch": options.batch, "precision": precision}
            sides.append(Side(name=f"ours, {precision}", make=ours, given=given | more))
        race(sides, rounds=options.rounds)
    size = NETS[options.net][0].image_size
    print(
        f"{size} px on {options.device}, {usable_cores()} cores; ours: batches of {options.batch}; "
        f"{options.rounds} rounds, {options.threads} threads"
    )
    print(f"{'':18}{'s/image':>10}{'ratio':>8}{'of each round':>34}{'by CPU time':>13}{'peak, GiB':>11}")
    for side in sides:
        shown = ratios(side, reference=sides[0])
        ratio = side.per_second / sides[0].per_second
        shown = f"{shown:>34}{side.per_processor_second / sides[0].per_processor_second:13.2f}"
        print(f"{side.name:18}{1 / side.per_second:10.2f}{ratio:8.2f}{shown}{side.peak:11.2f}", flush=True)
    return sides


def ours(place: int, *, folder: Path, device: str, steps: int, threads: int, batch: int, precision: str) -> Turn:
    """The objective of train_cgn."""
    del place
    torch.set_num_threads(threads)
    os.environ[CORES] = str(threads)  # else the mechanisms are computed side by side
    where = torch.device(device)
    config, nets = untrained(folder, device=where, batch=batch)

    def step(number: int, index: int) -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16-mixed"):
            images = draw_batch(config, nets, number, index, seed=0)
            losses = batch_losses(config, nets, images)
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()  # type: ignore[no-untyped-call]
        images.backward()

    def turn(number: int) -> Mapping[str, float]:
        start = time.perf_counter()
        settle_norms(nets.generator)
        for index in range(steps):
            step(number, index)
        _finish(where)
        return {"images": steps * batch, "seconds": time.perf_counter() - start}

    return turn


def untrained(folder: Path, *, device: torch.device, batch: int) -> tuple[TrainCgn, Nets]:
    """The parameters of the full variant and the nets of `write_model`, as train_cgn prepares its own."""
    if device.type == "cpu":
        keep_freed_memory()  # as train_cgn does
    torch.manual_seed(0)  # of the features
    opened = load_generator(folder, variant="bench", device=device)
    generator, table = opened.generator, opened.table
    cgan = fold(biggan_of(generator.texture), truncation=1.0)
    for role in (generator.shape, generator.texture, generator.background):
        biggan_of(role).requires_grad_(True)
    full = load(ROOT / "params.yaml").variant("imagenet/full")
    assert isinstance(full, ImageNet)
    nets = Nets(
        generator=generator,
        cgan=cgan,
        saliency=opened.saliency,
        features=VggFeatures().to(device).eval().requires_grad_(False),
        prior=Prior(noise_size=table.noise_size, truncation=1.0),
        biggan_config=table,
        widths=read_widths(opened.facts["saliency"]),
    )
    return replace(full.train_cgn, batch_size=batch), nets


def published(place: int, *, folder: Path, device: str, steps: int, threads: int) -> Turn:
    """The published step."""
    del place
    torch.set_num_threads(threads)
    where = torch.device(device)
    opened = load_generator(folder, variant="bench", device=where)
    nets = {}
    for name in ("shape", "texture", "background", "cgan"):
        nets[name] = PublishedBigGan(opened.table)
        nets[name].load_state_dict(biggan_of(opened.generator.texture).state_dict())
        nets[name].to(where).train()
    nets["cgan"].requires_grad_(False)
    step = PublishedStep(
        **nets,
        u2net=opened.saliency.eval().requires_grad_(False),
        vgg=VggFeatures().to(where).eval().requires_grad_(False),
        table=opened.table,
        device=where,
    )
    del opened

    def turn(number: int) -> Mapping[str, float]:
        start = time.perf_counter()
        for index in range(steps):
            step(number * steps + index)
        _finish(where)
        return {"images": steps, "seconds": time.perf_counter() - start}

    return turn


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2, help="of ours")
    parser.add_argument("--steps", type=int, default=1, help="a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--net", default="biggan-deep-256", choices=list(NETS))
    parser.add_argument("--precisions", nargs="+", default=["bf16-mixed"], metavar="PRECISION")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
