"""From maps of places to pictures of pixels, and back.

A similarity map `[h, w]` is enlarged to the image, and the rectangle around what is
highest there is what ProtoPNet shows of a prototype. That is a way of showing it: what
a place can see is in `fields`.
"""

from collections.abc import Sequence

import chex
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, ArrayLike
from protojax.mechanisms import checks


def enlarge(a: Array, size: Sequence[int]) -> Array:
    """Enlarge a map, bicubic, as OpenCV does it.

    Keys' kernel with a slope of -3/4, centers of pixels half a pixel in, the border
    repeated; it overshoots. (`jax.image.resize` takes -1/2, and other weights along the
    border: they differ by a fifth of the map's standard deviation.)

    Args:
      a: `[h, w]` the map.
      size: new height and width.

    Returns:
      `[H, W]`.

    Raises:
      ValueError: if the size is not two positive numbers.

    References:
      Keys, Cubic convolution interpolation for digital image processing, 1981.

    >>> enlarge(jnp.ones((2, 3)), (4, 6)).shape
    (4, 6)
    """
    chex.assert_rank(a, 2)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"`size` is {tuple(size)}: pass the new height and width")
    exact = jnp.result_type(a, float)  # a map of integers has weights that are none
    rows, columns = (
        jnp.asarray(_bicubic(old, new), exact)
        for old, new in zip(a.shape, size, strict=True)
    )
    return jnp.einsum("ih,jw,hw->ij", rows, columns, a, precision="highest")


def high_crop(a: Array, *, percentile: ArrayLike = 95.0) -> Array:
    """The rectangle around the highest pixels of a map, as one although it may be many.

    Args:
      a: `[H, W]` an enlarged map.
      percentile: `[]` pixels at or above this one are the highest.

    Returns:
      int `[4]`: first row, last row (exclusive), first column, last column (exclusive);
      the whole map if it has NaN.

    Raises:
      ValueError: for a percentile that is known not to be from 0 to 100.

    References:
      The code of Chen et al. 2019, where it is what is shown of an image.

    >>> high_crop(jnp.array([[0.0, 0.0], [0.0, 1.0]])).tolist()
    [1, 2, 1, 2]
    """
    chex.assert_rank(a, 2)
    checks.between("percentile", percentile, 0, 100)
    high = a >= jnp.percentile(a, percentile)
    ends = []
    for axis in (1, 0):
        line = jnp.any(high, axis=axis)
        ends += [jnp.argmax(line), len(line) - jnp.argmax(line[::-1])]
    return jnp.stack(ends)


def crop_cells(
    crop: Array, grid: Sequence[int], size: Sequence[int], *, margin: int = 1
) -> Array:
    """Which places of a map a rectangle of pixels covers.

    Args:
      crop: int `[4]`, as from `high_crop`.
      grid: height and width of the map.
      size: height and width of the image.
      margin: how many rows and columns of places after the last whole one are added:
        one takes in the place that the rectangle ends in. Zero leaves it out, and may
        leave none.

    Returns:
      bool `[h, w]`.

    References:
      The code of Hoffmann et al. 2021, since 5 May 2021; with a margin of zero, before.

    >>> crop_cells(jnp.array([85, 139, 0, 69]), (7, 7), (224, 224))[3].tolist()
    [True, True, True, False, False, False, False]
    """
    chex.assert_shape(crop, (4,))
    inside = []
    for axis in (0, 1):
        step = size[axis] / grid[axis]
        low, high = (jnp.floor(crop[2 * axis + end] / step) for end in (0, 1))
        place = jnp.arange(grid[axis])
        inside.append((place >= low) & (place < high + margin))
    return inside[0][:, None] & inside[1][None]


def cell_region(rectangle: Sequence[int], grid: Sequence[int]) -> np.ndarray:
    """A rectangle of places as a mask.

    Args:
      rectangle: first row, last row (exclusive), first column, last column (exclusive).
      grid: height and width of the map.

    Returns:
      bool `[h, w]`.

    Raises:
      ValueError: if it is empty or reaches out of the map.

    >>> cell_region((1, 3, 0, 1), (3, 2)).tolist()
    [[False, False], [True, False], [True, False]]
    """
    top, bottom, left, right = rectangle
    if not (0 <= top < bottom <= grid[0] and 0 <= left < right <= grid[1]):
        raise ValueError(
            f"`rectangle` is {tuple(rectangle)}, and the map has {grid[0]} x {grid[1]} "
            "places: first and last row, first and last column must lie within, the "
            "last ones exclusive"
        )
    region = np.zeros(tuple(grid), bool)
    region[top:bottom, left:right] = True
    return region


def cell_pixels(region: ArrayLike, size: Sequence[int]) -> Array:
    """The pixels that lie in some places of a map, each place being a block of them.

    Args:
      region: bool `[h, w]` the places.
      size: height and width of the image.

    Returns:
      bool `[H, W]`.

    >>> cell_pixels(np.array([[True, False]]), (1, 4)).tolist()
    [[True, True, False, False]]
    """
    region = jnp.asarray(region)
    chex.assert_rank(region, 2)
    rows, columns = (
        np.arange(new) * old // new for old, new in zip(region.shape, size, strict=True)
    )
    return region[rows][:, columns]


def _bicubic(old: int, new: int) -> np.ndarray:
    """`[new, old]` the weights of each old pixel in each new one."""
    slope = -0.75
    center = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(center).astype(int)
    weights = np.zeros((new, old))
    for shift in (-1, 0, 1, 2):
        t = np.abs(center - (first + shift))
        near = (slope + 2) * t**3 - (slope + 3) * t**2 + 1
        far = slope * (t**3 - 5 * t**2 + 8 * t - 4)
        value = np.where(t <= 1, near, far)
        np.add.at(weights, (np.arange(new), np.clip(first + shift, 0, old - 1)), value)
    return weights
