"""How a bird of `parts` is built: its pose, its shapes, its plumage.

Bird coordinates: `u` forward (towards the beak), `v` down, the body about one long,
the middle of the body at the origin. `parts.VARIANTS` tells what the variants of each
part look like.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from protojax.scale import canvas

Array = np.ndarray
Rng = np.random.Generator
Point = tuple[float, float]

PARTS = ("head", "beak", "eye", "breast", "belly", "wing", "tail", "feet")
HEAD, BEAK, EYE, BREAST, BELLY, WING, TAIL, FEET = range(len(PARTS))


def _rgb(*color: float) -> Array:
    return np.array(color, np.float32)


# Colors recur: red is a head, a tail or feet; blue a wing or a tail; and so on.
BLACK, WHITE, GRAY = _rgb(0.1, 0.1, 0.12), _rgb(0.95, 0.94, 0.91), _rgb(0.5, 0.54, 0.6)
CREAM, RED, ORANGE = _rgb(0.9, 0.8, 0.62), _rgb(0.8, 0.15, 0.13), _rgb(0.92, 0.47, 0.13)
YELLOW, BLUE, BROWN = (
    _rgb(0.95, 0.8, 0.22),
    _rgb(0.19, 0.38, 0.76),
    _rgb(0.45, 0.3, 0.18),
)
RUST, OLIVE = _rgb(0.62, 0.3, 0.16), _rgb(0.47, 0.48, 0.22)


class Pose(NamedTuple):
    """Where a bird is and how it holds itself; lengths as fractions of the image."""

    center: Point  # of the body: u, v
    scale: float  # the length of a body
    facing: float  # 1 to the right, -1 to the left
    tilt: float  # of the body, in radians
    nod: Point  # of the head, in bird coordinates
    droop: float  # of the wing, in radians
    lift: float  # of the tail, in radians
    stride: float  # between the feet, in bird coordinates
    light: Point  # where the light comes from, and how strong it is
    ground: Point  # between the feet: u, v


class _Frame(NamedTuple):
    """The pixels in bird coordinates."""

    u: Array
    v: Array
    pixel: float
    shade: Array  # how much light falls on each pixel


def pose(rng: Rng, *, long_legs: bool) -> Pose:
    """Draw a pose.

    Args:
      rng: source of randomness.
      long_legs: whether this kind of bird stands high.

    Returns:
      a pose that keeps nearly all of the bird in the picture.

    >>> import numpy as np
    >>> from protojax.scale import anatomy
    >>> anatomy.pose(np.random.default_rng(0), long_legs=True).facing in (-1.0, 1.0)
    True
    """
    scale = rng.uniform(0.44, 0.65)
    slack = 0.5 * (1 - 1.3 * scale)
    facing = 1.0 if rng.random() < 0.5 else -1.0
    center = (
        0.5 + facing * 0.06 * scale + rng.uniform(-slack, slack),
        0.5 + rng.uniform(-1, 1) * (0.46 - 0.5 * scale),
    )
    legs = (0.50 if long_legs else 0.40) + rng.uniform(-0.02, 0.02)
    return Pose(
        center=center,
        scale=scale,
        facing=facing,
        tilt=rng.uniform(-0.40, 0.12),
        nod=(rng.uniform(-0.04, 0.03), rng.uniform(-0.03, 0.05)),
        droop=rng.uniform(-0.10, 0.10),
        lift=rng.uniform(-0.22, 0.22),
        stride=rng.uniform(0.08, 0.2),
        light=(rng.uniform(-0.5, 0.5), rng.uniform(0.2, 0.7)),
        ground=(center[0], center[1] + legs * scale),
    )


def bird(
    board: canvas.Canvas, rng: Rng, u: Array, v: Array, where: Pose, variants: Array
) -> Array:
    """Paint a bird, from far to near.

    Args:
      board: what is painted on, in place; the owners become part indices.
      rng: source of randomness for the plumage.
      u: `[S, S]` in (0, 1), to the right.
      v: `[S, S]` in (0, 1), down.
      where: the pose.
      variants: int `[P]`, the variant of each part.

    Returns:
      float32 `[P, 2]`: row and column of each part's key point, as fractions of the
      image.

    >>> import numpy as np
    >>> from protojax.scale import anatomy, canvas
    >>> rng, board = np.random.default_rng(0), canvas.blank(32)
    >>> where = anatomy.pose(rng, long_legs=False)
    >>> plain = np.zeros(8, int)
    >>> anatomy.bird(board, rng, *canvas.grid(32), where, plain).shape
    (8, 2)
    """
    upright = _frame(u, v, where, 0.0, rng)
    body = _frame(u, v, where, where.tilt, rng)
    jitter = rng.uniform(-0.07, 0.07, (8, 3)).astype(np.float32)
    points = np.zeros((8, 2))
    head = (0.31 + where.nod[0], -0.21 + where.nod[1])

    def put(frame: _Frame, distance: Array, color: Array, part: int) -> None:
        box = canvas.extent(distance, frame.pixel)
        if box is None:
            return
        color = color if color.ndim == 1 else color[box]
        lit = (color + jitter[part]) * _rounded(distance[box], frame.shade[box])
        piece = canvas.Canvas(board.image[box], board.owner[box])
        canvas.paint(piece, distance[box], lit, frame.pixel, part)

    points[FEET] = _feet(put, upright, where, variants[FEET])
    points[TAIL] = _turned(_tail(put, body, where.lift, variants[TAIL]), where)
    torso, split = _torso(body, head)
    put(body, torso, _plumage_below(body, variants[BELLY]), BELLY)
    front = np.maximum(torso, -split)
    put(body, front, _plumage_front(body, variants[BREAST]), BREAST)
    points[BELLY] = _turned((-0.10, 0.21), where)
    points[BREAST] = _turned((0.28, 0.08), where)
    points[BEAK] = _turned(_beak(put, body, head, variants[BEAK]), where)
    points[HEAD] = _turned(_head(put, body, head, variants[HEAD]), where)
    points[EYE] = _turned(_eye(board, body, head), where)
    points[WING] = _turned(_wing(put, body, where.droop, variants[WING]), where)
    return points.astype(np.float32)


Put = Callable[[_Frame, Array, Array, int], None]


def _frame(u: Array, v: Array, where: Pose, tilt: float, rng: Rng) -> _Frame:
    a = (u - where.center[0]) / where.scale * np.float32(where.facing)
    b = (v - where.center[1]) / where.scale
    cos, sin = np.float32(math.cos(tilt)), np.float32(math.sin(tilt))
    grain = canvas.noise(rng, u, v, (28, 28)) * np.float32(0.05)
    shade = 1 + grain - where.light[1] * (0.35 * b - 0.25 * where.light[0] * a)
    return _Frame(
        cos * a + sin * b, cos * b - sin * a, 1 / (len(u) * where.scale), shade
    )


def _rounded(distance: Array, shade: Array) -> Array:
    """Light [S, S, 1] that falls off towards the edge, so that parts look solid."""
    edge = np.exp(np.minimum(distance, 0) * np.float32(22))
    return (shade * (1.06 - 0.38 * edge)).astype(np.float32)[..., None]


def _turned(point: Point, where: Pose, tilted: bool = True) -> Point:
    """Row and column, as fractions of the image, of a point in bird coordinates."""
    tilt = where.tilt if tilted else 0.0
    cos, sin = math.cos(tilt), math.sin(tilt)
    a = cos * point[0] - sin * point[1]
    b = sin * point[0] + cos * point[1]
    return (
        where.center[1] + where.scale * b,
        where.center[0] + where.scale * where.facing * a,
    )


def _mix(a: Array, b: Array, weight: Array) -> Array:
    return a + (b - a) * weight[..., None]


def _step(x: Array, width: float) -> Array:
    """0 to 1 as x passes zero, softly over `width`."""
    return np.clip(0.5 + x / width, 0, 1)


def _feet(put: Put, frame: _Frame, where: Pose, variant: int) -> Point:
    color = (ORANGE, BLACK, RED)[variant]
    ground = (where.ground[1] - where.center[1]) / where.scale
    distance = np.full_like(frame.u, 9.0)
    for side in (-0.5, 0.5):
        foot = (side * where.stride - 0.02, ground)
        hip = (side * 0.1 - 0.04, 0.12)
        parts = [canvas.cone(frame.u, frame.v, hip, foot, (0.024, 0.020))]
        for toe in (-0.07, 0.06, 0.11):
            tip = (foot[0] + toe, ground + 0.022)
            parts.append(canvas.cone(frame.u, frame.v, foot, tip, (0.022, 0.013)))
        distance = np.minimum(distance, np.minimum.reduce(parts))
    put(frame, distance, color, FEET)
    near = (0.5 * where.stride - 0.02, ground - 0.03)
    return _turned(near, where, tilted=False)


def _tail(put: Put, frame: _Frame, lift: float, variant: int) -> Point:
    root = (-0.30, 0.08)
    length = (0.27, 0.50, 0.42)[variant]
    tips = ((0.0,), (0.0,), (-0.17, 0.17))[variant]
    ends = [
        (
            root[0] - length * math.cos(lift + fork),
            root[1] + 0.02 + length * math.sin(0.25 - lift + fork),
        )
        for fork in tips
    ]
    wide = ((0.07, 0.085), (0.075, 0.05), (0.06, 0.022))[variant]
    strokes = [canvas.cone(frame.u, frame.v, root, end, wide) for end in ends]
    distance = np.minimum.reduce(strokes)
    color = (BROWN, BLUE, RED)[variant]
    barbs = _step(np.sin((frame.v + 0.3 * frame.u) * 110), 2.0)
    put(frame, distance, _mix(color, color * np.float32(0.72), barbs), TAIL)
    return (
        0.25 * root[0] + 0.75 * ends[0][0],
        0.25 * root[1] + 0.75 * ends[0][1],
    )


def _torso(frame: _Frame, head: Point) -> tuple[Array, Array]:
    """Distance to the body with its neck, and how far into the breast a pixel is."""
    trunk = canvas.cone(frame.u, frame.v, (0.13, 0.04), (-0.33, 0.08), (0.235, 0.08))
    neck = canvas.cone(frame.u, frame.v, (0.17, 0.0), head, (0.2, 0.12))
    split = 0.94 * (frame.u - 0.09) - 0.34 * (frame.v - 0.06)
    return canvas.merge(trunk, neck, 0.12), split


def _plumage_front(frame: _Frame, variant: int) -> Array:
    color = (CREAM, ORANGE, YELLOW)[variant]
    if variant != 0:
        return np.broadcast_to(color, (*frame.u.shape, 3))
    row = np.sin(frame.v * 62)
    spots = row * np.sin((frame.u + 0.5 * frame.v) * 62)
    return _mix(color, BROWN * np.float32(0.7), _step(spots - 0.45, 0.5))


def _plumage_below(frame: _Frame, variant: int) -> Array:
    color = (WHITE, CREAM, RUST)[variant]
    if variant != 0:
        return np.broadcast_to(color, (*frame.u.shape, 3))
    bars = np.sin((frame.u + 0.25 * frame.v) * 75)
    return _mix(color, BLACK, _step(bars - 0.35, 0.7) * np.float32(0.85))


def _head(put: Put, frame: _Frame, head: Point, variant: int) -> Point:
    distance = canvas.ellipse(frame.u, frame.v, head, (0.155, 0.145))
    color = (GRAY, RED, WHITE)[variant]
    if variant == 1:
        for back, up in ((-0.22, -0.20), (-0.25, -0.11)):
            base = (head[0] - 0.03, head[1] - 0.06)
            tip = (head[0] + back, head[1] + up)
            crest = canvas.cone(frame.u, frame.v, base, tip, (0.085, 0.012))
            distance = canvas.merge(distance, crest, 0.05)
    plumage = np.broadcast_to(color, (*frame.u.shape, 3))
    if variant == 2:
        cap = head[1] - 0.035 - 0.15 * (frame.u - head[0]) - frame.v
        plumage = _mix(color, BLACK, _step(cap, frame.pixel))
    put(frame, distance, plumage, HEAD)
    return head[0] - 0.06, head[1] - 0.06


def _beak(put: Put, frame: _Frame, head: Point, variant: int) -> Point:
    root = (head[0] + 0.10, head[1] + 0.025)
    reach, drop = ((0.16, 0.02), (0.33, 0.05), (0.18, 0.01))[variant]
    wide = ((0.062, 0.008), (0.042, 0.012), (0.078, 0.045))[variant]
    tip = (root[0] + reach, root[1] + drop)
    distance = canvas.cone(frame.u, frame.v, root, tip, wide)
    if variant == 2:
        hook = (tip[0] + 0.025, tip[1] + 0.1)
        curl = canvas.cone(frame.u, frame.v, tip, hook, (0.045, 0.008))
        distance = np.minimum(distance, curl)
    put(frame, distance, (BLACK, ORANGE, YELLOW)[variant], BEAK)
    return root[0] + 0.75 * reach, root[1] + 0.75 * drop


def _eye(board: canvas.Canvas, frame: _Frame, head: Point) -> Point:
    center = (head[0] + 0.055, head[1] - 0.025)
    ring = canvas.ellipse(frame.u, frame.v, center, (0.048, 0.048))
    canvas.paint(board, ring, CREAM, frame.pixel, EYE)
    pupil = canvas.ellipse(frame.u, frame.v, center, (0.036, 0.036))
    canvas.paint(board, pupil, BLACK * np.float32(0.4), frame.pixel, EYE)
    spark = (center[0] + 0.010, center[1] - 0.013)
    glint = canvas.ellipse(frame.u, frame.v, spark, (0.011, 0.011))
    canvas.paint(board, glint, WHITE, frame.pixel)
    return center


def _wing(put: Put, frame: _Frame, droop: float, variant: int) -> Point:
    shoulder = (0.05, -0.045)
    cos, sin = math.cos(droop), math.sin(droop)
    along = cos * (shoulder[0] - frame.u) + sin * (frame.v - shoulder[1])
    across = cos * (frame.v - shoulder[1]) - sin * (shoulder[0] - frame.u)
    distance = canvas.cone(along, across, (0.0, 0.0), (0.53, 0.085), (0.168, 0.022))
    color = (BROWN, BLUE, OLIVE)[variant]
    feathers = np.sin((across * 1.6 - along * 0.15) * 60) * _step(along - 0.12, 0.2)
    plumage = _mix(color, color * np.float32(0.6), _step(feathers - 0.3, 0.8))
    if variant == 1:
        bars = np.abs(np.mod(along + 0.3 * across - 0.10, 0.13) - 0.035) - 0.022
        bars = np.maximum(bars, np.abs(along - 0.16) - 0.14)
        plumage = _mix(plumage, WHITE, _step(-bars, 1.5 * frame.pixel))
    if variant == 2:
        plumage = _mix(plumage, BLACK, _step(along - 0.27, 0.06))
    put(frame, distance, plumage, WING)
    middle = (0.18, 0.02)
    return (
        shoulder[0] - cos * middle[0] + sin * middle[1],
        shoulder[1] + sin * middle[0] + cos * middle[1],
    )
