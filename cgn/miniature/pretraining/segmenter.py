"""The miniature's segmenter from scratch, on salient objects in general.

The published U2-Net was trained on photographs of salient objects, not on ImageNet's classes. So this one sees objects
of no class (a blob, ellipses, a polygon, a rounded box, or limbs around a trunk; a quarter of the images has none),
shaded and marked as the world's objects are. Objects and what is behind them are filled with plain colors, clouds,
stripes or noise, with none of the world's textures and backgrounds: what it gets wrong about those is left for the CGN
to correct.

Legend: B batch, H height, W width, N scenes, S image size.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cgn.core.devices import open_fabric
from cgn.core.images import to_bytes
from cgn.core.metrics import MetricSink
from cgn.core.seeding import derive
from cgn.miniature.pretraining.config import SegmenterTraining
from cgn.miniature.world.primitives import (  # fmt: skip
    Floats,
    Labels,
    Points,
    Position,
    Rng,
    box,
    capsule,
    circle,
    edge,
    ellipse,
    fractal_noise,
    length,
    paint,
    polygon,
    rotated,
    smooth_union,
    translated,
    union,
    value_noise,
)
from cgn.miniature.world.scenes import (
    Scene,
    as_images,
    blocks,
    coverage,
    drawn_size,
    grid,
    index_batches,
    painted,
    reduced,
    shaded,
    signed,
)
from cgn.miniature.world.silhouettes import MARK_WIDTH, Outline, Silhouette
from cgn.miniature.world.textures import Painter
from cgn.nets.u2net import U2Net
from cgn.optimization import EMA, adam, evaluating, linear_decay
from cgn.training import Rows, Training, batch_indices

SHEET_COLUMNS = 12
EMPTY = 0.25
"""The share of the images without an object."""
CORNERS = 5


def train_segmenter(config: SegmenterTraining, folder: Path, *, seed: int, sink: MetricSink) -> U2Net:
    """Train from the checkpoint in `folder`, or from the start; returns the EMA."""
    fabric = open_fabric(accelerator="cpu", precision=config.precision)
    seed = derive(seed, "pretraining", "segmenter")
    pixels, masks = salient_scenes(config.images, seed=seed, image_size=config.image_size)
    torch.manual_seed(derive(seed, "initialization"))
    net = U2Net(config.net)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = EMA(net, decay=config.ema_decay)
    training = Training(
        folder,
        fabric=fabric,
        sink=sink,
        seed=seed,
        updates=config.updates,
        modules={"net": net, "ema": ema.module},
        optimizers={"net": adam(net, rate=config.rate, betas=(config.beta1, config.beta2))},
        log_every=config.log_updates,
        checkpoint_every=config.checkpoint_updates,
        sheet_every=config.sheet_updates,
    )
    for update in training:
        chosen = batch_indices(update, count=config.images, batch_size=config.batch_size, seed=seed)
        with fabric.autocast():
            mask = net(as_images(pixels[chosen])).float()[:, 0]
            target = masks[chosen].to(torch.float32) / 255
            loss = functional.binary_cross_entropy(mask, target)
        training.backward({"cross_entropy": loss})
        rate_factor = linear_decay(update, updates=config.updates, fraction=config.decay_fraction)
        training.step("net", rate_factor=rate_factor)
        ema.follow(update)
        if training.sheet_due:
            with evaluating(ema.module, fabric=fabric) as average:
                rows = examples(average, pixels=pixels, masks=masks)
            training.sheet(rows)
    return ema.module


def examples(net: nn.Module, *, pixels: torch.Tensor, masks: torch.Tensor) -> Rows:
    """A sheet of images, their true masks and the net's."""
    images, true = as_images(pixels[:SHEET_COLUMNS]), masks[:SHEET_COLUMNS, None].float() / 127.5 - 1
    return [("image", images), ("true mask", true), ("saliency", net(images) * 2 - 1)]


def salient_scenes(count: int, *, seed: int, image_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N,S,S,3) and their masks (N,S,S), uint8."""
    pixels = np.empty((count, image_size, image_size, 3), dtype=np.uint8)
    masks = np.empty((count, image_size, image_size), dtype=np.uint8)
    for index in index_batches(count):
        drawn = salient(index, seed=derive(seed, "scenes"), image_size=image_size)
        pixels[index], masks[index] = to_bytes(drawn.image), to_bytes(2 * drawn.mask - 1)[..., 0]
    return torch.from_numpy(pixels), torch.from_numpy(masks)


def salient(index: Labels, *, seed: int, image_size: int) -> Scene:
    """Draw the images `index` (B,) of the world `seed`; where the mask is 0, only the background is visible."""
    rng = Rng(index, seed=seed, stream="blobs")
    figure, fill, behind = (_chosen(rng, count) for count in (len(BLOBS), len(SURFACES), len(SURFACES)))
    empty = rng.uniform(0, 1)[:, 0, 0] < EMPTY
    filled = painted(SURFACES, fill, seed=seed, index=index, image_size=image_size, stream="fill")
    background = painted(SURFACES, behind, seed=seed, index=index, image_size=image_size, stream="scenery")
    mask = np.zeros((len(index), 1, image_size, image_size), dtype=np.float32)
    front = np.empty((len(index), 3, image_size, image_size), dtype=np.float32)
    for kind, rows in blocks(figure, index=index, image_size=image_size, kinds=len(BLOBS)):
        points = grid(len(rows), drawn_size(image_size))
        drawn = _placed(BLOBS[kind], points, Rng(index[rows], seed=seed, stream="blob"))
        mask[rows] = reduced(coverage(drawn)[:, None], image_size)
        front[rows] = reduced(shaded(filled[rows], drawn), image_size)
    mask[empty] = 0
    scene = {"foreground": signed(front), "background": signed(reduced(background, image_size))}
    return Scene(mask=signed(mask).add_(1).div_(2), **scene)


def blob(points: Points, rng: Rng) -> tuple[Floats, Floats]:
    """Round, with bulges and bays."""
    angle = np.arctan2(points.y, points.x)
    radius = sum(
        rng.uniform(-0.22, 0.22) * np.cos(waves * angle + rng.uniform(-np.pi, np.pi)) for waves in (1, 2, 3, 5)
    )
    return np.asarray(length(points.x, points.y) - 0.75 * (1 + radius), dtype=np.float32), _dots(points, rng)


def ellipses(points: Points, rng: Rng) -> tuple[Floats, Floats]:
    """Three, merged."""
    parts = [
        ellipse(
            points,
            (rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5)),
            (rng.uniform(0.25, 0.6), rng.uniform(0.2, 0.45)),
            rng.uniform(-np.pi, np.pi),
        )
        for _ in range(3)
    ]
    return smooth_union(*parts, softness=0.12), _dots(points, rng)


def facets(points: Points, rng: Rng) -> tuple[Floats, Floats]:
    """A polygon of three to five corners, with a second one beside it."""
    parts = []
    for centre, size in (((0.0, 0.1), 0.75), ((rng.uniform(-0.5, 0.5), rng.uniform(-0.6, 0.0)), 0.45)):
        turn = rng.uniform(-np.pi, np.pi)
        steps = [(corner + rng.uniform(-0.3, 0.3)) * (2 * np.pi / CORNERS) + turn for corner in range(CORNERS)]
        corners: list[Position] = [(centre[0] + size * np.cos(step), centre[1] + size * np.sin(step)) for step in steps]
        parts.append(polygon(points, corners))
    return union(*parts), _lines(points, rng)


def crate(points: Points, rng: Rng) -> tuple[Floats, Floats]:
    """A rounded box with a disc added or removed."""
    half = (rng.uniform(0.35, 0.9), rng.uniform(0.25, 0.8))
    body = box(points, (0.0, 0.0), half, 0.12)
    place = (half[0] * rng.sign() * rng.uniform(0.3, 1), half[1] * rng.sign())
    knob = circle(points, place, rng.uniform(0.15, 0.4))
    bitten = rng.uniform(0, 1) < 0.4
    return np.where(bitten, np.maximum(body, -knob), np.minimum(body, knob)), _lines(points, rng)


def creature(points: Points, rng: Rng) -> tuple[Floats, Floats]:
    """Limbs of every length around a trunk: a body plan of no class."""
    trunk = ellipse(points, (0.0, 0.0), (rng.uniform(0.25, 0.6), rng.uniform(0.2, 0.4)), rng.uniform(-1.5, 1.5))
    limbs = []
    for number in range(5):
        angle = (number + rng.uniform(-0.45, 0.45)) * (2 * np.pi / 5) + rng.uniform(-0.3, 0.3)
        reach, thick = rng.uniform(0.3, 1.05), rng.uniform(0.06, 0.18)
        limbs.append(capsule(points, (0.0, 0.0), (reach * np.cos(angle), reach * np.sin(angle)), (thick, 0.8 * thick)))
    return smooth_union(trunk, *limbs, softness=0.1), _dots(points, rng)


BLOBS: tuple[Outline, ...] = (blob, ellipses, facets, crate, creature)


def plain(points: Points, rng: Rng) -> Floats:
    """One color, lit from one side."""
    slope = rng.uniform(-0.3, 0.3) * points.x + rng.uniform(-0.3, 0.3) * points.y
    lit: Floats = np.clip(_any_color(rng) * (1 + slope)[:, None], 0, 1)
    return lit


def marbled(points: Points, rng: Rng) -> Floats:
    """Two colors in clouds, coarse or fine."""
    pace, key = rng.uniform(0.8, 6.0), rng.key()
    x, y = pace * points.x + rng.uniform(0, 9), pace * points.y + rng.uniform(0, 9)
    return paint(_spread(_any_color(rng), points), _any_color(rng), edge(0.5 - fractal_noise(x, y, key), 0.4))


def striped(points: Points, rng: Rng) -> Floats:
    """Two colors in stripes or waves."""
    x, y = rotated(points, rng.uniform(-np.pi, np.pi))
    wave = np.sin(rng.uniform(5, 20) * (x + rng.uniform(0, 0.2) * np.sin(rng.uniform(2, 6) * y)))
    return paint(_spread(_any_color(rng), points), _any_color(rng), edge(wave, 0.5))


def grained(points: Points, rng: Rng) -> Floats:
    """Fine noise, independent in each channel."""
    pace = rng.uniform(4.0, 14.0)
    channels = [value_noise(pace * points.x + 9, pace * points.y + 9, rng.key()) for _ in range(3)]
    return np.stack([rng.uniform(0.3, 1.0) * channel for channel in channels], axis=1)


SURFACES: tuple[Painter, ...] = (plain, marbled, striped, grained)


def _placed(figure: Outline, points: Points, rng: Rng) -> Silhouette:
    """A figure with random size, position, rotation and proportions."""
    size = rng.uniform(0.42, 0.85)
    centre = (rng.uniform(-0.22, 0.22), rng.uniform(-0.22, 0.22))
    x, y = rotated(translated(points, centre), rng.uniform(-np.pi, np.pi))
    stretch = rng.uniform(0.75, 1.25)
    outline, marks = figure(Points(x / (size * stretch), y * stretch / size), rng)
    outline = outline + np.where(rng.uniform(0, 1) < 0.1, 0.05, 0.0).astype(np.float32)
    return Silhouette(distance=outline * size, marks=edge(np.maximum(marks, outline + 0.01), MARK_WIDTH))


def _dots(points: Points, rng: Rng) -> Floats:
    """Up to three discs, anywhere."""
    places = [(rng.uniform(-0.7, 0.7), rng.uniform(-0.7, 0.7)) for _ in range(3)]
    return union(*(circle(points, place, rng.uniform(-0.06, 0.1)) for place in places))


def _lines(points: Points, rng: Rng) -> Floats:
    """Two rods, across the figure or beside it."""
    rods = []
    for _ in range(2):
        start, end = ((rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.8)) for _ in range(2))
        rods.append(capsule(points, start, end, (rng.uniform(-0.04, 0.05), 0.03)))
    return union(*rods)


def _any_color(rng: Rng) -> Floats:
    """Any color, (B,3,1,1) in [0.03,1]."""
    return np.stack([rng.uniform(0.03, 1.0) for _ in range(3)], axis=1)


def _spread(color: Floats, points: Points) -> Floats:
    return np.broadcast_to(color, (*color.shape[:2], *points.x.shape[1:]))


def _chosen(rng: Rng, count: int) -> Labels:
    """One of `count` for each image, (B,)."""
    kinds: Labels = rng.uniform(0, count)[:, 0, 0].astype(np.int64)
    return np.minimum(kinds, count - 1)
