"""Drawing with signed distances: smooth shapes, textures and paint on NumPy arrays.

A shape is a function of coordinates `u` (to the right) and `v` (down) that returns
the signed distance to its edge, negative inside. Distances do not know of pixels, so
a drawing is the same at any resolution, and its edges are smooth (anti-aliased)
because paint covers a pixel as far as the edge cuts it.
"""

from typing import NamedTuple

import numpy as np

Array = np.ndarray
Point = tuple[float, float]


class Canvas(NamedTuple):
    """An image that is being painted, in place, from far to near."""

    image: Array  # float32 [S, S, 3]
    owner: Array  # int8 [S, S], the part that is seen at each pixel; -1 is none


def blank(size: int) -> Canvas:
    """Return an empty canvas.

    Args:
      size: height and width in pixels.

    Returns:
      a black canvas which nothing owns.

    >>> from protojax.scale import canvas
    >>> canvas.blank(4).owner.max()
    np.int8(-1)
    """
    image = np.zeros((size, size, 3), np.float32)
    return Canvas(image, np.full((size, size), -1, np.int8))


def grid(size: int) -> tuple[Array, Array]:
    """Return the pixel centers of the unit square.

    Args:
      size: height and width in pixels.

    Returns:
      `u` and `v`: float32 `[S, S]` in (0, 1), to the right and down.

    >>> from protojax.scale import canvas
    >>> canvas.grid(2)[0].tolist()
    [[0.25, 0.75], [0.25, 0.75]]
    """
    line = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    v, u = np.meshgrid(line, line, indexing="ij")
    return u, v


def ellipse(u: Array, v: Array, center: Point, radii: Point) -> Array:
    """Return the distance to an upright ellipse, exact to first order at its edge.

    Args:
      u: `[...]`, coordinate to the right.
      v: `[...]`, coordinate down.
      center: middle of the ellipse.
      radii: half axes along `u` and `v`.

    Returns:
      signed distances `[...]`, negative inside.

    >>> import numpy as np
    >>> from protojax.scale import canvas
    >>> u = np.array([1.0, 2.0, 3.0])
    >>> canvas.ellipse(u, 0 * u, (0.0, 0.0), (2.0, 2.0)).tolist()
    [-1.0, 0.0, 1.0]
    """
    a, b = (u - center[0]) / radii[0], (v - center[1]) / radii[1]
    unit = np.sqrt(a * a + b * b)
    slope = np.sqrt((a / radii[0]) ** 2 + (b / radii[1]) ** 2)
    return unit * (unit - 1) / np.maximum(slope, 1e-6)


def cone(u: Array, v: Array, start: Point, end: Point, radii: Point) -> Array:
    """Return the distance to a stroke whose width changes from one end to the other.

    Args:
      u: `[...]`, coordinate to the right.
      v: `[...]`, coordinate down.
      start: center of the first round end.
      end: center of the other.
      radii: half widths at the two ends.

    Returns:
      signed distances `[...]`, negative inside (measured across the stroke).

    >>> import numpy as np
    >>> from protojax.scale import canvas
    >>> v = np.array([0.0, 1.0, 2.0])
    >>> canvas.cone(0 * v, v, (-1.0, 0.0), (1.0, 0.0), (0.5, 1.5)).tolist()
    [-1.0, 0.0, 1.0]
    """
    du, dv = end[0] - start[0], end[1] - start[1]
    pu, pv = u - start[0], v - start[1]
    t = np.clip((pu * du + pv * dv) / (du * du + dv * dv), 0, 1)
    along = np.sqrt((pu - t * du) ** 2 + (pv - t * dv) ** 2)
    return along - (radii[0] + t * (radii[1] - radii[0]))


def merge(a: Array, b: Array, width: float) -> Array:
    """Return the distance to the union of two shapes, with the seam rounded.

    Args:
      a: `[...]`, distances to the first shape.
      b: `[...]`, distances to the second.
      width: how far from the seam the rounding reaches.

    Returns:
      signed distances `[...]`.

    >>> import numpy as np
    >>> from protojax.scale import canvas
    >>> canvas.merge(np.array([1.0]), np.array([-1.0]), 0.5).tolist()
    [-1.0]
    """
    near = np.maximum(width - np.abs(a - b), 0) / width
    return np.minimum(a, b) - near * near * (0.25 * width)


def noise(rng: np.random.Generator, u: Array, v: Array, cells: Point) -> Array:
    """Return a smooth random texture.

    Args:
      rng: source of randomness; draws the same amount for any number of pixels.
      u: `[S, S]` in (0, 1), constant along rows' axis, as `grid` makes it.
      v: `[S, S]` in (0, 1).
      cells: how many bumps there are along `u` and along `v`.

    Returns:
      float32 `[S, S]`, roughly within [-1, 1].

    >>> import numpy as np
    >>> from protojax.scale import canvas
    >>> canvas.noise(np.random.default_rng(0), *canvas.grid(8), cells=(3, 3)).shape
    (8, 8)
    """
    lattice = rng.uniform(-1, 1, (int(cells[1]) + 2, int(cells[0]) + 2))
    rows = _between(lattice.astype(np.float32), v[:, 0], int(cells[1]))
    return _between(rows.T, u[0], int(cells[0])).T


def extent(distance: Array, pixel: float) -> tuple[slice, slice] | None:
    """Return the box that holds all that a shape covers.

    Args:
      distance: `[S, S]`, signed distance to the shape.
      pixel: width of a pixel in the units of `distance`.

    Returns:
      the box's rows and columns, None where the shape covers nothing.

    >>> from protojax.scale import canvas
    >>> u, v = canvas.grid(8)
    >>> canvas.extent(canvas.ellipse(u, v, (0.5, 0.5), (0.2, 0.2)), 1 / 8)
    (slice(2, 6, None), slice(2, 6, None))
    """
    inside = distance < 0.5 * pixel
    rows = np.flatnonzero(inside.any(axis=1))
    if not len(rows):
        return None
    columns = np.flatnonzero(inside.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(
        int(columns[0]), int(columns[-1]) + 1
    )


def paint(
    canvas: Canvas, distance: Array, color: Array, pixel: float, part: int | None = None
) -> None:
    """Cover a shape with paint.

    Args:
      canvas: what is painted on, in place.
      distance: `[S, S]`, signed distance to the shape.
      color: `[3]` or `[S, S, 3]`.
      pixel: width of a pixel in the units of `distance`.
      part: index that owns the pixels from now on; -1 for none, None to leave the
        owners as they are.

    >>> import numpy as np
    >>> from protojax.scale import canvas
    >>> board, (u, v) = canvas.blank(8), canvas.grid(8)
    >>> disk = canvas.ellipse(u, v, (0.5, 0.5), (0.3, 0.3))
    >>> canvas.paint(board, disk, np.array([1.0, 0.0, 0.0]), 1 / 8, part=2)
    >>> int((board.owner == 2).sum())
    16
    """
    box = extent(distance, pixel)
    if box is None:
        return
    cover = np.clip(0.5 - distance[box] / pixel, 0, 1)[..., None]
    color = color if color.ndim == 1 else color[box]
    canvas.image[box] += cover * (color - canvas.image[box])
    if part is not None:
        canvas.owner[box][distance[box] < 0] = part


def _between(lattice: Array, line: Array, cells: int) -> Array:
    """Interpolate a lattice smoothly along its first axis: [len(line), ...]."""
    position = line * cells
    left = np.floor(position).astype(int)
    t = (position - left).astype(np.float32)[:, None]
    t = t * t * (3 - 2 * t)
    return lattice[left] * (1 - t) + lattice[left + 1] * t
