"""Fetch the nets and benchmarks that a variant of the ImageNet track reads; the miniature's nets ship with `cgn`."""

from collections.abc import Sequence
from pathlib import Path

from cgn.config.imagenet import Extra, Fetch
from cgn.core.arguments import Output, Parameter
from cgn.core.metrics import MetricSink
from cgn.download.assets import ShippedAsset, fetch_all, list_all
from cgn.download.sources import (
    BACKGROUNDS_CHALLENGE,
    BIGGAN_DEEP_256,
    CGN_IMAGENET,
    CUE_CONFLICT,
    FROST,
    IMAGENET_C,
    RESNET50_V1,
    U2NET,
    VGG16,
    Asset,
)
from cgn.miniature.shipped import SHIPPED

NETS: dict[str, tuple[Asset, ...]] = {"miniature": (), "published": (BIGGAN_DEEP_256, U2NET, VGG16)}
SHIPPED_NETS: dict[str, Sequence[ShippedAsset]] = {"miniature": SHIPPED, "published": ()}
PRETRAINED: dict[str, tuple[Asset, ...]] = {"none": (), "resnet50-0676ba61": (RESNET50_V1,)}
EXTRAS: dict[Extra, tuple[Asset, ...]] = {
    "imagenet9": (BACKGROUNDS_CHALLENGE,),
    "cue_conflict": (CUE_CONFLICT,),
    "imagenet_c": IMAGENET_C,
    "frost": FROST,
    "authors_cgn": (CGN_IMAGENET,),
}


def fetch(config: Fetch, *, nets: Parameter, pretrained: Parameter, assets: Output, sink: MetricSink) -> None:
    """Put into `assets` what train_cgn (`nets`), train_classifier (`pretrained`) and prepare (extras) read."""
    wanted = wanted_assets(config, nets=nets, pretrained=pretrained)
    sink.summary(fetch_all(wanted, assets, shipped=SHIPPED_NETS[nets]))


def listing(config: Fetch, *, nets: str, pretrained: str, assets: Path) -> list[str]:
    """What fetch would do, a line for each file. Writes nothing."""
    wanted = wanted_assets(config, nets=nets, pretrained=pretrained)
    return list_all(wanted, assets, shipped=SHIPPED_NETS[nets])


def wanted_assets(config: Fetch, *, nets: str, pretrained: str) -> tuple[Asset, ...]:
    """The files to download."""
    extras = [asset for name in config.extras for asset in EXTRAS[name]]
    return (*NETS[nets], *PRETRAINED[pretrained], *extras)
