"""What is done to a picture before a network sees it: sizes and colours, by torchvision.

    ImageNet's test protocol   Resize 256, CenterCrop 224, [0,1], minus mean, over deviation    `imagenet()`
    pictures stored at 224     nothing but the colours (ImageNet-9, cue conflict, ImageNet-C)   `imagenet(resize=None)`
    SqueezeNet's release       Resize 256, CenterCrop 227, 0..255 minus a mean colour           `squeezenet()`

    a `Preparation` is one of these as a record, for any size: `clean` or, of stored pictures, `whole` or `middle`

Decided here: resizing is torchvision's on Pillow images (antialiased, bilinear unless a network was trained otherwise),
as when the published accuracies were measured. A network of another resolution than a benchmark's is given the whole
picture, not a crop of it: `squeezenet(resize=227)` for pictures of 224. ImageNet-C's pictures are the exception: larger
ones are not shrunk, but cropped, as the benchmark's own script does (CenterCrop 224 and nothing else).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from PIL import Image

Resize = Callable[[Image.Image], Image.Image]
Transform = Callable[[Image.Image], torch.Tensor]
"""An RGB picture -> (3,H,W) float32, of one size for all pictures."""

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of RGB in [0,1]."""
SQUEEZENET_MEAN = (123.0, 117.0, 104.0)
"""Of RGB in 0..255; its deviation is left as it is."""


View = Literal["clean", "whole", "middle"]
VIEWS: Mapping[View, str] = {
    "clean": "photographs: the shorter side resized, then the middle cropped, as the network's preparation says",
    "whole": "stored squares: the whole picture, resized to the network's crop where it is of another size",
    "middle": "stored squares: the middle, as large as the network's crop; a smaller picture is enlarged whole",
}
"""What is done to a picture before the colours, in words."""
Interpolation = Literal["nearest", "bilinear", "bicubic"]


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What a network was trained to see: a square of `crop` pixels, in colours divided, shifted and scaled."""

    crop: int
    shorter: int
    """Pixels of the shorter side before the middle is cropped."""
    interpolation: Interpolation = "bilinear"
    scale: float = 255.0
    mean: tuple[float, float, float] = IMAGENET_MEAN
    deviation: tuple[float, float, float] = IMAGENET_DEVIATION

    def transform(self, view: View) -> Transform:
        """RGB picture -> (3,crop,crop) float32."""
        pixels = {"clean": self.shorter, "whole": self.crop, "middle": None}[view]
        resize = _Enlarged(self.crop, self.interpolation) if pixels is None else _resized(pixels, self.interpolation)
        return _prepared(resize=resize, crop=self.crop, scale=self.scale, mean=self.mean, deviation=self.deviation)

    def batch(self, pixels: torch.Tensor, *, view: View) -> torch.Tensor:
        """(B,3,H,W) uint8 -> (B,3,crop,crop) float32 on the same device: `transform` of each picture."""
        if view != "clean" and pixels.shape[2:] == (self.crop, self.crop):
            mean, deviation = (
                torch.tensor(row, device=pixels.device)[:, None, None] for row in (self.mean, self.deviation)
            )
            return pixels.to(torch.float32).div(self.scale).sub_(mean).div_(deviation)
        change, arrays = self.transform(view), pixels.cpu().permute(0, 2, 3, 1).contiguous().numpy()
        return torch.stack([change(Image.fromarray(picture)) for picture in arrays]).to(pixels.device)

    @property
    def facts(self) -> dict[str, Any]:
        """As JSON, to stand beside what a network decided."""
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
    """RGB picture -> (3,H,W) uint8: its middle by the test protocol, or, of `crop` None, the picture as it is."""

    def __init__(self, crop: int | None) -> None:
        self.crop = crop

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        from torchvision.transforms import functional  # slow to import

        if self.crop is not None:
            picture = functional.center_crop(functional.resize(picture, round(self.crop * 256 / 224)), [self.crop])
        pixels: torch.Tensor = functional.pil_to_tensor(picture)
        return pixels


def imagenet(*, resize: int | None = 256, crop: int = 224) -> Transform:
    """RGB picture -> (3,crop,crop), about standard normal. `resize`: pixels of the shorter side, None leaves them."""
    steps = None if resize is None else _resized(resize, "bilinear")
    return _prepared(resize=steps, crop=crop, scale=255.0, mean=IMAGENET_MEAN, deviation=IMAGENET_DEVIATION)


def normalized(pixels: torch.Tensor) -> torch.Tensor:
    """(B,3,H,W) uint8, on any device -> the same as `imagenet` makes of pictures that have their size already."""
    mean, deviation = (
        torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_DEVIATION)
    )
    return pixels.to(torch.float32).div(255).sub(mean).div(deviation)


def squeezenet(*, resize: int | None = 256, crop: int = 227) -> Transform:
    """RGB picture -> (3,crop,crop), about -123 to 151: what the published SqueezeNet 1.0 takes."""
    steps = None if resize is None else _resized(resize, "bilinear")
    return _prepared(resize=steps, crop=crop, scale=1.0, mean=SQUEEZENET_MEAN, deviation=(1.0, 1.0, 1.0))


def _prepared(
    *, resize: Resize | None, crop: int, scale: float, mean: Sequence[float], deviation: Sequence[float]
) -> Transform:
    """Pixels divided by `scale`, minus `mean`, over `deviation`; a picture smaller than `crop` gets a black border."""
    from torchvision import transforms  # slow to import, and listing a folder needs none of it

    steps: list[Any] = [] if resize is None else [resize]
    steps += [transforms.CenterCrop(crop), transforms.PILToTensor(), _Floats(scale)]
    return cast(Transform, transforms.Compose([*steps, transforms.Normalize(mean, deviation)]))


def _resized(pixels: int, interpolation: Interpolation) -> Resize:
    """The shorter side to so many pixels."""
    from torchvision import transforms

    return cast(Resize, transforms.Resize(pixels, interpolation=transforms.InterpolationMode(interpolation)))


class _Enlarged:
    """A picture whose shorter side is below `pixels` is enlarged to that, another left as it is."""

    def __init__(self, pixels: int, interpolation: Interpolation) -> None:
        self.pixels, self.resize = pixels, _resized(pixels, interpolation)

    def __call__(self, picture: Image.Image) -> Image.Image:
        return picture if min(picture.size) >= self.pixels else self.resize(picture)


class _Floats:
    """(3,H,W) uint8 -> float32 divided by `scale`; a class, so that workers can be sent it."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.to(torch.float32).div(self.scale)
