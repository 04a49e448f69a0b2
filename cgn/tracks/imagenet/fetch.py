"""imagenet fetch: the pretrained nets and benchmarks that a variant calls for; the miniature's nets ship with it."""

from cgn.config.imagenet.fetch import Benchmark, Fetch
from cgn.data.miniature.shipped import SHIPPED
from cgn.data.sources import (
    BACKGROUNDS_CHALLENGE,
    BIGGAN_DEEP_256,
    CUE_CONFLICT,
    FROST,
    IMAGENET_C,
    RESNET50_V1,
    U2NET,
    VGG16,
    Asset,
)
from cgn.stages.fetch import Parts

NETS: dict[str, tuple[Asset, ...]] = {"miniature": (), "published": (BIGGAN_DEEP_256, U2NET, VGG16)}
PRETRAINED: dict[str, tuple[Asset, ...]] = {"none": (), "resnet50-0676ba61": (RESNET50_V1,)}
BENCHMARKS: dict[Benchmark, tuple[Asset, ...]] = {
    "imagenet9": (BACKGROUNDS_CHALLENGE,),
    "cue_conflict": (CUE_CONFLICT,),
    "imagenet_c": IMAGENET_C,
    "frost": FROST,
}


def parts(params: Fetch, *, nets: str, pretrained: str, **_: object) -> Parts:
    """What train_cgn (nets), train_classifier (pretrained) and prepare (benchmarks) will read."""
    wanted = [asset for name in dict.fromkeys(params.benchmarks) for asset in BENCHMARKS[name]]
    shipped = SHIPPED if nets == "miniature" else ()
    return Parts(assets=(*NETS[nets], *PRETRAINED[pretrained], *wanted), shipped=shipped, embedded=())
