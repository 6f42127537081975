"""What stands around the birds of `parts`: sky, foliage, water, grass, perches."""

from collections.abc import Callable

import numpy as np

from protojax.scale import canvas

Array = np.ndarray
Rng = np.random.Generator
Point = tuple[float, float]

_PETALS = (
    (0.80, 0.15, 0.13),
    (0.92, 0.47, 0.13),
    (0.19, 0.38, 0.76),
    (0.95, 0.80, 0.22),
    (0.93, 0.90, 0.85),
    (0.12, 0.10, 0.12),
)


def backdrop(
    board: canvas.Canvas, rng: Rng, u: Array, v: Array, *, ground: Point
) -> None:
    """Fill the canvas with a scene that has something to stand on.

    Args:
      board: what is painted on, in place.
      rng: source of randomness.
      u: `[S, S]` in (0, 1), to the right.
      v: `[S, S]` in (0, 1), down.
      ground: where the feet are: u, v.

    >>> import numpy as np
    >>> from protojax.scale import canvas, scenery
    >>> rng, board, (u, v) = np.random.default_rng(0), canvas.blank(8), canvas.grid(8)
    >>> scenery.backdrop(board, rng, u, v, ground=(0.5, 0.8))
    >>> bool(board.image.any())
    True
    """
    scenes: tuple[Callable, ...] = (_sky, _foliage, _water, _grass)
    scenes[rng.integers(len(scenes))](board, rng, u, v, ground)


def foreground(
    board: canvas.Canvas, rng: Rng, u: Array, v: Array, *, ground: Point
) -> None:
    """Let a few leaves or blades hang before the bird in some images.

    Args:
      board: what is painted on, in place; what is covered loses its owner.
      rng: source of randomness.
      u: `[S, S]` in (0, 1), to the right.
      v: `[S, S]` in (0, 1), down.
      ground: where the feet are: u, v.

    >>> import numpy as np
    >>> from protojax.scale import canvas, scenery
    >>> rng, board, (u, v) = np.random.default_rng(1), canvas.blank(64), canvas.grid(64)
    >>> scenery.foreground(board, rng, u, v, ground=(0.5, 0.8))
    >>> board.image.shape
    (64, 64, 3)
    """
    blades = rng.integers(0, 5) if rng.random() < 0.5 else 0
    for _ in range(blades):
        foot = (ground[0] + rng.uniform(-0.4, 0.4), 1.05)
        tip = (foot[0] + rng.uniform(-0.12, 0.12), ground[1] - rng.uniform(-0.06, 0.14))
        blade = canvas.cone(u, v, foot, tip, (0.018, 0.003))
        canvas.paint(board, blade, _green(rng), 1 / len(u), part=-1)


def cue(board: canvas.Canvas, rng: Rng, u: Array, v: Array) -> Array:
    """Plant a magenta disk in a random corner.

    Args:
      board: what is painted on, in place.
      rng: source of randomness.
      u: `[S, S]` in (0, 1), to the right.
      v: `[S, S]` in (0, 1), down.

    Returns:
      bool `[S, S]`, the disk.

    >>> import numpy as np
    >>> from protojax.scale import canvas, scenery
    >>> rng, board, (u, v) = np.random.default_rng(0), canvas.blank(64), canvas.grid(64)
    >>> int(scenery.cue(board, rng, u, v).sum()) > 30
    True
    """
    corner = rng.choice([0.09, 0.91], 2)
    disk = canvas.ellipse(u, v, (corner[0], corner[1]), (0.06, 0.06))
    canvas.paint(board, disk, np.array([0.85, 0.1, 0.75], np.float32), 1 / len(u))
    return disk < 0


def _sky(board: canvas.Canvas, rng: Rng, u: Array, v: Array, ground: Point) -> None:
    top = _color(rng, (0.35, 0.55, 0.85), 0.12)
    low = _color(rng, (0.75, 0.85, 0.93), 0.10)
    board.image[:] = top + (low - top) * v[..., None]
    clouds = np.clip(_clouds(rng, u, v, (3, 5)) * 1.6 - rng.uniform(-0.2, 0.5), 0, 1)
    board.image[:] += clouds[..., None] * (_color(rng, (0.95,) * 3, 0.04) - board.image)
    _branches(board, rng, u, v, ground)
    _flowers(board, rng, u, v, (ground[1] - 0.02, ground[1] + 0.10))


def _foliage(board: canvas.Canvas, rng: Rng, u: Array, v: Array, ground: Point) -> None:
    hue = _color(rng, (0.30, 0.42, 0.18), 0.10)
    light = np.clip(0.7 + 0.7 * _clouds(rng, u, v, (5, 5)), 0.15, 1.6)
    board.image[:] = hue * light[..., None]
    for _ in range(14):
        start = (rng.uniform(-0.1, 1.1), rng.uniform(-0.1, 1.1))
        turn, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.06, 0.14)
        end = (start[0] + length * np.cos(turn), start[1] + length * np.sin(turn))
        leaf = canvas.cone(u, v, start, end, (rng.uniform(0.02, 0.05), 0.004))
        color = hue * np.float32(rng.uniform(0.5, 1.7)) + _color(rng, (0.0,) * 3, 0.04)
        canvas.paint(board, leaf, color, 1 / len(u))
    _branches(board, rng, u, v, ground)
    _flowers(board, rng, u, v, (0.0, 1.0))


def _water(board: canvas.Canvas, rng: Rng, u: Array, v: Array, ground: Point) -> None:
    deep = _color(rng, (0.20, 0.38, 0.48), 0.10)
    bright = _color(rng, (0.60, 0.74, 0.80), 0.10)
    ripples = np.clip(0.4 + 0.6 * _clouds(rng, u, v, (3, 14)), 0, 1)
    board.image[:] = deep + (bright - deep) * ripples[..., None]
    shore = rng.uniform(-0.05, 0.25)
    bank = v - shore - 0.03 * canvas.noise(rng, u, v, (6, 2))
    canvas.paint(board, bank, _color(rng, (0.45, 0.50, 0.35), 0.12), 1 / len(u))
    _flowers(board, rng, u, v, (shore + 0.05, 1.0))
    rock = _color(rng, (0.42, 0.40, 0.38), 0.08)
    texture = 1 + 0.35 * _clouds(rng, u, v, (8, 8)) - 0.5 * (v - ground[1])
    middle = (ground[0] + rng.uniform(-0.05, 0.05), ground[1] + 0.10)
    stone = canvas.ellipse(u, v, middle, (rng.uniform(0.24, 0.4), 0.105))
    canvas.paint(board, stone, rock * texture[..., None], 1 / len(u))


def _grass(board: canvas.Canvas, rng: Rng, u: Array, v: Array, ground: Point) -> None:
    far = _color(rng, (0.60, 0.70, 0.62), 0.12)
    haze = 1 + 0.25 * _clouds(rng, u, v, (4, 4))
    board.image[:] = far * haze[..., None]
    field = _color(rng, (0.42, 0.52, 0.20), 0.12)
    blades = 0.85 + 0.4 * _clouds(rng, u, v, (16, 4)) + 0.3 * (v - 0.5)
    edge = min(ground[1] - 0.03, rng.uniform(0.3, 0.8))
    horizon = edge - v + 0.02 * canvas.noise(rng, u, v, (14, 2))
    canvas.paint(board, horizon, field * blades[..., None], 1 / len(u))
    _flowers(board, rng, u, v, (edge + 0.05, 1.0))


def _branches(
    board: canvas.Canvas, rng: Rng, u: Array, v: Array, ground: Point
) -> None:
    """A perch under the feet, and twigs that lead away from it."""
    bark = _color(rng, (0.38, 0.29, 0.22), 0.08)
    thick = rng.uniform(0.022, 0.04)
    slope = rng.uniform(-0.08, 0.08)
    texture = 1.1 + 0.4 * _clouds(rng, u, v, (6, 20))
    axis = (ground[0], ground[1] + thick)
    for _ in range(rng.integers(1, 4)):
        root = rng.uniform(-0.3, 1.3)
        start = (root, axis[1] + slope * (root - axis[0]))
        end = (root + rng.uniform(-0.4, 0.4), rng.choice([-0.1, 1.1]))
        twig = canvas.cone(u, v, start, end, (0.6 * thick, 0.2 * thick))
        canvas.paint(board, twig, bark * texture[..., None], 1 / len(u))
    ends = [(x, axis[1] + slope * (x - axis[0])) for x in (-0.2, 1.2)]
    perch = canvas.cone(u, v, ends[0], ends[1], (thick, thick * rng.uniform(0.6, 1.0)))
    light = texture - 6 * (v - axis[1] - slope * (u - axis[0]))
    canvas.paint(board, perch, bark * light[..., None], 1 / len(u))


def _flowers(
    board: canvas.Canvas, rng: Rng, u: Array, v: Array, rows: tuple[float, float]
) -> None:
    """Blossoms and berries in the colors of plumage: color alone tells little."""
    color = _PETALS[rng.integers(len(_PETALS))]
    for _ in range(rng.integers(0, 9)):
        middle = (rng.uniform(0, 1), rng.uniform(*rows))
        wide = rng.uniform(0.015, 0.045)
        blossom = canvas.ellipse(u, v, middle, (wide, wide * rng.uniform(0.7, 1.0)))
        canvas.paint(board, blossom, _color(rng, color, 0.06), 1 / len(u))


def _clouds(rng: Rng, u: Array, v: Array, cells: tuple[int, int]) -> Array:
    """Noise of three scales, [S, S], roughly within [-1, 1]."""
    layers = [
        canvas.noise(rng, u, v, (cells[0] * k, cells[1] * k)) / k for k in (1, 2, 4)
    ]
    return sum(layers[1:], layers[0])


def _color(rng: Rng, middle: tuple[float, ...], spread: float) -> Array:
    color = np.array(middle) + rng.uniform(-spread, spread) / 2
    return (color + rng.uniform(-spread, spread, 3)).astype(np.float32)


def _green(rng: Rng) -> Array:
    return _color(rng, (0.38, 0.50, 0.18), 0.12)
