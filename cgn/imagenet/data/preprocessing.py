"""What is done to an image before a network sees it: sizes and colours, by torchvision.

    ImageNet's test protocol   Resize 256, CenterCrop 224, [0,1], minus mean, over deviation    `imagenet()`
    images stored at 224       nothing but the colours (ImageNet-9, cue conflict, ImageNet-C)   `imagenet(resize=None)`
    SqueezeNet's release       Resize 256, CenterCrop 227, 0..255 minus a mean colour           `squeezenet()`

A `Preparation` is one of these as a record, for any size: `clean` or, of stored images, `whole` or `middle`.
Resizing is torchvision's on Pillow images (antialiased, bilinear unless a network was trained otherwise),
as when the published accuracies were measured. A network of another resolution than a benchmark's gets the whole image,
not a crop of it: `squeezenet(resize=227)` for images of 224. ImageNet-C's images are the exception: larger ones are
cropped, not resized, as in the benchmark's own script (CenterCrop 224 and nothing else).

torchvision documents for each file of weights how images are preprocessed (`weights.transforms()`), and two files of
one network may differ: ResNet-50's V1 weights want 256/224, its V2 weights 232/224; EfficientNet-B1's want 240 pixels.
A file is identified by its bytes. Its name at torchvision ends with the first digits of its SHA-256, so a
renamed file is still known; the preprocessing of a file that torchvision does not publish (saved again, timm's, one's
own) cannot be known here and has to be given:

    resnet50@IMAGENET1K_V2              as torchvision does for these weights
    resnet50@235/224/bicubic            resize, crop, interpolation; timm gives crop_pct, which is crop / resize
    resnet50@235/224/bicubic/0.5/0.5    mean and deviation too, of RGB in [0,1]: one number, or three with commas

googlenet and inception_v3 shift the colours of their input themselves where the weights are those that torchvision took
over from TensorFlow (`transform_input`).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import torch
from PIL import Image

from cgn.core.errors import ConfigError

Resize = Callable[[Image.Image], Image.Image]
Transform = Callable[[Image.Image], torch.Tensor]
"""An RGB image -> (3,H,W) float32, of one size for all images."""

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of RGB in [0,1]."""
SQUEEZENET_SHA256 = "2e45d01b93e560340bbfe945be2c11e8a7e19e0ae254d4872f6cb549373901de"
"""Of the file whose images are prepared as its authors did."""
SQUEEZENET_MEAN = (123.0, 117.0, 104.0)
"""Of RGB in 0..255; its deviation is left as it is."""


View = Literal["clean", "whole", "middle"]
VIEWS: Mapping[View, str] = {
    "clean": "photographs: the shorter side resized, then the middle cropped, as the network's preparation says",
    "whole": "stored squares: the whole picture, resized to the network's crop where it is of another size",
    "middle": "stored squares: the middle, as large as the network's crop; a smaller picture is enlarged whole",
}
"""What is done to an image before the colours, in words."""
ResampleMode = Literal["nearest", "bilinear", "bicubic"]


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The input that a network was trained with: a square of `crop` pixels, in colours divided, shifted and scaled."""

    crop: int
    shorter: int
    """Pixels of the shorter side before the middle is cropped."""
    interpolation: ResampleMode = "bilinear"
    scale: float = 255.0
    mean: tuple[float, float, float] = IMAGENET_MEAN
    deviation: tuple[float, float, float] = IMAGENET_DEVIATION

    def transform(self, view: View) -> Transform:
        """RGB image -> (3,crop,crop) float32."""
        pixels = {"clean": self.shorter, "whole": self.crop, "middle": None}[view]
        resize = _Enlarged(self.crop, self.interpolation) if pixels is None else _resized(pixels, self.interpolation)
        return _prepared(resize=resize, crop=self.crop, scale=self.scale, mean=self.mean, deviation=self.deviation)

    def batch(self, pixels: torch.Tensor, *, view: View) -> torch.Tensor:
        """(B,3,H,W) uint8 -> (B,3,crop,crop) float32 on the same device: `transform` of each image."""
        if view != "clean" and pixels.shape[2:] == (self.crop, self.crop):
            mean, deviation = (
                torch.tensor(row, device=pixels.device)[:, None, None] for row in (self.mean, self.deviation)
            )
            return pixels.to(torch.float32).div(self.scale).sub_(mean).div_(deviation)
        change, arrays = self.transform(view), pixels.cpu().permute(0, 2, 3, 1).contiguous().numpy()
        return torch.stack([change(Image.fromarray(image)) for image in arrays]).to(pixels.device)

    @property
    def facts(self) -> dict[str, Any]:
        """As JSON, to be stored beside a network's predictions."""
        return {
            "resize": self.shorter,
            "crop": self.crop,
            "interpolation": self.interpolation,
            "scale": self.scale,
            "mean": list(self.mean),
            "deviation": list(self.deviation),
        }


def imagenet_size(crop: int) -> Preparation:
    """ImageNet's test protocol for networks of `crop` pixels: 256 before 224, and other sizes in proportion."""
    return Preparation(crop=crop, shorter=round(crop * 256 / 224))


PREPARATIONS = {
    "imagenet": imagenet_size(224),
    "imagenet299": imagenet_size(299),
    "squeezenet": Preparation(crop=227, shorter=256, scale=1.0, mean=SQUEEZENET_MEAN, deviation=(1.0, 1.0, 1.0)),
}
"""By name: torchvision's networks but Inception 3, Inception 3, and SqueezeNet 1.0 as its authors released it."""


class Stored:
    """RGB image -> (3,H,W) uint8: its middle by the test protocol, or, of `crop` None, the image as it is."""

    def __init__(self, crop: int | None) -> None:
        self.crop = crop

    def __call__(self, image: Image.Image) -> torch.Tensor:
        from torchvision.transforms import functional  # slow to import

        if self.crop is not None:
            image = functional.center_crop(functional.resize(image, round(self.crop * 256 / 224)), [self.crop])
        pixels: torch.Tensor = functional.pil_to_tensor(image)
        return pixels


def imagenet(*, resize: int | None = 256, crop: int = 224) -> Transform:
    """RGB image -> (3,crop,crop), about standard normal. `resize`: pixels of the shorter side, None leaves them."""
    steps = None if resize is None else _resized(resize, "bilinear")
    return _prepared(resize=steps, crop=crop, scale=255.0, mean=IMAGENET_MEAN, deviation=IMAGENET_DEVIATION)


def normalized(pixels: torch.Tensor) -> torch.Tensor:
    """(B,3,H,W) uint8, on any device -> what `imagenet(resize=None)` returns for images of this size."""
    mean, deviation = (
        torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_DEVIATION)
    )
    return pixels.to(torch.float32).div(255).sub(mean).div(deviation)


def squeezenet(*, resize: int | None = 256, crop: int = 227) -> Transform:
    """RGB image -> (3,crop,crop), about -123 to 151: what the published SqueezeNet 1.0 takes."""
    steps = None if resize is None else _resized(resize, "bilinear")
    return _prepared(resize=steps, crop=crop, scale=1.0, mean=SQUEEZENET_MEAN, deviation=(1.0, 1.0, 1.0))


def _prepared(
    *, resize: Resize | None, crop: int, scale: float, mean: Sequence[float], deviation: Sequence[float]
) -> Transform:
    """Pixels divided by `scale`, minus `mean`, over `deviation`; an image smaller than `crop` gets a black border."""
    from torchvision import transforms  # slow to import, and listing a folder needs none of it

    steps: list[Any] = [] if resize is None else [resize]
    steps += [transforms.CenterCrop(crop), transforms.PILToTensor(), _Floats(scale)]
    return cast(Transform, transforms.Compose([*steps, transforms.Normalize(mean, deviation)]))


def _resized(pixels: int, interpolation: ResampleMode) -> Resize:
    """The shorter side to so many pixels."""
    from torchvision import transforms

    return cast(Resize, transforms.Resize(pixels, interpolation=transforms.InterpolationMode(interpolation)))


class _Enlarged:
    """An image whose shorter side is below `pixels` is enlarged to that, another left as it is."""

    def __init__(self, pixels: int, interpolation: ResampleMode) -> None:
        self.pixels, self.resize = pixels, _resized(pixels, interpolation)

    def __call__(self, image: Image.Image) -> Image.Image:
        return image if min(image.size) >= self.pixels else self.resize(image)


class _Floats:
    """(3,H,W) uint8 -> float32 divided by `scale`; a class, so that workers can be sent it."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.to(torch.float32).div(self.scale)


DIGEST = re.compile(r"-([0-9a-f]{8,64})\.pth$")
"""What torchvision's file names end with."""
FORM = "RESIZE/CROP/INTERPOLATION[/MEAN/DEVIATION]"


@dataclass(frozen=True, kw_only=True)
class WeightsPreparation:
    """How images are prepared for one file of weights; `name` is torchvision's, ours or the user's."""

    name: str
    preparation: Preparation
    digest: str = ""
    """The first digits of the file's SHA-256, where it is torchvision's."""
    transform_input: bool = False
    """Whether the network itself changes from ImageNet's colours to those of its weights."""
    source: Literal["the file", "--network"] = "the file"
    """Where the preparation was given."""

    @property
    def text(self) -> str:
        """As it is given to --network, "232/224/bilinear"."""
        return f"{self.preparation.shorter}/{self.preparation.crop}/{self.preparation.interpolation}"


def published_preparations(network: str) -> tuple[WeightsPreparation, ...]:
    """torchvision's preparations for the classification weights of one of its networks, in its order."""
    from torchvision import models  # slow to import

    return tuple(
        _of_weights(weights, network=network)
        for weights in models.get_model_weights(network)
        if weights.meta["categories"]  # else a network without its classifier
    )


def weights_preparation(network: str, *, asked: str, digest: str, file: str) -> WeightsPreparation:
    """The preparation for a file (its name, and the SHA-256 of its bytes) of one of torchvision's networks.

    `asked`: the part of --network after the @. Raises ConfigError where that is not a preparation, and where it is
    empty for a file that torchvision does not publish.
    """
    known = published_preparations(network)
    of_file = next((one for one in known if digest.startswith(one.digest)), None)
    if digest == SQUEEZENET_SHA256:
        of_file = WeightsPreparation(name="squeezenet", preparation=PREPARATIONS["squeezenet"])
    if asked:
        return replace(_asked(network, asked, known=known, of_file=of_file), source="--network")
    if of_file is not None:
        return of_file
    choices = " or ".join(f"{network}@{one.name} ({one.text})" for one in known)
    raise ConfigError(
        f"--network {network}: {file} is none of the files that torchvision publishes for it, so nothing says how its "
        f"images were prepared; give --network {choices} where its training did the same as torchvision's, else "
        f"{network}@{FORM}, such as {network}@{known[0].text} (for timm's, RESIZE is crop / crop_pct)"
    )


def _of_weights(weights: Any, *, network: str) -> WeightsPreparation:
    prepared = weights.transforms()
    (shorter,), (crop,) = prepared.resize_size, prepared.crop_size
    found = DIGEST.search(weights.url)
    assert found, weights.url
    return WeightsPreparation(
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


def _asked(
    network: str, asked: str, *, known: tuple[WeightsPreparation, ...], of_file: WeightsPreparation | None
) -> WeightsPreparation:
    """What is asked for by name or by numbers; numbers leave the colours as the file's own preparation has them."""
    named = {name: WeightsPreparation(name=name, preparation=preparation) for name, preparation in PREPARATIONS.items()}
    named |= {one.name: one for one in known}
    if asked in named:
        return named[asked]
    numbers = _numbers(asked)
    if numbers is None:
        raise ConfigError(
            f"--network {network}@{asked}: unknown preparation {asked!r}; known: {', '.join(sorted(named))}, and "
            f"{FORM}, such as {known[0].text}, with whole numbers RESIZE >= CROP, one of "
            f"{', '.join(get_args(ResampleMode))}, and colours in [0,1]"
        )
    own = of_file or WeightsPreparation(name="", preparation=Preparation(crop=224, shorter=256))
    coloured = "mean" in numbers
    return WeightsPreparation(
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
    if crop > shorter or parts[2] not in get_args(ResampleMode):
        return None
    found: dict[str, Any] = {"shorter": shorter, "crop": crop, "interpolation": cast(ResampleMode, parts[2])}
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
