"""How like digits a network's masks are: python -m tests.benchmarks.bench_masks MODEL ... --assets FETCHED

    --masks 12000 --threads 1

MODEL is a folder of train_cgn on the MNIST track at 32 pixels, FETCHED one of fetch with MNIST. Two figures a network,
the first line for real digits: `variety`, the mean area in which two masks of a class differ, over a mask's mean area;
`read`, the share of the 10,000 real test digits, binarised, that a small CNN reads that has seen these masks alone.
No stage uses them: whoever chose a network by them would have looked at the test.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from cgn.config.mnist import CLASSES
from cgn.core.checkpoints import load_model
from cgn.core.devices import THREADS
from cgn.core.seeding import torch_stream
from cgn.core.weights import load_strictly
from cgn.download.sources import MNIST_IMAGES, MNIST_LABELS
from cgn.mechanisms import Prior
from cgn.mnist.digits import Digits, mnist, render_digits
from cgn.mnist.generator import build_generator

SIDE, BATCH, EPOCHS = 32, 64, 2
OF_A_CLASS = 100
"""Masks of each class whose variety is measured."""


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    options = _options(argv)
    torch.set_num_threads(options.threads)
    halves = mnist(options.assets / MNIST_IMAGES.name, options.assets / MNIST_LABELS.name)
    test = _real(halves.test, len(halves.test))
    print(f"{options.masks:,} masks to learn from, {len(test[1]):,} real digits to read")
    print(f"{'':44}{'variety':>8}{'read':>9}")
    _line("real digits", _real(halves.train, options.masks), test)
    for model in options.models:
        _line(str(model), _samples(model, options.masks), test)


def _line(name: str, masks: tuple[torch.Tensor, torch.Tensor], test: tuple[torch.Tensor, torch.Tensor]) -> None:
    print(f"{name[-44:]:44}{_variety(*masks):8.2f}{100 * _read(*masks, test):7.1f} %", flush=True)


def _real(digits: Digits, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(count,1,S,S) in {0,1} and (count,) labels."""
    chosen = torch.arange(count).numpy()
    ink = torch.from_numpy(render_digits(digits, chosen, image_size=SIDE) > digits.threshold)
    return ink.float().unsqueeze(1), torch.from_numpy(digits.labels[:count])


@torch.inference_mode()
def _samples(model: Path, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    path = model / "model.safetensors"
    tensors, facts = load_model(path, track="mnist")
    net = build_generator(**facts["net"])
    load_strictly(net, tensors, source=str(path))
    prior, stream = Prior(noise_size=facts["net"]["noise_size"]), torch_stream(0, "masks")
    label = torch.randint(CLASSES, (count,), generator=stream)
    return torch.cat([net.eval().shape(prior.cause(part, stream)) for part in torch.split(label, 500)]), label


def _variety(masks: torch.Tensor, label: torch.Tensor) -> float:
    shares = []
    for number in range(CLASSES):
        own = (masks[label == number][:OF_A_CLASS] > 0.5).float().flatten(1)
        differing = torch.cdist(own, own, p=1).sum() / (len(own) * (len(own) - 1))
        shares.append(float(differing / own.sum(1).mean()))
    return sum(shares) / len(shares)


def _read(masks: torch.Tensor, label: torch.Tensor, test: tuple[torch.Tensor, torch.Tensor]) -> float:
    torch.manual_seed(0)
    masks = masks.clone()  # out of inference mode
    net = nn.Sequential(
        nn.Conv2d(1, 32, 5, stride=2, padding=2), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.3), nn.LazyLinear(CLASSES),
    )  # fmt: skip
    net(masks[:2])
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for epoch in range(EPOCHS):
        optimizer.param_groups[0]["lr"] = 1e-3 * 0.4**epoch
        for chosen in torch.split(torch.randperm(len(label)), BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(net(masks[chosen]), label[chosen]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    net.eval()
    with torch.no_grad():
        answers = torch.cat([net(part).argmax(1) for part in torch.split(test[0], 500)])
    return float((answers == test[1]).double().mean())


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--masks", type=int, default=12_000)
    parser.add_argument("--threads", type=int, default=THREADS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
