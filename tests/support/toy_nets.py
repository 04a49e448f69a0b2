"""Tiny nets of the ImageNet track's kinds with random weights, written as fetch leaves them, and its record shrunk."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cgn.config.imagenet import ImageNet, TrainCgn
from cgn.config.load import load
from cgn.core.checkpoints import save_model
from cgn.miniature.nets import MINIATURE
from cgn.nets.biggan import BigGan, BigGanConfig
from cgn.nets.features import VggFeatures
from cgn.nets.u2net import U2Net, Widths
from tests.support.configs import replace

VARIANTS = load(Path(__file__).parents[2] / "params.yaml").tracks["imagenet"]
PARAMS = {name: record for name, record in VARIANTS.items() if isinstance(record, ImageNet)}
BIGGAN_CONFIG = BigGanConfig(
    noise_size=8,
    embedding_size=8,
    classes=9,
    width=4,
    blocks=((True, 4, 4), (True, 4, 2), (True, 2, 1)),
    attention_at=1,
)
WIDTHS = Widths(down=((2, 4),) * 6, up=((2, 4),) * 5)
BLOCKS = ((4,), (6,), (8,), (8,))
KINDS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "biggan": (lambda: BigGan(BIGGAN_CONFIG), asdict(BIGGAN_CONFIG)),
    "segmenter": (lambda: U2Net(WIDTHS), asdict(WIDTHS)),
    "features": (lambda: VggFeatures(BLOCKS), {"blocks": BLOCKS}),
}


def write_nets(assets: Path) -> Path:
    """Three files of 32 px nets; their weights are the same each time."""
    assets.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7)
    for kind, (make, net) in KINDS.items():
        save_model(assets / f"{kind}.safetensors", make().state_dict(), facts={**MINIATURE, "kind": kind, "net": net})
    return assets


def shrunk(**changed: Any) -> TrainCgn:
    """The miniature's parameters for four updates of two batches of two pictures on the CPU."""
    params = PARAMS["miniature"].train_cgn
    intervals = replace(params.intervals, log=1, checkpoint=2, sheet=2)
    few: dict[str, Any] = {
        "batch_size": 2,
        "batches_per_update": 2,
        "updates": 4,
        "intervals": intervals,
        "accelerator": "cpu",
    }
    return replace(params, **(few | changed))
