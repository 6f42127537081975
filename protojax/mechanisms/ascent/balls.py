"""The sets that a climb may not leave: norm ball, mask and pixel bounds together."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from protojax.contracts import Array, ArrayLike
from protojax.mechanisms import checks


def within(
    x0: Array,
    radius: ArrayLike,
    *,
    norm: Literal["linf", "l2"] = "linf",
    mask: ArrayLike = 1.0,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Callable[[Array], Array]:
    r"""The Euclidean projection onto norm ball, mask and pixel bounds together.

    For the L-infinity ball the set is a box, and clipping is the projection. For the
    L2 ball the projection of `z` is `clip(x0 + t (z - x0))` with the largest
    `t <= 1` that stays in the ball; the squared distance is concave in `t**2`, so
    Newton's method climbs to that `t` from inside and each of its iterates is
    feasible.

    Args:
      x0: `[...]` the center, itself within `bounds`. A pixel of a traced one that is
        not may move towards them alone: the ball holds in any case.
      radius: `[]` radius of the ball; may be traced.
      norm: which ball.
      mask: see `free`.
      bounds: smallest and largest value of a pixel.

    Returns:
      A function `[...] -> [...]` onto the set, the identity on it.

    Raises:
      ValueError: for a radius that is below zero, NaN or no single number, a center
        that is NaN, out of bounds or of integers, a mask of other values than 0 and 1
        (where values are known, that is, not traced) or of a shape that does not fit,
        and for an unknown norm.

    >>> import jax.numpy as jnp
    >>> within(jnp.array([0.5, 0.95]), 0.125)(jnp.array([0.9, 2.0])).tolist()
    [0.625, 1.0]
    """
    if norm not in ("linf", "l2"):
        raise ValueError(
            f"`norm` is {norm!r}: 'linf' or 'l2' are known; "
            "pass your own `project` to `ascend` for another set"
        )
    _check_radius(radius)
    x0 = jnp.asarray(x0)
    _check_pixels(x0, bounds)
    radius = jnp.asarray(radius, x0.dtype)
    low, high = jnp.minimum(bounds[0], x0), jnp.maximum(bounds[1], x0)
    moves = free(mask, x0)
    low, high = (jnp.where(moves, bound, x0) for bound in (low, high))
    if norm == "l2":
        return _l2_box(x0, radius, low, high)
    low = jnp.maximum(low, _moved(x0, -radius))
    high = jnp.minimum(high, _moved(x0, radius))
    return lambda z: optax.projections.projection_box(z, low, high)


def free(mask: ArrayLike, x: Array) -> Array:
    """Where a mask lets an image move.

    Args:
      mask: 1 where pixels may change and 0 where they may not: `[H, W]` for an image
        `[H, W, C]`, or anything that broadcasts to `x`.
      x: `[...]` the image.

    Returns:
      `[...]` booleans, of the shape of `x`.

    Raises:
      ValueError: for a shape that does not fit, or values other than 0 and 1 (where
        they are known).

    >>> import jax.numpy as jnp
    >>> free(jnp.array([[1, 0]]), jnp.ones((1, 2, 3))).sum(-1).tolist()
    [[3, 0]]
    """
    given = jnp.asarray(mask)
    spread = given[..., None] if (given.ndim, x.ndim) == (2, 3) else given
    sizes = zip(spread.shape[::-1], x.shape[::-1], strict=False)
    if spread.ndim > x.ndim or any(size not in (1, full) for size, full in sizes):
        raise ValueError(
            f"`mask` has shape {given.shape}, which does not fit `x`, {x.shape}: pass "
            "one of [H, W]"
        )
    if checks.known(mask) and not np.isin(np.asarray(mask), (0, 1)).all():
        raise ValueError(
            "`mask` has values other than 0 and 1: pass 1 where pixels may change and "
            "0 where they may not"
        )
    return jnp.broadcast_to(spread > 0, x.shape)


def _moved(x0: Array, change: Array) -> Array:
    """x0 + change, rounded so that |x - x0| <= |change| in floating point too."""
    end = x0 + change
    # The barrier keeps the compiler from simplifying (x0 + change) - x0.
    fixed, center, limit = jax.lax.stop_gradient(
        jax.lax.optimization_barrier((end, x0, jnp.abs(change)))
    )
    nearer = jnp.nextafter(fixed, center) - fixed
    return end + jnp.where(jnp.abs(fixed - center) > limit, nearer, 0)


def _l2_box(
    x0: Array, radius: Array, low: Array, high: Array
) -> Callable[[Array], Array]:
    """Onto ball and box; where nothing may move, the box has no width."""
    kind = jnp.finfo(x0.dtype)
    square = (radius * (1 - 4 * kind.eps)) ** 2  # room for the rounding of the sums

    def project(z: Array) -> Array:
        offset = jnp.where(low < high, z - x0, 0)
        room = jnp.where(offset > 0, high - x0, x0 - low)
        # At the scale of one, as squares of a long step may leave the range of numbers.
        peak = jax.lax.stop_gradient(jnp.max(jnp.abs(offset), initial=0))
        peak = jnp.where(peak > 0, peak, 1)
        offset = offset / peak
        squares, limits = offset**2, room**2

        def newton(_: int, scale: Array) -> Array:
            inside = scale * squares < limits
            reached = jnp.sum(jnp.where(inside, scale * squares, limits))
            slope = jnp.sum(jnp.where(inside, squares, 0))
            rise = (square - reached) / jnp.maximum(slope, kind.tiny**0.5)
            return jnp.clip(scale + rise, scale, peak**2)

        first = square / jnp.maximum(jnp.sum(squares), kind.eps)
        first = jnp.minimum(first, peak**2)
        scale = jax.lax.fori_loop(0, 8, newton, first)
        return jnp.clip(_moved(x0, jnp.sqrt(scale) * offset), low, high)

    return project


def _check_radius(radius: ArrayLike) -> None:
    checks.number("radius", radius)
    if checks.known(radius) and not np.asarray(radius) >= 0:
        raise ValueError(
            f"`radius` is {radius}: pass a radius of zero or more, in the units of the "
            "pixels (8/255 for images in [0, 1])"
        )


def _check_pixels(x: Array, bounds: tuple[float, float]) -> None:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"`x` is {x.dtype}: pass floating-point pixels in {[*bounds]}")
    if not checks.known(x):
        return
    pixels = np.asarray(x)
    if np.isnan(pixels).any():
        raise ValueError("`x` has NaN pixels: repair or drop this image")
    low, high = pixels.min(), pixels.max()
    if low < bounds[0] or high > bounds[1]:
        raise ValueError(
            f"`x` has pixels from {low:g} to {high:g}, outside of {[*bounds]}: "
            "scale the image (divide by 255?) and let the model normalize inside"
        )
