"""imagenet fetch: the nets and extras that a variant calls for; the miniature's nets ship with the project."""

from cgn.config.imagenet import Extra, Fetch
from cgn.data.sources import (
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
from cgn.stages.fetch import Parts

NETS: dict[str, tuple[Asset, ...]] = {"miniature": (), "published": (BIGGAN_DEEP_256, U2NET, VGG16)}
PRETRAINED: dict[str, tuple[Asset, ...]] = {"none": (), "resnet50-0676ba61": (RESNET50_V1,)}
EXTRAS: dict[Extra, tuple[Asset, ...]] = {
    "imagenet9": (BACKGROUNDS_CHALLENGE,),
    "cue_conflict": (CUE_CONFLICT,),
    "imagenet_c": IMAGENET_C,
    "frost": FROST,
    "authors_cgn": (CGN_IMAGENET,),
}


def parts(params: Fetch, *, nets: str, pretrained: str, **_: object) -> Parts:
    """What train_cgn (nets), train_classifier (pretrained) and prepare (extras) will read."""
    wanted = [asset for name in dict.fromkeys(params.extras) for asset in EXTRAS[name]]
    shipped = SHIPPED if nets == "miniature" else ()
    return Parts(assets=(*NETS[nets], *PRETRAINED[pretrained], *wanted), shipped=shipped, embedded=())
