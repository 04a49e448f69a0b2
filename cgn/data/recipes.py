"""What the weights of a published network were trained to see: as torchvision documents it, or as it is asked for.

torchvision says of each of its files of weights how pictures are prepared (`weights.transforms()`), and two files of
one network may differ: ResNet-50's V1 weights want 256/224, its V2 weights 232/224; EfficientNet-B1's want 240 pixels.
Decided here: a file is known by its bytes. Its name at torchvision ends with the first digits of its SHA-256, so a
renamed file is still known; one that torchvision does not publish (saved again, timm's, one's own) is of a recipe that
nothing here can know, and has to come with it:

    resnet50@IMAGENET1K_V2              as torchvision prepares for these weights
    resnet50@235/224/bicubic            resize, crop, interpolation; timm gives crop_pct, which is crop / resize
    resnet50@235/224/bicubic/0.5/0.5    mean and deviation too, of RGB in [0,1]: one number, or three with commas

googlenet and inception_v3 shift the colours of their input themselves where the weights are those that torchvision took
over from TensorFlow (`transform_input`); it is a part of the recipe.
"""

import re
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

from cgn.core.errors import ConfigError
from cgn.data.sources import SQUEEZENET
from cgn.data.transforms import PREPARATIONS, Interpolation, Preparation

DIGEST = re.compile(r"-([0-9a-f]{8,64})\.pth$")
"""What torchvision's file names end with."""
FORM = "RESIZE/CROP/INTERPOLATION[/MEAN/DEVIATION]"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How pictures are prepared for one file of weights; `name` says whose word that is."""

    name: str
    preparation: Preparation
    digest: str = ""
    """The first digits of the file's SHA-256, where it is torchvision's."""
    transform_input: bool = False
    """The network changes from ImageNet's colours to those of its weights."""
    source: Literal["the file", "--network"] = "the file"
    """What says so."""

    @property
    def text(self) -> str:
        """As it can be asked for, "232/224/bilinear"."""
        return f"{self.preparation.shorter}/{self.preparation.crop}/{self.preparation.interpolation}"


def published(network: str) -> tuple[Recipe, ...]:
    """torchvision's recipes for the classification weights of one of its networks, in its order."""
    from torchvision import models  # slow to import

    return tuple(
        _of_weights(weights, network=network)
        for weights in models.get_model_weights(network)
        if weights.meta["categories"]  # else a network without its classifier
    )


def recipe(network: str, *, asked: str, digest: str, file: str) -> Recipe:
    """The recipe of a file (its name, and the SHA-256 of its bytes) of one of torchvision's networks.

    `asked`: what stands behind the @ of --network. Raises ConfigError for what is not a recipe, and where none is asked
    for a file that torchvision does not publish.
    """
    known = published(network)
    of_file = next((one for one in known if digest.startswith(one.digest)), None)
    if digest == SQUEEZENET.sha256:
        of_file = Recipe(name="squeezenet", preparation=PREPARATIONS["squeezenet"])
    if asked:
        return replace(_asked(network, asked, known=known, of_file=of_file), source="--network")
    if of_file is not None:
        return of_file
    choices = " or ".join(f"{network}@{one.name} ({one.text})" for one in known)
    raise ConfigError(
        f"--network {network}: {file} is none of the files that torchvision publishes for it, so nothing says how its "
        f"pictures were prepared; give --network {choices} where its training did the same as torchvision's, else "
        f"{network}@{FORM}, such as {network}@{known[0].text} (for timm's, RESIZE is crop / crop_pct)"
    )


def _of_weights(weights: Any, *, network: str) -> Recipe:
    prepared = weights.transforms()
    (shorter,), (crop,) = prepared.resize_size, prepared.crop_size
    found = DIGEST.search(weights.url)
    assert found, weights.url
    return Recipe(
        name=weights.name,
        preparation=Preparation(
            crop=crop,
            shorter=shorter,
            interpolation=prepared.interpolation.value,
            mean=tuple(prepared.mean),
            deviation=tuple(prepared.std),
        ),
        digest=found[1],
        transform_input=network in ("googlenet", "inception_v3"),
    )


def _asked(network: str, asked: str, *, known: tuple[Recipe, ...], of_file: Recipe | None) -> Recipe:
    """What is asked for by name or by numbers; numbers leave the colours as the file's own recipe has them."""
    named = {name: Recipe(name=name, preparation=preparation) for name, preparation in PREPARATIONS.items()}
    named |= {one.name: one for one in known}
    if asked in named:
        return named[asked]
    numbers = _numbers(asked)
    if numbers is None:
        raise ConfigError(
            f"--network {network}@{asked}: unknown preparation {asked!r}; known: {', '.join(sorted(named))}, and "
            f"{FORM}, such as {known[0].text}, with whole numbers RESIZE >= CROP, one of "
            f"{', '.join(get_args(Interpolation))}, and colours in [0,1]"
        )
    own = of_file or Recipe(name="", preparation=Preparation(crop=224, shorter=256))
    coloured = "mean" in numbers
    return Recipe(
        name=asked,
        preparation=replace(own.preparation, **numbers),
        transform_input=own.transform_input and not coloured,
    )


def _numbers(asked: str) -> dict[str, Any] | None:
    """The fields of FORM that are given; None for anything else."""
    parts = asked.split("/")
    if len(parts) not in (3, 5) or not all(re.fullmatch(r"[1-9]\d{0,3}", part) for part in parts[:2]):
        return None
    shorter, crop = map(int, parts[:2])
    if crop > shorter or parts[2] not in get_args(Interpolation):
        return None
    found: dict[str, Any] = {"shorter": shorter, "crop": crop, "interpolation": cast(Interpolation, parts[2])}
    if len(parts) == 5:
        mean, deviation = _colour(parts[3]), _colour(parts[4])
        if mean is None or deviation is None or min(deviation) == 0:
            return None
        found |= {"scale": 255.0, "mean": mean, "deviation": deviation}
    return found


def _colour(text: str) -> tuple[float, float, float] | None:
    """One number for all three channels, or three."""
    values = text.split(",")
    if len(values) not in (1, 3) or not all(re.fullmatch(r"0?\.\d+|[01](\.0*)?", value) for value in values):
        return None
    red, green, blue = map(float, values * (3 // len(values)))
    return red, green, blue
