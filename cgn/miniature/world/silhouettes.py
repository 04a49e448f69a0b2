"""The nine silhouettes, one for each superclass of ImageNet-9, articulated anew in every image.

Legend: B images, H height, W width. A figure is drawn in its own frame, about [-1,1] x [-1,1], as a signed distance.
Limbs, wings, tails and proportions are random in every image; so are position, size, rotation, mirroring and a slow
warp of the plane. Eyes, wheels and strings belong to the shape: they are `marks`, painted on any texture.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cgn.miniature.world.primitives import (
    Floats,
    Points,
    Position,
    Rng,
    Scalar,
    box,
    capsule,
    capsule_chain,
    circle,
    edge,
    ellipse,
    polygon,
    rotated,
    smooth_union,
    translated,
    union,
)


@dataclass(frozen=True, kw_only=True)
class Silhouette:
    """`distance` (B,H,W): negative inside, in units of half an image. `marks` (B,H,W) in [0,1]: 1 is dark."""

    distance: Floats
    marks: Floats


Outline = Callable[[Points, Rng], tuple[Floats, Floats]]
"""(points, randomness) -> distances to the outline and to the marks."""


def dog(points: Points, rng: Rng) -> tuple[Floats, Floats]:
    """From the side, standing or trotting."""
    step, nod, wag = rng.uniform(-0.2, 0.2), rng.uniform(-0.1, 0.12), rng.uniform(-0.35, 0.3)
    long = rng.uniform(0.9, 1.1)
    head: Position = (0.6 * long, -0.52 + nod)
    body = capsule(points, (-0.42 * long, -0.02), (0.34 * long, -0.04), (0.23, 0.28))
    neck = capsule(points, (0.36 * long, -0.16), head, (0.2, 0.17))
    skull = circle(points, head, 0.21)
    snout = capsule(points, (head[0] + 0.08, head[1] + 0.04), (head[0] + 0.36, head[1] + 0.1), (0.13, 0.09))
    tail = capsule(points, (-0.58 * long, -0.12), (-0.92 + 0.2 * np.abs(wag), -0.5 + wag), (0.08, 0.045))
    fore = [_leg(points, 0.36 * long, swing) for swing in (step, -step)]
    hind = [_leg(points, -0.46 * long, swing) for swing in (0.8 * step - 0.04, -0.8 * step - 0.04)]
    ear = polygon(
        points, [(head[0] - 0.17, head[1] - 0.08), (head[0] - 0.1, head[1] - 0.36), (head[0] + 0.09, head[1] - 0.14)]
    )
    outline = union(smooth_union(body, neck, skull, snout, *fore, *hind, tail, softness=0.12), ear)
    eye = circle(points, (head[0] + 0.08, head[1] - 0.05), 0.045)
    nose = circle(points, (head[0] + 0.4, head[1] + 0.07), 0.06)
    return outline, union(eye, nose)


def bird(points: Points, rng: Rng) -> tuple[Floats, Floats]:
    """In flight, from the side, its wings raised."""
    beat, fan, nod = rng.uniform(-0.35, 0.45), rng.uniform(0.85, 1.3), rng.uniform(-0.06, 0.06)
    head: Position = (0.52, 0.0 + nod)
    body = smooth_union(ellipse(points, (0.05, 0.26), (0.56, 0.29), -0.2), circle(points, head, 0.22), softness=0.2)
    beak = polygon(
        points, [(head[0] + 0.1, head[1] - 0.13), (head[0] + 0.47, head[1] + 0.05), (head[0] + 0.1, head[1] + 0.12)]
    )
    tail = polygon(points, [(-0.2, 0.16), (-0.1, 0.46), (-0.9, 0.42 + 0.24 * fan), (-1.0, 0.38)])
    frame = rotated(translated(points, (0.05, 0.2)), beat)
    wing = polygon(frame, [(0.3, 0.0), (-0.32, 0.05), (-0.62, -0.55), (-0.6, -1.0), (-0.22, -0.78)])
    far = polygon(rotated(frame, 0.45), [(0.25, 0.0), (-0.15, 0.0), (-0.3, -0.6), (-0.22, -0.9), (0.0, -0.7)])
    eye = circle(points, (head[0] + 0.07, head[1] - 0.05), 0.05)
    return union(smooth_union(body, wing, tail, softness=0.08), far, beak), eye


def vehicle(points: Points, rng: Rng) -> tuple[Floats, Floats]:
    """A car from the side, from low coupé to high van."""
    roof, cab, wheel = rng.uniform(-0.6, -0.4), rng.uniform(-0.12, 0.06), rng.uniform(0.2, 0.24)
    body = box(points, (0.0, 0.16), (0.95, 0.25), 0.12)
    corners: list[Position] = [(cab - 0.42, roof), (cab + 0.36, roof), (cab + 0.66, 0.0), (cab - 0.66, 0.0)]
    cabin = polygon(points, corners) - 0.03
    places: list[Position] = [(-0.54, 0.38), (0.55, 0.38)]
    tyres = union(*(circle(points, place, wheel) for place in places))
    rims = union(*(np.abs(circle(points, place, wheel - 0.06)) - 0.04 for place in places))
    hubs = union(*(circle(points, place, 0.05) for place in places))
    glass = np.maximum(polygon(points, corners) + 0.075, -(np.abs(points.x - cab) - 0.035))
    return union(smooth_union(body, cabin, softness=0.06), tyres), union(rims, hubs, glass)


def reptile(points: Points, rng: Rng) -> tuple[Floats, Floats]:
    """A lizard from above: winding, its legs splayed."""
    bend, phase, stride = rng.uniform(0.1, 0.2) * rng.sign(), rng.uniform(-0.5, 0.5), rng.uniform(-0.12, 0.12)
    straight = Points(points.x, points.y - bend * np.sin(3.4 * points.x + phase))
    spine = [(0.62, 0.0), (0.38, 0.0), (0.05, 0.0), (-0.3, 0.0), (-1.1, 0.0)]
    body = capsule_chain(straight, spine, [0.12, 0.13, 0.22, 0.14, 0.02])
    head = ellipse(straight, (0.75, 0.0), (0.24, 0.17))
    sided = Points(straight.x, np.abs(straight.y))
    side = np.sign(straight.y) * stride
    legs = [
        capsule_chain(
            sided, [(hip, 0.08), (hip + bow + side * turn, 0.4), (hip + toe + side * turn, 0.62)], [0.1, 0.075, 0.07]
        )
        for hip, bow, toe, turn in ((0.3, 0.04, 0.22, 1.0), (-0.2, -0.08, -0.2, -1.0))
    ]
    eyes = circle(sided, (0.8, 0.1), 0.05)
    return smooth_union(body, head, *legs, softness=0.08), eyes


def carnivore(points: Points, rng: Rng) -> tuple[Floats, Floats]:
    """A cat sitting, from the front, its tail to one side."""
    tilt, plump, curl = rng.uniform(-0.2, 0.2), rng.uniform(0.9, 1.12), rng.uniform(-0.12, 0.12)
    points = translated(points, (-0.14, 0.0))
    face = rotated(translated(points, (0.0, -0.42)), tilt)
    sided = Points(np.abs(face.x), face.y)
    ears = polygon(sided, [(0.37, -0.58), (0.34, -0.08), (0.06, -0.24)])
    head = smooth_union(ellipse(face, (0.0, 0.0), (0.37, 0.3)), ears, softness=0.04)
    body = capsule(points, (0.0, -0.05), (0.0, 0.52), (0.22, 0.36 * plump))
    paws = circle(Points(np.abs(points.x), points.y), (0.17, 0.84), 0.14)
    joints: list[Position] = [(0.25, 0.78), (0.62, 0.76), (0.82, 0.5), (0.76 + curl, 0.16), (0.9 + 2 * curl, -0.04)]
    tail = capsule_chain(points, joints, [0.1, 0.1, 0.09, 0.08, 0.065])
    eyes = ellipse(sided, (0.15, -0.03), (0.055, 0.075))
    nose = polygon(face, [(-0.06, 0.09), (0.06, 0.09), (0.0, 0.16)])
    mouth = capsule(sided, (0.0, 0.17), (0.09, 0.21), (0.015, 0.015))
    return union(smooth_union(body, head, paws, softness=0.06), tail), union(eyes, nose, mouth)


def insect(points: Points, rng: Rng) -> tuple[Floats, Floats]:
    """A butterfly from above, its wings more or less open."""
    fold, fore, hind = rng.uniform(0.78, 1.02), rng.uniform(-0.1, 0.1), rng.uniform(-0.05, 0.06)
    sided = Points(np.abs(points.x), points.y)
    spread = Points(sided.x / fold, sided.y)
    upper = ellipse(spread, (0.5, -0.33 + fore), (0.54, 0.34), -0.62)
    lower = ellipse(spread, (0.36, 0.38 + hind), (0.4, 0.27), 0.8)
    body = capsule(points, (0.0, -0.35), (0.0, 0.5), (0.085, 0.06))
    head = circle(points, (0.0, -0.46), 0.1)
    feelers = capsule_chain(sided, [(0.03, -0.5), (0.12, -0.78), (0.27, -0.92)], [0.03, 0.028, 0.04])
    spots = union(circle(spread, (0.68, -0.5 + fore), 0.075), circle(spread, (0.45, 0.5 + hind), 0.06))
    return union(smooth_union(upper, lower, body, softness=0.05), head, feelers), union(body + 0.015, head, spots)


def instrument(points: Points, rng: Rng) -> tuple[Floats, Floats]:
    """A guitar, leaning."""
    lean, waist, length = rng.uniform(0.25, 1.0), rng.uniform(0.3, 0.36), rng.uniform(0.9, 1.06)
    x, y = frame = rotated(points, lean)
    lower, upper = circle(frame, (0.0, 0.54), 0.46), circle(frame, (0.0, -0.02), waist)
    neck = box(frame, (0.0, -0.5 * length), (0.075, 0.5 * length))
    head = polygon(
        frame, [(-0.15, -1.12 * length), (0.15, -1.12 * length), (0.09, -0.84 * length), (-0.09, -0.84 * length)]
    )
    outline = union(smooth_union(lower, upper, softness=0.22), neck, head)
    hole, bridge = circle(frame, (0.0, 0.25), 0.14), box(frame, (0.0, 0.68), (0.2, 0.045))
    strings = np.maximum(np.abs(np.abs(x) - 0.035) - 0.014, np.maximum(y - 0.68, -y - 0.85 * length))
    return outline, union(hole, bridge, strings)


def primate(points: Points, rng: Rng) -> tuple[Floats, Floats]:
    """A monkey from the front, its arms up or down, its tail curled."""
    left, right, squat = rng.uniform(-0.6, 0.45), rng.uniform(-0.6, 0.45), rng.uniform(-0.06, 0.08)
    x, y = translated(points, (0.0, -0.52))
    sided = Points(np.abs(x), y)
    head = union(circle(sided, (0.0, 0.0), 0.27), circle(sided, (0.31, -0.02), 0.13))
    body = ellipse(points, (0.0, 0.1), (0.27, 0.4))
    arms = [_arm(points, side, raised) for side, raised in ((-1.0, left), (1.0, right))]
    mirrored = Points(np.abs(points.x), points.y)
    legs = capsule_chain(
        mirrored, [(0.14, 0.38), (0.42, 0.5 + squat), (0.3, 0.84), (0.46, 0.88)], [0.13, 0.11, 0.09, 0.08]
    )
    bend: list[Position] = [(0.05, 0.42), (-0.5, 0.78), (-0.82, 0.72), (-0.92, 0.46), (-0.76, 0.3)]
    tail = capsule_chain(points, bend, [0.05, 0.05, 0.05, 0.05, 0.045])
    eyes, mouth = circle(sided, (0.1, -0.05), 0.05), capsule(sided, (0.0, 0.12), (0.1, 0.09), (0.025, 0.02))
    inner = circle(sided, (0.33, -0.02), 0.055)
    return union(smooth_union(body, *arms, legs, softness=0.08), head, tail), union(eyes, mouth, inner)


def fish(points: Points, rng: Rng) -> tuple[Floats, Floats]:
    """From the side, its tail and fins spread."""
    flick, deep, fin = rng.uniform(-0.14, 0.14), rng.uniform(0.9, 1.15), rng.uniform(-0.1, 0.08)
    bent = Points(points.x, points.y - flick * np.clip(-points.x, 0, 1) ** 2 * 2)
    body = ellipse(bent, (0.2, 0.0), (0.68, 0.38 * deep))
    sided = Points(bent.x, np.abs(bent.y))
    tail = polygon(sided, [(-0.3, -0.02), (-0.98, 0.5), (-0.74, -0.02)])
    high = polygon(bent, [(-0.12, -0.28), (-0.06 + fin, -0.66), (0.52, -0.26)])
    low = polygon(bent, [(0.02, 0.3), (0.3, 0.28), (-0.08 + fin, 0.58)])
    eye = circle(bent, (0.62, -0.09), 0.055)
    gill = np.maximum(np.abs(circle(bent, (0.75, 0.0), 0.38)) - 0.022, np.maximum(sided.y - 0.24, bent.x - 0.6))
    return smooth_union(body, tail, high, low, softness=0.05), union(eye, gill)


FIGURES: tuple[Outline, ...] = (dog, bird, vehicle, reptile, carnivore, insect, instrument, primate, fish)
SIZES = (0.77, 0.78, 0.82, 0.78, 0.8, 0.74, 0.82, 0.78, 0.8)
"""Half the height of a figure's frame."""
FLESH = (0.02, 0.0, 0.03, 0.035, 0.03, 0.0, 0.025, 0.0, 0.02)
"""How much a figure is swollen, so that the classes cover about equal areas."""
MARK_WIDTH = 0.03


def silhouette(figure: int, points: Points, rng: Rng) -> Silhouette:
    """Draw the class `figure` (0..8) for every image of `points` (B,H,W), posed by `rng`."""
    size = SIZES[figure] * rng.uniform(0.84, 1.08)
    centre = (rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1))
    angle, mirror, stretch = rng.uniform(-0.22, 0.22), rng.sign(), rng.uniform(0.93, 1.07)
    x, y = rotated(translated(points, centre), angle)
    x, y = x * mirror / (size * stretch), y * stretch / size
    waves = [(rng.uniform(-0.035, 0.035), rng.uniform(-np.pi, np.pi)) for _ in range(2)]
    (sway, sway_at), (swell, swell_at) = waves
    frame = Points(x + sway * np.sin(3 * y + sway_at), y + swell * np.sin(3 * x + swell_at))
    outline, marks = FIGURES[figure](frame, rng)
    outline = outline - FLESH[figure]
    return Silhouette(distance=outline * size, marks=edge(np.maximum(marks, outline + 0.01), MARK_WIDTH))


def _leg(points: Points, hip: Scalar, swing: Scalar) -> Floats:
    return capsule(points, (hip, 0.05), (hip + swing, 0.78), (0.12, 0.08))


def _arm(points: Points, side: float, raised: Floats) -> Floats:
    hand = (side * (0.66 + 0.1 * np.abs(raised)), 0.1 + 1.1 * raised)
    return capsule_chain(points, [(side * 0.2, -0.14), (side * 0.52, 0.08 + 0.3 * raised), hand], [0.12, 0.09, 0.085])
