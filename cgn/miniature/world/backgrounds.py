"""The nine backgrounds, one for each superclass: scenery without an object in its middle.

Legend: B images, H height, W width; a background is (B,3,H,W) in [0,1]; y runs downwards from -1 to 1.
A scene has its own layout and colors; horizon, light, positions and colors vary with every image.
"""

import numpy as np

from cgn.miniature.world.primitives import (
    Floats,
    Points,
    Rng,
    edge,
    fractal_noise,
    fraction,
    hashed,
    length,
    paint,
    value_noise,
)
from cgn.miniature.world.textures import Painter


def bricks(points: Points, rng: Rng) -> Floats:
    """A brick wall above a pavement."""
    size, key = rng.uniform(2.3, 3.0), rng.key()
    x, y = size * points.x + rng.uniform(0, 9), 2.2 * size * points.y + rng.uniform(0, 9)
    row = np.floor(y)
    x = x + fraction(row / 2)
    column = np.floor(x)
    joint = np.maximum(np.abs(x - column - 0.5) - 0.44, (np.abs(y - row - 0.5) - 0.4) / 2.2)
    wall = paint(rng.color(140, 58, 44), rng.color(196, 104, 78), hashed(column, row, key))
    wall = paint(wall, rng.color(214, 202, 186), edge(-joint, 0.06))
    wall = wall * (0.9 + 0.2 * value_noise(4 * x, 4 * y, key))[:, None]
    ground = points.y - rng.uniform(0.58, 0.78)
    stone = paint(rng.color(128, 126, 130), rng.color(164, 160, 160), value_noise(7 * x, 5 * y, key))
    return paint(wall, paint(stone, 0.25, edge(ground - 0.05, 0.06)), edge(-ground, 0.03))


def sky(points: Points, rng: Rng) -> Floats:
    """White clouds on blue that pales towards the horizon."""
    key = rng.key()
    x, y = points.x + rng.uniform(0, 9), points.y
    air = paint(rng.color(40, 112, 210), rng.color(168, 216, 246), np.clip(0.5 + 0.5 * y, 0, 1))
    height = fractal_noise(1.3 * x, 2.4 * y + 20, key)
    lit = fractal_noise(1.3 * x + 0.06, 2.4 * y + 20.18, key, octaves=2)
    cover = edge(rng.uniform(0.5, 0.58) - height, 0.16)
    cloud = paint(rng.color(255, 255, 255, vary=0.01), rng.color(196, 208, 226), edge(0.56 - lit, 0.3))
    return paint(air, cloud, 0.95 * cover)


def street(points: Points, rng: Rng) -> Floats:
    """An asphalt road running to the horizon, a skyline behind it."""
    key, horizon, vanish = rng.key(), rng.uniform(-0.2, 0.05), rng.uniform(-0.3, 0.3)
    x, y = points
    air = paint(rng.color(246, 196, 160), rng.color(176, 190, 216), edge(y - horizon + 0.6, 1.2))
    lots = 4.6 * x + rng.uniform(0, 9)
    column = np.floor(lots)
    roof = horizon - 0.18 - 0.55 * hashed(column, 0.0, key)
    window = edge(np.maximum(np.abs(fraction(lots * 3) - 0.5), np.abs(fraction(y * 10) - 0.5)) - 0.26, 0.15)
    house = paint(rng.color(96, 104, 130), rng.color(70, 74, 100), hashed(column, 1.0, key))
    house = paint(house, rng.color(250, 226, 150), 0.75 * window)
    scene = paint(air, house, edge(roof - y, 0.03))
    depth = np.maximum(y - horizon, 0.02)
    across = np.abs((x - vanish) / depth - rng.uniform(-0.35, 0.35))
    asphalt = rng.color(92, 92, 98) * (0.86 + 0.28 * value_noise(18 * x, 14 * y, key))[:, None]
    dashes = edge(np.abs(fraction(rng.uniform(0.6, 0.9) / depth) - 0.5) - 0.27, 0.15) * edge(across - 0.06, 0.05)
    road = paint(asphalt, rng.color(244, 240, 226), np.maximum(dashes, edge(np.abs(across - 1.5) - 0.06, 0.06)))
    verge = rng.color(126, 142, 96) * (0.85 + 0.3 * value_noise(9 * x, 9 * y, key))[:, None]
    return paint(scene, paint(road, verge, edge(1.75 - across, 0.08)), edge(horizon - y, 0.03))


def desert(points: Points, rng: Rng) -> Floats:
    """Sand dunes with ripples, one behind the other, under a pale sky."""
    key = rng.key()
    x, y = points
    scene = paint(rng.color(246, 222, 178), rng.color(150, 198, 226), edge(y + 0.75, 0.7))
    dark, light, shade = rng.color(212, 156, 84), rng.color(246, 208, 138), rng.color(150, 92, 46)
    for layer, height in enumerate((-0.5, -0.12, 0.36)):
        pace, phase = rng.uniform(1.2, 2.2), rng.uniform(-np.pi, np.pi)
        crest = height + rng.uniform(-0.08, 0.08) + 0.15 * np.sin(pace * x + phase)
        depth = y - crest
        ripples = np.sin(
            (26 - 5 * layer) * (depth * (1.2 - 0.2 * layer) + 0.25 * value_noise(2 * x, 2 * y, key + np.uint32(layer)))
        )
        sand = paint(dark, light, np.clip(0.5 + 0.35 * ripples - 0.25 * depth + 0.12 * layer, 0, 1))
        sand = paint(sand, shade, 0.55 * edge(depth - 0.05, 0.12) * edge(-np.cos(pace * x + phase), 0.8))
        scene = paint(scene, sand, edge(-depth, 0.03))
    return scene


def snow(points: Points, rng: Rng) -> Floats:
    """Snow-clad pines in two rows, flakes falling."""
    key = rng.key()
    x, y = points
    scene = paint(rng.color(222, 228, 238), rng.color(150, 170, 204), edge(y + 0.45, 1.2))
    ground = rng.uniform(0.3, 0.5) + 0.08 * np.sin(rng.uniform(1.5, 3.0) * x + rng.uniform(-3.0, 3.0))
    rows = ((3.4, -0.62, (126, 150, 172)), (2.4, -0.4, (44, 84, 88)))
    for row, (pace, top, needles) in enumerate(rows):
        place = pace * x + rng.uniform(0, 9)
        column = np.floor(place)
        tip = top + 0.45 * hashed(column, float(row), key)
        below = (y - tip) * pace / 2
        tier = fraction(3.2 * below)
        branch = np.abs(place - column - 0.5) - (0.1 + 0.3 * below) * (0.55 + 0.45 * tier)
        tree = edge(branch, 0.06) * edge(-below, 0.05)
        green = paint(rng.color(*needles), rng.color(240, 244, 250, vary=0.02), edge(tier - 0.22, 0.25) * 0.85)
        scene = paint(scene, green, tree)
    drift = paint(rng.color(248, 250, 254, vary=0.015), rng.color(190, 206, 230), fractal_noise(2 * x, 5 * y, key))
    scene = paint(scene, drift, edge(ground - y, 0.06))
    across, down, kind = _dots(4.5 * x + rng.uniform(0, 9), 4.5 * y + rng.uniform(0, 9), rng, margin=0.16)
    return paint(scene, 1.0, 0.9 * edge(length(across, down) - 0.06 - 0.1 * kind, 0.12))


def flowers(points: Points, rng: Rng) -> Floats:
    """A meadow seen from above: blades of grass, flowers of three colors."""
    key = rng.key()
    x, y = points.x + rng.uniform(0, 9), points.y + rng.uniform(0, 9)
    lean = x + 0.25 * value_noise(2 * x, 2 * y, key)
    blades = value_noise(13 * lean, 3.2 * y, key)
    scene = paint(rng.color(64, 132, 58), rng.color(152, 206, 92), np.clip(1.7 * blades - 0.35, 0, 1))
    colors = (rng.color(255, 250, 244, vary=0.02), rng.color(246, 110, 170), rng.color(252, 216, 60))
    heart = rng.color(250, 150, 30)
    for pace, turn in ((2.0, 0.2), (2.6, 0.7)):
        across, down, kind = _dots(pace * (x + turn * y), pace * (y - turn * x), rng)
        distance, angle = length(across, down), np.arctan2(down, across)
        petals = edge(distance - 0.24 - 0.07 * np.cos(5 * angle + 9 * kind), 0.08)
        for low, color in zip((0.0, 0.18, 0.36), colors, strict=True):
            scene = paint(scene, color, petals * ((kind >= low) & (kind < low + 0.18)))
        scene = paint(scene, heart, edge(distance - 0.1, 0.08) * (kind < 0.54))
    return scene


def stage(points: Points, rng: Rng) -> Floats:
    """A red curtain in folds above a wooden floor, a spotlight on it."""
    key = rng.key()
    x, y = points
    pace, phase = rng.uniform(11, 15), rng.uniform(-np.pi, np.pi)
    fold = 0.5 + 0.5 * np.sin(pace * x + phase + 1.6 * value_noise(2 * x, 0.7 * y, key))
    floor = rng.uniform(0.5, 0.7)
    cloth = paint(rng.color(70, 4, 20), rng.color(196, 26, 44), fold * fold * (0.75 + 0.25 * fold))
    hem = floor - 0.06 + 0.03 * fold
    cloth = paint(cloth, rng.color(226, 176, 70), edge(np.abs(y - hem + 0.07) - 0.035, 0.04))
    depth = np.maximum(y - floor, 0.02) + 0.25
    boards = np.abs(fraction(x / depth * 0.9) - 0.5)
    wood = paint(rng.color(146, 92, 52), rng.color(60, 34, 22), edge(0.46 - boards, 0.08))
    scene = paint(cloth, wood, edge(hem - y, 0.04))
    beam = length((x - rng.uniform(-0.25, 0.25)) * 0.9, (y - rng.uniform(0.0, 0.3)) * 0.75)
    lit: Floats = np.clip(scene * (1.35 - 0.85 * np.clip(beam * 1.1, 0, 1))[:, None], 0, 1)
    return lit


def bamboo(points: Points, rng: Rng) -> Floats:
    """A thicket of bamboo: three rows of canes, the nearer the lighter."""
    key = rng.key()
    x, y = points.x + 0.03 * np.sin(2 * points.y + rng.uniform(-3, 3)), points.y
    gloom = paint(rng.color(14, 50, 42), rng.color(58, 112, 62), fractal_noise(2.5 * x, 2.5 * y, key, octaves=2))
    scene = gloom
    rows = ((5.2, 0.5, (40, 96, 58)), (3.6, 0.36, (92, 150, 62)), (2.3, 0.26, (164, 204, 86)))
    for row, (pace, breadth, tone) in enumerate(rows):
        place = pace * x + rng.uniform(0, 9) + 0.12 * pace * y * rng.uniform(-1, 1)
        column, level = np.floor(place), float(row)
        side = place - column - 0.5 - 0.3 * (hashed(column, level, key) - 0.5)
        node = fraction(y * (1.3 + 0.25 * row) + hashed(column, level + 9, key))
        round_ = np.clip(1.2 - (side / breadth * 2 + 0.35) ** 2, 0, 1)
        cane = paint(rng.color(*(tone // 3 for tone in tone)), rng.color(*tone), round_)
        cane = paint(cane, rng.color(*(tone // 4 for tone in tone)), edge(np.abs(node - 0.5) - 0.035, 0.05))
        grows = hashed(column, level + 5, key) < 0.8
        scene = paint(scene, cane, edge(np.abs(side) - breadth / 2, 0.08) * grows)
    return scene


def water(points: Points, rng: Rng) -> Floats:
    """Under water: light from above, its web of caustics, rays and bubbles."""
    key = rng.key()
    x, y = points
    deep = paint(rng.color(60, 190, 206), rng.color(8, 50, 120), np.clip(0.5 + 0.55 * y, 0, 1))
    warp = value_noise(2.2 * x, 2.2 * y, key)
    web = 1 - np.abs(2 * value_noise(3.2 * x + 1.4 * warp, 4.6 * y + 1.4 * warp, key + np.uint32(1)) - 1)
    deep = paint(deep, rng.color(190, 246, 240), 0.5 * web * web * web * np.clip(0.75 - 0.4 * y, 0, 1))
    rays = np.sin(rng.uniform(5, 7) * (x + rng.uniform(-0.5, 0.5) * y) + rng.uniform(-3, 3))
    deep = paint(deep, rng.color(214, 250, 246), 0.28 * np.clip(rays, 0, 1) * np.clip(0.4 - 0.6 * y, 0, 1))
    across, down, kind = _dots(3.4 * x + rng.uniform(0, 9), 3.4 * y + rng.uniform(0, 9), rng)
    ring = edge(np.abs(length(across, down) - 0.08 - 0.1 * kind) - 0.03, 0.09)
    return paint(deep, 1.0, 0.8 * ring * (kind < 0.4))


BACKGROUNDS: tuple[Painter, ...] = (bricks, sky, street, desert, snow, flowers, stage, bamboo, water)


def _dots(x: Floats, y: Floats, rng: Rng, *, margin: float = 0.34) -> tuple[Floats, Floats, Floats]:
    """One dot in each cell, at least `margin` from its border: offsets (x, y) of the points from the dot of their
    cell, and a number in [0,1) for each dot."""
    column, row, spread = np.floor(x), np.floor(y), 1 - 2 * margin
    across = x - column - margin - spread * hashed(column, row, rng.key())
    down = y - row - margin - spread * hashed(column, row, rng.key())
    return across, down, hashed(column, row, rng.key())
